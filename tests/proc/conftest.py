"""Every test of this folder leaves no child process, no zombie and no descriptor behind."""
import asyncio
import errno
import os
import time

import pytest

import pyconc

pyconc.new_event_loop().close()     # libuv's first loop opens a pipe for the whole process


def children():
    """The ids of this process's children, zombies among them."""
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                found += map(int, file.read().split())
        except FileNotFoundError:
            pass    # the thread has ended
    return found


@pytest.fixture(autouse=True)
def no_leaked_children(no_leaked_fds):
    """Fails a test that leaves a child process behind, dead or alive."""
    before = set(children())
    yield
    deadline = time.monotonic() + 30
    while (left := set(children()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"children left: {left}"


@pytest.fixture
def run():
    """run(main): the result of a coroutine function on a pyconc.Loop of its own."""
    def run(main, debug=None):
        with asyncio.Runner(loop_factory=pyconc.new_event_loop, debug=debug) as runner:
            return runner.run(main())
    return run


@pytest.fixture(params=["pidfd", "thread"])
def watching(request, monkeypatch):
    """With the exit of subprocesses noticed by pidfd, and as on a system that has none."""
    def none(pid, flags=0):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if request.param == "thread":
        monkeypatch.setattr(os, "pidfd_open", none)
    return request.param
