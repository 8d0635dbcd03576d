"""CPython's own tests on pyconc: see tests/conformance.md."""
import faulthandler
import importlib.util
import os
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


def test_a_suite_without_a_test_is_no_success():
    status, output = run("asyncio", "--only", "no_such_test")
    assert status == 1 and "asyncio: no test that passes" in output, output


def test_a_crash_is_seen_without_the_standard_library_beside_it():
    only = "test_waitfor.*test_wait_for_race_condition$"
    status, output = run("asyncio", "--impl", "crashing", "--alone", "--only", only)
    assert status == 1 and "\ncrash   test.test_asyncio.test_waitfor." in output, output


# Sanitizers are too slow for tests that look at the clock; what they find ends the process.
ALONE = ["--alone"] if "PYCONC_SANITIZE" in os.environ else []


@pytest.mark.parametrize("suite", ["asyncio", "threading", "primitives"])
def test_as_the_standard_library(suite):
    faulthandler.cancel_dump_traceback_later()  # it takes minutes, and run.py has time limits of its own
    status, output = run(suite, *ALONE)
    assert status == 0, output
