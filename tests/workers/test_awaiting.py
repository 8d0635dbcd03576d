"""Coroutines wait for calls in processes."""
import asyncio
import concurrent.futures
import multiprocessing
import time

import pytest

import pyconc
from pyconc.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed

LONG = 60


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        yield pool


@pytest.fixture(params=[asyncio.new_event_loop, pyconc.new_event_loop], ids=["asyncio", "pyconc"])
def run(request):
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


def fail(error):
    raise error


def test_many(pool, run):
    async def main():
        loop = asyncio.get_running_loop()
        direct = asyncio.gather(*[pool.submit(pow, 2, n) for n in range(300)])
        wrapped = asyncio.gather(*[loop.run_in_executor(pool, pow, 3, n) for n in range(300)])
        return await direct, await wrapped

    assert run(main()) == ([2 ** n for n in range(300)], [3 ** n for n in range(300)])


def test_one_after_the_other(pool, run):
    async def main():
        return [await pool.submit(pow, n, 2) for n in range(200)]

    assert run(main()) == [n * n for n in range(200)]


def test_what_it_raises(pool, run):
    async def main():
        with pytest.raises(OSError, match="gone") as error:
            await pool.submit(fail, OSError("gone"))
        return str(error.value.__cause__)

    assert "in fail" in run(main())


def test_a_coroutine_that_is_cancelled_cancels_what_waits(pool, run):
    gate = [pool.submit(time.sleep, 0.5) for _ in range(2)]

    async def main():
        future = pool.submit(pow, 2, 3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.01)
        return future

    future = run(main())
    assert future.cancelled()
    assert [one.result(LONG) for one in gate] == [None, None]


def test_beside_threads(pool, run):
    """A thread waits for one while the loop waits for others."""
    async def main():
        with ThreadPoolExecutor(1) as threads:
            outer = threads.submit(lambda: sum(f.result() for f in as_completed([pool.submit(int, "3")])))
            return await asyncio.gather(outer, *[pool.submit(int, "4") for _ in range(50)])

    assert run(main()) == [3] + [4] * 50


def test_in_concurrent_futures(pool):
    future, thread = pool.submit(int, "5"), concurrent.futures.Future()
    thread.set_result(6)
    assert {f.result() for f in concurrent.futures.as_completed([future, thread], LONG)} == {5, 6}
    assert concurrent.futures.wait([future, thread], LONG).not_done == set()
