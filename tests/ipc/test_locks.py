"""Lock and RLock between processes, threads and coroutines, and when who has them dies."""
import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import weakref

import pytest

from pyconc.multiprocessing.synchronize import BoundedSemaphore, Condition, Lock, OwnerDied, RLock

STARTS = ["fork", "spawn", "forkserver"]
KINDS = [Lock, RLock]
both = pytest.mark.parametrize("kind", KINDS)


@both
def test_it_is_taken_and_released(kind):
    lock = kind()
    assert not lock.locked()
    assert lock.acquire() is True
    assert lock.locked()
    assert lock.release() is None
    assert not lock.locked()
    with lock as taken:
        assert taken is True
        assert lock.locked()
    assert not lock.locked()


def test_a_lock_is_taken_once():
    lock = Lock()
    lock.acquire()
    assert lock.acquire(False) is False
    assert lock.acquire(block=False) is False
    assert lock.acquire(True, 0) is False
    assert lock.acquire(True, -1) is False
    start = time.monotonic()
    assert lock.acquire(timeout=0.12) is False
    assert time.monotonic() - start >= 0.12
    lock.release()
    assert lock.acquire(False) is True


def test_a_free_lock_is_not_released():
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        Lock().release()
    lock = RLock()
    with pytest.raises(AssertionError, match="attempt to release recursive lock not owned by thread"):
        lock.release()
    with lock:
        pass
    with pytest.raises(AssertionError):
        lock.release()


def test_an_rlock_is_taken_again():
    lock = RLock()
    for _ in range(3):
        assert lock.acquire() is True
    assert lock.acquire(False) is True
    with lock:
        pass
    for _ in range(4):
        assert lock.locked()
        lock.release()
    assert not lock.locked()


@both
@pytest.mark.parametrize("args, kwargs", [((), {"timeout": float("nan")}), ((), {"timeout": "soon"}), ((1, 2, 3), {}),
                                          ((), {"blocking": True}), ((1,), {"block": 1})])
def test_wrong_arguments_take_nothing(kind, args, kwargs):
    lock = kind()
    with pytest.raises((TypeError, ValueError)):
        lock.acquire(*args, **kwargs)
    assert not lock.locked()


def test_wrong_arguments_of_the_constructor():
    with pytest.raises(TypeError):
        Lock(1)
    with pytest.raises(TypeError):
        Lock(recover=3)
    Lock(ctx=multiprocessing.get_context())


@both
def test_a_thread_waits_for_another(kind, asleep):
    lock, got = kind(), []
    lock.acquire()
    thread = threading.Thread(target=lambda: (lock.acquire(), got.append(1), lock.release()))
    thread.start()
    asleep(thread)
    assert not got
    lock.release()
    thread.join(30)
    assert got == [1]


def test_an_rlock_belongs_to_a_thread():
    lock, found = RLock(), []
    lock.acquire()

    def other():
        found.append(lock.acquire(False))
        try:
            lock.release()
        except AssertionError as error:
            found.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert found == [False, "attempt to release recursive lock not owned by thread"]
    lock.release()


def test_a_lock_is_released_by_anybody(child):
    lock = Lock()
    lock.acquire()
    assert child(lambda: lock.release()).result() is None
    assert lock.acquire(False)
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join(30)
    assert not lock.locked()


@both
def test_a_process_waits_for_another(kind, child):
    lock = kind()
    lock.acquire()
    there = child(lambda c: (c.tell(), lock.acquire(), lock.release())[1])
    there.wait_told()
    time.sleep(0.15)    # longer than a slice
    assert not there.ours.poll(0)
    lock.release()
    assert there.result() is True
    assert lock.acquire(timeout=30)


@both
def test_a_child_that_is_forked_meanwhile_does_not_have_it(kind, child):
    lock = kind()
    with lock:
        assert child(lambda: lock.acquire(False)).result() is False
    assert child(lambda: (lock.acquire(), lock.locked())).result() == (True, True)


def add_many(lock, number, count):
    for _ in range(count):
        with lock:
            value = int.from_bytes(number[:8], "little") + 1
            number[:8] = value.to_bytes(8, "little")


@both
@pytest.mark.parametrize("start", STARTS)
def test_it_excludes(kind, start, tmp_path):
    """Also as an argument of a process that was spawned."""
    from pyconc import _ipc
    context = multiprocessing.get_context(start)
    lock, segment = kind(), _ipc.Segment(4096)
    children = [context.Process(target=add_in_segment, args=(lock, segment, 2000)) for _ in range(3)]
    for one in children:
        one.start()
    add_in_segment(lock, segment, 2000)
    for one in children:
        one.join(60)
        assert one.exitcode == 0
    assert int.from_bytes(memoryview(segment)[:8], "little") == 8000


def add_in_segment(lock, segment, count):
    add_many(lock, memoryview(segment), count)


@both
def test_threads_and_processes_at_once(kind, child):
    from pyconc import _ipc
    lock, segment = kind(), _ipc.Segment(4096)
    children = [child(lambda: add_in_segment(lock, segment, 2000)) for _ in range(2)]
    threads = [threading.Thread(target=add_in_segment, args=(lock, segment, 2000)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in children:
        assert one.result() is None
    assert int.from_bytes(memoryview(segment)[:8], "little") == 10_000


@both
def test_a_pickle_is_the_same_lock(kind):
    lock = kind()
    again = pickle.loads(pickle.dumps(lock))
    assert type(again) is kind
    with lock:
        assert again.locked()
        assert again.acquire(False) is (kind is RLock)


def recovers(error):
    """Of the module, so that it can be pickled."""
    recovers.errors.append(error)


recovers.errors = []


def test_a_pickle_brings_what_recovers():
    lock = pickle.loads(pickle.dumps(Lock(recover=recovers)))
    assert pickle.loads(pickle.dumps(lock)).acquire()


# The death of an owner.

def die(lock):
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def killed(child, lock):
    """A child died with the lock; its pid."""
    one = child(lambda: die(lock))
    one.process.join(60)
    assert one.process.exitcode == -signal.SIGKILL
    return one.process.pid


@both
def test_a_dead_owner_leaves_it_to_the_next(kind, child, in_time):
    lock = kind()
    pid = killed(child, lock)
    with in_time(), pytest.raises(OwnerDied) as caught:
        lock.acquire()
    assert caught.value.pid == pid
    assert caught.value.lock is lock
    assert str(pid) in str(caught.value)
    assert lock.locked()
    lock.release()
    assert lock.acquire() is True   # told once
    lock.release()
    assert not lock.locked()


@both
@pytest.mark.parametrize("kwargs", [{"block": False}, {"timeout": 0}, {"timeout": 0.01}])
def test_who_does_not_wait_finds_it_too(kind, child, kwargs, in_time):
    lock = kind()
    killed(child, lock)
    with in_time(), pytest.raises(OwnerDied):
        while not lock.acquire(**kwargs):
            time.sleep(0.001)
    lock.release()


@both
def test_with_leaves_nobody_locked_out(kind, child, in_time):
    lock = kind()
    killed(child, lock)
    with in_time():
        with pytest.raises(OwnerDied):
            with lock:
                raise AssertionError("not reached")
        assert not lock.locked()
        with lock:
            pass


@both
def test_it_recovers(kind, child, in_time):
    errors, lock = [], None

    def recover(error):
        errors.append((error.pid, error.lock is lock, lock.locked()))

    lock = kind(recover=recover)
    for _ in range(2):
        pid = killed(child, lock)
        with in_time(), lock:
            assert errors.pop() == (pid, True, True)
        assert not errors


@both
def test_one_that_fails_to_recover_does_not_have_it(kind, child, in_time):
    def recover(error):
        raise ZeroDivisionError

    lock = kind(recover=recover)
    killed(child, lock)
    with in_time(), pytest.raises(ZeroDivisionError):
        lock.acquire()
    assert not lock.locked()
    assert lock.acquire(timeout=10)


@both
def test_who_waits_gets_it_from_the_dead(kind, child, in_time):
    """He has waited long before the owner dies."""
    lock = kind()

    def hold(one):
        lock.acquire()
        one.tell()
        time.sleep(600)

    def wait(one):
        one.tell()
        pid = None
        try:
            lock.acquire()
        except OwnerDied as error:
            pid = error.pid
        lock.release()
        return pid

    holder = child(hold)
    holder.wait_told()
    waiters = [child(wait) for _ in range(3)]
    for one in waiters:
        one.wait_told()
    time.sleep(0.1)
    with in_time():
        holder.kill()
        told = [one.result() for one in waiters]
    assert sorted(told, key=str) == sorted([holder.process.pid, None, None], key=str)


@both
def test_an_owner_that_ends_well_leaves_it_too(kind, child, in_time):
    lock = kind()
    one = child(lambda: lock.acquire())
    assert one.result() is True
    one.process.join()
    with in_time(), pytest.raises(OwnerDied):
        lock.acquire()
    lock.release()


def test_the_depth_of_a_dead_owner_is_not_inherited(child):
    lock = RLock()
    one = child(lambda: (lock.acquire(), lock.acquire(), lock.acquire()))
    one.result()
    with pytest.raises(OwnerDied):
        lock.acquire()
    lock.release()
    assert not lock.locked()


@both
def test_a_killed_waiter_blocks_nobody(kind, child, in_time):
    """Also when it dies after it was woken."""
    lock = kind()
    lock.acquire()
    for _ in range(20):
        waiters = [child(lambda c: (c.tell(), lock.acquire())) for _ in range(2)]
        for one in waiters:
            one.wait_told()
        time.sleep(0.002)
        lock.release()
        for one in waiters:
            one.kill()
        with in_time():
            try:
                lock.acquire()
            except OwnerDied:
                pass
    lock.release()


# Signals.

def test_a_signal_interrupts_who_waits(meanwhile):
    lock = Lock()
    lock.acquire()
    with meanwhile(os.kill, os.getpid(), signal.SIGINT):
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    assert lock.acquire(False) is False
    lock.release()
    assert lock.acquire(False) is True


def test_a_handler_that_returns_interrupts_nothing(meanwhile):
    lock, called = Lock(), []
    lock.acquire()

    def handler(number, frame):
        called.append(number)
        lock.release()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with meanwhile(os.kill, os.getpid(), signal.SIGUSR1):
            assert lock.acquire() is True
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert called


# What they look like.

def test_repr_of_a_lock(child):
    lock = Lock()
    assert repr(lock) == "<Lock(owner=None)>"
    with lock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
        assert child(lambda: repr(lock)).result() == "<Lock(owner=SomeOtherProcess)>"
        seen = []
        thread = threading.Thread(target=lambda: seen.append(repr(lock)))
        thread.start()
        thread.join(30)
        assert seen == ["<Lock(owner=SomeOtherThread)>"]
    thread = threading.Thread(target=lambda: (lock.acquire(), seen.append(repr(lock))), name="T1")
    thread.start()
    thread.join(30)
    assert seen[-1] == "<Lock(owner=MainProcess|T1)>"


def test_repr_of_an_rlock(child):
    lock = RLock()
    assert repr(lock) == "<RLock(None, 0)>"
    with lock, lock:
        assert repr(lock) == "<RLock(MainProcess, 2)>"
        assert child(lambda: repr(lock)).result() == "<RLock(SomeOtherProcess, nonzero)>"
        seen = []
        thread = threading.Thread(target=lambda: seen.append(repr(lock)))
        thread.start()
        thread.join(30)
        assert seen == ["<RLock(SomeOtherThread, nonzero)>"]


@both
def test_it_is_an_object_like_others(kind):
    class Named(kind):
        """With a dict of its own."""

    lock = Named()
    lock.name = "a"
    reference = weakref.ref(lock)
    assert repr(lock).startswith("<Named(")
    del lock
    gc.collect()
    assert reference() is None


# Coroutines.

@both
def test_tasks_take_turns(kind):
    lock, inside, most = kind(), 0, 0

    async def work():
        nonlocal inside, most
        for _ in range(20):
            async with lock:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

    async def main():
        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(10))), 60)

    asyncio.run(main())
    assert most == 1
    assert not lock.locked()


@both
def test_a_task_waits_for_a_process(kind, child):
    lock = kind()

    def hold(one):
        with lock:
            one.tell()
            one.theirs.recv()

    holder = child(hold)
    holder.wait_told()
    steps = []

    async def count():
        while True:
            steps.append(1)
            await asyncio.sleep(0.001)

    async def main():
        counting = asyncio.create_task(count())
        assert await lock.acquire_async(timeout=0.1) is False
        assert len(steps) > 5
        holder.ours.send("go")
        assert await lock.acquire_async(timeout=30) is True
        lock.release()
        counting.cancel()

    asyncio.run(main())
    assert holder.result() is None
    assert not lock.locked()


@both
def test_a_cancelled_task_has_taken_nothing(kind, child):
    lock = kind()
    lock.acquire()

    async def main():
        waiting = [asyncio.create_task(lock.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0.02)
        waiting[0].cancel()
        lock.release()
        await asyncio.wait_for(asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED), 30)
        await asyncio.sleep(0.02)
        assert sum(one.done() and not one.cancelled() for one in waiting) == 1
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)

    if kind is RLock:
        lock.release()
        lock.acquire()

        async def free():
            lock.release()
        asyncio.run(free())
        return
    asyncio.run(main())
    assert lock.locked()


def test_an_rlock_belongs_to_a_task():
    lock, order = RLock(), []
    taken, refused = asyncio.Event(), asyncio.Event()

    async def outer():
        async with lock:
            order.append("outer")
            taken.set()
            await refused.wait()
            async with lock:
                order.append("again")
            assert lock.acquire() is True   # it is the task's, not the thread's
            lock.release()
            order.append("end")

    async def other():
        await taken.wait()
        assert lock.acquire(False) is False
        with pytest.raises(AssertionError):
            lock.release()
        refused.set()
        async with lock:
            order.append("other")

    async def main():
        await asyncio.wait_for(asyncio.gather(outer(), other()), 30)

    asyncio.run(main())
    assert order == ["outer", "again", "end", "other"]
    assert not lock.locked()


def test_a_task_does_not_wait_for_its_own_thread():
    lock = RLock()

    async def main():
        with lock:
            with pytest.raises(RuntimeError, match="its tasks cannot wait for it"):
                await lock.acquire_async()

    asyncio.run(main())


@both
def test_a_task_gets_it_from_the_dead(kind, child):
    lock = kind()
    killed(child, lock)

    async def main():
        with pytest.raises(OwnerDied):
            async with lock:
                raise AssertionError("not reached")
        assert not lock.locked()
        async with lock:
            assert lock.locked()

    asyncio.run(asyncio.wait_for(main(), 30))


@both
def test_it_leaves_nothing(kind, no_leaked_objects):
    def use():
        lock = kind(recover=recovers)
        with lock:
            lock.acquire(False)
            repr(lock)
        pickle.loads(pickle.dumps(lock))

    no_leaked_objects(use)


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="one GIL, one thread")
@both
def test_many_threads(kind):
    lock, count = kind(), 0

    def work():
        nonlocal count
        for _ in range(3000):
            with lock:
                count += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert count == 18_000


def test_locks_of_other_kinds_are_no_locks():
    sent = Lock().send()
    with pytest.raises((ValueError, FileNotFoundError)):
        RLock.receive(sent)
    with pytest.raises((ValueError, FileNotFoundError)):
        BoundedSemaphore.receive(sent)
    with pytest.raises(TypeError):
        Condition(threading.Lock())
