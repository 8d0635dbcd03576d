"""A pool's channel: what goes through it, and who has begun what."""
import contextlib
import enum
import gc
import multiprocessing
import os
import pickle
import queue as standard
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import Future

import numpy as np
import pytest

from pyconc._ipc import Channel
from pyconc.concurrent.futures._base import TaskFuture, as_completed, wait
from tests.ipc.conftest import channel_worker


class Pool:
    """What a TaskFuture asks to be cancelled."""

    def __init__(self, channel):
        self.channel = channel

    def cancel(self, future, running):
        return self.channel.revoke(future) and super(TaskFuture, future).cancel()


def echo(value):
    return value


def double(value, *, times=1):
    return value * 2 * times


def fail(error):
    raise error


def send(channel, function, *args, future=None, **kwargs):
    future = Future() if future is None else future
    assert channel.send(future, pickle.dumps(function), args, kwargs)
    return future


def until(condition, timeout=60):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def collect(channel, *futures, timeout=60):
    end = time.monotonic() + timeout
    while not all(future.done() for future in futures):
        assert time.monotonic() < end
        channel.watch(1)
        channel.collect()


def work(channel, worker=0):
    """Runs one job here. This process is its own worker."""
    job = channel.take(worker, 10)
    blob, args, kwargs = channel.load(job)
    channel.reply(job[0], pickle.loads(blob)(*args, **kwargs))
    return job[0]


@pytest.fixture
def workers():
    """workers(channel, n, method): processes that work for it; killed at the end."""
    started = []

    def start(channel, n=1, method="fork", first=0):
        context = multiprocessing.get_context(method)
        new = [context.Process(target=channel_worker, args=(channel, first + i), daemon=True) for i in range(n)]
        for process in new:
            process.start()
        started.extend(new)
        return new

    yield start
    for process in started:
        process.kill()
        process.join(60)
        process.close()


class Text(str):
    pass


class Number(enum.IntEnum):
    ONE = 1


VALUES = [None, True, False, 0, 255, 256, -1, -(1 << 62), 1 << 63, 1 << 70, 1.5, b"", b"x" * 3, "text", "t\xe9xt", "",
          (), ((),), (1, ("a", (b"b", (2.5, (None, (True,)))))), [], [1, "a", (2,)], [[1]], [0] * 255, [0] * 256,
          {}, {"a": 1, 2: (b"c", None)}, {"a": [1]}, {"a": {}}, ("x" * 500, "y" * 500), "z" * 1100,
          ["z" * 1020],
          Text("a"), (Text("b"), Number.ONE), Number.ONE, {1, 2}, [1, {"a": (2,)}], b"b" * 70_000,
          bytearray(b"y" * 300_000), "u" * 100_000, np.arange(9), np.arange(20_000.0),
          (np.ones(10_000), b"z" * 100_000)]


def same(a, b):
    if isinstance(a, tuple):
        return type(b) is tuple and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (bool(np.all(a == b)) if isinstance(a, np.ndarray) else a == b)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_calls_and_results(workers, method):
    channel = Channel(2)
    workers(channel, 2, method)
    futures = [send(channel, echo, value) for value in VALUES]
    futures.append(send(channel, double, 4, times=3))
    collect(channel, *futures)
    assert all(map(same, VALUES, [future.result() for future in futures[:-1]]))
    assert futures[-1].result() == 24
    assert channel.in_flight() == 0
    assert channel.futures() == []


def test_what_is_the_same_object_stays_so():
    channel, shared = Channel(1), [1]
    future = send(channel, echo, (shared, shared))
    work(channel)
    channel.collect()
    first, second = future.result()
    assert first is second
    assert first is not shared


class Unloadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self):
        return int, ("nonsense",)


class UnloadableError(Exception):
    def __reduce__(self):
        return int, ("nonsense",)


def unloadable():
    return Unloadable()


def raise_unloadable():
    raise UnloadableError


def no_pickle():
    return lambda: None


def test_each_error_is_of_one_future(workers):
    channel = Channel(1)
    workers(channel)
    raised = send(channel, fail, KeyError("mine"))
    argument = send(channel, echo, Unloadable())
    result = send(channel, unloadable)
    exception = send(channel, raise_unloadable)
    lambda_ = send(channel, no_pickle)
    good = send(channel, echo, 5)
    collect(channel, raised, argument, result, exception, lambda_, good)
    assert good.result() == 5
    assert repr(raised.exception()) == "KeyError('mine')"
    for future in argument, result, exception:
        assert isinstance(future.exception(), ValueError)
    for future in result, exception:
        assert "unpickled" in future.exception().__notes__[0]
    assert isinstance(lambda_.exception(), (AttributeError, pickle.PicklingError))


def test_what_cannot_be_pickled_is_not_sent():
    channel = Channel(1, slots=1)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        channel.send(Future(), b"", (lambda: None,), {})
    assert channel.in_flight() == 0
    send(channel, echo, 1)
    work(channel)
    assert channel.collect() == 1


def test_room():
    channel = Channel(2, slots=3)
    calls = []
    channel.refill = lambda: calls.append(channel.in_flight())
    futures = [send(channel, echo, i) for i in range(3)]
    assert channel.futures() == futures
    extra = Future()
    assert channel.send(extra, b"", (), {}) is False
    assert channel.in_flight() == 3
    assert not calls
    work(channel)
    assert channel.collect() == 1
    assert calls == [2]
    assert channel.send(extra, pickle.dumps(echo), (7,), {})
    for _ in range(3):
        work(channel)
    assert channel.collect() == 3
    assert calls == [2]     # nothing was refused since
    assert extra.result() == 7


def test_room_for_bytes():
    """While there are as many payloads in flight as workers, and more bytes than may be."""
    channel = Channel(2, max_bytes=1_000_000)
    payload = bytes(800_000)
    assert send(channel, len, payload)
    assert send(channel, len, payload)
    assert channel.send(Future(), b"", (), {}) is False
    work(channel)
    channel.collect()
    assert send(channel, len, 1)


def test_a_revoked_task_is_not_begun():
    channel = Channel(1)
    first, second, third = (send(channel, echo, i) for i in range(3))
    job = channel.take(0)
    assert channel.is_running(first)
    assert channel.running(0) is first
    assert not channel.is_running(second)
    assert not channel.revoke(first)
    assert channel.revoke(second)
    assert not channel.revoke(second)
    assert channel.call_of(first) == (pickle.dumps(echo), (0,), {})
    assert channel.call_of(second) is None
    channel.reply(job[0], "done")
    channel.collect()
    assert first.result() == "done"
    assert not channel.is_running(first)
    assert channel.running(0) is None
    work(channel)
    channel.collect()
    assert third.result() == 2
    assert not second.done()
    with pytest.raises(standard.Empty):
        channel.take(0, 0)


def test_futures_are_in_the_order_in_which_they_were_sent():
    channel = Channel(1)
    first, second, third = (send(channel, echo, i) for i in range(3))
    for _ in first, second:
        work(channel)
        channel.collect()
    later = [send(channel, echo, i) for i in range(3)]
    assert channel.futures() == [third, *later]


def test_memory_of_revoked_tasks_is_used_again():
    channel = Channel(1)
    payload = np.ones(1_000_000)
    sizes = set()
    for _ in range(30):
        assert channel.revoke(send(channel, len, payload))
        last = send(channel, len, payload)
        work(channel)
        channel.collect()
        assert last.result() == len(payload)
        sizes.add(channel.memory_size)
    assert channel.memory_size <= 40_000_000


def test_an_answer_to_what_was_given_up():
    """A worker answers though it was buried, when its task has a successor in the same slot."""
    channel = Channel(2, slots=1)
    given_up = send(channel, echo, np.ones(100_000))
    job = channel.take(0)
    assert channel.bury(0) is given_up
    assert channel.bury(0) is None
    after = send(channel, echo, "after")
    channel.reply(job[0], np.ones(100_000))
    channel.fail(job[0], ValueError())
    assert channel.collect() == 0
    work(channel, 1)
    assert channel.collect() == 1
    assert after.result() == "after"
    assert not given_up.done()


def test_a_result_that_came_before_the_burial():
    channel = Channel(1)
    future = send(channel, echo, 3)
    work(channel)
    assert channel.bury(0) is None
    assert future.result() == 3


def test_a_future_that_has_ended():
    """It is no error, and the next one is ended."""
    channel = Channel(1)
    first, second = send(channel, echo, 1), send(channel, echo, 2)
    first.set_result("early")
    work(channel)
    work(channel)
    assert channel.collect() == 2
    assert (first.result(), second.result()) == ("early", 2)


def test_what_a_callback_raises():
    channel = Channel(1)
    first, second = send(channel, echo, 1), send(channel, echo, 2)
    first.add_done_callback(lambda _: fail(KeyboardInterrupt()))
    work(channel)
    work(channel)
    with pytest.raises(KeyboardInterrupt):
        channel.collect()
    assert second.done()


interrupts = []


def interrupt_once():
    interrupts.append(1)
    if len(interrupts) % 2 == 1:
        raise KeyboardInterrupt
    return "loaded"


class Interrupting:
    def __reduce__(self):
        return interrupt_once, ()


def test_an_interrupt_while_a_result_is_loaded():
    """It is for whoever collects, and the result is not lost."""
    channel = Channel(1)
    first, second = send(channel, echo, 1), send(channel, echo, 2)
    for value in Interrupting(), 2:
        channel.reply(channel.take(0)[0], value)
    with pytest.raises(KeyboardInterrupt):
        channel.collect()
    assert (first.result(0), second.result(0)) == ("loaded", 2)


class Leaving:
    def __reduce__(self):
        return sys.exit, ()


def test_what_a_result_raises_each_time_is_its_own():
    """A program that waits for something else does not end by it."""
    channel = Channel(1)
    first, second = send(channel, echo, 1), send(channel, echo, 2)
    for value in Leaving(), 2:
        channel.reply(channel.take(0)[0], value)
    assert channel.collect() == 2
    assert isinstance(first.exception(0), SystemExit)
    assert second.result(0) == 2


def test_an_interrupt_while_a_call_is_described():
    channel = Channel(1)
    channel.describe = lambda _: fail(KeyboardInterrupt())
    future = send(channel, echo, 1)
    channel.reply(channel.take(0)[0], Unloadable())
    with pytest.raises(KeyboardInterrupt):
        channel.collect()
    assert isinstance(future.exception(0), ValueError)


@pytest.mark.parametrize("text", [None, 5, b"bytes"])
def test_a_description_that_is_no_text(text):
    channel = Channel(1)
    channel.describe = lambda _: text
    future = send(channel, echo, 1)
    channel.reply(channel.take(0)[0], Unloadable())
    assert channel.collect() == 1
    assert "unpickled." in future.exception(0).__notes__[0]


def test_refill_fails(monkeypatch):
    """What it was to send is sent by the next."""
    channel, unraisable = Channel(1, slots=1), []
    monkeypatch.setattr("sys.unraisablehook", lambda args: unraisable.append(args.exc_type))
    errors = [ValueError("first"), KeyboardInterrupt()]
    channel.refill = lambda: fail(errors.pop(0)) if errors else refilled.append(1)
    refilled = []
    send(channel, echo, 1)
    assert not channel.send(Future(), b"", (), {})
    work(channel)
    assert channel.collect() == 1
    assert unraisable == [ValueError]
    assert not refilled
    send(channel, echo, 1)
    work(channel)
    with pytest.raises(KeyboardInterrupt):
        channel.collect()
    assert refilled == [1]      # at once: nobody may come later


def test_a_task_is_in_flight_until_its_future_has_ended():
    channel, seen = Channel(1), []
    future = send(channel, echo, 1)
    future.add_done_callback(lambda f: seen.append((channel.in_flight(), channel.futures() == [f], channel.running(0),
                                                    channel.is_running(f), channel.revoke(f))))
    work(channel)
    channel.collect()
    assert seen == [(1, True, None, True, False)]
    assert channel.in_flight() == 0


def resident():
    """Bytes of shared memory that this process has in its mappings."""
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Shmem")) * 1024


def run(channel, function, *args):
    """A call and its result, which nobody keeps."""
    future = send(channel, function, *args)
    work(channel)
    channel.collect()
    future.result(0)


def test_memory_is_given_back():
    """Beyond some that is kept, of calls and of results."""
    channel = Channel(1)
    payload = np.ones(20_000_000)
    run(channel, len, payload)
    run(channel, echo, payload)
    assert channel.memory_size > 300_000_000
    end = time.monotonic() + 30
    while resident() >= 150_000_000:
        assert time.monotonic() < end
        time.sleep(0.3)     # it is looked at once a second, and kept for a while
        run(channel, echo, 1)


def test_the_end_gives_all_memory_back():
    """But that of a result which somebody has."""
    channel = Channel(1)
    before = resident()
    future = send(channel, echo, np.ones(10_000_000))
    work(channel)
    channel.collect()
    result = future.result(0)
    run(channel, echo, np.ones(20_000_000))
    assert resident() > before + 200_000_000
    channel.recall()
    assert resident() < before + 100_000_000
    assert (result == 1).all()


@pytest.mark.parametrize("function, payload", [
    (echo, b"x" * 20_000_000), (echo, bytearray(20_000_000)), (np.negative, np.ones(2_500_000))],
    ids=["bytes", "a bytearray", "an array and a new one"])
def test_a_payload_is_in_shared_memory_once(workers, function, payload):
    """What comes back has the memory of what went there and is not needed any longer."""
    channel = Channel(1)
    workers(channel)
    for _ in range(3):
        future = send(channel, function, payload)
        collect(channel, future)
        assert len(future.result(0)) == len(payload)
        del future
    assert channel.memory_size < 22_000_000


def test_a_job_is_loaded_once_and_its_memory_is_that_of_its_arguments():
    channel = Channel(1)
    future = send(channel, echo, np.ones(2_500_000), b"x" * 20_000_000)
    job = channel.take(0, 10)
    _, (array, copy), _ = channel.load(job)
    channel.reply(job[0], copy)
    assert channel.memory_size < 42_000_000     # the second argument's, and not more
    channel.collect()
    assert future.result(0) == copy and (array == 1).all()
    with pytest.raises(pickle.UnpicklingError):
        channel.load(job)


def test_memory_that_calls_use_is_not_given_back():
    channel = Channel(1)
    payload = np.ones(20_000_000)
    run(channel, echo, payload)
    sizes, start = [], time.monotonic()
    while time.monotonic() < start + 1.5:   # it is looked at in between
        began = time.monotonic()
        run(channel, echo, payload)
        if time.monotonic() < began + 1:
            sizes.append(resident())
        else:
            sizes, start = [], time.monotonic()    # a machine so slow that they hardly use it
    assert min(sizes) > 300_000_000


def test_the_end_of_workers(workers):
    channel = Channel(3)
    first, second, third = workers(channel, 3)
    until(lambda: all(channel.worker(i)["pid"] for i in range(3)))
    channel.retire(1)
    second.join(60)
    assert second.exitcode == 0
    futures = [send(channel, time.sleep, 0.01) for _ in range(4)]
    channel.close()
    with pytest.raises(RuntimeError, match="the channel is closed"):
        channel.send(Future(), b"", (), {})
    first.join(60)
    third.join(60)
    assert (first.exitcode, third.exitcode) == (0, 0)
    assert channel.collect() == 4
    assert all(future.done() for future in futures)


def test_stop():
    channel = Channel(1)
    running, queued = send(channel, echo, 1), send(channel, echo, 2)
    job = channel.take(0)
    channel.stop()
    assert channel.futures() == [running, queued] or channel.futures() == [queued, running]
    channel.reply(job[0], 1)
    assert channel.collect() == 1
    assert channel.take(0) is None
    assert channel.futures() == [queued]
    assert channel.revoke(queued)


def test_workers_of_a_parent_that_was_killed(child):
    """They see it without being told."""
    def parent(self):
        channel = Channel(1)
        pid = os.fork()
        if pid == 0:
            channel_worker(channel, 0)
            os._exit(0)
        until(lambda: channel.worker(0)["pid"])
        self.theirs.send(("told", None))
        self.theirs.send(("result", pid))
        time.sleep(100)

    one = child(parent)
    one.wait_told()
    kind, pid = one.ours.recv()
    worker = os.pidfd_open(pid)
    os.kill(one.process.pid, signal.SIGKILL)
    import select
    assert select.select([worker], [], [], 60)[0]
    os.close(worker)


def test_what_the_board_says():
    channel = Channel(2)
    assert channel.worker(1) == {"pid": 0, "task": 0, "running": 0.0, "idle": 0.0, "tasks": 0, "busy": 0.0, "peak": 0,
                                 "bytes_in": 0, "bytes_out": 0}
    with pytest.raises(standard.Empty):
        channel.take(1, 0)
    assert channel.worker(1)["idle"] > 0
    send(channel, echo, b"x" * 1000)
    job = channel.take(1)
    record = channel.worker(1)
    assert record["pid"] == os.getpid()
    assert record["task"] == job[0]
    assert record["running"] > 0
    assert record["bytes_in"] > 1000
    channel.reply(job[0], b"y" * 2000)
    record = channel.worker(1)
    assert (record["task"], record["tasks"], record["running"]) == (0, 1, 0.0)
    assert record["busy"] > 0
    assert record["idle"] > 0
    assert record["bytes_out"] >= 2000
    assert record["peak"] > 1_000_000
    channel.bury(1)
    assert channel.worker(1)["pid"] == 0


def test_arguments():
    with pytest.raises(ValueError, match="workers must be between 1 and 4096, not 0"):
        Channel(0)
    with pytest.raises(ValueError, match="slots must be between 1 and 65536, not 65537"):
        Channel(1, slots=65537)
    channel = Channel(2)
    for method in channel.take, channel.running, channel.bury, channel.retire, channel.worker:
        with pytest.raises(ValueError, match="there is no worker 2 of 2"):
            method(2)
        with pytest.raises(TypeError):
            method("0")
    with pytest.raises(TypeError):
        channel.send(Future())
    with pytest.raises(TypeError):
        channel.reply(1)
    with pytest.raises(OverflowError):
        channel.reply(-1, None)
    with pytest.raises(TypeError):
        channel.load(None)
    with pytest.raises(TypeError, match="must be callable, not 3"):
        channel.refill = 3
    channel.refill = None
    assert channel.refill is None
    channel.reply((1 << 64) - 1, None)      # of no task
    assert channel.collect() == 0
    with pytest.raises(TypeError):
        Channel._attach(1, 2, 3)


def test_a_forked_child_is_no_parent(child):
    channel = Channel(1)
    future = send(channel, echo, 1)

    def use():
        for call in (lambda: channel.send(future, b"", (), {}), channel.collect, channel.close, channel.futures,
                     lambda: channel.revoke(future), lambda: channel.bury(0), lambda: channel.watch(0),
                     lambda: channel.interrupt(future), lambda: channel.ran(future)):
            with pytest.raises(RuntimeError, match="another process's"):
                call()
        return "refused"

    assert child(use).result() == "refused"
    work(channel)           # what the child had of it is gone, and not what is here
    channel.collect()
    assert future.result() == 1


def test_a_worker_is_no_parent():
    """It has no slots."""
    channel = Channel(1)
    attach, args = channel.__reduce__()
    attached, future = attach(*args), Future()
    for call in (attached.futures, lambda: attached.interrupt(future), lambda: attached.ran(future)):
        with pytest.raises(RuntimeError, match="another process's"):
            call()


def test_nothing_is_kept():
    class Call(Future):
        pass

    channel = Channel(1)
    futures = [send(channel, echo, i, future=Call()) for i in range(3)]
    refs = [weakref.ref(future) for future in futures]
    work(channel)
    channel.collect()
    channel.revoke(futures[1])
    del futures[:2]
    gc.collect()
    assert [ref() is None for ref in refs] == [True, True, False]
    futures[0].channel = channel        # a cycle, by the channel's slot
    channel.refill = channel.collect
    ref = weakref.ref(channel)
    del channel, futures
    gc.collect()
    assert ref() is None
    assert refs[2]() is None


def test_many_threads_send_and_collect(workers):
    channel = Channel(2, slots=64)
    workers(channel, 2)
    blob, n = pickle.dumps(echo), 300
    results, errors = {}, []

    def run(which):
        try:
            futures = []
            for i in range(n):
                future = Future()
                while not channel.send(future, blob, ((which, i),), {}):
                    channel.collect()
                futures.append(future)
            end = time.monotonic() + 60
            while not all(future.done() for future in futures) and time.monotonic() < end:
                channel.collect()
            results[which] = [future.result(0) for future in futures]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert results == {which: [(which, i) for i in range(n)] for which in range(4)}
    assert channel.in_flight() == 0


# Who waits for a TaskFuture collects.

def test_who_waits_collects(workers):
    channel = Channel(2)
    workers(channel, 2)
    pool = Pool(channel)
    futures = [send(channel, double, i, future=TaskFuture(channel, pool)) for i in range(200)]
    assert futures[100].result(60) == 200
    assert wait(futures, 60).not_done == set()
    more = [send(channel, double, i, future=TaskFuture(channel, pool)) for i in range(200)]
    assert sorted(future.result() for future in as_completed(more, 60)) == [2 * i for i in range(200)]


def test_a_wait_ends_in_time():
    channel = Channel(1)
    future = send(channel, echo, 1, future=TaskFuture(channel, Pool(channel)))
    with pytest.raises(TimeoutError):
        future.result(0.05)
    with pytest.raises(TimeoutError):
        future.result(0)


@pytest.mark.parametrize("timeout", [60, 0])
def test_a_wait_does_not_go_on_with_the_results_of_others(timeout):
    """There may always be some more."""
    channel, refills = Channel(1, slots=1), []
    pool = Pool(channel)

    def refill():
        refills.append(1)
        if len(refills) < 1000:
            send(channel, echo, len(refills))
            assert not channel.send(Future(), b"", (), {})
            work(channel)

    channel.refill = refill
    future = TaskFuture(channel, pool)
    send(channel, echo, 0, future=future)
    assert not channel.send(Future(), b"", (), {})
    work(channel)
    waited_for = future if timeout else TaskFuture(channel, pool)
    assert wait([waited_for], timeout).done == ({future} if timeout else set())
    assert len(refills) < 10


def test_several_threads_wait():
    """One collects for all; and when it leaves, the collector goes on."""
    channel = Channel(1)
    pool = Pool(channel)
    futures = [send(channel, echo, i, future=TaskFuture(channel, pool)) for i in range(3)]
    results = []
    threads = [threading.Thread(target=lambda f=future: results.append(f.result(60))) for future in futures]
    stop = threading.Event()

    def collector():
        while not stop.is_set():
            channel.watch()
            channel.collect()

    threads.append(threading.Thread(target=collector))
    for thread in threads:
        thread.start()
    for i in range(3):
        work(channel)
        until(lambda i=i: len(results) == i + 1)
    stop.set()
    channel.wake()
    for thread in threads:
        thread.join(60)
    assert results == [0, 1, 2]


def test_who_is_interrupted_as_it_leaves_leaves_the_rest_to_the_collector():
    """Results that came after its own, whose workers took it to be awake."""
    channel, futures = Channel(1, max_bytes=1_000_000), []
    pool = Pool(channel)
    mine = send(channel, len, bytes(2_000_000), future=TaskFuture(channel, pool))
    assert not channel.send(Future(), b"", (), {})
    work(channel)

    def collector():
        while not (futures and all(future.done() for future in futures)):
            channel.watch()
            with contextlib.suppress(KeyboardInterrupt):
                channel.collect()

    def refill():
        """While it collects its own, others come: an interrupt, and more than are taken at once."""
        channel.refill = None
        thread.start()
        time.sleep(0.1)     # it sleeps by now, or nobody would have to wake it
        futures.extend(send(channel, echo, i, future=TaskFuture(channel, pool)) for i in range(100))
        for i in range(100):
            channel.reply(channel.take(0)[0], i if i else Interrupting())

    channel.refill = refill
    thread = threading.Thread(target=collector, daemon=True)
    with contextlib.suppress(KeyboardInterrupt):
        mine.result(60)
    thread.join(20)
    is_noticed = not thread.is_alive()
    channel.wake()
    assert is_noticed
    assert [future.result(0) for future in futures] == ["loaded", *range(1, 100)]


def test_a_waiting_thread_sees_others_end_its_future():
    channel = Channel(1)
    future = send(channel, echo, 1, future=TaskFuture(channel, Pool(channel)))
    results = []
    thread = threading.Thread(target=lambda: results.append(future.result(60)))
    thread.start()
    time.sleep(0.05)
    future.set_result("other")
    thread.join(10)
    assert results == ["other"]


def test_callbacks_are_left_to_the_collector():
    """Whoever waits may hold a lock that they want."""
    channel = Channel(1)
    future = send(channel, echo, 1, future=TaskFuture(channel, Pool(channel)))
    lock, called = threading.Lock(), []

    def callback(_):
        with lock:
            called.append(threading.get_ident())

    future.add_done_callback(callback)
    work(channel)
    with lock:
        assert future.result(60) == 1
    assert not called
    assert channel.watch(0)
    channel.collect()
    assert called == [threading.get_ident()]
    assert not channel.watch(0)


def test_a_signal_handler_may_wait_too(workers):
    channel = Channel(2)
    workers(channel, 2)
    pool = Pool(channel)
    inner = []

    def handler(*_):
        future = send(channel, double, 4, future=TaskFuture(channel, pool))
        inner.append(future.result(60))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        outer = send(channel, time.sleep, 0.3, future=TaskFuture(channel, pool))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        outer.result(60)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert inner == [8]


def test_a_signal_handler_may_end_the_wait():
    channel = Channel(1)
    future = send(channel, echo, 1, future=TaskFuture(channel, Pool(channel)))
    before = signal.signal(signal.SIGALRM, lambda *_: fail(KeyError("signal")))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyError, match="signal"):
            future.result(60)
    finally:
        signal.signal(signal.SIGALRM, before)
    work(channel)
    assert channel.watch(0)     # nobody is taken to be awake
    assert future.result(60) == 1


def test_watch():
    channel = Channel(1)
    assert channel.watch(0) is False
    assert channel.watch(0.01) is False
    send(channel, echo, 1)
    work(channel)
    assert channel.watch() is True
    channel.collect()
    channel.wake()
    assert channel.watch() is False
    thread = threading.Thread(target=lambda: (time.sleep(0.05), work(channel)))
    send(channel, echo, 1)
    thread.start()
    assert channel.watch(60) is True
    thread.join()
    thread = threading.Thread(target=lambda: (time.sleep(0.05), channel.wake()))
    channel.collect()
    thread.start()
    assert channel.watch() is False
    thread.join()
