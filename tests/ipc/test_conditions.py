"""Condition between processes, threads and coroutines, and when who waits or notifies dies."""
import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

from pyconc import _ipc
from pyconc.multiprocessing.synchronize import Condition, Event, Lock, OwnerDied, RLock, Semaphore

over_both = pytest.mark.parametrize("kind", [Lock, RLock])


class Number:
    """One that processes share."""

    def __init__(self):
        self.segment = _ipc.Segment(4096)
        self.view = memoryview(self.segment)

    def __getstate__(self):
        return self.segment

    def __setstate__(self, segment):
        self.segment, self.view = segment, memoryview(segment)

    @property
    def value(self):
        return self.view[0]

    @value.setter
    def value(self, value):
        self.view[0] = value


def reaches(function, value):
    deadline = time.monotonic() + 30
    while function() != value:
        assert time.monotonic() < deadline, (function(), value)
        time.sleep(0.001)
    time.sleep(0.03)
    assert function() == value


def test_its_lock():
    lock = Lock()
    for condition in (Condition(), Condition(lock), Condition(lock=RLock())):
        with condition as taken:
            assert taken is True
            assert condition.locked()
        assert condition.acquire() is True
        assert condition.acquire(block=False) is (condition._lock is not lock)
        condition.release()
        assert not lock.locked()
    with pytest.raises(TypeError, match="a Condition needs a Lock or RLock"):
        Condition(threading.RLock())
    Condition(ctx=multiprocessing.get_context())


@over_both
def test_the_lock_must_be_held(kind, child):
    condition = Condition(kind())

    def wrong(held):
        for function in (condition.wait, condition.notify, condition.notify_all):
            with pytest.raises(AssertionError, match="must acquire|lock is not owned"):
                function()

    wrong(False)
    with condition:
        assert child(lambda: wrong(True)).result() is None
        thread = threading.Thread(target=wrong, args=(True,))
        thread.start()
        thread.join()
    with pytest.raises(AssertionError):
        condition.wait_for(lambda: False)


@over_both
def test_a_wait_ends_in_time(kind):
    condition = Condition(kind())
    with condition:
        assert condition.wait(0) is False
        assert condition.wait(-1) is False
        start = time.monotonic()
        assert condition.wait(timeout=0.12) is False
        assert time.monotonic() - start >= 0.12
        assert condition.locked()
        assert condition.wait_for(lambda: 0, timeout=0.06) == 0
        assert condition.wait_for(lambda: 7) == 7
    assert not condition.locked()
    assert condition._waiting() == 0


def wait(condition, sleeping, woken, timeout=None):
    with condition:
        sleeping.release()
        assert condition.wait(timeout) is (timeout is None)
        woken.release()


@over_both
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_as_many_are_woken(kind, start):
    context = multiprocessing.get_context(start)
    condition, sleeping, woken = Condition(kind()), Semaphore(0), Semaphore(0)
    waiting = [kind(target=wait, args=(condition, sleeping, woken))
               for kind in (context.Process, threading.Thread) for _ in range(3)]
    for one in waiting:
        one.start()
    for _ in waiting:
        assert sleeping.acquire(timeout=60)
    reaches(condition._waiting, 6)
    assert woken.get_value() == 0
    for n, reached in ((None, 1), (2, 3), (0, 3), (-1, 3), (1, 4), (7, 6), (1, 6)):
        with condition:
            condition.notify() if n is None else condition.notify(n=n)
        reaches(woken.get_value, reached)
    for one in waiting:
        one.join(60)
    assert not condition.locked()


def test_all_are_woken(child):
    condition, sleeping, woken = Condition(), Semaphore(0), Semaphore(0)
    for _ in range(3):
        waiting = [child(lambda: wait(condition, sleeping, woken)) for _ in range(4)]
        late = [child(lambda: wait(condition, sleeping, woken, 0.05))]
        for _ in range(5):
            sleeping.acquire()
        late[0].result()
        with condition:
            condition.notify_all()
        assert [one.result() for one in waiting] == [None] * 4
        assert condition._waiting() == 0


def test_who_has_waited_longest_is_woken_first():
    condition, order = Condition(), []

    def wait(number):
        with condition:
            condition.wait()
            order.append(number)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        reaches(condition._waiting, number + 1)
    for number in range(8):
        with condition:
            condition.notify()
        reaches(lambda: len(order), number + 1)
    for one in threads:
        one.join(30)
    assert order == sorted(order)


def test_a_notification_is_for_who_waited_then():
    """Not for one who comes later, though he may be faster."""
    condition, order = Condition(), []

    def wait():
        with condition:
            order.append(condition.wait(30))

    first = threading.Thread(target=wait)
    first.start()
    reaches(condition._waiting, 1)
    with condition:
        condition.notify()
        assert condition.wait(0.2) is False
    first.join(30)
    assert order == [True]


def test_nobody_is_notified_for_later():
    condition = Condition()
    with condition:
        condition.notify_all()
        condition.notify(3)
        assert condition.wait(0.1) is False


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_wait_lets_go_of_an_rlock_at_any_depth(depth, child):
    condition = Condition(RLock())
    for _ in range(depth):
        condition.acquire()

    def notify():
        with condition:
            condition.notify()

    other = child(notify)
    assert condition.wait(30) is True
    assert other.result() is None
    for _ in range(depth):
        assert condition.locked()
        condition.release()
    assert not condition.locked()


def test_turns(child, in_time):
    condition, turn = Condition(), Number()

    def play(me):
        for _ in range(300):
            with condition:
                assert condition.wait_for(lambda: turn.value == me, 30)
                turn.value = 1 - me
                condition.notify()

    other = child(lambda: play(1))
    with in_time(60):
        play(0)
        assert other.result() is None


def test_more_than_there_are_seats(in_time):
    """Those without a seat are woken, too."""
    condition, woken = Condition(), []

    def wait():
        with condition:
            woken.append(condition.wait(60))

    threads = [threading.Thread(target=wait) for _ in range(150)]
    for one in threads:
        one.start()
    reaches(condition._waiting, 120)
    time.sleep(0.3)
    with in_time(60):
        with condition:
            condition.notify(130)
        reaches(lambda: len(woken) >= 130, True)
        with condition:
            condition.notify_all()
        for one in threads:
            one.join(60)
    assert woken == [True] * 150


# Deaths.

def waiter(child, condition):
    one = child(lambda c: (condition.acquire(), c.tell(), condition.wait(), condition.release()))
    one.wait_told()
    with condition:     # he has let go of it, so he waits
        pass
    return one


def test_a_killed_waiter_eats_no_notification(child, in_time):
    condition = Condition()
    for _ in range(10):
        first, second = waiter(child, condition), waiter(child, condition)
        first.kill()
        with in_time():
            with condition:
                condition.notify()
            assert second.result()[2] is True


def test_one_killed_after_it_was_notified_eats_none_either(child, in_time):
    condition = Condition()
    for _ in range(20):
        first, second = waiter(child, condition), waiter(child, condition)
        with in_time():
            with condition:
                condition.notify()
                first.kill()        # he has not got the lock
            assert second.result()[2] is True


def test_one_that_comes_later_gets_nothing_of_the_dead(child):
    condition = Condition()
    first = waiter(child, condition)
    with condition:
        condition.notify()
        first.kill()
        assert condition.wait(0.3) is False
    # And his seat is free again.
    with condition:
        condition.wait(0.1)
    assert condition._waiting() == 0


def test_the_dead_take_no_seats_from_the_living(child, in_time):
    """Notifications would go to them, one by one, and to nobody else."""
    condition = Condition()

    def wait():
        with condition:
            condition.wait()

    def fill(c):
        threads = [threading.Thread(target=wait) for _ in range(120)]
        for one in threads:
            one.start()
        reaches(condition._waiting, 120)
        c.tell()
        signal.pause()

    dead = child(fill)
    dead.wait_told()
    dead.kill()
    living = waiter(child, condition)
    with in_time():
        with condition:
            condition.notify()
        assert living.result()[2] is True


def test_a_notifier_waits_for_nobody(child, in_time):
    """The standard one waits for ever for a waiter that was killed."""
    condition = Condition()
    waiting = [waiter(child, condition) for _ in range(3)]
    for one in waiting:
        os.kill(one.process.pid, signal.SIGSTOP)
    with in_time(5):
        with condition:
            condition.notify()
            condition.notify_all()
    for one in waiting:
        one.kill()
    with condition:
        condition.notify_all()
        assert condition.wait(0.1) is False


def test_who_dies_with_the_lock_leaves_it_to_who_waits(child, in_time):
    condition = Condition()
    waiting = waiter(child, condition)

    def die():
        condition.acquire()
        condition.notify()
        os.kill(os.getpid(), signal.SIGKILL)

    with in_time():
        killed = child(die)
        assert waiting.result().startswith("OwnerDied")
    killed.process.join()
    with in_time(), pytest.raises(OwnerDied):   # that one died with it, too
        condition.acquire()
    condition.release()


def test_a_wait_recovers(child, in_time):
    errors = []
    condition = Condition(RLock(recover=lambda error: errors.append(error.pid)))

    def die():
        with condition:
            condition.notify()
            os.kill(os.getpid(), signal.SIGKILL)

    with in_time(), condition:
        killed = child(die)
        assert condition.wait(30) is True
        assert errors == [killed.process.pid]


# Signals.

def test_a_signal_interrupts_who_waits(meanwhile):
    condition = Condition()
    with condition:
        with meanwhile(os.kill, os.getpid(), signal.SIGINT):
            with pytest.raises(KeyboardInterrupt):
                condition.wait()
        assert condition.locked()
        assert condition._waiting() == 0
    assert not condition.locked()


def test_what_an_interrupted_one_was_notified_of_goes_to_another(asleep):
    condition, got = Condition(), []

    def handler(number, frame):
        with condition:
            condition.notify()
        raise KeyError

    def wait():
        with condition:
            got.append(condition.wait(30))

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread()

    def interrupt():
        reaches(condition._waiting, 1)
        thread.start()
        reaches(condition._waiting, 2)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=wait)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        with pytest.raises(KeyError):
            with condition:
                condition.wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
    helper.join(30)
    thread.join(30)
    assert got == [True] and main.is_alive()


def test_nor_is_one_lost_that_is_interrupted_on_the_way_to_the_lock():
    condition, got = Condition(), []

    def handler(number, frame):
        raise KeyError

    def wait():
        with condition:
            got.append(condition.wait(30))

    def notify():
        reaches(condition._waiting, 1)
        thread.start()
        reaches(condition._waiting, 2)
        with condition:
            condition.notify()      # the main thread, which has waited longest
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.2)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=wait)
    helper = threading.Thread(target=notify)
    helper.start()
    try:
        with pytest.raises(KeyError), condition:
            condition.wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
    helper.join(30)
    thread.join(60)
    assert got == [True]


# Coroutines.

@over_both
def test_tasks_and_processes_take_turns(kind, child):
    condition, turn = Condition(kind()), Number()

    def play():
        for _ in range(50):
            with condition:
                assert condition.wait_for(lambda: turn.value == 1, 30)
                turn.value = 0
                condition.notify()

    other = child(play)

    async def main():
        for _ in range(50):
            async with condition:
                assert await condition.wait_for_async(lambda: turn.value == 0, timeout=30)
                turn.value = 1
                condition.notify()

    asyncio.run(main())
    assert other.result() is None
    assert not condition.locked()


@over_both
def test_as_many_tasks_are_woken(kind):
    condition, woken = Condition(kind()), []

    async def wait(number):
        async with condition:
            assert await condition.wait_async() is True
            woken.append(number)

    async def main():
        waiting = [asyncio.create_task(wait(number)) for number in range(6)]
        await asyncio.sleep(0.02)
        for n, reached in ((1, 1), (2, 3), (9, 6)):
            async with condition:
                condition.notify(n)
            await asyncio.sleep(0.2)
            assert sorted(woken) == list(range(reached))
        await asyncio.gather(*waiting)

    asyncio.run(asyncio.wait_for(main(), 60))
    assert condition._waiting() == 0


@over_both
def test_a_task_waits_no_longer_than_it_wants(kind):
    condition = Condition(kind())

    async def main():
        with pytest.raises(AssertionError):
            await condition.wait_async()
        async with condition:
            assert await condition.wait_async(timeout=0.06) is False
            assert await condition.wait_for_async(lambda: 0, 0.06) == 0
            assert condition.locked()

    asyncio.run(main())
    assert not condition.locked()
    assert condition._waiting() == 0


@over_both
def test_a_cancelled_task_has_the_lock_and_passes_on(kind):
    condition, events = Condition(kind()), []

    async def wait(name):
        async with condition:
            try:
                events.append((name, await condition.wait_async()))
            except asyncio.CancelledError:
                events.append((name, condition.locked()))
                raise

    async def main():
        first, second = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
        await asyncio.sleep(0.02)
        async with condition:
            condition.notify()
            first.cancel()
        await asyncio.wait_for(second, 30)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert sorted(events) == [(1, True), (2, True)]

    asyncio.run(main())
    assert not condition.locked()
    assert condition._waiting() == 0


@over_both
@pytest.mark.parametrize("when", ["before", "notified", "looks for the lock"])
def test_a_wait_that_is_closed_leaves_the_notification_to_another(kind, when, child):
    """By GeneratorExit, as when its loop is gone: nobody takes the lock back, and none is held."""
    condition, go_on = Condition(kind()), Event()

    def notify(here):
        with condition:
            condition.notify()
            here.tell()
            go_on.wait(60)

    async def main():
        await condition.acquire_async()
        first = condition.wait_async()
        turn = first.send(None)
        second = waiter(child, condition)
        if when == "before":
            first.close()
        child(notify).wait_told()
        if when == "looks for the lock":
            turn.set_result(None)
            first.send(None)
        first.close()
        go_on.set()
        assert second.result()[2] is True

    asyncio.run(main())
    with condition:
        assert condition._waiting() == 0
        condition.notify_all()


def test_a_wait_that_is_closed_when_nobody_else_waits_leaves_no_seat_taken():
    condition = Condition()

    async def main():
        for _ in range(130):
            await condition.acquire_async()
            wait = condition.wait_async()
            wait.send(None)
            with condition:
                condition.notify()
            wait.close()
        assert not condition.locked()
        await condition.acquire_async()
        wait = condition.wait_async()
        wait.send(None)
        assert condition._waiting() == 1
        wait.close()

    asyncio.run(main())


def test_an_rlock_of_a_task_at_any_depth():
    condition = Condition(RLock())

    async def main():
        async with condition, condition:
            asyncio.get_running_loop().call_later(0.02, notify)
            assert await condition.wait_async(30) is True
            assert condition._lock._depth() == 2
        assert not condition.locked()

    def notify():
        with condition:
            condition.notify()

    asyncio.run(main())


def test_a_task_inherits_from_the_dead(child):
    condition = Condition()
    first = waiter(child, condition)

    async def main():
        async with condition:
            waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        async with condition:
            condition.notify()
            first.kill()
        assert await asyncio.wait_for(waiting, 30) is True

    async def second():
        async with condition:
            return await condition.wait_async()

    asyncio.run(main())


def test_a_task_has_the_lock_though_recovery_failed(child):
    def recover(error):
        raise ZeroDivisionError

    condition = Condition(RLock(recover=recover))

    def die():
        with condition:
            condition.notify()
            os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        async with condition:
            child(die)
            with pytest.raises(ZeroDivisionError):
                await condition.wait_async(30)
            assert condition.locked()
        assert not condition.locked()

    asyncio.run(main())
    assert condition._waiting() == 0
    with condition:
        assert condition.wait(0) is False


def test_more_tasks_than_seats():
    condition = Condition()

    async def wait():
        async with condition:
            return await condition.wait_async()

    async def main():
        waiting = [asyncio.create_task(wait()) for _ in range(300)]
        while condition._waiting() < 120:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        async with condition:
            condition.notify_all()
        assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [True] * 300

    asyncio.run(main())


# As objects.

def test_a_pickle_is_the_same():
    condition = Condition(Lock())
    again = pickle.loads(pickle.dumps(condition))
    assert type(again) is Condition and type(again._lock) is Lock
    with condition:
        assert again.locked()


def test_repr():
    condition = Condition(Lock())
    assert repr(condition) == "<Condition(<Lock(owner=None)>, 0)>"


def test_it_leaves_nothing(no_leaked_objects):
    event = Event()

    def use():
        condition = Condition()
        with condition:
            condition.wait(0)
            condition.notify_all()
        pickle.loads(pickle.dumps(condition))
        event.set()

    no_leaked_objects(use)
