"""Calls that have begun are ended: by a timeout, by cancel(running=True), for their memory."""
import asyncio
import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time

import pytest

from pyconc.concurrent.futures import ProcessPoolExecutor, wait
from pyconc.workers import deadlines

LONG = 60


@pytest.fixture(params=["break", "replace"])
def executor(request):
    """In both ways: what is killed on purpose breaks nothing."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), grace=0.1, on_worker_death=request.param) as pool:
        yield pool


def ignore(*signals):
    for number in signals:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(LONG)


def in_c(seconds):
    """Nothing of Python's runs meanwhile, so no handler does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(3_000_000))


def fill(path, megabytes):
    data = b"x" * (megabytes << 20)
    open(path, "w").close()
    time.sleep(LONG)
    return data


def kept(megabytes, hold=[]):   # noqa: B006 - it is to stay
    hold.append(b"x" * (megabytes << 20))
    return os.getpid()


def begun(future):
    while not future.running():
        time.sleep(0.005)
        assert not future.done()
    return future


def all_gone(pool):
    """Waits until no worker runs anything."""
    while pool.stats().running:
        time.sleep(0.01)


def test_timeout_names_the_call(executor):
    future = executor.options(timeout=0.1).submit(time.sleep, LONG)
    with pytest.raises(TimeoutError, match=r"^time.sleep\(60\) has not ended within 0.1 seconds$"):
        future.result(LONG)


def test_a_call_that_lets_itself_be_interrupted_costs_no_process(executor):
    pids = {executor.submit(os.getpid).result() for _ in range(20)} | set(executor._processes)
    assert executor.options(timeout=0.1).submit(time.sleep, LONG).exception(LONG)
    all_gone(executor)
    assert set(executor._processes) <= pids
    assert executor.submit(pow, 2, 3).result(LONG) == 8


@pytest.mark.parametrize("ignored", [(signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)])
def test_a_call_that_does_not_is_killed_alone(executor, ignored):
    others = [executor.submit(time.sleep, 0.01) for _ in range(30)]
    future = executor.options(timeout=0.1).submit(ignore, *ignored)
    assert isinstance(future.exception(LONG), TimeoutError)
    others += [executor.submit(time.sleep, 0.01) for _ in range(30)]
    assert [other.result(LONG) for other in others] == [None] * 60
    all_gone(executor)
    assert [executor.submit(pow, 2, n).result(LONG) for n in range(10)] == [2 ** n for n in range(10)]


def test_the_time_counts_from_when_it_begins():
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        futures = [pool.options(timeout=5).submit(time.sleep, 0.05) for _ in range(4)]
        first = pool.submit(time.sleep, 0.3)
        late = pool.options(timeout=0.25).submit(pow, 2, 2)
        assert [future.result(LONG) for future in futures] == [None] * 4
        assert first.result(LONG) is None and late.result(LONG) == 4


def test_a_timeout_for_all():
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), timeout=0.1) as pool:
        assert isinstance(pool.submit(time.sleep, LONG).exception(LONG), TimeoutError)
        assert pool.options(timeout=LONG).submit(time.sleep, 0.2).result(LONG) is None


def test_map_has_the_timeout_for_each_call(executor):
    results = executor.options(timeout=0.3).map(time.sleep, [0.01] * 40)
    assert list(results) == [None] * 40
    results = executor.options(timeout=0.1).map(time.sleep, [0, LONG])
    assert next(results) is None
    with pytest.raises(TimeoutError, match="has not ended within"):
        next(results)


@pytest.mark.parametrize("value, error", [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
@pytest.mark.parametrize("name", ["timeout", "grace"])
def test_times_that_are_none(name, value, error):
    with pytest.raises(error, match=name):
        ProcessPoolExecutor(1, **{name: value})


def test_cancel_leaves_a_call_alone_that_runs(executor):
    future = begun(executor.submit(time.sleep, 0.3))
    assert not future.cancel() and future.result(LONG) is None
    assert not future.cancel(running=True)


def test_cancel_of_a_call_that_runs(executor):
    future = begun(executor.submit(time.sleep, LONG))
    told = threading.Event()
    future.add_done_callback(lambda _: told.set())
    assert future.cancel(running=True) and future.cancelled() and not future.running()
    assert told.wait(LONG)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert future.cancel(running=True)
    all_gone(executor)
    assert executor.submit(pow, 2, 3).result(LONG) == 8


def test_who_waits_hears_of_it(executor):
    future = begun(executor.submit(time.sleep, LONG))
    timer = threading.Timer(0.05, future.cancel, kwargs={"running": True})
    timer.start()
    assert wait([future], LONG).done == {future}
    timer.join()
    queued = [executor.submit(time.sleep, 0.05) for _ in range(9)]
    assert queued[-1].cancel()
    assert queued[-1] in wait(queued, LONG).done


def test_an_interrupt_that_comes_too_late_meets_no_other_call():
    """Calls end at about the time when they would be ended."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), grace=LONG) as pool:
        timed = [pool.options(timeout=0.01).submit(time.sleep, 0.0095) for _ in range(40)]
        others = [pool.submit(time.sleep, 0.005) for _ in range(40)]
        assert {type(future.exception(LONG)) for future in timed} <= {type(None), TimeoutError}
        assert [future.result(LONG) for future in others] == [None] * 40


def test_awaited(executor):
    async def main():
        with pytest.raises(TimeoutError, match="has not ended"):
            await executor.options(timeout=0.1).submit(time.sleep, LONG)
        return await executor.submit(pow, 2, 3)

    assert asyncio.run(main()) == 8


def test_shutdown_after_a_timeout():
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), grace=0.1) as pool:
        future = pool.options(timeout=0.05).submit(ignore, signal.SIGINT, signal.SIGTERM)
        assert isinstance(future.exception(LONG), TimeoutError)
    assert not multiprocessing.active_children()


def test_a_call_with_too_much_memory(tmp_path):
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), max_memory_per_worker=400 << 20) as pool:
        assert pool.submit(pow, 2, 3).result(LONG) == 8
        all_gone(pool)
        time.sleep(0.3)     # nobody looks at a pool without work as often
        future = pool.submit(fill, str(tmp_path / "filled"), 600)
        with pytest.raises(MemoryError, match=r"fill\(.*, 600\) was ended: its process had \d+ MiB of memory"):
            future.result(LONG)
        assert pool.submit(pow, 2, 3).result(LONG) == 8


@pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="AddressSanitizer keeps what is freed")
def test_a_process_that_keeps_too_much_is_replaced(monkeypatch):
    monkeypatch.setattr(deadlines, "_MEMORY", LONG)     # seconds until somebody looks during a call
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), max_memory_per_worker=400 << 20) as pool:
        pids = [pool.submit(kept, 150).result(LONG) for _ in range(6)]
        assert 2 <= len(set(pids)) <= 5
        assert pool.stats().deaths == 0
