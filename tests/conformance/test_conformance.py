"""CPython's own tests on pyconc: see tests/conformance.md."""
import faulthandler
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"
FEW = "test_context|test_waitfor"

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(importlib.util.find_spec("test.test_asyncio") is None,
                       reason="this Python comes without its own tests (Debian: libpython3-testsuite)"),
]


def run(*arguments):
    done = subprocess.run([sys.executable, RUN, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=900)
    return done.returncode, done.stdout


def test_wrapped_loop_loses_nothing():
    status, output = run("asyncio", "--impl", "wrap", "--only", FEW)
    assert status == 0, output
    assert "conformwrap.Loop" in output


def test_broken_loop_loses():
    status, output = run("asyncio", "--impl", "broken", "--only", FEW)
    assert status == 1, output


def test_asyncio():
    faulthandler.cancel_dump_traceback_later()  # this one takes minutes, and run.py has time limits of its own
    status, output = run("asyncio")
    if "PYCONC_SANITIZE" in os.environ:
        # Too slow for tests that look at the clock; what a sanitizer finds ends the process.
        assert not re.search(r"^(crash|hang) ", output, re.MULTILINE), output
    else:
        assert status == 0, output


@pytest.mark.parametrize("suite", ["threading", "primitives"])
def test_threads(suite):
    faulthandler.cancel_dump_traceback_later()
    status, output = run(suite)
    if "PYCONC_SANITIZE" in os.environ:
        assert not re.search(r"^(crash|hang) ", output, re.MULTILINE), output
    else:
        assert status == 0, output
