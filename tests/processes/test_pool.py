"""multiprocessing.Pool, as programs know it. What goes wrong in workers is in tests/workers/test_recovery.py."""
import asyncio
import gc
import itertools
import logging
import multiprocessing
import multiprocessing.pool
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pool_jobs
import psutil
import pytest

import pyconc
import pyconc.multiprocessing as mp
import pyconc.multiprocessing.pool as mp_pool

LIMIT = 60      # seconds for anything that must happen


@pytest.fixture(scope="module", params=["fork", "spawn", "forkserver"])
def pool(request):
    """One of two workers, for all tests that leave it working."""
    pool = mp.get_context(request.param).Pool(2)
    yield pool
    pool.close()
    pool.join()


@pytest.fixture
def one():
    """A pool of one worker, which ends when the test does."""
    with mp.get_context("fork").Pool(1) as pool:
        yield pool
    pool.join()


def test_apply(pool):
    assert pool.apply(pool_jobs.give) == ((), {})
    assert pool.apply(pool_jobs.give, [1, 2], {"three": 3}) == ((1, 2), {"three": 3})
    assert pool.apply_async(pool_jobs.give, (1,), {"two": 2}).get(LIMIT) == ((1,), {"two": 2})


@pytest.mark.parametrize("kind", [list, tuple, iter, set, lambda items: items, lambda items: (item for item in items)],
                         ids=["list", "tuple", "iterator", "set", "range", "generator"])
def test_map(pool, kind):
    for count, size in itertools.product([0, 1, 9, 100], [None, 1, 7, 1000]):
        items = range(-count, 0)
        values = [abs(item) for item in kind(items)]
        assert pool.map(abs, kind(items), size) == values
        assert pool.map_async(abs, kind(items), size).get(LIMIT) == values


def test_starmap(pool):
    pairs = [(2, 3), (3, 2), [10, 2]]
    assert pool.starmap(pow, pairs) == [8, 9, 100]
    assert pool.starmap_async(pow, iter(pairs), 2).get(LIMIT) == [8, 9, 100]


def test_an_array_is_mapped_item_by_item(pool):
    numpy = pytest.importorskip("numpy")
    assert pool.map(float, numpy.arange(5.0)) == [0, 1, 2, 3, 4]
    assert [len(row) for row in pool.map(list, numpy.ones((5, 3)))] == [3] * 5


@pytest.mark.parametrize("size", [1, 3])
def test_imap(pool, size):
    assert list(pool.imap(abs, range(-10, 0), size)) == list(range(10, 0, -1))
    assert list(pool.imap(abs, iter([]), size)) == []
    assert sorted(pool.imap_unordered(abs, iter(range(-10, 0)), size)) == list(range(1, 11))


def test_four_chunks_for_each_worker():
    """9 items for one worker are 3 to a job, and a worker does one."""
    with mp.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        done = pool.map(pool_jobs.pid_and, range(9))
        assert [item for _, item in done] == list(range(9))
        assert [len(list(group)) for _, group in itertools.groupby(done, lambda one: one[0])] == [3, 3, 3]


@pytest.mark.parametrize("size", [0, -1])
def test_no_chunks_of_nothing(one, size):
    for method in (one.map, one.starmap, one.map_async, one.imap, one.imap_unordered):
        with pytest.raises(ValueError, match=str(size)):
            method(abs, [1], size)


def test_no_items_need_no_chunks(one):
    """len(items) // workers is 0 then."""
    assert one.map(abs, [], 0) == one.starmap(abs, range(0), 0) == one.map_async(abs, iter(()), 0).get(LIMIT) == []


def breaking(count):
    yield from range(count)
    raise ArithmeticError("no more")


class Breaking:
    """Says how many items it has, and has none."""

    def __len__(self):
        return 3

    def __iter__(self):
        raise ArithmeticError("no more")


def test_items_that_cannot_be_had(pool):
    for method in (pool.map, pool.starmap):
        with pytest.raises(ArithmeticError, match="no more"):
            method(abs, breaking(5), 1)
    result = pool.map_async(abs, Breaking())    # as the standard library: the result tells of it
    with pytest.raises(ArithmeticError) as caught:
        result.get(LIMIT)
    assert caught.value.__cause__ is None
    found = pool.imap(abs, breaking(5))
    assert list(itertools.islice(found, 5)) == list(range(5))
    with pytest.raises(ArithmeticError):
        next(found)
    with pytest.raises(StopIteration):
        next(found)
    assert list(itertools.islice(pool.imap(abs, breaking(7), 3), 6)) == list(range(6))
    with pytest.raises(ArithmeticError):
        list(pool.imap_unordered(abs, breaking(5)))


def test_what_a_job_raises(pool):
    with pytest.raises(LookupError) as caught:
        pool.apply(pool_jobs.fail_at, (3,))
    assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
    assert "raise LookupError(item)" in str(caught.value.__cause__)
    found = pool.imap(pool_jobs.fail_at, range(5))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError) as caught:
        next(found)
    assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
    assert next(found) == 4


def test_a_job_that_raises_what_tells_of_a_cancelled_one(pool):
    """One of an executor of its own, say. It is not this pool's that was cancelled."""
    errors, told = [], threading.Event()

    def tell(error):
        errors.append(type(error))
        told.set()

    result = pool.apply_async(pool_jobs.raise_cancelled, ("inside",), error_callback=tell)
    for get in (result.get, lambda _: pool.apply(pool_jobs.raise_cancelled, ("inside",)),
                pool.map_async(pool_jobs.raise_cancelled, ["inside"]).get,
                pool.imap(pool_jobs.raise_cancelled, ["inside"]).next,
                lambda _: list(pool.imap(pool_jobs.raise_cancelled, ["inside"] * 2, 2))):
        with pytest.raises(CancelledError, match="inside") as caught:
            get(LIMIT)
        assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
    assert told.wait(LIMIT)
    assert errors == [CancelledError]


def test_a_job_that_raises_stop_iteration(pool):
    for call in (lambda: pool.map(pool_jobs.raise_stop_iteration, [3, 4], 2),
                 lambda: pool.starmap(pool_jobs.raise_stop_iteration, [(3,), (4,)], 2),
                 lambda: pool.apply(pool_jobs.raise_stop_iteration, (3,))):
        with pytest.raises(StopIteration) as caught:
            call()
        assert caught.value.value == 3


def test_what_a_job_raises_has_attributes_of_any_name(pool):
    for call in (lambda: pool.apply(pool_jobs.raise_unsent, (3,)), lambda: pool.map(pool_jobs.raise_unsent, [3])):
        with pytest.raises(pool_jobs.Unsent) as caught:
            call()
        assert (caught.value.args, caught.value.__dict__) == ((3,), {"unsent": 3, "tb": 3})


def test_map_calls_all_and_raises_the_first(pool, tmp_path):
    path = str(tmp_path / "calls")
    with pytest.raises(LookupError) as caught:
        pool.starmap(pool_jobs.fail_after_notice, [(path, item) for item in range(10)], 1)
    assert caught.value.args == (3,)
    with open(path) as file:
        assert sorted(map(int, file)) == list(range(10))


def test_a_result_that_cannot_be_sent(pool):
    with pytest.raises(multiprocessing.pool.MaybeEncodingError) as caught:
        pool.apply(pool_jobs.lock)
    assert "cannot pickle '_thread.lock' object" in caught.value.exc
    assert "<unlocked _thread.lock object" in caught.value.value
    assert str(caught.value).startswith("Error sending result: '<unlocked")


def test_a_result_that_is_not_there(pool, tmp_path):
    path = str(tmp_path / "go")
    result = pool.apply_async(pool_jobs.wait_for, (path,))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    result.wait(0.01)
    with pytest.raises(mp.TimeoutError):
        result.get(0.01)
    found = pool.imap(pool_jobs.wait_for, [path])
    with pytest.raises(mp.TimeoutError):
        found.next(0.01)
    open(path, "w").close()
    result.wait(LIMIT)
    assert result.ready() and result.successful()
    assert result.get(0) == result.get() == found.next(LIMIT) == path


def test_a_timeout_that_the_job_raises(pool):
    result = pool.apply_async(pool_jobs.raise_timeout)
    with pytest.raises(TimeoutError, match="of the job"):
        result.get(LIMIT)
    assert result.ready() and not result.successful()


def test_callbacks(pool):
    """They are called before the result is there, in a thread of the pool, for what they are for."""
    told, failed = [], []
    hear = {"callback": lambda value: told.append((value, threading.current_thread())), "error_callback": failed.append}
    for number in range(5):
        pool.apply_async(abs, (number,), **hear).wait(LIMIT)
    assert pool.map_async(abs, range(5), **hear).get(LIMIT) == list(range(5))
    assert [value for value, _ in told] == [*range(5), list(range(5))]
    assert threading.current_thread() not in {thread for _, thread in told}
    result = pool.map_async(pool_jobs.fail_at, range(5), 1, **hear)
    with pytest.raises(LookupError):
        result.get(LIMIT)
    assert [error.args for error in failed] == [(3,)]
    assert len(told) == 6


def test_callbacks_are_not_called_by_who_asks(pool):
    """Who asks may hold a lock that they want, and the call may be done before it has been asked for."""
    lock = threading.Lock()

    def callback(_):
        assert lock.acquire(timeout=LIMIT)
        lock.release()

    for _ in range(300):
        with lock:
            result = pool.apply_async(abs, (-1,), callback=callback)
        assert result.get(LIMIT) == 1


def test_a_callback_that_raises(pool, caplog):
    """It is logged, and costs nobody a result."""
    with caplog.at_level(logging.ERROR):
        assert pool.apply_async(abs, (-1,), callback=lambda value: 1 / 0).get(LIMIT) == 1
        assert pool.apply(abs, (-2,)) == 2
        end = time.monotonic() + LIMIT
        while "ZeroDivisionError" not in caplog.text:    # it is logged once the result is there
            assert time.monotonic() < end
            time.sleep(0.005)


def test_results_are_awaited(pool):
    async def main():
        calls = [pool.apply_async(abs, (-number,)) for number in range(20)]
        assert await asyncio.gather(*calls, pool.map_async(abs, [-1, -2])) == [*range(20), [1, 2]]
        assert await calls[3] == 3
        with pytest.raises(LookupError) as caught:
            await pool.map_async(pool_jobs.fail_at, range(4))
        assert "raise LookupError(item)" in str(caught.value.__cause__)

    for run in (pyconc.run, asyncio.run):
        run(main())


def test_imap_unordered_gives_what_is_there(pool, tmp_path):
    path = str(tmp_path / "go")
    found = pool.imap_unordered(os.path.basename, ["1"])
    assert next(found) == "1"
    late = pool.apply_async(pool_jobs.wait_for, (path,))
    found = pool.imap_unordered(abs, range(10))
    assert sorted(itertools.islice(found, 10)) == list(range(10))
    open(path, "w").close()
    assert late.get(LIMIT) == path


def test_imap_takes_items_by_itself_and_not_too_many(one):
    """Whether anybody takes results or not; but no more than some hundred before workers have done them."""
    taken = []

    def numbers(count):
        for number in range(count):
            taken.append(number)
            yield number

    found = one.imap(abs, numbers(3000))
    deadline = time.monotonic() + LIMIT
    while one.apply(abs, (-1,)) and len(taken) < 3000:
        assert time.monotonic() < deadline
    assert sum(found) == sum(range(3000))
    taken.clear()
    held = one.apply_async(time.sleep, (600,))
    found = one.imap(abs, numbers(1_000_000))
    with pytest.raises(mp.TimeoutError):
        held.get(0.2)
    assert len(taken) < 2000
    one.terminate()
    with pytest.raises(BrokenProcessPool):
        found.next(LIMIT)


def test_close_lets_all_be_done(tmp_path):
    """Also the items that an imap() has not taken yet."""
    pool = mp.get_context("fork").Pool(2)
    results = [pool.apply_async(abs, (-number,)) for number in range(20)]
    found = pool.imap(abs, (time.sleep(0.001) or number for number in range(100)))
    pool.close()
    for method in (pool.map, pool.map_async, pool.imap, pool.apply_async):
        with pytest.raises(ValueError, match="not running"):
            method(abs, [1])
    pool.join()
    assert [result.get(LIMIT) for result in results] == list(range(20))
    assert list(found) == list(range(100))


@pytest.mark.parametrize("place", ["__init__", "start"])
def test_ctrl_c_while_imap_begins(monkeypatch, place):
    """Also when its thread has begun already: the pool ends all the same."""
    method = getattr(threading.Thread, place)

    def interrupted(thread, *args, **kwargs):
        method(thread, *args, **kwargs)
        if thread.name == "pyconc-imap":
            raise KeyboardInterrupt

    pool = mp.get_context("fork").Pool(1)
    monkeypatch.setattr(threading.Thread, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.imap(abs, range(-3, 0))
    assert pool.apply(abs, [-1]) == 1
    pool.close()
    assert pool._engine.join(LIMIT)


def test_terminate_drops_what_is_not_done():
    told = []
    context = mp.get_context("fork")
    with context.Pool(2) as pool:
        processes = pool._pool
        results = pool.map_async(time.sleep, [600] * 100, 1, callback=told.append, error_callback=told.append)
        more = pool.imap(time.sleep, [600])
    assert not any(process.is_alive() for process in processes)
    pool.join()
    for get in (results.get, more.next):
        with pytest.raises(BrokenProcessPool, match="terminated|shut down"):
            get(LIMIT)
    assert told == []
    with pytest.raises(ValueError, match="not running"):
        with pool:
            pass
    pool.terminate()    # twice is fine


def test_terminate_does_not_wait_for_who_ignores_it(tmp_path, monkeypatch):
    monkeypatch.setattr(mp_pool, "_GRACE", 0.1)
    path = str(tmp_path / "ready")
    with mp.get_context("fork").Pool(1) as pool:
        pool.apply_async(pool_jobs.ignore_sigterm, (path,))
        pool_jobs.wait_for(path)
    pool.join()


def test_a_callback_terminates_the_pool():
    pool, over = mp.get_context("fork").Pool(2), threading.Event()

    def stop(value):
        pool.terminate()
        over.set()

    results = [pool.apply_async(time.sleep, (600,)) for _ in range(5)]
    pool.apply_async(abs, (1,))
    more = mp.get_context("fork").Pool(1)
    try:
        results.append(pool.apply_async(time.sleep, (600,)))
        first = more.apply_async(abs, (-1,), callback=stop)
        assert first.get(LIMIT) == 1
        assert over.wait(LIMIT)
        own = more.apply_async(abs, (-1,), callback=lambda value: more.terminate())
        assert own.get(LIMIT) == 1
    finally:
        pool.join()
        more.join()
    for result in results:
        with pytest.raises(BrokenProcessPool):
            result.get(LIMIT)


def test_join_wants_an_end(one):
    with pytest.raises(ValueError, match="still running"):
        one.join()


@pytest.mark.parametrize("wrong", [{"processes": 0}, {"processes": -1}, {"maxtasksperchild": 0},
                                   {"maxtasksperchild": 0.5}, {"maxtasksperchild": "12"}])
def test_wrong_values(wrong):
    with pytest.raises(ValueError, match=str(*wrong.values())):
        mp.Pool(**wrong)


def test_a_wrong_initializer():
    with pytest.raises(TypeError, match="12"):
        mp.Pool(1, initializer=12)


def test_initializer_and_maxtasksperchild():
    with mp.get_context("fork").Pool(1, pool_jobs.start_with, ("a value",), maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(6)]
        assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2]
        assert pool.apply(pool_jobs.what_it_started_with) == "a value"


def test_an_initializer_that_raises():
    """The standard library starts workers for ever."""
    with mp.get_context("fork").Pool(2, pool_jobs.refuse_to_start) as pool:
        with pytest.raises(BrokenProcessPool) as caught:
            pool.apply_async(abs, (1,)).get(LIMIT)
    assert "no start" in str(caught.value.__cause__ or caught.value)
    pool.join()


def test_workers_are_there_from_the_start_and_all_the_time():
    """A program that forks counts on that: they have what it had when it made the pool."""
    pool_jobs.started_with = "set before"
    with mp.get_context("fork").Pool(2) as pool:
        pool_jobs.started_with = "set after"
        assert len(pool._pool) == 2
        assert all("PoolWorker" in process.name and process.daemon for process in pool._pool)
        assert {pool.apply(pool_jobs.what_it_started_with) for _ in range(4)} == {"set before"}
        victim = pool._pool[0]
        psutil.Process(victim.pid).kill()
        deadline = time.monotonic() + LIMIT
        while victim in pool._pool or len(pool._pool) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    pool_jobs.started_with = None


def test_workers_with_children():
    """Programs that nest pools hand over a context whose processes say that they are no daemons."""
    with mp.pool.Pool(2, context=pool_jobs.ContextWithChildren()) as pool:
        assert pool.map(pool_jobs.pool_of_its_own, [-1, -2]) == [1, 2]
        assert all(type(process) is pool_jobs.WithChildren for process in pool._pool)


def test_a_kind_of_pool_that_makes_its_processes():
    class Named(mp.pool.Pool):
        @staticmethod
        def Process(ctx, *args, **kwds):
            process = ctx.Process(*args, **kwds)
            process.name = "mine"
            return process

    with Named(1) as pool:
        assert [process.name for process in pool._pool] == ["mine"]
        assert pool.apply(abs, (-1,)) == 1


def test_it_is_told_when_nobody_closes_it():
    pool = mp.get_context("fork").Pool(1)
    processes, gone = pool._pool, weakref.ref(pool)
    pool.apply(abs, (1,))
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    assert gone() is None
    for process in processes:
        process.join(LIMIT)
        assert not process.is_alive()


def test_a_result_keeps_its_pool():
    """`Pool().map_async()` without a name for the pool."""
    result = mp.get_context("fork").Pool(1).map_async(time.sleep, [0.05, 0.05])
    gc.collect()
    with pytest.warns(ResourceWarning):
        assert result.get(LIMIT) == [None, None]
        gc.collect()


def test_nothing_is_kept(pool):
    """Of arguments, once the call is done."""
    big = [b"x" * 100_000 for _ in range(20)]
    assert [len(item) for item in pool.map(bytes, big)] == [100_000] * 20
    refs = sys.getrefcount(big[0])
    pool.map(bytes, big)
    list(pool.imap(bytes, big))
    deadline = time.monotonic() + LIMIT
    while sys.getrefcount(big[0]) > refs:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_repr_and_pickle(one):
    assert repr(one) == "<pyconc.multiprocessing.pool.Pool state=RUN pool_size=1>"
    with pytest.raises(NotImplementedError, match="pool objects cannot be passed between processes or pickled"):
        pickle.dumps(one)
    one.terminate()
    assert repr(one) == "<pyconc.multiprocessing.pool.Pool state=TERMINATE pool_size=0>"


def test_kinds(one):
    """What programs ask isinstance() about."""
    assert isinstance(one, multiprocessing.pool.Pool)
    assert isinstance(one.apply_async(abs, (1,)), multiprocessing.pool.AsyncResult)
    assert isinstance(one.map_async(abs, [1]), mp_pool.AsyncResult)
    assert isinstance(one.imap(abs, [1]), multiprocessing.pool.IMapIterator)
    assert isinstance(one.imap_unordered(abs, [1]), multiprocessing.pool.IMapUnorderedIterator)


def test_in_a_forked_child(one, in_child):
    assert "belongs to the process that forked" in in_child(lambda: one.apply(abs, (1,)))
    assert one.apply(abs, (-1,)) == 1


PROGRAMS = {
    # The standard library ends workers and forgets what they do.
    "left open": """
        pool = Pool(2)
        pool.map(abs, range(10))
        pool.apply_async(time.sleep, (600,))
        print("end")
    """,
    "a thread goes on": """
        pool = Pool(2)
        def later():
            threading.main_thread().join()
            print(pool.map(abs, [-1]), "end")
            pool.terminate()
        threading.Thread(target=later).start()
    """,
    "an imap goes on": """
        pool = Pool(2)
        found = pool.imap(time.sleep, itertools.repeat(0.001))
        next(found)
        print("end")
    """,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_interpreter_exits(program, tmp_path):
    path = tmp_path / "program.py"
    path.write_text("import itertools, threading, time\nfrom pyconc.multiprocessing import Pool\n"
                    'if __name__ == "__main__":\n' + textwrap.indent(textwrap.dedent(program), "    "))
    done = subprocess.run([sys.executable, "-W", "ignore", path], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("end\n")


def test_thread_pool():
    with mp.pool.ThreadPool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        assert pool.apply(threading.get_ident) != threading.get_ident()
        assert list(pool.imap(abs, range(-3, 0))) == [3, 2, 1]
        assert sorted(pool.imap_unordered(abs, range(-3, 0))) == [1, 2, 3]
    pool.join()
