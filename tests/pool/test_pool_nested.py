"""Jobs that wait for jobs of their own pool: they run them where no worker would."""
import asyncio
import gc
import sys
import threading
import time
import weakref

import pytest

from pyconc.concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait

pytestmark = pytest.mark.usefixtures("no_leaked_threads")
LONG = 30       # seconds, after which a test gives up


@pytest.fixture(params=[1, 2])
def pool(request):
    with ThreadPoolExecutor(request.param) as pool:
        yield pool


def fail():
    raise ZeroDivisionError


def test_recursion(pool):
    def fibonacci(number):
        if number < 2:
            return number
        parts = [pool.submit(fibonacci, number - 1), pool.submit(fibonacci, number - 2)]
        return sum(part.result() for part in parts)

    assert pool.submit(fibonacci, 12).result() == 144


def test_exception(pool):
    assert isinstance(pool.submit(lambda: pool.submit(fail).exception()).result(), ZeroDivisionError)


def test_wait(pool):
    def outer():
        inner = [pool.submit(int, number) for number in range(10)]
        done, not_done = wait(inner)
        assert not not_done
        return sorted(future.result() for future in done)

    assert pool.submit(outer).result() == list(range(10))


def test_wait_for_one():
    with ThreadPoolExecutor(1) as pool:
        def outer(when, *functions):
            inner = [pool.submit(function) for function in functions]
            return [future.done() for future in inner], [future in wait(inner, None, when).done for future in inner]

        before, after = pool.submit(outer, FIRST_COMPLETED, int, int, int).result()
        assert (before, after) == ([False] * 3, [True, False, False])
        before, after = pool.submit(outer, FIRST_EXCEPTION, int, fail, int).result()
        assert (before, after) == ([False] * 3, [True, True, False])


def test_as_completed(pool):
    def outer():
        return sorted(future.result() for future in as_completed([pool.submit(int, number) for number in range(10)]))

    assert pool.submit(outer).result() == list(range(10))


def test_a_timeout_is_kept():
    """What is waited for with a timeout might take longer than it: it is not run here."""
    with ThreadPoolExecutor(1) as pool:
        ran = threading.Event()

        def outer():
            inner = pool.submit(ran.set)
            with pytest.raises(TimeoutError):
                inner.result(timeout=0.01)
            assert not wait([inner], 0.01).done
            with pytest.raises(TimeoutError):
                list(as_completed([inner], 0.01))
            with pytest.raises(TimeoutError):
                list(pool.map(int, [1], timeout=0.01))
            return ran.is_set()

        assert pool.submit(outer).result() is False
    assert ran.is_set()


def test_it_runs_in_the_thread_that_waits():
    with ThreadPoolExecutor(1) as pool:
        def outer():
            return pool.submit(threading.get_ident).result() == threading.get_ident()

        assert pool.submit(outer).result()


def test_only_what_is_waited_for_runs():
    """Another job might want what the waiting one holds."""
    with ThreadPoolExecutor(1) as pool:
        order = []

        def outer():
            pool.submit(order.append, "other")
            pool.submit(order.append, "waited for").result()
            order.append("outer")

        pool.submit(outer).result()
    assert order == ["waited for", "outer", "other"]


def test_jobs_of_another_pool_are_not_touched():
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        gate = threading.Event()
        other.submit(gate.wait, LONG)
        inner = other.submit(threading.get_ident)
        outer = pool.submit(inner.result)
        gate.set()
        assert outer.result() != pool.submit(threading.get_ident).result()


def test_cancelled_jobs(pool):
    def outer():
        inner = pool.submit(int)
        assert inner.cancel() or inner.done()
        return wait([inner]).done == {inner}

    assert pool.submit(outer).result()


@pytest.mark.parametrize("first", [lambda fs: wait(fs, None, FIRST_COMPLETED).done, as_completed])
def test_others_that_are_free_run_it(first):
    """The first that is done is asked for: not one that was run here instead of by the worker that is idle."""
    with ThreadPoolExecutor(4) as pool:
        gate = threading.Event()

        def outer():
            inner = [pool.submit(gate.wait, LONG), pool.submit(int)]
            found = next(iter(first(inner))) is inner[1]
            gate.set()
            return found

        assert pool.submit(outer).result()


def test_when_the_others_are_no_longer_free():
    """Both workers wait for jobs that nobody has begun, one of them from before the other was busy."""
    with ThreadPoolExecutor(2) as pool:
        waiting, answer = threading.Event(), []

        def first():
            inner = pool.submit(int, "1")
            answer.append(inner)
            waiting.set()
            return inner.result()

        def second():
            waiting.wait(LONG)
            return pool.submit(int, "2").result() + outer[0].result()

        outer = []
        outer.append(pool.submit(first))
        outer.append(pool.submit(second))
        assert [future.result(LONG) for future in outer] == [1, 3]


def test_in_a_coroutine_and_in_an_exception_handler():
    """The job that is run here finds neither a running loop nor an exception that is being handled."""
    with ThreadPoolExecutor(1) as pool:
        async def nothing():
            return sys.exc_info()

        async def blocks():
            try:
                raise KeyError
            except KeyError:
                found = pool.submit(lambda: asyncio.run(nothing())).result()
                assert asyncio.get_running_loop() and isinstance(sys.exc_info()[1], KeyError)
                return found

        assert pool.submit(asyncio.run, blocks()).result() == (None, None, None)


def test_deep():
    with ThreadPoolExecutor(1) as pool:
        def down(levels):
            return levels and 1 + pool.submit(down, levels - 1).result()

        assert pool.submit(down, 50).result() == 50


def test_when_another_thread_cannot_be_started(monkeypatch):
    """It was about to be when the job was submitted that the only worker waits for."""
    with ThreadPoolExecutor(2) as pool:
        go, queued, failed = threading.Event(), threading.Event(), threading.Event()

        def outer():
            go.wait(LONG)
            inner = pool.submit(int, "7")
            queued.set()
            failed.wait(LONG)
            return inner.result()

        def refuse(thread):
            go.set()
            queued.wait(LONG)
            raise RuntimeError("can't start new thread")

        future = pool.submit(outer)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(int)
        monkeypatch.undo()
        failed.set()
        try:
            assert future.result(LONG) == 7
        finally:
            pool.submit(int)    # starts a thread, so that a failure does not hang


def test_as_completed_of_many():
    """The time for each does not grow with their number."""
    with ThreadPoolExecutor(1) as pool:
        def outer(number):
            return sum(1 for _ in as_completed([pool.submit(int) for _ in range(number)]))

        assert pool.submit(outer, 20_000).result(LONG) == 20_000


def test_as_completed_in_a_worker_keeps_nothing():
    with ThreadPoolExecutor(1) as pool:
        def outer():
            futures = [pool.submit(int), pool.submit(int), pool.submit(int)]
            results = as_completed(futures)
            kept = []
            for future in results:
                futures.remove(future)
                ref = weakref.ref(future)
                del future
                kept.append(ref() is not None)
            return kept

        assert pool.submit(outer).result() == [False] * 3


def test_as_completed_of_more_than_this_pools_jobs():
    """What waits in this pool is run although others come first, that only another thread will end."""
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        gate = threading.Event()

        def outer():
            mine = Future()
            threads = [other.submit(gate.wait, LONG), other.submit(int)]
            while not threads[0].running():
                time.sleep(0.001)
            jobs = [pool.submit(int, "3"), pool.submit(mine.set_result, 4)]
            results = as_completed([mine, threads[1], *jobs, threads[0]])
            order = [next(results).result(), next(results).result()]
            gate.set()
            return order, {future.result() for future in results}

        assert pool.submit(outer).result() == ([3, 4], {True, 0, None})


def test_the_result_is_dropped_when_nobody_needs_it():
    """Somebody else slept until the job was done that a worker has run for itself."""
    class Thing:
        pass

    with ThreadPoolExecutor(1) as pool:
        begun, inner = threading.Event(), []

        def make():
            begun.wait(LONG)
            time.sleep(0.1)     # so that he sleeps by now; if not, there is nothing to see
            return Thing()

        def outer():
            inner.append(pool.submit(make))
            thread = threading.Thread(target=lambda: begun.set() or inner[0].result())
            thread.start()
            ref = weakref.ref(inner[0].result())
            thread.join()
            inner.clear()
            gc.collect()
            return ref() is None

        assert pool.submit(outer).result()


def test_no_leak(no_leaked_objects):
    with ThreadPoolExecutor(1) as pool:
        def outer():
            inner = [pool.submit(str, number) for number in range(3)]
            return len(wait(inner).done) + len(list(as_completed(inner))) + len(list(pool.map(str, range(3))))

        no_leaked_objects(lambda: pool.submit(outer).result(), 100)
