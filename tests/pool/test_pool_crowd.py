"""Many threads and loops at the same Futures and pools for a while: each outcome arrives, once, everywhere."""
import asyncio
import concurrent.futures
import gc
import threading
import time

import pytest

import pyconc
from pyconc.concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait

pytestmark = pytest.mark.stress
SECONDS = 1


def in_threads(function, count):
    """Runs function(number) in threads; what they returned."""
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        return list(threads.map(function, range(count)))


@pytest.mark.parametrize("new_loop", [pyconc.new_event_loop, asyncio.SelectorEventLoop])
def test_future_awaited_in_several_loops_and_threads(new_loop):
    current = [Future()]
    over = threading.Event()

    def end(_):
        number = 0
        while not over.is_set():
            future, current[0] = current[0], Future()
            if number % 3 == 0:
                future.cancel()
            elif number % 3 == 1:
                future.set_exception(ZeroDivisionError(number))
            else:
                future.set_result(number)
            number += 1
            time.sleep(0.0005)
        current[0].cancel()

    def judge(future, outcome):
        assert future.done()
        if future.cancelled():
            return outcome is None
        return outcome is (future.exception() or future.result())

    async def watch():
        seen = 0
        while not over.is_set() or not seen:    # the last Future is done, too
            future = current[0]
            try:
                outcome = await future
            except asyncio.CancelledError:
                outcome = None
            except ZeroDivisionError as error:
                outcome = error
            assert judge(future, outcome)
            seen += 1
        return seen

    def block():
        seen = 0
        while not over.is_set() or not seen:    # the last Future is done, too
            future = current[0]
            try:
                outcome = future.result(60)
            except concurrent.futures.CancelledError:
                outcome = None
            except ZeroDivisionError as error:
                outcome = error
            assert judge(future, outcome)
            seen += 1
        return seen

    def work(number):
        if number == 0:
            return end(number)
        if number % 2:
            return block()
        loop = new_loop()
        try:
            return loop.run_until_complete(watch())
        finally:
            loop.close()

    timer = threading.Timer(SECONDS, over.set)
    timer.start()
    try:
        seen = in_threads(work, 7)
    finally:
        over.set()
        timer.join()
    assert all(seen[1:])


def test_callbacks_are_called_once_each():
    """Added while the Future ends, by several threads."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        future, called = Future(), []
        start = threading.Barrier(5)

        def work(number, future=future, called=called, start=start):
            start.wait()
            if number == 0:
                future.set_result(None)
            else:
                for each in range(20):
                    future.add_done_callback(lambda _, name=(number, each): called.append(name))

        in_threads(work, 5)
        assert sorted(called) == [(number, each) for number in range(1, 5) for each in range(20)]


def test_only_one_ends_it():
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        future, start = Future(), threading.Barrier(4)

        def work(number, future=future, start=start):
            start.wait()
            try:
                if number % 2:
                    return future.cancel()
                future.set_result(number)
                return True
            except concurrent.futures.InvalidStateError:
                return False

        won = in_threads(work, 4)
        if future.cancelled():
            assert won == [False, True, False, True]
        else:
            assert won[1] is won[3] is False and sum(won) == 1 and won[future.result()]


def test_one_pool_used_by_loops_and_threads():
    """Submitted, cancelled, waited for and awaited by all at once; the pool is then shut down under them."""
    with ThreadPoolExecutor(4) as pool:
        end = time.monotonic() + SECONDS

        async def from_loop():
            loop = asyncio.get_running_loop()
            while time.monotonic() < end:
                jobs = [loop.run_in_executor(pool, divmod, number, 3) for number in range(50)]
                jobs[7].cancel()
                results = await asyncio.gather(*jobs, pool.submit(divmod, 50, 3), return_exceptions=True)
                assert isinstance(results.pop(7), asyncio.CancelledError)
                assert results == [divmod(number, 3) for number in range(51) if number != 7]

        def from_thread(number):
            if number % 2:
                return pyconc.run(from_loop())
            while time.monotonic() < end:
                jobs = {pool.submit(divmod, number, 3): number for number in range(50)}
                cancelled = {job for job in list(jobs)[::5] if job.cancel()}
                done, pending = wait(jobs, 60)
                assert done == jobs.keys() and not pending
                for job in as_completed(jobs, 60):
                    assert job.cancelled() is (job in cancelled)
                    assert job in cancelled or job.result() == divmod(jobs[job], 3)
                gc.collect()

        in_threads(from_thread, 6)


def test_shutdown_under_submitters():
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pool = ThreadPoolExecutor(3)

        def submit(number, pool=pool):
            jobs = []
            if number == 0:
                pool.shutdown(wait=False, cancel_futures=True)
                return jobs
            while len(jobs) < 1000:
                try:
                    jobs.append(pool.submit(int))
                except RuntimeError as error:
                    assert "shutdown" in str(error)
                    break
            return jobs

        jobs = sum(in_threads(submit, 4), [])
        pool.shutdown()
        assert all(job.cancelled() or job.result(60) == 0 for job in jobs)
