"""Semaphore and BoundedSemaphore between processes, threads and coroutines, and when who has their units dies."""
import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

from pyconc.multiprocessing.synchronize import SEM_VALUE_MAX, BoundedSemaphore, Semaphore

KINDS = [Semaphore, BoundedSemaphore]
both = pytest.mark.parametrize("kind", KINDS)


@both
def test_units_are_taken_and_given_back(kind):
    semaphore = kind(2)
    assert semaphore.get_value() == 2 and not semaphore.locked()
    assert semaphore.acquire() is True
    assert semaphore.get_value() == 1
    assert semaphore.acquire(timeout=5) is True
    assert semaphore.get_value() == 0 and semaphore.locked()
    assert semaphore.acquire(False) is False
    assert semaphore.acquire(True, 0.06) is False
    assert semaphore.release() is None
    with semaphore as taken:
        assert taken is True
        assert semaphore.get_value() == 0
    assert semaphore.release() is None
    assert semaphore.get_value() == 2


def test_a_semaphore_grows():
    semaphore = Semaphore()
    for _ in range(5):
        semaphore.release()
    assert semaphore.get_value() == 6
    semaphore = Semaphore(0)
    assert semaphore.acquire(False) is False
    semaphore.release()
    assert semaphore.acquire(False) is True


def test_a_bounded_one_does_not():
    for value in (0, 1, 3, 5000):
        semaphore = BoundedSemaphore(value)
        with pytest.raises(ValueError, match="semaphore or lock released too many times"):
            semaphore.release()
        assert semaphore.get_value() == value


@both
@pytest.mark.parametrize("value", [-1, SEM_VALUE_MAX + 1])
def test_wrong_values(kind, value):
    with pytest.raises(ValueError):
        kind(value)


def test_wrong_arguments():
    with pytest.raises(TypeError):
        Semaphore("1")
    with pytest.raises(TypeError):
        Semaphore(1, recover=2)
    with pytest.raises(ValueError, match="owners"):
        BoundedSemaphore(5000, recover=print)
    Semaphore(1, ctx=multiprocessing.get_context())


def test_the_most_units():
    semaphore = Semaphore(SEM_VALUE_MAX)
    with pytest.raises(ValueError):
        semaphore.release()
    semaphore.acquire()
    semaphore.release()
    assert semaphore.get_value() == SEM_VALUE_MAX


@both
def test_each_unit_lets_one_pass(kind, child):
    """However many wait, and whatever they are."""
    semaphore = kind(6)
    for _ in range(6):
        semaphore.acquire()
    # The processes stay, so that none of their units comes back.
    there = [child(lambda c: (semaphore.acquire(), c.tell(), time.sleep(600))) for _ in range(3)]
    passed = []
    threads = [threading.Thread(target=lambda: passed.append(semaphore.acquire())) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert not passed

    def count():
        return len(passed) + sum(one.ours.poll(0) for one in there)

    for wanted in range(1, 7):
        semaphore.release()
        deadline = time.monotonic() + 30
        while count() < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.02)
        assert count() == wanted
    for thread in threads:
        thread.join(30)


@both
def test_many_at_once_wake_as_many(kind, in_time):
    semaphore = kind(8)
    for _ in range(8):
        semaphore.acquire()
    threads = [threading.Thread(target=semaphore.acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    with in_time():
        for _ in range(8):
            semaphore.release()
        for thread in threads:
            thread.join(30)
    assert semaphore.get_value() == 0


def give(semaphore, count):
    for _ in range(count):
        semaphore.release()


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_it_signals(start):
    """A producer releases what a consumer takes."""
    semaphore = Semaphore(0)
    process = multiprocessing.get_context(start).Process(target=give, args=(semaphore, 500))
    process.start()
    for _ in range(500):
        assert semaphore.acquire(timeout=60)
    process.join(60)
    assert semaphore.get_value() == 0


@both
def test_a_pickle_is_the_same(kind):
    semaphore = kind(2)
    again = pickle.loads(pickle.dumps(semaphore))
    assert type(again) is kind
    again.acquire()
    assert semaphore.get_value() == 1
    assert repr(again) == repr(semaphore)


def test_repr():
    assert repr(Semaphore(3)) == "<Semaphore(value=3)>"
    semaphore = BoundedSemaphore(3)
    semaphore.acquire()
    assert repr(semaphore) == "<BoundedSemaphore(value=2, maxvalue=3)>"


# The death of who has units.

def killed(child, function):
    def die():
        function()
        os.kill(os.getpid(), signal.SIGKILL)

    one = child(die)
    one.process.join(60)
    assert one.process.exitcode == -signal.SIGKILL
    return one.process.pid


def test_units_of_the_dead_come_back(child, in_time):
    semaphore = BoundedSemaphore(3)
    killed(child, lambda: (semaphore.acquire(), semaphore.acquire(), semaphore.acquire()))
    with in_time():
        for _ in range(3):
            assert semaphore.acquire() is True
    assert semaphore.acquire(False) is False
    for _ in range(3):
        semaphore.release()
    assert semaphore.get_value() == 3


def test_who_waits_gets_them(child, in_time):
    semaphore = BoundedSemaphore(2)

    def hold(one):
        semaphore.acquire()
        semaphore.acquire()
        one.tell()
        time.sleep(600)

    holder = child(hold)
    holder.wait_told()
    waiters = [child(lambda: semaphore.acquire() and (time.sleep(0.3), semaphore.release())[1]) for _ in range(2)]
    time.sleep(0.1)
    with in_time():
        holder.kill()
        for one in waiters:
            assert one.result() is None
    assert semaphore.get_value() == 2


@pytest.mark.parametrize("kwargs", [{"block": False}, {"timeout": 0.01}])
def test_who_does_not_wait_gets_them_too(child, kwargs, in_time):
    semaphore = BoundedSemaphore(1)
    killed(child, lambda: semaphore.acquire())
    with in_time():
        while not semaphore.acquire(**kwargs):
            time.sleep(0.001)


def test_no_more_come_back_than_are_missing(child):
    """One process takes, another gives back, and the first dies."""
    semaphore = BoundedSemaphore(2)

    def take(one):
        semaphore.acquire()
        semaphore.acquire()
        one.tell()
        time.sleep(600)

    taker = child(take)
    taker.wait_told()
    semaphore.release()
    semaphore.release()
    taker.kill()
    assert semaphore.get_value() == 2
    assert semaphore.acquire(False) and semaphore.acquire(False)
    assert semaphore.acquire(timeout=0.2) is False
    semaphore.release()
    semaphore.release()
    with pytest.raises(ValueError):
        semaphore.release()


def test_a_plain_semaphore_gives_nothing_back(child):
    semaphore = Semaphore(1)
    killed(child, lambda: semaphore.acquire())
    assert semaphore.acquire(timeout=0.2) is False
    semaphore.release()
    assert semaphore.acquire(timeout=0.2) is True


@both
def test_who_takes_a_unit_of_the_dead_may_be_told(kind, child, in_time):
    errors = []
    semaphore = kind(2, recover=errors.append)
    pid = killed(child, lambda: (semaphore.acquire(), semaphore.acquire()))
    with in_time():
        assert semaphore.acquire() and semaphore.acquire()
    assert [error.pid for error in errors] == [pid, pid]
    assert errors[0].lock is semaphore
    semaphore.release()
    with semaphore:
        pass
    assert len(errors) == 2


def test_one_that_fails_to_recover_has_not_taken_it(child, in_time):
    def recover(error):
        raise ZeroDivisionError

    semaphore = BoundedSemaphore(1, recover=recover)
    killed(child, lambda: semaphore.acquire())
    with in_time(), pytest.raises(ZeroDivisionError):
        semaphore.acquire()
    assert semaphore.get_value() == 1
    assert semaphore.acquire(timeout=10)


def test_one_with_owners_grows():
    semaphore = Semaphore(1, recover=print)
    for _ in range(5):
        semaphore.release()
    assert semaphore.get_value() == 6
    for _ in range(6):
        assert semaphore.acquire(False)
    assert semaphore.acquire(False) is False
    for _ in range(960):
        semaphore.release()
    with pytest.raises(ValueError):
        semaphore.release()


@both
def test_a_killed_waiter_blocks_nobody(kind, child, in_time):
    semaphore = kind(1)
    for _ in range(20):
        semaphore.acquire()
        waiters = [child(lambda c: (c.tell(), time.sleep(0), semaphore.acquire(timeout=30), time.sleep(600)))
                   for _ in range(2)]
        for one in waiters:
            one.wait_told()
        time.sleep(0.002)
        for one in waiters:
            one.process.kill()
        semaphore.release()
        for one in waiters:
            one.kill()
        with in_time():
            if not semaphore.acquire(timeout=0.5):  # one of them had it, and a plain semaphore has lost it
                assert kind is Semaphore
        semaphore.release()


# Signals and coroutines.

@both
def test_a_signal_interrupts_who_waits(kind, meanwhile):
    semaphore = kind(1)
    semaphore.acquire()
    with meanwhile(os.kill, os.getpid(), signal.SIGINT):
        with pytest.raises(KeyboardInterrupt):
            semaphore.acquire()
    semaphore.release()
    assert semaphore.acquire(False) is True


@both
def test_tasks_share_the_units(kind):
    semaphore, inside, most = kind(3), 0, 0

    async def work():
        nonlocal inside, most
        for _ in range(10):
            async with semaphore:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

    async def main():
        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(10))), 60)
        assert await semaphore.acquire_async(timeout=1)

    asyncio.run(main())
    assert most == 3
    assert semaphore.get_value() == 2


@both
def test_tasks_wait_for_a_process(kind, child):
    semaphore = kind(3)
    for _ in range(3):
        semaphore.acquire()

    def release(one):
        for _ in range(3):
            one.theirs.recv()
            semaphore.release()
        time.sleep(600)

    other = child(release)

    async def main():
        assert await semaphore.acquire_async(timeout=0.06) is False
        waiting = [asyncio.create_task(semaphore.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0.02)
        for done in (1, 2, 3):
            other.ours.send("go")
            deadline = time.monotonic() + 30
            while sum(one.done() for one in waiting) < done:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            assert sum(one.done() for one in waiting) == done
        assert await asyncio.gather(*waiting) == [True] * 3

    asyncio.run(main())


def test_a_cancelled_task_has_taken_nothing(child):
    semaphore = Semaphore(0)

    async def main():
        waiting = [asyncio.create_task(semaphore.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0.02)
        waiting[0].cancel()
        waiting[1].cancel()
        semaphore.release()
        assert await asyncio.wait_for(waiting[2], 30) is True

    asyncio.run(main())
    assert semaphore.get_value() == 0


@both
def test_it_leaves_nothing(kind, no_leaked_objects):
    def use():
        semaphore = kind(2, recover=print)
        with semaphore:
            semaphore.acquire(False)
            repr(semaphore)
        pickle.loads(pickle.dumps(semaphore))

    no_leaked_objects(use)
