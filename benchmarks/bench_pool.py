# SPDX-License-Identifier: MIT
"""Thread pools: jobs that do nothing, so that only the pool is measured.

pytest benchmarks/bench_pool.py --benchmark-group-by=func
"""
import asyncio
import concurrent.futures

import pytest

import pyconc.concurrent.futures

JOBS = 10_000
POOLS = {"standard": concurrent.futures.ThreadPoolExecutor, "pyconc": pyconc.concurrent.futures.ThreadPoolExecutor}


def nothing():
    pass


@pytest.fixture(params=POOLS)
def pool(request):
    with POOLS[request.param](2) as pool:
        pool.submit(nothing).result()
        yield pool


@pytest.mark.parametrize("wait", [concurrent.futures.wait, pyconc.concurrent.futures.wait],
                         ids=["standard_wait", "pyconc_wait"])
def test_submit_and_wait(benchmark, pool, wait):
    def run():
        wait([pool.submit(nothing) for _ in range(JOBS)])

    benchmark.pedantic(run, rounds=5)


def test_submit_and_result(benchmark, pool):
    def run():
        for job in [pool.submit(nothing) for _ in range(JOBS)]:
            job.result()

    benchmark.pedantic(run, rounds=5)


def test_ping_pong(benchmark, pool):
    benchmark.pedantic(lambda: pool.submit(nothing).result(), rounds=5, iterations=1000)


def test_result_beside_a_busy_thread(benchmark, pool, busy_thread):
    benchmark.pedantic(lambda: pool.submit(nothing).result(), rounds=5, iterations=40)


def test_map(benchmark, pool):
    benchmark.pedantic(lambda: list(pool.map(str, range(JOBS))), rounds=5)


def start(loop, pool):
    """loop.run_in_executor, which pyconc's loop does in this way by itself."""
    return getattr(pool, "_submit_to_loop", None) or (lambda loop, *call: loop.run_in_executor(pool, *call))


def test_gather_run_in_executor(benchmark, pool):
    async def run():
        loop = asyncio.get_running_loop()
        submit = start(loop, pool)
        await asyncio.gather(*[submit(loop, nothing) for _ in range(JOBS)])

    with asyncio.Runner() as runner:
        benchmark.pedantic(lambda: runner.run(run()), rounds=5)


def test_await_one_after_the_other(benchmark, pool):
    async def run():
        loop = asyncio.get_running_loop()
        submit = start(loop, pool)
        for _ in range(1000):
            await submit(loop, nothing)

    with asyncio.Runner() as runner:
        benchmark.pedantic(lambda: runner.run(run()), rounds=5)
