# SPDX-License-Identifier: MIT
"""Every file of examples/ runs, as it stands, and what it prints is right."""
import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name):
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLES / name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_swap_loop():
    assert run("swap_loop.py") == "b'hello\\n' echoed by pyconc.loop\n"


def test_send_file():
    assert run("send_file.py") == "the same file\n"


def test_offload_hashing():
    paths = sorted(Path(asyncio.__file__).parent.glob("*.py"))
    expected = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}" for path in paths]
    assert run("offload_hashing.py").splitlines() == expected


def test_threads_and_coroutines():
    lines = run("threads_and_coroutines.py").splitlines()
    assert lines[-1] == "the sum of 20 squares is 2470" and len(lines) == 21


def test_processes_and_coroutines():
    lines = run("processes_and_coroutines.py").splitlines()
    assert lines[-1] == "the sum of 20 squares is 2470" and len(lines) == 21


def test_readme_processes(tmp_path):
    readme = (EXAMPLES.parent / "README.md").read_text()
    program = tmp_path / "program.py"
    program.write_text(readme.partition("## Processes")[2].partition("```python\n")[2].partition("```")[0])
    assert run(program) == "1\n4\n9\n"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_no_example_without_a_test(name):
    assert f"test_{name.removesuffix('.py')}" in globals()
