# SPDX-License-Identifier: MIT
"""threading and queue: the standard library's classes, aiologic's where it is installed, and pyconc's.

    pytest benchmarks/bench_sync.py -o python_files='bench_*.py' --benchmark-group-by=group
"""
import asyncio
import contextlib
import functools
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


@contextlib.contextmanager
def thread_of(function):
    """A thread that calls the function beside the block, whose end waits for it."""
    thread = threading.Thread(target=function)
    thread.start()
    yield
    thread.join()


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
        with thread_of(take):
            for number in range(CALLS):
                put(number)

    benchmark.pedantic(run, rounds=5)


def ping_pong(benchmark, mine, other):
    def answer():
        for _ in range(TRIPS):
            other()

    def run():
        with thread_of(answer):
            for _ in range(TRIPS):
                mine()

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


def standard_ends():
    """The standard library has no queue for both: its own way in is call_soon_threadsafe."""
    items = asyncio.Queue()
    return functools.partial(asyncio.get_running_loop().call_soon_threadsafe, items.put_nowait), items.get


def aiologic_ends():
    items = aiologic.SimpleQueue()
    return items.green_put, items.async_get


def pyconc_ends():
    items = pyconc.queue.Queue()
    return items.put, items.get_async


ENDS = {"standard": standard_ends, **({"aiologic": aiologic_ends} if aiologic else {}), "pyconc": pyconc_ends}


@pytest.mark.parametrize("way", ENDS)
def bench_thread_to_coroutine(benchmark, way):
    benchmark.group = f"{CALLS} items from a thread to a coroutine"

    async def main():
        put, get = ENDS[way]()

        def feed():
            for number in range(CALLS):
                put(number)

        with thread_of(feed):
            for _ in range(CALLS):
                await get()

    benchmark.pedantic(lambda: asyncio.run(main()), rounds=5)
