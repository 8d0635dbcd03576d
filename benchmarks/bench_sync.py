# SPDX-License-Identifier: MIT
"""threading and queue: the standard library's classes, aiologic's where it is installed, and pyconc's.

    pytest benchmarks/bench_sync.py -o python_files='bench_*.py' --benchmark-group-by=group
"""
import asyncio
import os
import queue
import threading

import pytest

import pyconc.queue
import pyconc.threading

try:
    import aiologic
except ImportError:
    aiologic = None

THREADING = {"standard": threading, "pyconc": pyconc.threading}
QUEUE = {"standard": queue, "pyconc": pyconc.queue}
CALLS = 100_000
TRIPS = 2000
both = pytest.mark.parametrize("way", THREADING)


@pytest.fixture
def one_cpu():
    """Both threads of a ping-pong on one CPU: across two, what is measured is how the system wakes the other one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@both
@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore"])
def bench_acquire_and_release(benchmark, name, way):
    benchmark.group = f"{name}: acquire and release"
    lock = getattr(THREADING[way], name)()

    def run(acquire=lock.acquire, release=lock.release):
        for _ in range(CALLS):
            acquire()
            release()

    benchmark.pedantic(run, rounds=5)


@both
@pytest.mark.parametrize("name", ["SimpleQueue", "Queue", "LifoQueue", "PriorityQueue"])
def bench_put_and_get(benchmark, name, way):
    benchmark.group = f"{name}: put and get"
    items = getattr(QUEUE[way], name)()

    def run(put=items.put, get=items.get):
        for number in range(CALLS):
            put(number)
            get()

    benchmark.pedantic(run, rounds=5)


@both
@pytest.mark.parametrize("name", ["SimpleQueue", "Queue", "LifoQueue", "PriorityQueue"])
def bench_thread_to_thread(benchmark, name, way):
    benchmark.group = f"{name}: {CALLS} from thread to thread"
    items = getattr(QUEUE[way], name)()

    def take(get=items.get):
        for _ in range(CALLS):
            get()

    def run(put=items.put):
        thread = threading.Thread(target=take)
        thread.start()
        for number in range(CALLS):
            put(number)
        thread.join()

    benchmark.pedantic(run, rounds=5)


def ping_pong(benchmark, mine, other):
    def answer():
        for _ in range(TRIPS):
            other()

    def run():
        thread = threading.Thread(target=answer)
        thread.start()
        for _ in range(TRIPS):
            mine()
        thread.join()

    benchmark.pedantic(run, rounds=5)


@both
def bench_event(benchmark, one_cpu, way):
    benchmark.group = "Event: there and back on one CPU"
    ping, pong = THREADING[way].Event(), THREADING[way].Event()

    def mine():
        ping.set()
        pong.wait()
        pong.clear()

    def other():
        ping.wait()
        ping.clear()
        pong.set()

    ping_pong(benchmark, mine, other)


@both
def bench_condition(benchmark, one_cpu, way):
    benchmark.group = "Condition: there and back on one CPU"
    condition, turn = THREADING[way].Condition(), [0]

    def take(number):
        with condition:
            while turn[0] != number:
                condition.wait()
            turn[0] = 1 - number
            condition.notify()

    ping_pong(benchmark, lambda: take(0), lambda: take(1))


@both
def bench_barrier(benchmark, one_cpu, way):
    benchmark.group = "Barrier: two threads on one CPU"
    wait = THREADING[way].Barrier(2).wait
    ping_pong(benchmark, wait, wait)


@both
def bench_timer(benchmark, way):
    benchmark.group = "Timer: start and cancel"

    def run():
        for _ in range(200):
            timer = THREADING[way].Timer(60, print)
            timer.start()
            timer.cancel()

    benchmark.pedantic(run, rounds=5)


def standard_to_coroutine(count):
    """The standard library has no queue for both: its own way in is call_soon_threadsafe."""
    async def main():
        loop, items = asyncio.get_running_loop(), asyncio.Queue()

        def feed():
            for number in range(count):
                loop.call_soon_threadsafe(items.put_nowait, number)

        thread = threading.Thread(target=feed)
        thread.start()
        for _ in range(count):
            await items.get()
        thread.join()

    asyncio.run(main())


def joint_to_coroutine(put, get, count):
    async def main():
        def feed():
            for number in range(count):
                put(number)

        thread = threading.Thread(target=feed)
        thread.start()
        for _ in range(count):
            await get()
        thread.join()

    asyncio.run(main())


TO_COROUTINE = {"standard": standard_to_coroutine}
if aiologic is not None:
    aiologic_queue = aiologic.SimpleQueue()
    TO_COROUTINE["aiologic"] = lambda count: joint_to_coroutine(
        aiologic_queue.green_put, aiologic_queue.async_get, count)
pyconc_queue = pyconc.queue.Queue()
TO_COROUTINE["pyconc"] = lambda count: joint_to_coroutine(pyconc_queue.put, pyconc_queue.get_async, count)


@pytest.mark.parametrize("way", TO_COROUTINE)
def bench_thread_to_coroutine(benchmark, way):
    benchmark.group = f"{CALLS} items from a thread to a coroutine"
    benchmark.pedantic(TO_COROUTINE[way], args=(CALLS,), rounds=5)
