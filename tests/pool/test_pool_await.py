"""pyconc's Future and thread pool in event loops: asyncio's own here, so that any loop will do."""
import asyncio
import concurrent.futures
import contextvars
import gc
import sys
import threading
import time
import weakref

import pytest

import pyconc
from pyconc.concurrent.futures import Future, ThreadPoolExecutor

pytestmark = pytest.mark.usefixtures("no_leaked_threads")


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(params=["submit", "_submit_to_loop"])
def start(request, pool):
    """start(function, *args): an awaitable, each way that there is."""
    if request.param == "submit":
        return pool.submit
    return lambda function, *args: pool._submit_to_loop(asyncio.get_running_loop(), function, *args)


def fail(error):
    raise error


class CountingLoop(asyncio.SelectorEventLoop):
    wakes = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.wakes += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def test_await(start):
    async def main():
        assert await start(pow, 2, 10) == 1024
        with pytest.raises(ZeroDivisionError):
            await start(fail, ZeroDivisionError())
        job = start(int, "3")
        assert await job == await job == 3

    asyncio.run(main())


def test_await_what_is_done():
    async def main():
        for end, check in [(("set_result", 5), 5), (("set_exception", OSError(1)), OSError), (("cancel",), None)]:
            future = Future()
            getattr(future, end[0])(*end[1:])
            if check == 5:
                assert await future == 5
            else:
                with pytest.raises(check or asyncio.CancelledError):
                    await future

    asyncio.run(main())


def test_everything_of_asyncio_takes_it(start):
    async def main():
        assert await asyncio.gather(start(int, 1), start(int, 2)) == [1, 2]
        assert await asyncio.wait_for(start(int, 3), 30) == 3
        assert await asyncio.shield(start(int, 4)) == 4
        assert [await done for done in asyncio.as_completed([start(int, 5)])] == [5]
        done, rest = await asyncio.wait([asyncio.ensure_future(start(int, 6))])
        assert [task.result() for task in done] == [6] and not rest
        assert await asyncio.gather(start(fail, OSError(7)), return_exceptions=True) is not None
        async with asyncio.timeout(30):
            await start(int, 8)

    asyncio.run(main())


def test_wrap_future(pool):
    async def main():
        assert await asyncio.wrap_future(pool.submit(int, "1")) == 1

    asyncio.run(main())


def test_in_the_loop_of_its_creation(pool):
    async def main():
        future = pool._submit_to_loop(asyncio.get_running_loop(), int, "1")
        assert type(future) is asyncio.Future and future.get_loop() is asyncio.get_running_loop()
        assert await future == 1

    asyncio.run(main())


def test_as_the_default_executor():
    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        variable = contextvars.ContextVar("variable")
        variable.set("mine")
        assert await asyncio.to_thread(variable.get) == "mine"
        assert await asyncio.get_running_loop().run_in_executor(None, variable.get) == "mine"

    asyncio.run(main())


def test_context(start):
    variable = contextvars.ContextVar("variable", default=None)

    async def main():
        variable.set("mine")
        assert await start(variable.get) == "mine"

    asyncio.run(main())


@pytest.mark.parametrize("error, seen", [
    (concurrent.futures.CancelledError("c"), asyncio.CancelledError),
    (concurrent.futures.InvalidStateError("i"), asyncio.InvalidStateError),
    (StopIteration("s"), RuntimeError), (asyncio.CancelledError("a"), None),
])
def test_exceptions_are_what_asyncio_makes_of_them(pool, error, seen):
    def once(start):
        async def main():
            task = asyncio.ensure_future(start())
            await asyncio.wait([task])
            return type(task.exception()) if not task.cancelled() else asyncio.CancelledError

        try:
            return asyncio.run(main())
        except BaseException as left:
            return type(left)

    async def through_submit():
        await pool.submit(fail, error)

    async def through_loop():
        await pool._submit_to_loop(asyncio.get_running_loop(), fail, error)

    assert once(through_submit) is once(through_loop) is (seen or type(error))


def test_one_wake_for_a_batch(pool):
    async def main():
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        jobs = [pool._submit_to_loop(loop, gate.wait, 30) for _ in range(4)]
        jobs += [pool._submit_to_loop(loop, int, number) for number in range(500)]
        tasks = [asyncio.ensure_future(pool.submit(int, number)) for number in range(500)]
        await asyncio.sleep(0)
        loop.wakes = 0
        gate.set()
        while pool._work_queue.qsize():  # the loop is busy while they end
            pass
        assert (await asyncio.gather(*jobs))[4:] == list(range(500))
        assert await asyncio.gather(*tasks) == list(range(500))
        assert loop.wakes < 20

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(main())


def test_cancelling_the_task_cancels_the_job_that_waits(start):
    ran = []

    async def main():
        gate = threading.Event()
        busy = [asyncio.ensure_future(start(gate.wait, 30)) for _ in range(4)]
        await asyncio.sleep(0)
        jobs = [start(ran.append, number) for number in range(3)]

        async def use(job):
            await job

        tasks = [asyncio.create_task(use(job)) for job in jobs]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks[1:2])
        assert tasks[1].cancelled() and jobs[1].cancelled()
        gate.set()
        await asyncio.gather(*busy, tasks[0], tasks[2])

    asyncio.run(main())
    assert ran == [0, 2]


def test_cancelling_the_task_leaves_the_job_that_runs(start):
    done = []

    async def main():
        gate, running = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def job():
            loop.call_soon_threadsafe(running.set)
            gate.wait(30)
            done.append(1)

        task = asyncio.ensure_future(start(job))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()

    asyncio.run(main())
    # The pool's fixture waits for its threads; the job itself is what we wait for here.
    while not done:
        pass


def test_cancelling_the_future_cancels_the_task(pool):
    async def main():
        gate = threading.Event()
        for _ in range(4):
            pool.submit(gate.wait, 30)
        job = pool.submit(int)
        task = asyncio.ensure_future(job)
        await asyncio.sleep(0)
        assert job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()

    asyncio.run(main())


def test_shutdown_cancels_what_waits(start, pool):
    async def main():
        gate = threading.Event()
        busy = [asyncio.ensure_future(start(gate.wait, 30)) for _ in range(4)]
        waiting = [asyncio.ensure_future(start(int)) for _ in range(3)]
        await asyncio.sleep(0)
        pool.shutdown(wait=False, cancel_futures=True)
        done, rest = await asyncio.wait(waiting, timeout=30)
        assert all(task.cancelled() for task in done) and not rest
        gate.set()
        await asyncio.gather(*busy)

    asyncio.run(main())


def test_two_loops_in_two_threads(pool):
    shared = Future()
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        numbers = await asyncio.gather(*[pool.submit(int, number) for number in range(300)],
                                       *[pool._submit_to_loop(loop, int, number) for number in range(300)])
        seen.append((sum(numbers), await shared))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    shared.set_result("both")
    for thread in threads:
        thread.join()
    assert seen == [(2 * sum(range(300)), "both")] * 2


def test_the_loop_closes_before_the_job_ends(start):
    gate = threading.Event()
    kept = []

    async def main():
        kept.append(start(gate.wait, 30))
        if isinstance(kept[0], Future):
            kept.append(asyncio.ensure_future(kept[0]))
        await asyncio.sleep(0)

    loop = asyncio.SelectorEventLoop()
    loop.run_until_complete(main())
    for future in kept:
        future.cancel()
    loop.close()
    gate.set()


def test_a_future_outlives_a_closed_loop(pool):
    gate = threading.Event()
    loop = asyncio.SelectorEventLoop()
    future = pool._submit_to_loop(loop, gate.wait, 30)
    ref = weakref.ref(loop)
    loop.close()
    gate.set()
    pool.shutdown()
    assert not future.done()
    del loop, future
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, pyconc.new_event_loop])
def test_a_result_on_its_way_when_its_loop_is_closed(start, new_loop, pool):
    """The loop is gone when nobody uses it any more."""
    gate = threading.Event()

    async def wait(future):
        await future

    async def main():
        task = asyncio.create_task(wait(start(gate.wait, 30)))
        task._log_destroy_pending = False
        await asyncio.sleep(0)

    loop = new_loop()
    loop.run_until_complete(main())
    ref = weakref.ref(loop)
    gate.set()
    pool.shutdown()
    loop.close()
    del loop
    gc.collect()
    assert ref() is None


def test_await_needs_a_loop():
    with pytest.raises(RuntimeError, match="running event loop"):
        Future().__await__()


def test_submit_to_a_closed_pool(pool):
    pool.shutdown()

    async def main():
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool._submit_to_loop(asyncio.get_running_loop(), int)

    asyncio.run(main())
    with pytest.raises(TypeError, match="2"):
        pool._submit_to_loop(int)


def call(function, *args):
    """Python code, where a worker lets go of what other threads have dropped; builtins alone give it no time to."""
    return function(*args)


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(),
                    reason="without a GIL a block freed by another thread than its own stays counted for a while")
def test_no_leak(pool, no_leaked_objects):
    async def main():
        def both(*args):
            return pool.submit(call, *args), pool._submit_to_loop(asyncio.get_running_loop(), call, *args)

        await asyncio.gather(*both(int, "5"), *both(int, "6"), *both(int, "x"), return_exceptions=True)
        cancelled = [asyncio.ensure_future(job) for job in both(int, "7")]
        for future in cancelled:
            future.cancel()
        await asyncio.wait(cancelled)

    def whole(run):
        run(main())
        deadline = time.monotonic() + 30
        while pool._work_queue.qsize():     # cancelled jobs that no thread has come by yet
            assert time.monotonic() < deadline
            time.sleep(0.001)

    # Four threads and a loop take a while to fill their caches.
    with asyncio.Runner() as runner:
        for _ in range(300):
            runner.run(main())
        no_leaked_objects(lambda: whole(runner.run), 200)
    for _ in range(100):
        asyncio.run(main())
    no_leaked_objects(lambda: whole(asyncio.run), 100)
