"""The short form of soak.py. The long one: `make soak`."""
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.stress
@pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="AddressSanitizer keeps what is freed: memory is not flat")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_are_killed_all_the_time(method):
    program = Path(__file__).parent / "soak.py"
    done = subprocess.run([sys.executable, program, "5", method], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all ended" in done.stdout
