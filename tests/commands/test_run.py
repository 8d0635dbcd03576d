# SPDX-License-Identifier: MIT
"""python -m pyconc PROGRAM does what python PROGRAM does, on another loop."""
import contextlib
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest

import pyconc

LOOK = '''"""A docstring."""
import sys
here = globals()
for name in sorted(here):
    value = here[name]
    if name == "__spec__" and value is not None:
        value = value.name
    elif name == "__loader__":
        value = getattr(value, "__name__", type(value).__name__)
    elif name in ("here", "__builtins__"):
        value = type(value)
    print(name, value)
print(sys.argv, sys.path[:2], sys.modules["__main__"].__dict__ is here)
'''
WHICH_LOOP = """import asyncio
async def main():
    return type(asyncio.get_running_loop())
made = asyncio.new_event_loop()
print(asyncio.run(main()), type(made))
made.close()
"""
PROGRAMS = {
    "look.py": LOOK,
    "package/__init__.py": "",
    "package/__main__.py": LOOK,
    "empty/__init__.py": "",
    "error.py": "def f():\n    1 / 0\n\nf()\n",
    "chain.py": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error\n",
    "syntax.py": "def (",
    "three.py": "import sys; sys.exit(3)",
    "bye.py": "import sys; sys.exit('bye')",
    "interrupt.py": "import atexit; atexit.register(print, 'at exit'); raise KeyboardInterrupt",
    "thread.py": "import threading, time\nword = 'still there'\ndef late():\n    time.sleep(0.05)\n    print(word)\n"
                 "threading.Thread(target=late).start()",
    "pool.py": "import multiprocessing\ndef double(x): return 2 * x\nif __name__ == '__main__':\n"
               "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(double, [1, 2]))\n",
    "pickled.py": "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))) is C)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("programs")
    for name, text in PROGRAMS.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    with zipfile.ZipFile(path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK)
    (path / "which.py").write_text(WHICH_LOOP)
    (path / "link.py").symlink_to(path / "package" / "__main__.py")
    return path


def python(folder, *args, **kwargs):
    done = subprocess.run([sys.executable, *args], cwd=folder, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, **kwargs)
    # python -m's own frames are not part of the program's error
    errors = [line for line in done.stderr.splitlines() if "<frozen runpy>" not in line]
    return done.returncode, done.stdout, errors


@pytest.mark.parametrize("line", [
    "look.py a -m --help", "package x", "app.zip y", "link.py", "-m look 1 -c", "-m package 2", "-m look.nothing",
    "-m empty", "empty", "error.py", "chain.py", "syntax.py", "-m error", "three.py", "bye.py", "interrupt.py",
    "missing.py", "-m missing", "-m missing.part", "thread.py", "pickled.py", "pool.py"])
def test_same_as_python(folder, line):
    args = line.split()
    assert python(folder, "-m", "pyconc", *args) == python(folder, *args)


def test_a_program_from_standard_input(folder):
    def run(*words):
        return subprocess.run([sys.executable, *words, "-", "x", "-y"], cwd=folder, input=LOOK, text=True,
                              capture_output=True, timeout=60)
    ours, theirs = run("-m", "pyconc"), run()
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.returncode == 0, ours.stderr


def test_command_is_the_same_as_under_python(folder):
    assert python(folder, "-m", "pyconc", "-c", LOOK, "x", "-y") == python(folder, "-c", LOOK, "x", "-y")
    assert python(folder, "-m", "pyconc", "-c", "1 / 0")[0] == 1


WATCHED = """import asyncio, logging, threading
told = threading.Event()
class Ear(logging.Handler):
    def emit(self, record):
        print(record.getMessage().partition(" for ")[0])
        told.set()
logging.getLogger("asyncio").addHandler(Ear())
async def main():
    print(asyncio.get_running_loop().watchdog)
    told.wait(30)
asyncio.run(main())
"""


@pytest.mark.parametrize("option", [["--watchdog", "0.02"], ["--watchdog=0.02"]])
def test_watchdog(folder, option):
    expected = 0, "0.02\nTask 'Task-1' (main) has held the event loop\n", []
    for env in None, {**os.environ, "PYCONC_WATCHDOG": "3000"}:
        end = time.monotonic() + 30
        for _ in range(20):     # a machine that stalls holds other callbacks as well
            done = python(folder, "-m", "pyconc", *option, "-c", WATCHED, env=env)
            if done == expected or time.monotonic() > end:
                break
        assert done == expected


@pytest.mark.parametrize("args,why", [
    (["--watchdog"], "--watchdog needs an argument"),
    (["--watchdog", "1"], "--watchdog needs a program to watch"),
    (["--watchdog", "1", "--version"], "--watchdog needs a program to watch"),
    (["--watchdog", "look.py"], "--watchdog must be a number of seconds, 0 (off) or more, not 'look.py'"),
    (["--watchdog=", "look.py"], "--watchdog must be a number of seconds, 0 (off) or more, not ''"),
    (["--watchdog=-1", "look.py"], "--watchdog must be a number of seconds, 0 (off) or more, not '-1'")])
def test_wrong_watchdog(folder, args, why):
    assert python(folder, "-m", "pyconc", *args) == (2, "", [f"python -m pyconc: {why}"])


@pytest.mark.parametrize("program", [["look.py"], ["-c", LOOK], ["-m", "look"], ["-"], ["demo"]])
def test_wrong_watchdog_in_the_environment(folder, program):
    assert python(folder, "-m", "pyconc", *program, env={**os.environ, "PYCONC_WATCHDOG": "soon"}) == (
        2, "", ["python -m pyconc: the environment variable PYCONC_WATCHDOG must be a number of seconds, 0 (off) or "
                "more, not 'soon'"])


def test_safe_path(folder):
    assert python(folder, "-P", "-m", "pyconc", "look.py") == python(folder, "-P", "look.py")


@pytest.mark.parametrize("args", [["which.py"], ["-m", "which"], ["-c", WHICH_LOOP]])
def test_program_gets_our_loop(folder, args):
    ours = "<class 'pyconc.loop.Loop'>"
    assert python(folder, "-W", "error", "-m", "pyconc", *args) == (0, f"{ours} {ours}\n", [])


@pytest.mark.parametrize("text", ["import time; print('on', flush=True); time.sleep(60)",
                                  "import asyncio\nasync def main():\n    print('on', flush=True)\n"
                                  "    await asyncio.sleep(60)\nasyncio.run(main())"])
def test_ctrl_c(folder, text):
    with subprocess.Popen([sys.executable, "-m", "pyconc", "-c", text], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "on\n"
            while child.returncode is None:
                os.kill(child.pid, signal.SIGINT)
                # One that comes right before sleep()'s system call is not seen before the next.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    _, errors = child.communicate(timeout=15)
        finally:
            child.kill()
    assert child.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    # None of our own frames but the loop's, wherever Python and we are installed.
    package = os.path.dirname(pyconc.__file__)
    loops = os.path.join(package, "loop", "")
    assert not [line for line in errors.splitlines() if package in line.replace(loops, "")]
    assert "pyconc" not in errors.replace(loops, "").replace(sys.prefix, "").replace(sys.base_prefix, "")


def test_version_help_and_mistakes(folder):
    assert python(folder, "-m", "pyconc", "--version") == (0, f"pyconc {pyconc.__version__}\n", [])
    status, out, errors = python(folder, "-m", "pyconc", "--help")
    assert status == 0 and out.startswith("usage: python -m pyconc SCRIPT") and not errors
    assert python(folder, "-m", "pyconc")[0] == 1
    assert python(folder, "-m", "pyconc", "-m") == (2, "", ["python -m pyconc: -m needs an argument"])
    assert python(folder, "-m", "pyconc", "--nonsense") == (2, "", ["python -m pyconc: --nonsense is no option"])
