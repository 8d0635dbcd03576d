"""run_in_executor and the default executor."""
import asyncio
import concurrent.futures
import contextvars
import threading
import time

import pytest

import pyconc
from pyconc.concurrent.futures import Future


def test_default_executor(either, no_leaked_threads):
    async def main():
        names = await asyncio.gather(*[either.run_in_executor(None, threading.current_thread) for _ in range(20)])
        assert threading.main_thread() not in names
        await either.shutdown_default_executor()

    either.run_until_complete(main())


def test_arguments_and_results(either):
    async def main():
        assert await either.run_in_executor(None, pow, 2, 10) == 1024
        assert await either.run_in_executor(executor=None, func=dict) == {}
        with pytest.raises(ZeroDivisionError):
            await either.run_in_executor(None, divmod, 1, 0)
        await either.shutdown_default_executor()

    either.run_until_complete(main())


def test_wrong_arguments(either):
    for args, kwargs in (((), {}), ((None,), {}), ((None, int), {"base": 2})):
        with pytest.raises(TypeError):
            either.run_in_executor(*args, **kwargs)


def test_given_executor(either):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = either.run_in_executor(pool, threading.get_ident)
            assert asyncio.isfuture(future) and future.get_loop() is either
            assert await future != threading.get_ident()

    either.run_until_complete(main())


def test_set_default_executor(either):
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    either.set_default_executor(pool)

    async def main():
        name = await either.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("mine")
        await either.shutdown_default_executor()

    either.run_until_complete(main())
    with pytest.raises(RuntimeError):
        pool.submit(int)
    with pytest.raises(TypeError):
        either.set_default_executor(3)


def test_after_shutdown(either):
    async def main():
        await either.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            either.run_in_executor(None, int)
        await either.shutdown_default_executor()

    either.run_until_complete(main())


def test_shutdown_waits(either, no_leaked_threads):
    done = []

    def work():
        time.sleep(0.05)
        done.append(True)

    async def main():
        either.run_in_executor(None, work)
        await either.shutdown_default_executor()
        assert done

    either.run_until_complete(main())


def test_shutdown_timeout(loop):
    """On every Python, where the standard library has it since 3.12."""
    release = threading.Event()

    async def main():
        future = loop.run_in_executor(None, release.wait)
        before = time.monotonic()
        try:
            with pytest.warns(RuntimeWarning, match="joining its threads within 0.05 seconds"):
                await loop.shutdown_default_executor(timeout=0.05)
        finally:
            release.set()
        assert 0.05 <= time.monotonic() - before < 30
        await future

    loop.run_until_complete(main())


@pytest.mark.parametrize("timeout", [60, 1e9, None])
def test_shutdown_in_time(loop, timeout, recwarn, no_leaked_threads):
    async def main():
        futures = [loop.run_in_executor(None, time.sleep, 0.01) for _ in range(3)]
        await loop.shutdown_default_executor(timeout)
        assert all(future.done() for future in futures)

    loop.run_until_complete(main())
    assert [warning for warning in recwarn if "executor" in str(warning.message)] == []


def test_shutdown_twice(loop, no_leaked_threads):
    """Too late first, and then with time enough."""
    release = threading.Event()

    async def main():
        future = loop.run_in_executor(None, release.wait)
        with pytest.warns(RuntimeWarning, match="within 0.01 seconds"):
            await loop.shutdown_default_executor(0.01)
        release.set()
        await loop.shutdown_default_executor(60)
        await loop.shutdown_default_executor()
        assert future.done() and future.result() is True

    loop.run_until_complete(main())


def test_shutdown_twice_at_once(loop, no_leaked_threads):
    async def main():
        future = loop.run_in_executor(None, time.sleep, 0.02)
        await asyncio.gather(loop.shutdown_default_executor(), loop.shutdown_default_executor(60))
        assert future.done()

    loop.run_until_complete(main())


def test_shutdown_of_nothing(either):
    either.run_until_complete(either.shutdown_default_executor())


@pytest.mark.parametrize("limited", [False, True])
def test_shutdown_from_a_cancelled_task(loop, limited, no_leaked_threads):
    """As in the `finally` of a task that is cancelled, and once more while it waits."""
    release = threading.Event()

    async def main():
        try:
            await asyncio.sleep(60)
        finally:
            await loop.shutdown_default_executor(*[60] * limited)

    async def outer():
        job = loop.run_in_executor(None, release.wait)
        task = asyncio.create_task(main())
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        loop.call_later(0.01, release.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await job is True
        await loop.shutdown_default_executor()

    loop.run_until_complete(outer())


@pytest.mark.parametrize("timeout", ["x", -1, 0])
def test_shutdown_at_once(loop, timeout, no_leaked_threads):
    release = threading.Event()

    async def main():
        future = loop.run_in_executor(None, release.wait)
        try:
            with pytest.raises(TypeError) if timeout == "x" else pytest.warns(RuntimeWarning, match="joining"):
                await loop.shutdown_default_executor(timeout)
        finally:
            release.set()
        await future

    loop.run_until_complete(main())


def test_shutdown_by_the_runner(no_leaked_threads):
    """At the end of run(), whose work goes on until then."""
    done = []

    async def main():
        asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.05), done.append(True)))
        return 1

    assert pyconc.run(main()) == 1
    assert done


def test_close_shuts_the_executor_down_without_waiting(either, no_leaked_threads):
    release = threading.Event()

    async def main():
        either.run_in_executor(None, release.wait)

    either.run_until_complete(main())
    before = time.monotonic()
    either.close()
    assert time.monotonic() - before < 30
    release.set()


def test_result_after_the_loop_is_closed(program):
    """A job that outlives its loop ends in silence."""
    done = program("""
        import asyncio, pyconc, threading
        release = threading.Event()
        loop = pyconc.new_event_loop()

        async def main():
            loop.run_in_executor(None, release.wait)

        loop.run_until_complete(main())
        loop.close()
        release.set()
        print("done")
    """)
    assert (done.stdout_text, done.stderr_text) == ("done\n", "")


def test_cancelled_job_does_not_start(either):
    release, ran = threading.Event(), []

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = either.run_in_executor(pool, release.wait)
            second = either.run_in_executor(pool, ran.append, 1)
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.sleep(0)
            release.set()
            await first
            with pytest.raises(asyncio.CancelledError):
                await second

    either.run_until_complete(main())
    assert ran == []


def test_to_thread(either):
    variable = contextvars.ContextVar("variable")

    async def main():
        variable.set("here")
        assert await asyncio.to_thread(variable.get) == "here"
        await either.shutdown_default_executor()

    either.run_until_complete(main())


def test_runner_shuts_down(no_leaked_threads, no_leaked_fds):
    async def main():
        await asyncio.to_thread(int)

    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        runner.run(main())


def test_many_jobs(loop):
    async def main():
        results = await asyncio.gather(*[loop.run_in_executor(None, int, str(number)) for number in range(3000)])
        assert results == list(range(3000))
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_a_future_of_ours_wakes_the_loop_once_for_many(loop, monkeypatch):
    """Of an executor that is none of our thread pools, as those of processes are."""
    futures = [Future() for _ in range(5)]
    wakes = []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (wakes.append(args), wake(*args))[1])

    class Executor(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            return futures[fn(*args)]

    async def main():
        awaited = [loop.run_in_executor(Executor(), int, number) for number in range(5)]
        for number, future in enumerate(futures):
            future.set_result(number * 2)
        return await asyncio.gather(*awaited)

    assert loop.run_until_complete(main()) == [0, 2, 4, 6, 8]
    assert len(wakes) == 1
