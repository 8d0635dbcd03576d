"""AtomicInt: no lock, no lost update, and waiting for a change."""
import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

from pyconc import _ipc
from pyconc.multiprocessing.atomic import AtomicInt

STARTS = ["fork", "spawn", "forkserver"]
starts = pytest.mark.parametrize("start", STARTS)
RANGES = {"i": (-2**31, 2**31 - 1), "I": (0, 2**32 - 1), "l": (-2**63, 2**63 - 1), "L": (0, 2**64 - 1),
          "q": (-2**63, 2**63 - 1), "Q": (0, 2**64 - 1)}
codes = pytest.mark.parametrize("code, least, most", [(code, *ends) for code, ends in RANGES.items()])


@codes
def test_operations(code, least, most):
    number = AtomicInt(code, 6)
    assert number.typecode == code
    assert number.load() == number.value == 6
    assert number.fetch_add(2) == 6
    assert number.fetch_sub(1) == 8
    assert number.fetch_and(6) == 7
    assert number.fetch_or(9) == 6
    assert number.fetch_xor(5) == 15
    assert number.exchange(most) == 10
    assert number.compare_exchange(3, 4) is False
    assert number.load() == most
    assert number.compare_exchange(most, least) is True
    assert number.load() == least
    assert number.store(3) is None
    number.value += 1
    assert number.value == 4
    assert repr(number) == f"AtomicInt('{code}', 4)"
    assert AtomicInt(code).load() == 0
    assert AtomicInt(typecode=code, value=least).load() == least


@codes
def test_arithmetic_wraps_around(code, least, most):
    number = AtomicInt(code, most)
    assert number.fetch_add(1) == most
    assert number.load() == least
    assert number.fetch_sub(1) == least
    assert number.load() == most
    number.store(least)
    number.fetch_xor(-1 if least else most)
    assert number.load() == most


@codes
def test_what_does_not_fit_is_refused(code, least, most):
    number = AtomicInt(code)
    for bad in (least - 1, most + 1, 2**80):
        for use in (number.store, number.fetch_add, number.exchange, lambda bad: number.compare_exchange(bad, 0),
                    lambda bad: number.compare_exchange(0, bad), number.wait, lambda bad: AtomicInt(code, bad)):
            with pytest.raises(OverflowError, match=f"{bad} does not fit.*'{code}'"):
                use(bad)
    for bad in (1.5, "1", None):
        with pytest.raises(TypeError):
            number.fetch_add(bad)
        with pytest.raises(TypeError):
            number.value = bad
    assert number.load() == 0


def test_bad_calls():
    for bad in ("x", "d", "\0", "qq", 5, None):
        with pytest.raises((ValueError, TypeError), match="typecode|character"):
            AtomicInt(bad)
    number = AtomicInt()
    assert number.typecode == "q"
    with pytest.raises(TypeError):
        number.compare_exchange(1)
    with pytest.raises(TypeError):
        number.wait()
    with pytest.raises(ValueError, match="positive, not 0"):
        number.wake(0)
    with pytest.raises(ValueError, match="NaN"):
        number.wait(0, timeout=float("nan"))
    with pytest.raises(AttributeError):
        del number.value
    with pytest.raises((ValueError, FileNotFoundError)):
        _ipc.AtomicInt.receive(_ipc.Cell(8).send())


def add(number, times):
    for _ in range(times):
        number.fetch_add(1)


def add_by_exchange(number, times):
    for _ in range(times):
        old = number.load()
        while not number.compare_exchange(old, old + 1):
            old = number.load()


@starts
@pytest.mark.parametrize("code", ["i", "q"])
def test_no_addition_is_lost(start, code):
    context = multiprocessing.get_context(start)
    number = AtomicInt(code)
    children = [context.Process(target=target, args=(number, 20_000)) for target in (add, add_by_exchange)]
    threads = [threading.Thread(target=target, args=(number, 20_000)) for target in (add, add_by_exchange)]
    for one in [*children, *threads]:
        one.start()
    for one in [*children, *threads]:
        one.join()
    assert number.load() == 80_000


def test_pickles_share():
    number = AtomicInt("I", 5)
    other = pickle.loads(pickle.dumps(number))
    assert type(other) is AtomicInt and other.typecode == "I"
    other.fetch_add(1)
    assert number.load() == 6


def test_wait_ends_at_once_or_too_late():
    number = AtomicInt("q", 5)
    assert number.wait(4) is True
    assert number.wait(5, 0) is False
    assert number.wait(5, timeout=-1) is False
    begun = time.monotonic()
    assert number.wait(expected=5, timeout=0.12) is False
    assert time.monotonic() - begun >= 0.12


def answer(ball, times, wakes):
    for n in range(times):
        assert ball.wait(2 * n)
        ball.fetch_add(1)
        if wakes:
            ball.wake()


@starts
def test_processes_wake_each_other(start):
    context = multiprocessing.get_context(start)
    ball = AtomicInt("i")
    child = context.Process(target=answer, args=(ball, 1000, True))
    child.start()
    for n in range(1000):
        ball.fetch_add(1)
        ball.wake(1)
        assert ball.wait(2 * n + 1, timeout=60)
    child.join()
    assert child.exitcode == 0


def test_a_change_without_a_wake_is_seen_yet():
    ball = AtomicInt("i")
    thread = threading.Thread(target=answer, args=(ball, 3, False))
    thread.start()
    for n in range(3):
        ball.fetch_add(1)
        assert ball.wait(2 * n + 1, timeout=60)
    thread.join()


def test_all_are_woken_and_one_by_one():
    number, awake = AtomicInt("i"), AtomicInt("i")

    def sleep():
        number.wait(0)
        awake.fetch_add(1)

    threads = [threading.Thread(target=sleep) for _ in range(5)]
    for thread in threads:
        thread.start()
    number.wake()       # nothing has changed: they go on sleeping
    time.sleep(0.02)
    assert awake.load() == 0
    number.store(1)
    for _ in range(5):
        number.wake(1)
    for thread in threads:
        thread.join(60)
    assert awake.load() == 5


def sleep_on(number, begun):
    begun.set()
    number.wait(0)


def test_a_waiter_that_dies_harms_nobody():
    context = multiprocessing.get_context("fork")
    number = AtomicInt("i")
    for _ in range(5):
        begun = context.Event()
        child = context.Process(target=sleep_on, args=(number, begun))
        child.start()
        begun.wait()
        time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    thread = threading.Thread(target=number.wait, args=(0,))
    thread.start()
    number.store(1)
    number.wake(1)
    thread.join(60)
    assert not thread.is_alive()


def test_a_wait_can_be_interrupted():
    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Stop):
            AtomicInt().wait(0, timeout=60)
    finally:
        signal.signal(signal.SIGALRM, before)


def change(number, begun):
    begun.wait(0)
    number.store(7)
    number.wake()


@starts
def test_a_coroutine_waits_for_another_process(start):
    context = multiprocessing.get_context(start)
    number, begun = AtomicInt("i"), AtomicInt("i")
    child = context.Process(target=change, args=(number, begun))
    child.start()

    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        waiting = asyncio.gather(*(number.wait_async(0) for _ in range(3)))
        await asyncio.sleep(0.01)
        begun.store(1)
        begun.wake()
        assert await waiting == [True] * 3
        ticking.cancel()
        assert ticks > 0
        assert await number.wait_async(0) is True
        assert await number.wait_async(7, timeout=0.06) is False
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(number.wait_async(7), 0.01)

    asyncio.run(asyncio.wait_for(main(), 60))
    child.join()
    assert child.exitcode == 0
