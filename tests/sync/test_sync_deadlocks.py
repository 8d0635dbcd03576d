"""watch_deadlocks(): threads that wait for each other's locks."""
import logging
import threading as standard

import pytest

from pyconc import threading


@pytest.fixture
def reports():
    found = []
    threading.watch_deadlocks(callback=found.append)
    yield found
    threading.watch_deadlocks(False)


def embrace(first, second, thread, until, condition):
    """Two threads that each hold one lock and want the other, until condition() is true; then both are let go."""
    both = standard.Barrier(2)

    def take(mine, other):
        mine.acquire()
        both.wait()
        other.acquire()
        other.release()

    threads = [thread(take, first, second), thread(take, second, first)]
    until(condition)
    for lock in first, second:
        lock._at_fork_reinit() if isinstance(lock, threading.RLock) else lock.release()
    return threads


def test_cycle_of_two(reports, thread, until):
    first, second = threading.Lock(), threading.Lock()
    threads = embrace(first, second, thread, until, lambda: reports)
    [cycle] = reports
    assert {waiting.thread for waiting in cycle} == set(threads)
    assert {waiting.lock for waiting in cycle} == {first, second}
    for waiting in cycle:
        assert waiting.stack[-1].name == "take" and "other.acquire()" in waiting.stack[-1].line


def test_cycle_is_logged(caplog, thread, until):
    threading.watch_deadlocks()
    try:
        with caplog.at_level(logging.ERROR, "pyconc"):
            embrace(threading.Lock(), threading.Lock(), thread, until, lambda: caplog.records)
    finally:
        threading.watch_deadlocks(False)
    [record] = caplog.records
    assert record.getMessage().startswith("deadlock of 2 threads:\n")
    assert record.getMessage().count("in take\n") == 2


def test_cycle_of_one(reports, thread, until):
    lock = threading.Lock()

    def twice():
        lock.acquire()
        lock.acquire()

    one = thread(twice)
    until(lambda: reports)
    lock.release()
    assert [(waiting.thread, waiting.lock) for waiting in reports[0]] == [(one, lock)]


def test_cycle_of_three_with_an_rlock(reports, thread, until):
    locks = [threading.Lock(), threading.RLock(), threading.Lock()]
    all_hold = standard.Barrier(3)

    def take(place):
        mine, other = locks[place], locks[(place + 1) % 3]
        mine.acquire()
        all_hold.wait()
        other.acquire()
        other.release()
        if place != 2:
            mine.release()

    threads = [thread(take, place) for place in range(3)]
    until(lambda: reports)
    locks[2].release()
    assert len(reports[0]) == 3 and {waiting.thread for waiting in reports[0]} == set(threads)


def test_waits_with_a_timeout_and_plain_contention_are_none(reports, thread):
    lock = threading.Lock()
    with lock:
        one = thread(lambda: lock.acquire() and lock.release())
        assert not lock.acquire(timeout=0.05)
    one.join()
    assert not reports


def test_off_again(thread):
    found = []
    threading.watch_deadlocks(callback=found.append)
    threading.watch_deadlocks(False)
    lock = threading.Lock()
    lock.acquire()
    one = thread(lock.acquire)
    one.join(0.05)
    lock.release()
    one.join()
    assert not found


def test_callback_must_be_callable():
    with pytest.raises(TypeError, match="callback must be a callable, not 3"):
        threading.watch_deadlocks(callback=3)
