"""The memory of a queue, in C without Python."""
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc")

pytestmark = [pytest.mark.source, pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")]


def test_store(tmp_path):
    program = tmp_path / "store"
    subprocess.run([COMPILER, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "csrc", "-o", program,
                    ROOT / "tests/ipc/store.c", ROOT / "csrc/ipc/store.c"], check=True)
    run = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (run.returncode, run.stdout) == (0, "")
