"""Coroutines of one process that wait for the same thing wake each other; without the looks they take by themselves."""
import asyncio
import queue as standard
import subprocess
import sys

import pytest

from pyconc.multiprocessing import awaiting
from pyconc.multiprocessing.queues import Queue
from pyconc.multiprocessing.synchronize import BoundedSemaphore, Lock, Semaphore

try:
    ShutDown = standard.ShutDown
except AttributeError:
    from pyconc.queue import ShutDown


@pytest.fixture(autouse=True)
def no_slices(monkeypatch):
    """A wake that is lost is not made good for by a look."""
    monkeypatch.setattr(awaiting, "SLICE", 1000)
    monkeypatch.setattr(awaiting, "SLICE_OF_OTHERS", 1000)


def in_time(main):
    async def limited():
        async with asyncio.timeout(30):
            await main
    asyncio.run(limited())


async def begin(*coroutines):
    """Tasks that wait, in this order."""
    tasks = []
    for one in coroutines:
        tasks.append(asyncio.create_task(one))
        for _ in range(3):
            await asyncio.sleep(0)
    return tasks


def a_queue():
    queue = Queue()
    return queue.get_async, lambda: queue.put(True)


def a_full_queue():
    queue = Queue(maxsize=1)
    queue.put(0)
    return lambda: queue.put_async(1), queue.get


def of_lock(kind):
    def make():
        lock = kind()
        lock.acquire()
        return lock.acquire_async, lock.release
    make.__name__ = kind.__name__
    return make


WAYS = [a_queue, a_full_queue, of_lock(Lock), of_lock(Semaphore), of_lock(BoundedSemaphore)]


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
def test_one_that_is_cancelled_after_its_wake_passes_it_on(make, monkeypatch):
    wait, change = make()

    async def main():
        first, second = await begin(wait(), wait())
        finish = awaiting._Waiters.finish
        cancelled = []

        def finish_and_cancel(self, key, future):
            finish(self, key, future)
            if not cancelled:
                cancelled.append(first.cancel())

        monkeypatch.setattr(awaiting._Waiters, "finish", finish_and_cancel)
        change()
        assert (await second) in (True, None)
        assert cancelled == [True]
        with pytest.raises(asyncio.CancelledError):
            await first

    in_time(main())


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
def test_one_that_is_closed_after_its_wake_passes_it_on(make):
    wait, change = make()

    async def main():
        first = wait()
        turn = first.send(None)
        second, = await begin(wait())
        change()
        await asyncio.wait([turn])
        first.close()
        assert (await second) in (True, None)

    in_time(main())


def test_all_hear_of_a_shutdown():
    queue = Queue()

    async def main():
        tasks = await begin(*(queue.get_async() for _ in range(20)))
        queue.shutdown()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {ShutDown}

    in_time(main())


class Silent:
    """What nobody rings for: its waiters hear of a change by looking."""

    def __init__(self):
        self.value = awaiting.NOT_YET
        self.looked = []

    def arm(self):
        return 2**63    # no key of the arena

    def wait(self, name, timeout=None):
        def look():
            self.looked.append(name)
            return self.value

        return awaiting.until(look, self, timeout)

    async def let_look(self, times=5):
        before = len(self.looked)
        while len(self.looked) < before + times:
            await asyncio.sleep(0.001)


def test_somebody_goes_on_looking_for_all(monkeypatch):
    monkeypatch.setattr(awaiting, "SLICE", 0.001)
    silent = Silent()

    async def main():
        tasks = await begin(*(silent.wait(name) for name in "abc"))
        await silent.let_look()
        silent.value = "seen"
        assert await asyncio.gather(*tasks) == ["seen"] * 3

    in_time(main())


def test_who_looks_keeps_its_place(monkeypatch):
    monkeypatch.setattr(awaiting, "SLICE", 0.001)
    silent = Silent()
    order = []

    async def wait(name):
        await silent.wait(name)
        order.append(name)

    async def main():
        tasks = await begin(*map(wait, "abc"))
        await silent.let_look()
        silent.value = "seen"
        awaiting._waiters.wake(silent.arm())
        await asyncio.gather(*tasks)

    in_time(main())
    assert order == ["a", "b", "c"]


@pytest.mark.parametrize("leave", ["times out", "is cancelled"])
def test_another_looks_when_the_one_that_did_leaves(monkeypatch, leave):
    monkeypatch.setattr(awaiting, "SLICE", 0.001)
    silent = Silent()

    async def main():
        first, other = await begin(silent.wait("first", 0.05 if leave == "times out" else None), silent.wait("other"))
        await silent.let_look()
        if leave == "times out":
            assert await first is awaiting.NOT_YET
        else:
            first.cancel()
            await asyncio.wait([first])
        await silent.let_look()
        assert set(silent.looked[-5:]) == {"other"}
        silent.value = "seen"
        assert await other == "seen"

    in_time(main())


def test_nobody_imports_asyncio_who_does_not_await():
    """Nor what else the standard library's modules of the same names need: a worker begins as quickly as it can."""
    program = """
import multiprocessing.spawn, sys
before = set(sys.modules)
import pyconc.multiprocessing.handover
from pyconc.multiprocessing.queues import Queue
from pyconc.multiprocessing.sharedctypes import Value
from pyconc.multiprocessing.synchronize import Condition, Lock
queue = Queue()
queue.put(Lock())
with queue.get():
    print(sorted(name for name in set(sys.modules) - before if name.split(".")[0] != "pyconc"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    allowed = {"_ctypes", "_heapq", "_queue", "ctypes", "ctypes._endian", "heapq", "queue",
               "sysconfig"}   # 3.14's ctypes
    assert set(eval(done.stdout)) <= allowed, done.stdout
