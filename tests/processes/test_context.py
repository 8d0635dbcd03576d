"""Contexts: what they make is pyconc's, and what they know is the standard library's."""
import multiprocessing
import os
import pickle
import signal
from concurrent.futures import ProcessPoolExecutor

import pytest
from process_children import Doubling, describe, describe_context, die, square, stay

import pyconc.multiprocessing as mp

METHODS = ["fork", "spawn", "forkserver"]
MAKERS = {
    "Lock": ("synchronize", ()), "RLock": ("synchronize", ()), "Semaphore": ("synchronize", (2,)),
    "BoundedSemaphore": ("synchronize", (2,)), "Condition": ("synchronize", ()), "Event": ("synchronize", ()),
    "Barrier": ("synchronize", (2,)), "Queue": ("queues", ()), "JoinableQueue": ("queues", ()),
    "SimpleQueue": ("queues", ()),
}


def test_is_one_of_the_standard_librarys(context):
    method = context.get_start_method()
    assert isinstance(context, type(multiprocessing.get_context(method)))
    assert context is mp.get_context(method)
    assert context.get_context() is context
    assert context.Process is multiprocessing.get_context(method).Process
    with pytest.raises(ValueError, match="cannot set start method"):
        context.set_start_method("fork")
    assert context.get_context("spawn") is mp.get_context("spawn")


@pytest.mark.parametrize("method", ["thread", ""])
def test_unknown_start_method(method):
    for context in (mp, mp.get_context("fork")):
        with pytest.raises(ValueError, match=f"cannot find context for '{method}'"):
            context.get_context(method)


@pytest.mark.parametrize("name", MAKERS)
def test_makes_ours(context, name):
    module, args = MAKERS[name]
    expected = getattr(getattr(mp, module, None) or __import__(f"pyconc.multiprocessing.{module}", fromlist="x"), name)
    for maker in (context, mp):
        assert type(getattr(maker, name)(*args)) is expected


def test_what_ours_take_beyond_the_standard_librarys(context):
    for maker in (context, mp):
        assert maker.Queue(max_bytes=1000).max_bytes == maker.JoinableQueue(max_bytes=1000).max_bytes == 1000
        for kind in ("Lock", "RLock", "Semaphore", "BoundedSemaphore"):
            assert getattr(maker, kind)(recover=square).acquire()


def test_start_method_is_one_for_both(start_method):
    assert mp.get_start_method(allow_none=True) is None
    mp.set_start_method("spawn")
    assert multiprocessing.get_start_method() == mp.get_start_method() == "spawn"
    assert mp.get_context() is mp.get_context("spawn")
    with pytest.raises(RuntimeError, match="context has already been set"):
        multiprocessing.set_start_method("fork")
    multiprocessing.set_start_method("forkserver", force=True)
    assert mp.get_start_method() == "forkserver"
    assert mp.get_context() is mp.get_context("forkserver")
    mp.set_start_method(None, force=True)
    assert multiprocessing.get_start_method(allow_none=True) is None


def test_default_start_method(start_method):
    assert mp.get_all_start_methods() == multiprocessing.get_all_start_methods()
    default = mp.get_all_start_methods()[0]
    assert mp.get_context().get_start_method() == default
    assert multiprocessing.get_start_method(allow_none=True) == default     # used: it is set now
    with pytest.raises(RuntimeError):
        mp.set_start_method("spawn")


def test_processes_are_the_standard_librarys():
    assert mp.Process is multiprocessing.Process
    assert mp.current_process() is multiprocessing.current_process()
    assert mp.parent_process() is multiprocessing.parent_process()
    child = mp.Process(target=square, args=[2])
    child.start()
    assert child in mp.active_children() or child.exitcode == 0
    child.join()
    assert child.exitcode == 0
    assert child not in mp.active_children()


@pytest.mark.parametrize("method", METHODS)
def test_what_a_child_knows(method, start_method):
    mp.set_start_method(method)
    reading, writing = mp.Pipe(duplex=False)
    with reading, writing:
        child = mp.Process(target=describe, args=[writing], name="the child")
        child.start()
        assert reading.recv() == (method, method, "the child", os.getpid(), child.pid)
        child.join()


@pytest.mark.parametrize("method", METHODS)
def test_subclass_of_process(method, start_method):
    mp.set_start_method(method)
    ours, theirs = mp.Pipe()
    with ours, theirs:
        child = Doubling(theirs)
        child.start()
        ours.send(21)
        assert ours.recv() == 42
        child.join()
        assert child.exitcode == 0


def test_context_is_handed_over(context):
    for sent in (context, mp.get_context("spawn")):
        ours, theirs = context.Pipe()
        with ours, theirs:
            child = context.Process(target=describe_context, args=[sent, theirs])
            child.start()
            expected = "pyconc.multiprocessing.connection"
            assert ours.recv() == (sent.get_start_method(), expected, expected)
            child.join()
    assert type(pickle.loads(pickle.dumps(context))) is type(context)


def test_a_killed_child(context):
    for target, how in ((die, None), (stay, "kill"), (stay, "terminate")):
        ours, theirs = context.Pipe()
        with ours, theirs:
            child = context.Process(target=target, args=[theirs])
            child.start()
            assert ours.recv() == "alive"
            if how:
                assert child.is_alive()
                getattr(child, how)()
            child.join()
            assert child.exitcode == -(signal.SIGTERM if how == "terminate" else signal.SIGKILL)


def test_pool(context):
    with context.Pool(2) as pool:
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert pool.map(square, range(20), chunksize=1) == [number * number for number in range(20)]
        assert pool.apply_async(square, [7]).get(30) == 49
        pool.close()
        pool.join()


def test_pool_whose_idle_worker_is_killed(context):
    """It has the lock of the jobs' pipe: the other worker, and the one that takes its place, go on."""
    with context.Pool(2) as pool:
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
        for worker in list(pool._pool):
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            assert pool.map_async(square, range(4)).get(60) == [0, 1, 4, 9]
        pool.close()
        pool.join()


def test_pool_of_the_module(start_method):
    from pyconc.multiprocessing.pool import Pool, ThreadPool
    for kind in (mp.Pool, Pool, ThreadPool, multiprocessing.pool.Pool):
        with kind(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
            pool.close()
            pool.join()


def test_executor_of_the_standard_library(context):
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]


def test_a_context_with_processes_of_its_own():
    class Watched(mp.get_context("fork").Process):
        started = 0

        def start(self):
            Watched.started += 1
            super().start()

    class Context(type(mp.get_context("fork"))):
        Process = Watched

    with Context().Pool(2) as pool:
        assert pool.map(square, [3]) == [9]
        pool.close()
        pool.join()
    assert Watched.started == 2


def test_rest_of_the_standard_library():
    assert mp.cpu_count() == os.cpu_count()
    assert mp.get_logger() is multiprocessing.get_logger()
    assert mp.TimeoutError is multiprocessing.TimeoutError
    assert mp.reducer is multiprocessing.reducer
    assert mp.SUBDEBUG == multiprocessing.SUBDEBUG
    assert mp.freeze_support() is None
    assert mp.allow_connection_pickling() is None
    assert mp.util.get_logger is multiprocessing.util.get_logger
