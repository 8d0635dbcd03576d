"""Loops to test, pyconc's beside asyncio's own where they have to agree, and programs run in a process of their own."""
import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pyconc

pyconc.new_event_loop().close()     # libuv's first loop opens a pipe for the whole process

LOOPS = {"pyconc": pyconc.new_event_loop, "asyncio": asyncio.SelectorEventLoop}


@pytest.fixture
def loop():
    """A pyconc.Loop, closed afterwards."""
    loop = pyconc.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(params=LOOPS)
def new_loop(request):
    """What makes a loop, of pyconc and of asyncio: for what has to be the same."""
    return LOOPS[request.param]


@pytest.fixture
def either(new_loop):
    """A loop of pyconc and one of asyncio: for what has to be the same."""
    loop = new_loop()
    yield loop
    loop.close()


@pytest.fixture
def errors(request):
    """What reached the exception handler of the test's loop, as a list of contexts."""
    name = "either" if "either" in request.fixturenames else "loop"
    contexts = []
    request.getfixturevalue(name).set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


@pytest.fixture
def turn():
    """turn(loop): runs what is ready now, and nothing that this makes ready."""
    def run(loop):
        loop.stop()
        loop.run_forever()
    return run


@pytest.fixture
def program(tmp_path):
    """program(source, *options, wait=True, **environment): runs a Python program in a process of its own."""
    def start(source, *options, wait=True, timeout=60, **environment):
        script = tmp_path / "program.py"
        script.write_text(textwrap.dedent(source))
        path = os.pathsep.join([str(Path(pyconc.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen([sys.executable, *options, script], text=True, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env={**os.environ, "PYTHONPATH": path, **environment})
        if not wait:
            return process
        try:
            process.stdout_text, process.stderr_text = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"the program hangs; it wrote {out!r} and {err!r}")
        return process
    return start
