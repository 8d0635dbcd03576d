"""Fixtures for the tests of threading's primitives and of queues."""
import asyncio
import contextlib
import threading
import time

import pytest

import pyconc


@pytest.fixture(params=["asyncio", "pyconc"])
def run(request):
    """run(coroutine) on asyncio's loop and on ours, within half a minute."""
    factory = asyncio.SelectorEventLoop if request.param == "asyncio" else pyconc.new_event_loop

    def run(coroutine):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(coroutine, 30))

    return run


@pytest.fixture
def thread():
    """thread(function, *args): started; all are joined, and must end."""
    started = []

    def start(function, *args):
        one = threading.Thread(target=function, args=args, daemon=True)
        one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.join(30)
        assert not one.is_alive()


@pytest.fixture
def held(thread):
    """held(lock): a block in which another thread holds it."""
    @contextlib.contextmanager
    def held(lock):
        taken, over = threading.Event(), threading.Event()

        def hold():
            with lock:
                taken.set()
                over.wait()

        thread(hold)
        assert taken.wait(30)
        try:
            yield
        finally:
            over.set()

    return held


@pytest.fixture
def until():
    """until(condition): returns when condition() is true, within half a minute."""
    def until(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    return until
