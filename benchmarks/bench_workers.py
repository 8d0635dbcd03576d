# SPDX-License-Identifier: MIT
"""Pools of two processes: the standard library's executor and Pool, and pyconc's.

    pytest benchmarks/bench_workers.py -o python_files='bench_*.py' --benchmark-group-by=group
"""
import asyncio
import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

import pyconc.multiprocessing
from pyconc.concurrent.futures import ProcessPoolExecutor

try:
    import numpy
except ImportError:
    numpy = None
try:
    import pandas
except ImportError:
    pandas = None

MIB = 1 << 20
METHODS = ["fork", "forkserver", "spawn"]
EXECUTORS = {"standard": concurrent.futures.ProcessPoolExecutor, "pyconc": ProcessPoolExecutor}
MODULES = {"standard": multiprocessing, "pyconc": pyconc.multiprocessing}
TASKS, ITEMS, AWAITED = 2000, 100_000, 2000
both = pytest.mark.parametrize("way", EXECUTORS)
all_four = pytest.mark.parametrize("kind, way", [*itertools.product(["executor", "Pool"], EXECUTORS)])


def nothing(*args):
    pass


def echo(value):
    return value


def is_within(value, low=0.25, high=0.75):
    """A job of a data pipeline: as small as they come."""
    return low <= value < high


class Executor:
    """An executor by the names that both kinds of pool have here."""

    def __init__(self, way, method="fork"):
        self._pool = EXECUTORS[way](2, mp_context=MODULES[way].get_context(method))
        self.call = lambda fn, *args: self._pool.submit(fn, *args).result()
        self.call_all = lambda fn, count: [future.result() for future in [self._pool.submit(fn) for _ in range(count)]]
        self.submit = self._pool.submit
        self.close = self._pool.shutdown
        self.map = lambda fn, items, size: list(self._pool.map(fn, items, **({"chunksize": size} if size else {})))


class Pool:
    """A multiprocessing.Pool by the same names."""

    def __init__(self, way, method="fork"):
        self._pool = MODULES[way].get_context(method).Pool(2)
        self.call = lambda fn, *args: self._pool.apply(fn, args)
        self.call_all = lambda fn, count: [job.get() for job in [self._pool.apply_async(fn) for _ in range(count)]]
        self.map = self._pool.map

    def close(self):
        self._pool.close()
        self._pool.join()


KINDS = {"executor": Executor, "Pool": Pool}


@pytest.fixture
def pool(kind, way):
    pool = KINDS[kind](way)
    for _ in range(4):
        pool.call(nothing)
    yield pool
    pool.close()


@pytest.fixture(params=["all CPUs", "one CPU"])
def cpus(request):
    """Both processes of a round trip on one CPU, or where the kernel puts them; before the pool starts."""
    before = os.sched_getaffinity(0)
    if request.param == "one CPU":
        os.sched_setaffinity(0, {min(before)})
    yield request.param
    os.sched_setaffinity(0, before)


@all_four
def bench_round_trip(benchmark, cpus, pool, kind, way):
    benchmark.group = f"{kind}: one call at a time, {cpus}"
    benchmark.pedantic(pool.call, (nothing,), rounds=5, iterations=500)


@all_four
def bench_tiny_tasks(benchmark, pool, kind, way):
    benchmark.group = f"{kind}: {TASKS} tiny tasks submitted one by one"
    benchmark.pedantic(pool.call_all, (nothing, TASKS), rounds=5)


@all_four
@pytest.mark.parametrize("size", [None, 256])
def bench_map(benchmark, pool, kind, way, size):
    if (kind, way, size) == ("executor", "standard", None):
        pytest.skip("a job an item, and seconds long: it chooses no size")
    benchmark.group = f"{kind}: map() over {ITEMS} items, " + (f"chunks of {size}" if size else "no chunksize given")
    items = [random.random() for _ in range(ITEMS)]
    benchmark.pedantic(pool.map, (is_within, items, size), rounds=5)


def frame():
    return pandas.DataFrame({name: numpy.arange(100 * MIB // 32, dtype="f8") for name in "abcd"})


PAYLOADS = {
    "bytes of 1 MiB": lambda: b"x" * MIB,
    "bytes of 64 MiB": lambda: b"x" * (64 * MIB),
    "an array of 64 MiB": lambda: numpy.ones(8 * MIB),
    "a DataFrame of 100 MiB": frame,
}


@all_four
@pytest.mark.parametrize("payload", PAYLOADS)
def bench_there_and_back(benchmark, pool, kind, way, payload):
    if numpy is None and "array" in payload or pandas is None and "Frame" in payload:
        pytest.skip("not installed")
    benchmark.group = f"{kind}: {payload} there and back"
    value = PAYLOADS[payload]()
    pool.call(echo, value)      # the first one meets memory that is not there yet
    benchmark.pedantic(pool.call, (echo, value), rounds=5, iterations=20 if payload.endswith(" 1 MiB") else 1)


def awaitable(loop, pool, way):
    """submit() for a coroutine, as it is written with either library."""
    if way == "pyconc":
        return pool.submit
    return lambda function: loop.run_in_executor(pool._pool, function)


@both
@pytest.mark.parametrize("kind", ["executor"])
def bench_await_one_at_a_time(benchmark, pool, kind, way):
    benchmark.group = "executor: 500 calls awaited one after the other"

    async def run():
        submit = awaitable(asyncio.get_running_loop(), pool, way)
        for _ in range(500):
            await submit(nothing)

    with asyncio.Runner() as runner:
        benchmark.pedantic(lambda: runner.run(run()), rounds=5)


@both
@pytest.mark.parametrize("kind", ["executor"])
def bench_gather(benchmark, pool, kind, way):
    benchmark.group = f"executor: gather() of {AWAITED} calls"

    async def run():
        submit = awaitable(asyncio.get_running_loop(), pool, way)
        await asyncio.gather(*[submit(nothing) for _ in range(AWAITED)])

    with asyncio.Runner() as runner:
        benchmark.pedantic(lambda: runner.run(run()), rounds=5)


@all_four
@pytest.mark.parametrize("method", METHODS)
def bench_start(benchmark, kind, way, method):
    """A pool is made, both workers answer, and it ends."""
    benchmark.group = f"{kind}: two workers started by {method}, a call, and closed"

    def run():
        pool = KINDS[kind](way, method)
        pool.call_all(os.getpid, 4)
        pool.close()

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)


def children_of(pid):
    """All below it: under 'forkserver', workers are the server's."""
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        yield child
        yield from children_of(child)


def private_memory(pid):
    """Bytes that no other process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def pid_of_worker(*args):
    time.sleep(0.02)
    return os.getpid()


@all_four
@pytest.mark.parametrize("method", METHODS)
def bench_idle_memory(benchmark, kind, way, method):
    """What a worker has for itself after a call: in extra_info, as what is timed is the look."""
    benchmark.group = f"{kind}: private memory of an idle worker started by {method}"
    pool = KINDS[kind](way, method)
    workers = set(pool.map(pid_of_worker, range(8), 1))
    assert len(workers) == 2 and workers <= set(children_of(os.getpid()))
    time.sleep(0.5)
    memory = benchmark.pedantic(lambda: [private_memory(pid) for pid in workers], rounds=1)
    benchmark.extra_info["MiB"] = sum(memory) / len(memory) / MIB
    pool.close()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of 200 000 rows of words."""
    path, words = tmp_path_factory.mktemp("text") / "rows.txt", [f"word{number}" for number in range(1000)]
    choose = random.Random(1).choices
    path.write_text("\n".join(" ".join(choose(words, k=8)) for _ in range(200_000)))
    return path


def count_words(path, start, end):
    with open(path, "rb") as file:
        file.seek(start)
        return collections.Counter(file.read(end - start).split())


@pytest.mark.parametrize("way", ["serial", "standard", "pyconc"])
def bench_word_totals(benchmark, text, way):
    """Eight parts of a file, a Counter of each, their sum here."""
    benchmark.group = "word totals of a file of 200 000 rows"
    size, parts = text.stat().st_size, 8
    jobs = [(str(text), size * part // parts, size * (part + 1) // parts) for part in range(parts)]

    def total(starmap):
        counted = collections.Counter()
        for part in starmap(count_words, jobs):
            counted.update(part)
        assert counted.total() >= 1_600_000

    if way == "serial":
        benchmark.pedantic(total, (itertools.starmap,), rounds=3)
        return
    with MODULES[way].get_context("fork").Pool(2) as pool:
        benchmark.pedantic(total, (pool.starmap,), rounds=3, warmup_rounds=1)
