"""map() of process pools: the sizes of tasks, and what the program sees of them."""
import concurrent.futures
import contextlib
import gc
import itertools
import multiprocessing
import os
import threading
import time
import weakref

import pytest

from pyconc.concurrent.futures import ProcessPoolExecutor
from pyconc.workers import chunks
from pyconc.workers.chunks import AutoSize, FixedSize, Iterated, Listed, Map
from pyconc.workers.pool import Options

LONG = 60


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        yield pool


def square(x):
    return x * x


def fails_at_seven(x):
    if x == 7:
        raise ValueError(f"not {x}")
    return x


def note(path, x):
    with open(path, "a") as file:
        file.write(f"{x}\n")
    return x


def slow(x):
    time.sleep(x)
    return x


def stops_at_two(x, y=0):
    if x == 2:
        raise StopIteration(x)
    return x


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return -x


@pytest.mark.parametrize("chunksize", ["auto", 1, 3])
@pytest.mark.parametrize("iterables", [[range(6)], [range(6), range(6)]])
def test_a_call_that_raises_stop_iteration_is_not_the_end(pool, iterables, chunksize):
    results = pool.map(stops_at_two, *iterables, chunksize=chunksize)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(RuntimeError, match="generator raised StopIteration") as caught:
        next(results)
    assert caught.value.__cause__.value == 2


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunksize", ["auto", 1, 7, 1000])
@pytest.mark.parametrize("buffersize", [None, 1, 50])
def test_all_results(pool, ordered, chunksize, buffersize):
    results = list(pool.map(square, range(300), chunksize=chunksize, buffersize=buffersize, ordered=ordered))
    assert (results if ordered else sorted(results)) == [x * x for x in range(300)]


def test_many(pool):
    assert list(pool.map(square, range(100_000))) == [x * x for x in range(100_000)]


def test_several_iterables(pool):
    assert list(pool.map(pow, range(5), itertools.repeat(2))) == [0, 1, 4, 9, 16]
    assert list(pool.map(pow, [], [])) == []
    assert list(pool.map(max, [1, 5], [3, 3], [2, 9, 9])) == [3, 9]


@pytest.mark.parametrize("function", [Unhashable(), lambda x: -x, lambda x, bound=[-1]: x * bound[0]])
def test_functions_of_all_kinds(pool, function):
    if not isinstance(function, Unhashable):
        pytest.importorskip("cloudpickle")
    assert list(pool.map(function, range(100))) == [-x for x in range(100)]


def test_what_a_call_raises_comes_after_the_results_before_it(pool):
    results = pool.map(fails_at_seven, range(100), chunksize=10)
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(ValueError, match="not 7") as error:
        next(results)
    assert "fails_at_seven" in str(error.value.__cause__)
    assert list(results) == []


def test_an_argument_that_cannot_be_pickled(pool):
    with pytest.raises(TypeError, match="pickle"):
        list(pool.map(square, [threading.Lock()]))
    assert list(pool.map(square, [3])) == [9]


def test_items_that_raise_are_told_at_once(pool):
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        pool.map(square, items())


@pytest.mark.parametrize("ordered", [True, False])
def test_timeout(ordered):
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    results = pool.map(slow, [0, LONG], timeout=1, ordered=ordered)
    assert next(results) == 0
    with pytest.raises(TimeoutError):
        next(results)
    pool.kill_workers()
    pool.shutdown()


def test_the_first_that_is_done_comes_first(pool):
    results = pool.map(slow, [1, 0], ordered=False)
    assert list(results) == [0, 1]


@pytest.mark.parametrize("name, type_error, value_error", [
    ("chunksize", "must be an integer", "must be >= 1"),
    ("buffersize", "must be an integer or None", "must be None or > 0")])
def test_sizes_that_are_none(pool, name, type_error, value_error):
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"{name} {value_error}, not {value}"):
            pool.map(square, [1], **{name: value})
    with pytest.raises(TypeError, match=f"{name} {type_error}, not 'many'"):
        pool.map(square, [1], **{name: "many"})


def test_buffersize_asks_for_no_more_items(pool):
    numbers = itertools.count()
    results = pool.map(square, numbers, buffersize=6)
    assert next(numbers) == 6
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert next(numbers) <= 11
    results.close()


def test_all_calls_are_made_without_a_taker(tmp_path):
    path = str(tmp_path / "notes")
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        results = pool.map(note, itertools.repeat(path), range(2000))
    assert list(results) == list(range(2000))
    with open(path) as file:
        assert sorted(map(int, file)) == list(range(2000))


def test_who_takes_no_more_cancels_the_rest(tmp_path):
    path = str(tmp_path / "notes")
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        results = pool.map(note, itertools.repeat(path), range(100_000), chunksize=1)
        assert next(results) == 0
        results.close()
    with open(path) as file:
        assert len(file.readlines()) < 100_000


def test_shutdown_that_cancels(tmp_path):
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        results = pool.map(slow, [0.2] * 20, chunksize=1)
        assert next(results) == 0.2
        pool.shutdown(cancel_futures=True)
        with pytest.raises(concurrent.futures.CancelledError):
            list(results)


def test_a_dead_worker_fails_the_iterator():
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), on_worker_death="replace") as pool:
        with pytest.raises(concurrent.futures.process.BrokenProcessPool, match="_exit"):
            list(pool.map(os._exit, [3, 3, 3]))
        assert list(pool.map(square, [2])) == [4]


def test_after_shutdown(pool):
    other = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    other.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        other.map(square, [1])
    with pytest.raises(RuntimeError, match="after shutdown"):
        other.map(square, [1], buffersize=1)


def test_nothing_is_kept_of_what_was_given_out(pool):
    class Result:
        pass

    results = chunks._results(type("Calls", (), {"cancel": staticmethod(lambda: None)}),
                              iter([([Result(), Result()], None, 0, 0)]))
    first = weakref.ref(next(results))
    gc.collect()
    assert first() is None


# The sizes.


def run(size, total, cost, workers=2):
    """The sizes of the tasks, where one after the other comes back and each call takes `cost` seconds."""
    rows, sizes = Listed(list(range(total))), []
    while rows.left():
        sizes.append(len(rows.take(size.next(rows.left(), rows.first()))))
        assert sizes[-1] > 0
        size.told(sizes[-1], sizes[-1] * cost, 28)
    return sizes


def test_tiny_calls_soon_go_in_large_tasks():
    sizes = run(AutoSize(2), 1_000_000, 1e-7)
    assert sum(sizes) == 1_000_000 and len(sizes) < 60
    assert sizes[0] == 1 and max(sizes) <= 0.0101 / 1e-7


def test_long_calls_go_alone():
    assert run(AutoSize(2), 20, 0.05) == [1] * 20


def test_the_last_tasks_are_small():
    sizes = run(AutoSize(2), 10_000, 1e-5)
    assert 900 <= max(sizes) <= 1000
    assert sizes[-1] <= 50 and sizes[-5] < 200


def test_large_arguments_and_results_make_small_tasks():
    class Array:
        nbytes = 1 << 20

    size = AutoSize(2)
    size.told(1, 1e-9, 28)
    assert size.next(None, Array()) == 4 and size.next(None, 1) == 16
    size.told(16, 1e-9, 1 << 21)
    assert size.next(None, 1) == 2


def test_a_limit_of_calls():
    assert max(run(AutoSize(2, 10), 1000, 1e-7)) == 10


def test_arguments_one_after_the_other():
    rows = Iterated(iter(range(5)))
    assert rows.left() is None
    assert rows.first() == rows.first() == 0
    assert rows.take(2) == [0, 1] and rows.take(9) == [2, 3, 4]
    with pytest.raises(StopIteration):
        rows.first()


class OnePool:
    """A pool in which something happens while it is given a call."""

    size = 1

    def __init__(self, meanwhile):
        self.meanwhile = meanwhile
        self.futures = []
        self.holds = set()

    def hold(self, who):
        self.holds.add(who)
        return lambda: self.holds.discard(who)

    def submit(self, function, args, kwargs, options=None, held=False):
        self.meanwhile()
        self.futures.append(concurrent.futures.Future())
        return self.futures[-1]


def test_nobody_wants_what_is_being_sent():
    """Another thread closes the iterator at that moment."""
    pool = OnePool(lambda: calls.cancel())
    calls = Map(pool, square, Listed([1, 2, 3]), FixedSize(1), 10, None, None, None)
    calls.fill()
    calls.cancel()
    assert [future.cancelled() for future in pool.futures] == [True]
    assert not pool.holds


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_ctrl_c_while_calls_are_sent(sent):
    """It is raised at once, not when it is that call's turn, and nobody wants the others any more."""
    def interrupt():
        if len(pool.futures) == sent:
            raise KeyboardInterrupt

    pool = OnePool(interrupt)
    with pytest.raises(KeyboardInterrupt):
        chunks.start(pool, square, [[1, 2, 3]], chunksize=1)
    assert [future.cancelled() for future in pool.futures] == [True] * sent
    assert not pool.holds


def test_ctrl_c_while_more_calls_are_sent():
    """By who takes results; those that there are already are none of an iterator's that has ended."""
    pool = OnePool(lambda: None)
    results = chunks.start(pool, square, [[1, 2, 3]], chunksize=1, buffersize=1)
    pool.futures[0].set_result(([1], None, 0.1, 1))

    def interrupt():
        raise KeyboardInterrupt

    pool.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert list(results) == []
    assert len(pool.futures) == 1


@pytest.mark.parametrize("is_kept", [True, False])
def test_ctrl_c_while_the_pool_is_let_go_of(pool, is_kept):
    """By who has sent the last call: whoever closes the iterator does it then, or nobody, when that is no more."""
    def interrupted(calls):
        monkeypatch.undo()
        raise KeyboardInterrupt

    engine = pool._pool
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Map, "stop", interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            calls = Map(engine, square, Listed([]), FixedSize(1), 1, None, None, None)
            calls.fill()
    assert engine._holds
    if is_kept:
        calls.stop()
        calls.stop()
    else:
        del calls
    assert not engine._holds


def test_progress_loses_nothing_among_threads():
    """Those that end calls and the one that takes results tell it at the same time."""
    told, inside = [], threading.Lock()

    def progress(done, total):
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        told.append(done)
        inside.release()

    pool = OnePool(lambda: None)
    calls = Map(pool, square, Listed(list(range(40))), FixedSize(1), 40, None, Options(progress=progress), None)
    calls.fill()
    threads = [threading.Thread(target=lambda some: [future.set_result(([1], None, 0.1, 1)) for future in some],
                                args=(pool.futures[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == list(range(1, 41))


def test_results_are_counted_before_they_are_given_out():
    """By who ends the call, while another thread takes what it had."""
    told, results = [], [1, 4, 9]

    class Flying(set):
        def remove(self, future):
            super().remove(future)
            results.clear()

    pool = OnePool(lambda: None)
    size = AutoSize(1)
    calls = Map(pool, square, Listed([1, 2, 3]), size, 40, None, Options(progress=lambda *now: told.append(now)), None)
    calls._flying = Flying()
    calls.fill()
    pool.futures[0].set_result((results, None, 0.3, 1))
    assert told == [(3, 3)]
    assert size._cost == pytest.approx(0.1)


def test_progress_is_told_before_the_results_are_there():
    """Who ends a call tells it while the one that takes results comes for those."""
    told, begun, goes_on = [], threading.Event(), threading.Event()

    def progress(done, total):
        begun.set()
        assert goes_on.wait(10)
        told.append(done)

    pool = OnePool(lambda: None)
    calls = Map(pool, square, Listed([1]), FixedSize(1), 1, None, Options(progress=progress), None)
    calls.fill()
    ends = threading.Thread(target=pool.futures[0].set_result, args=(([1], None, 0.1, 1),))
    ends.start()
    assert begun.wait(10)
    threading.Timer(0.1, goes_on.set).start()
    calls.take(calls.queue.popleft())
    assert told == [1]
    ends.join()


class Counting(ProcessPoolExecutor):
    """No more than three calls at a time, and how many there were."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = 0
        self.room = threading.BoundedSemaphore(3)

    def submit(self, fn, /, *args, **kwargs):
        self.room.acquire()
        self.seen += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self.room.release())
        return future


@pytest.mark.parametrize("options, tasks", [({}, 10), ({"chunksize": 4}, 3), ({"buffersize": 2}, 10),
                                            ({"ordered": False}, 10)])
def test_a_subclass_whose_submit_sees_each_task(options, tasks):
    """As the standard library's map() calls submit(): now, and in this thread."""
    with Counting(2) as executor:
        results = executor.map(square, range(10), **options)
        if "buffersize" not in options:
            assert executor.seen == tasks
            executor.shutdown(wait=False)
        assert sorted(results) == [x * x for x in range(10)]
        assert executor.seen == tasks


def test_a_subclass_whose_submit_gives_futures_of_its_own():
    class Now(ProcessPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            future = concurrent.futures.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    with Now(1) as executor:
        assert list(executor.map(pow, [2, 3], [4, 5])) == [16, 243]
        assert list(executor.map(square, [2, 3], ordered=False)) == [4, 9]


@pytest.mark.parametrize("where", [lambda executor: executor, type])
def test_another_submit_is_put_in_its_place(where, monkeypatch):
    with ProcessPoolExecutor(1) as executor:
        before, seen = executor.submit, []
        monkeypatch.setattr(where(executor), "submit", lambda *args: seen.append(args[-1]) or before(*args[-2:]))
        assert list(executor.map(square, [2, 3])) == [4, 9]
        assert seen == [[2], [3]]
