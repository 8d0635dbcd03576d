"""The C parts that know no Python, in programs of their own."""
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc")
SANITIZERS = {"plain": [], "thread": ["-fsanitize=thread"], "address": ["-fsanitize=address,undefined"]}

pytestmark = [pytest.mark.source, pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")]


@pytest.mark.stress
@pytest.mark.parametrize("flags", SANITIZERS.values(), ids=SANITIZERS)
def test_crew(flags, tmp_path, monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)     # the sanitizers of the interpreter that runs the tests
    program = tmp_path / "stress"
    sources = [ROOT / "tests/base/crew_stress.c", ROOT / "csrc/base/crew.c", ROOT / "csrc/base/futex.c"]
    built = subprocess.run([COMPILER, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", *flags,
                            "-I", ROOT / "csrc", "-o", program, *sources], stderr=subprocess.PIPE, text=True)
    if flags and "cannot find" in built.stderr:
        pytest.skip("this compiler comes without " + flags[0])
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program, "150"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (run.returncode, run.stdout) == (0, "")
