"""Every interleaving of a few processes in csrc/ipc, with some of them killed: see explore.h."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODELS = sorted(path.stem for path in HERE.glob("*.c") if path.stem not in ("explore", "processes"))

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="needs a C compiler"),
]


def run(*arguments):
    done = subprocess.run([sys.executable, HERE / "run.py", *arguments], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_no_interleaving_and_no_kill_does_harm(name):
    run(name)


@pytest.mark.parametrize("name", MODELS)
def test_mistakes_are_found(name):
    run("--broken", name)
