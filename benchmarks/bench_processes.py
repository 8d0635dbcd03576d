# SPDX-License-Identifier: MIT
"""Locks, queues and values for processes: multiprocessing's, faster-fifo's where it is installed, and pyconc's.

    pytest benchmarks/bench_processes.py -o python_files='bench_*.py' --benchmark-group-by=group
"""
import contextlib
import multiprocessing
import multiprocessing.shared_memory

import pytest

import pyconc.multiprocessing
import pyconc.multiprocessing.shared_memory

try:
    import faster_fifo
except ImportError:
    faster_fifo = None

MODULES = {"standard": multiprocessing, "pyconc": pyconc.multiprocessing}
WAYS = {name: module.get_context("fork") for name, module in MODULES.items()}
CALLS, ITEMS, TRIPS = 50_000, 20_000, 1000
MIB = 1 << 20
both = pytest.mark.parametrize("way", WAYS)


@contextlib.contextmanager
def child_of(function):
    """A process that calls the function beside the block, whose end waits for it."""
    child = multiprocessing.get_context("fork").Process(target=function)
    child.start()
    yield
    child.join()
    assert child.exitcode == 0


@both
@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def bench_acquire_and_release(benchmark, name, way):
    benchmark.group = f"processes' {name}: acquire and release"
    lock = getattr(WAYS[way], name)()

    def run(acquire=lock.acquire, release=lock.release):
        for _ in range(CALLS):
            acquire()
            release()

    benchmark.pedantic(run, rounds=5)


QUEUES = {"standard": WAYS["standard"].Queue, "pyconc": WAYS["pyconc"].Queue}
if faster_fifo is not None:
    QUEUES["faster-fifo"] = lambda: faster_fifo.Queue(max_size_bytes=64 * MIB)


@pytest.mark.parametrize("size, count", [(64, ITEMS), (1024, ITEMS), (MIB, 100)])
@pytest.mark.parametrize("way", QUEUES)
def bench_process_to_process(benchmark, size, count, way):
    benchmark.group = f"{count} items of {size} bytes from process to process"
    items, item = QUEUES[way](), b"x" * size

    def put():
        for _ in range(count):
            items.put(item)
        if way == "standard":
            items.close()
            items.join_thread()

    def run(get=items.get):
        with child_of(put):
            for _ in range(count):
                get()

    benchmark.pedantic(run, rounds=3)


@both
def bench_there_and_back(benchmark, way):
    benchmark.group = f"processes' Queue: {TRIPS} times there and back"
    there, back = WAYS[way].Queue(), WAYS[way].Queue()

    def answer():
        for _ in range(TRIPS):
            back.put(there.get())

    def run():
        with child_of(answer):
            for _ in range(TRIPS):
                there.put(1)
                back.get()

    benchmark.pedantic(run, rounds=3)


@both
def bench_value_under_its_lock(benchmark, way):
    benchmark.group = "Value += 1 under its lock"
    value = WAYS[way].Value("q", 0)

    def run():
        for _ in range(CALLS):
            with value.get_lock():
                value.value += 1

    benchmark.pedantic(run, rounds=5)


@both
def bench_array_items(benchmark, way):
    benchmark.group = "Array: an item read and written"
    array = WAYS[way].Array("d", 1000)

    def run():
        for _ in range(CALLS):
            array[7] = array[8]

    benchmark.pedantic(run, rounds=5)


@both
def bench_shared_memory_made(benchmark, way):
    benchmark.group = "SharedMemory: made and unlinked"
    kind = MODULES[way].shared_memory.SharedMemory

    def run():
        for _ in range(500):
            memory = kind(create=True, size=4096)
            memory.buf[0] = 1
            memory.close()
            memory.unlink()

    benchmark.pedantic(run, rounds=3)
