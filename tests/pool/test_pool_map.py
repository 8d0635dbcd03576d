"""ThreadPoolExecutor.map: the calls are taken by whoever is free, the results come in order."""
import concurrent.futures
import contextvars
import gc
import os
import sys
import threading
import time
import weakref
from collections import deque
from types import SimpleNamespace

import pytest

from pyconc.concurrent.futures import BrokenThreadPool, CancelledError, ThreadPoolExecutor, thread

pytestmark = pytest.mark.usefixtures("no_leaked_threads")
LONG = 30       # seconds, after which a test gives up


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_results_in_order(pool):
    def late(number):
        time.sleep(0.02 * (number == 0))
        return -number

    assert list(pool.map(late, range(50))) == [-number for number in range(50)]
    assert list(pool.map(pow, [2, 3, 4], iter([3, 2]))) == [8, 9]
    assert list(pool.map(int, [])) == list(pool.map(int)) == []


def test_many_calls(pool):
    assert sum(pool.map(abs, range(-50_000, 0))) == sum(range(50_001))


def test_the_calls_are_made_before_the_results_are_asked_for(pool):
    made = threading.Event()
    results = pool.map(lambda _: made.set(), [0])
    assert made.wait(LONG)
    assert list(results) == [None]


def test_the_items_are_taken_at_once(pool):
    for items in ([3, 4], {3: 0, 4: 0}, {3, 4}, deque([3, 4])):
        results = pool.map(int, items)
        items.clear()
        assert sorted(results) == [3, 4]
    items = iter(range(3))
    results = pool.map(int, items)
    assert list(items) == []
    assert list(results) == [0, 1, 2]


def test_the_first_calls_are_made_while_an_iterator_yields(pool):
    made = threading.Event()

    def items():
        yield 1
        yield made.wait(LONG)

    assert list(pool.map(lambda item: made.set() or item, items())) == [1, True]
    made.clear()
    assert list(pool.map(lambda item, _: made.set() or item, items(), range(5))) == [1, True]


def test_a_subclass_of_list_is_read_by_its_own_iterator(pool):
    class Rows(list):
        def __iter__(self):
            return map(abs, super().__iter__())

    assert list(pool.map(int, Rows([-1, -2]))) == [1, 2]


def test_an_iterator_that_raises_leaves_the_calls_before_it():
    made = []

    def items():
        yield 1
        yield 2
        raise KeyError("items")

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyError, match="items"):
        pool.map(made.append, items())
    assert made == [1, 2]


def test_the_timeout_counts_while_an_iterator_is_read(monkeypatch):
    now, gate = [0], threading.Event()
    monkeypatch.setattr(thread, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def items():
        now[0] += 3 * LONG
        yield LONG

    with ThreadPoolExecutor(1) as pool:
        results = pool.map(gate.wait, items(), timeout=2 * LONG)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        gate.set()


def test_a_call_that_blocks_keeps_no_other_from_running():
    with ThreadPoolExecutor(2) as pool:
        others = threading.Semaphore(0)

        def first_waits_for_all(number):
            if number == 0:
                return [others.acquire(timeout=LONG) for _ in range(20)]
            others.release()

        assert all(next(pool.map(first_waits_for_all, range(21))))


def test_as_many_at_once_as_there_are_threads():
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)
        assert sorted(pool.map(lambda _: barrier.wait(LONG), range(3))) == [0, 1, 2]


def test_jobs_that_were_submitted_before_go_first():
    with ThreadPoolExecutor(1) as pool:
        order, gate = [], threading.Event()
        pool.submit(gate.wait, LONG)
        pool.submit(order.append, "job")
        results = pool.map(order.append, ["map"])
        pool.submit(order.append, "later job")
        gate.set()
        list(results)
    assert order == ["job", "map", "later job"]


def test_bad_arguments(pool):
    with pytest.raises(TypeError, match="not iterable"):
        pool.map(int, 5)
    with pytest.raises(TypeError, match="str"):
        pool.map(int, [5], timeout="1")
    with pytest.raises(TypeError, match="not callable"):
        list(pool.map(5, [5]))


def test_after_shutdown():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(int, [1])


def test_an_exception_comes_in_its_place_and_cancels_the_rest():
    begun = []

    def fail(number):
        begun.append(number)
        if number == 2:
            raise ZeroDivisionError(number)
        return number

    with ThreadPoolExecutor(1) as pool:
        gate = threading.Event()
        pool.submit(gate.wait, LONG)
        results = pool.map(fail, range(3))
        gate.set()
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ZeroDivisionError) as caught:
            next(results)
        assert any(entry.name == "fail" for entry in caught.traceback)
        assert list(results) == []
    assert begun == [0, 1, 2]


@pytest.mark.parametrize("buffersize", [None, 2])
def test_a_call_that_raises_stop_iteration_does_not_end_the_results(pool, buffersize):
    results = pool.map(lambda row: next(iter(row)), [[1], [], [3]], buffersize=buffersize)
    assert next(results) == 1
    with pytest.raises(RuntimeError, match="generator raised StopIteration") as caught:
        next(results)
    assert type(caught.value.__cause__) is StopIteration
    assert list(results) == []


def test_close_cancels_what_nobody_has_begun():
    begun, permits = [], threading.Semaphore(1)

    def wait(number):
        begun.append(number)
        return permits.acquire(timeout=LONG)

    with ThreadPoolExecutor(1) as pool:
        results = pool.map(wait, range(100))
        assert next(results)
        results.close()
        permits.release(100)
    assert len(begun) <= 2


def test_timeout():
    second, gate = threading.Event(), threading.Event()

    def call(waits):
        if waits:
            second.set()
            gate.wait(LONG)
        return waits

    with ThreadPoolExecutor(1) as pool:
        results = pool.map(call, [False, True, True], timeout=0.1)
        assert second.wait(LONG)
        assert next(results) is False       # it is there, be it ever so late
        before = time.monotonic()
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        assert time.monotonic() - before < LONG / 2
        gate.set()


def test_shutdown_cancels():
    running, gate, begun = threading.Event(), threading.Event(), []

    def wait(number):
        begun.append(number)
        running.set()
        gate.wait(LONG)
        return number

    pool = ThreadPoolExecutor(1)
    results = pool.map(wait, range(5))
    assert running.wait(LONG)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert next(results) == 0
    with pytest.raises(CancelledError):
        next(results)
    assert begun == [0]


def test_shutdown_wakes_who_waits(meanwhile):
    """Nobody has begun the map when it is cancelled."""
    gate = threading.Event()
    pool = ThreadPoolExecutor(1)
    pool.submit(gate.wait, LONG)
    results = pool.map(int, range(5))
    with meanwhile(pool.shutdown, False, cancel_futures=True), pytest.raises(CancelledError):
        next(results)
    gate.set()


def test_initializer_that_fails(caplog):
    with ThreadPoolExecutor(2, initializer=lambda: 1 / 0) as pool, pytest.raises(BrokenThreadPool):
        list(pool.map(int, range(10)))


def test_each_call_has_a_context_of_its_own(pool):
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(5)

    def change(number):
        before = variable.get()
        variable.set(number)
        return before

    assert set(pool.map(change, range(1000))) == {5}
    assert variable.get() == 5


def test_items_and_results_are_let_go(pool):
    class Item:
        pass

    items = [Item() for _ in range(5)]
    watch = [weakref.ref(item) for item in items]
    results = pool.map(lambda item: Item(), items)
    items.clear()
    first = next(results)
    made = weakref.ref(first)
    list(results)
    del first
    gc.collect()
    assert made() is None
    assert not any(ref() for ref in watch)


def test_the_iterator_does_not_keep_the_pool():
    results = ThreadPoolExecutor(1).map(int, range(3))
    gc.collect()
    assert list(results) == [0, 1, 2]


def test_a_subclass_whose_submit_sees_each_call():
    class Counting(ThreadPoolExecutor):
        calls = 0

        def submit(self, fn, /, *args, **kwargs):
            self.calls += 1
            return super().submit(fn, *args, **kwargs)

    with Counting(2) as pool:
        assert list(pool.map(int, "123")) == [1, 2, 3]
    assert pool.calls == 3


def test_a_map_in_a_map():
    with ThreadPoolExecutor(2) as pool:
        def inner(number):
            return sum(pool.map(abs, range(number)))

        assert list(pool.map(inner, range(20))) == [sum(range(number)) for number in range(20)]


def test_functions_in_c_let_others_have_the_gil(reached):
    def attempt():
        made, seen, count, deadline = [], set(), 2_000_000, time.monotonic() + LONG
        results = pool.map(made.append, range(count))
        while len(made) < count and time.monotonic() < deadline:
            seen.add(len(made))
        assert sum(1 for _ in results) == count
        return seen - {0, count}        # this thread ran in the middle of the calls

    with ThreadPoolExecutor(1) as pool:
        reached(attempt)


def test_ctrl_c(interrupted):
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        results = pool.map(lambda _: gate.wait(LONG), range(3))
        interrupted(lambda: next(results))
        gate.set()


def test_cancelled_is_not_lost(monkeypatch, meanwhile):
    """Its job is cancelled, and the thread that does that is just about to cancel the calls."""
    with ThreadPoolExecutor(1) as pool:
        gate, reached, go_on = threading.Event(), threading.Event(), threading.Event()
        pool.submit(gate.wait, LONG)
        calls = pool._map(str, [1, 2], False, None)
        (job,) = next(each for each in gc.get_referents(calls) if type(each) is list)
        # Called between the two.
        monkeypatch.setattr(type(job._condition), "notify_all", lambda _: reached.set() or go_on.wait(LONG))
        canceller = threading.Thread(target=pool._work_queue.cancel)
        canceller.start()
        reached.wait(LONG)
        with meanwhile(go_on.set), pytest.raises(CancelledError):
            next(calls)
        canceller.join()
        gate.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_in_a_forked_child_nobody_makes_the_calls(in_child):
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        results = pool.map(lambda _: gate.wait(LONG), range(3))
        assert in_child(lambda: next(results)).startswith("BrokenThreadPool: ")
        gate.set()
        assert all(results)


def test_no_leak(pool, no_leaked_objects):
    def use():
        list(pool.map(str, range(100)))
        results = pool.map(lambda number: 1 / number, [1, 0, 1])
        with pytest.raises(ZeroDivisionError):
            list(results)
        next(pool.map(str, range(100)))

    no_leaked_objects(use)


def test_crowd():
    """Maps begun, read in part, dropped and nested by many threads at once."""
    with ThreadPoolExecutor(3) as pool:
        def use(seed):
            for number in range(60):
                results = pool.map(lambda item: item + seed, range(number))
                taken = [next(results) for _ in range(number // (1 + seed % 3))]
                assert taken == list(range(seed, seed + len(taken)))
                if seed % 2:
                    results.close()

        old = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LONG)
            assert not any(thread.is_alive() for thread in threads)
        finally:
            sys.setswitchinterval(old)
