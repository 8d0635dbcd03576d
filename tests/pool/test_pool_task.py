"""Futures whose outcomes who waits collects: here from a source made with ctypes."""
import asyncio
import concurrent.futures
import contextlib
import ctypes
import gc
import threading
import time
import weakref

import pytest

from pyconc import _core
from pyconc.concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait
from pyconc.concurrent.futures._base import TaskFuture

pytestmark = pytest.mark.usefixtures("no_leaked_threads")

LONG = 30
ETIMEDOUT = 110


class Source(ctypes.Structure):
    pass


Pointer = ctypes.POINTER(Source)
Word = ctypes.POINTER(ctypes.c_uint32)
Wait = ctypes.PYFUNCTYPE(ctypes.c_int, Pointer, Word, ctypes.c_uint32, ctypes.c_int64)
Kick = ctypes.PYFUNCTYPE(None, Pointer)
IsRunning = ctypes.PYFUNCTYPE(ctypes.c_int, Pointer, ctypes.py_object)
Source._fields_ = [("wait", Wait), ("kick", Kick), ("is_running", IsRunning), ("ending", ctypes.c_void_p)]

new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
NAME = b"pyconc.source"


class Channel:
    """Outcomes arrive in `inbox`; a thread in wait() takes them from there."""

    def __init__(self):
        self.inbox = []
        self.running = set()
        self.news = threading.Event()
        self.drivers = []       # the threads that were in wait(), each time that they were
        self.entered = threading.Event()
        self.kicks = 0
        self.struct = Source(Wait(self.wait), Kick(self.kick), IsRunning(self.is_running))
        self.source = new_capsule(ctypes.addressof(self.struct), NAME, None)

    def wait(self, _, word, expected, deadline):
        self.drivers.append(threading.current_thread())
        self.entered.set()
        while word[0] == expected:
            left = min((deadline - time.monotonic_ns()) / 1e9, LONG)
            if left <= 0:
                return -ETIMEDOUT
            if not self.news.wait(left):
                return 0
            self.news.clear()
            while self.inbox:
                future, outcome = self.inbox.pop(0)
                (future.set_exception if isinstance(outcome, BaseException) else future.set_result)(outcome)
        return 0

    def kick(self, _):
        self.kicks += 1
        self.news.set()

    def is_running(self, _, future):
        return id(future) in self.running

    def bring(self, future, outcome):
        self.inbox.append((future, outcome))
        self.news.set()


class Pool:
    def __init__(self):
        self.asked = []

    def cancel(self, future, running):
        self.asked.append(running)
        return Future.cancel(future) and future.set_running_or_notify_cancel() is False


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def pool():
    return Pool()


@pytest.fixture
def later():
    """later(function, *args): in another thread, soon."""
    timers = []

    def start(function, *args):
        timers.append(threading.Timer(0.02, function, args))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.join()


@contextlib.contextmanager
def meanwhile(channel, function, *args):
    """In another thread, once this one waits in the channel: function(*args), which has returned afterwards."""
    def call():
        assert channel.entered.wait(LONG)
        function(*args)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_result_collects(channel, pool, later):
    future = TaskFuture(channel, pool)
    later(channel.bring, future, 5)
    assert future.result() == 5
    assert channel.drivers[0] is threading.current_thread()


def test_exception_collects(channel, pool, later):
    future = TaskFuture(channel, pool)
    later(channel.bring, future, OSError(5))
    assert future.exception(LONG).args == (5,)


def test_result_times_out(channel, pool):
    future = TaskFuture(channel, pool)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    assert channel.drivers


def test_what_another_thread_ends_ends_the_wait(channel, pool):
    future = TaskFuture(channel, pool)
    with meanwhile(channel, future.set_result, 3):
        assert future.result(LONG) == 3
    assert channel.kicks == 1


@pytest.mark.parametrize("when", [FIRST_COMPLETED, FIRST_EXCEPTION, concurrent.futures.ALL_COMPLETED])
def test_wait_collects(channel, pool, later, when):
    own, task = Future(), TaskFuture(channel, pool)
    own.set_result(1) if when == concurrent.futures.ALL_COMPLETED else None
    later(channel.bring, task, OSError())
    done, rest = wait([own, task], return_when=when)
    assert task in done
    assert channel.drivers[0] is threading.current_thread()


def test_wait_ends_when_what_the_source_does_not_bring_has_ended(channel, pool):
    own, task = Future(), TaskFuture(channel, pool)
    with meanwhile(channel, own.set_result, None):
        assert wait([task, own], LONG, return_when=FIRST_COMPLETED) == ({own}, {task})
    assert channel.kicks == 1


def test_as_completed_collects(channel, pool, later):
    own, tasks = Future(), [TaskFuture(channel, pool) for _ in range(3)]
    order = as_completed([own, *tasks], LONG)
    for future in tasks[::-1]:
        later(channel.bring, future, None)
        assert next(order) is future
    later(own.set_result, None)
    assert next(order) is own
    assert list(order) == []
    assert channel.drivers[0] is threading.current_thread()


def test_as_completed_times_out(channel, pool):
    tasks = [TaskFuture(channel, pool) for _ in range(2)]
    tasks[1].set_result(None)
    order = as_completed(tasks, 0.01)
    assert next(order) is tasks[1]
    with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        next(order)
    assert tasks[0]._done_callbacks == []


def test_as_completed_of_two_channels(pool, later):
    """The thread collects from the second once nothing is to come from the first."""
    first, second = Channel(), Channel()
    one, other = TaskFuture(first, pool), TaskFuture(second, pool)
    order = as_completed([one, other])
    later(first.bring, one, None)
    assert next(order) is one
    later(second.bring, other, None)
    assert next(order) is other


def test_running_is_what_the_source_says(channel, pool):
    future = TaskFuture(channel, pool)
    assert not future.running() and future._state == "PENDING" and "state=pending" in repr(future)
    channel.running.add(id(future))
    assert future.running() and future._state == "RUNNING" and "state=running" in repr(future)
    assert not future.done()
    future.set_result(1)
    assert not future.running() and future._state == "FINISHED"


def test_cancel_asks_the_pool(channel, pool):
    future = TaskFuture(channel, pool)
    assert future.cancel() and future.cancelled() and future._state == "CANCELLED_AND_NOTIFIED"
    assert future.cancel()      # nobody is asked again
    other = TaskFuture(channel, pool)
    assert other.cancel(running=True)
    assert pool.asked == [False, True]


def test_a_coroutine_that_is_cancelled_asks_the_pool(channel, pool):
    future = TaskFuture(channel, pool)

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.01)

    asyncio.run(main())
    assert future.cancelled() and pool.asked == [False]


def test_a_worker_of_a_thread_pool_collects(channel, pool, later):
    future = TaskFuture(channel, pool)
    with ThreadPoolExecutor(1) as threads:
        outer = threads.submit(future.result)
        later(channel.bring, future, 8)
        assert outer.result(LONG) == 8


class Bare:
    """Which nothing but futures keeps."""


def test_it_lets_go_of_channel_and_pool_when_it_is_done(channel):
    bare = Bare()
    bare.source = channel.source
    futures = [TaskFuture(bare, bare) for _ in range(3)]
    assert futures[0]._pool is bare
    ref = weakref.ref(bare)
    del bare
    futures[0].set_result(1)
    futures[1].set_exception(OSError())
    assert ref() is not None
    assert Future.cancel(futures[2])
    assert ref() is None
    assert futures[0]._pool is None


def test_a_cycle_with_its_pool_is_collected():
    channel, bare = Channel(), Bare()
    bare.source = channel.source
    bare.future = TaskFuture(bare, bare)
    ref = weakref.ref(bare)
    del bare
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2), (1, 2, 3)])
def test_what_has_no_source(arguments):
    with pytest.raises((TypeError, AttributeError)):
        TaskFuture(*arguments)


def test_a_capsule_of_another_kind(pool):
    class Other:
        source = new_capsule(1, b"other", None)

    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        TaskFuture(Other(), pool)


def test_arrivals():
    arrivals = _core.Arrivals()
    assert arrivals.empty() and arrivals.take(0, None) == []
    one = Future()
    one.add_done_callback(arrivals.put)
    one.set_result(None)
    assert not arrivals.empty()
    assert arrivals.take(None, None) == [one]
    with pytest.raises(TypeError, match="a timeout and a Future"):
        arrivals.take(0)
