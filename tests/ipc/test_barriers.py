"""Barrier between processes, threads and coroutines, and when who waits at it dies."""
import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
import time
from threading import BrokenBarrierError

import pytest

from pyconc import _ipc
from pyconc.multiprocessing.synchronize import Barrier, Event, Lock


def test_one_party():
    barrier = Barrier(1)
    assert barrier.parties == 1
    for _ in range(3):
        assert barrier.wait() == 0
    assert not barrier.broken and barrier.n_waiting == 0


@pytest.mark.parametrize("parties", [0, -1, 70_000, "1"])
def test_wrong_arguments(parties):
    with pytest.raises((ValueError, TypeError)):
        Barrier(parties)
    Barrier(2, ctx=multiprocessing.get_context())


def cross(barrier, segment, lock, rounds):
    """Each counts before and after; all are as far as the others."""
    view = memoryview(segment)
    indices = []
    for i in range(rounds):
        with lock:
            view[0] += 1
        indices.append(barrier.wait(60))
        with lock:
            assert view[0] == barrier.parties * (i + 1), view[0]
        barrier.wait(60)
    assert not barrier.broken
    return indices


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_all_cross_at_once(start):
    context = multiprocessing.get_context(start)
    barrier, segment, lock = Barrier(4), _ipc.Segment(4096), Lock()
    others = [kind(target=cross, args=(barrier, segment, lock, 20))
              for kind in (context.Process, threading.Thread, context.Process)]
    for one in others:
        one.start()
    cross(barrier, segment, lock, 20)
    for one in others:
        one.join(60)
        assert getattr(one, "exitcode", 0) == 0


def test_each_has_its_place(child):
    barrier = Barrier(5)
    others = [child(lambda: [barrier.wait(60) for _ in range(50)]) for _ in range(4)]
    mine = [barrier.wait(60) for _ in range(50)]
    for places in zip(mine, *(one.result() for one in others), strict=True):
        assert sorted(places) == [0, 1, 2, 3, 4]


def test_more_come_than_parties(child):
    """Whoever is fast may be in the next round twice."""
    barrier, segment = Barrier(2), _ipc.Segment(4096)
    counts = memoryview(segment).cast("q")     # of each child, by its place

    def go_on(at):
        while True:
            counts[2 * at + barrier.wait(60)] += 1

    for at in range(4):
        child(lambda at=at: go_on(at))
    deadline = time.monotonic() + 60
    while sum(counts[:8:2]) < 400:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    first, second = sum(counts[:8:2]), sum(counts[1:8:2])
    assert abs(first - second) < 50     # they go on meanwhile


def test_the_last_one_acts(child):
    segment = _ipc.Segment(4096)
    view = memoryview(segment)

    def act():
        time.sleep(0.02)
        view[0] += 1

    barrier = Barrier(3, action=act)
    others = [child(lambda: (barrier.wait(60), view[0])) for _ in range(2)]
    barrier.wait(60)
    assert view[0] == 1
    assert [one.result()[1] for one in others] == [1, 1]
    assert view[0] == 1


def test_an_action_that_fails_breaks_it(child):
    def act():
        raise ZeroDivisionError

    barrier = Barrier(2, act)
    others = [child(lambda: barrier.wait(60))]
    results = []
    try:
        barrier.wait(60)
    except (ZeroDivisionError, BrokenBarrierError) as error:
        results.append(f"{type(error).__name__}")
    results.append(others[0].result().split(":")[0])
    assert sorted(results) == ["BrokenBarrierError", "ZeroDivisionError"]
    assert barrier.broken


def test_who_waits_too_long_breaks_it(child):
    barrier = Barrier(3)
    other = child(lambda: barrier.wait(60))
    while barrier.n_waiting < 1:
        time.sleep(0.001)
    with pytest.raises(BrokenBarrierError):
        barrier.wait(0.1)
    assert other.result().startswith("BrokenBarrierError")
    assert barrier.broken and barrier.n_waiting == 0
    with pytest.raises(BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken


def test_the_default_of_the_time():
    barrier = Barrier(2, timeout=0.06)
    with pytest.raises(BrokenBarrierError):
        barrier.wait()
    barrier = Barrier(2, None, 60)
    with pytest.raises(BrokenBarrierError):
        barrier.wait(timeout=0)


@pytest.mark.parametrize("end, broken", [("abort", True), ("reset", False)])
def test_it_is_aborted_or_reset(end, broken, child, in_time):
    barrier = Barrier(3)
    others = [child(lambda: barrier.wait(60)) for _ in range(2)]
    while barrier.n_waiting < 2:
        time.sleep(0.001)
    with in_time():
        getattr(barrier, end)()
        for one in others:
            assert one.result().startswith("BrokenBarrierError")
    assert barrier.broken is broken
    assert barrier.n_waiting == 0
    barrier.reset()
    others = [child(lambda: barrier.wait(60)) for _ in range(2)]
    assert sorted([barrier.wait(60), *(one.result() for one in others)]) == [0, 1, 2]


def test_who_comes_while_one_acts_is_in_the_next_round(child):
    acting, go = Event(), Event()

    def act():
        acting.set()
        go.wait(60)

    barrier = Barrier(1, act)
    first = child(lambda: barrier.wait(60))
    assert acting.wait(60)
    second = child(lambda: barrier.wait(60))
    time.sleep(0.1)
    assert not second.ours.poll(0)
    go.set()
    assert (first.result(), second.result()) == (0, 0)


# Deaths.

def test_a_death_at_the_barrier_breaks_it(child, in_time):
    barrier = Barrier(4)
    for _ in range(5):
        barrier.reset()
        others = [child(lambda: barrier.wait(60)) for _ in range(3)]
        while barrier.n_waiting < 3:
            time.sleep(0.001)
        with in_time():
            others[0].kill()
            for one in others[1:]:
                assert one.result().startswith("BrokenBarrierError")
            with pytest.raises(BrokenBarrierError):
                barrier.wait()


def test_the_death_of_who_acts_breaks_it(child, in_time):
    barrier = Barrier(3, action=lambda: os.kill(os.getpid(), signal.SIGKILL))
    others = [child(lambda: barrier.wait(60)) for _ in range(2)]
    while barrier.n_waiting < 2:
        time.sleep(0.001)
    with in_time():
        child(lambda: barrier.wait(60))
        for one in others:
            assert one.result().startswith("BrokenBarrierError")


def test_who_comes_after_the_death_of_one_who_acts(child, in_time):
    barrier = Barrier(1, action=lambda: os.kill(os.getpid(), signal.SIGKILL))
    killed = child(lambda: barrier.wait(60))
    killed.process.join(60)
    with in_time(), pytest.raises(BrokenBarrierError):
        barrier.wait(60)


def test_a_signal_interrupts_who_waits(meanwhile):
    barrier = Barrier(2)
    with meanwhile(os.kill, os.getpid(), signal.SIGINT):
        with pytest.raises(KeyboardInterrupt):
            barrier.wait()
    assert not barrier.broken and barrier.n_waiting == 0


# Coroutines.

def test_tasks_and_processes_cross(child):
    barrier = Barrier(4)
    others = [child(lambda: [barrier.wait(60) for _ in range(20)]) for _ in range(2)]

    async def cross():
        return [await barrier.wait_async(60) for _ in range(20)]

    async def main():
        return await asyncio.gather(cross(), cross())

    results = [*asyncio.run(main()), *(one.result() for one in others)]
    for places in zip(*results, strict=True):
        assert sorted(places) == [0, 1, 2, 3]


def test_a_task_has_its_time():
    barrier = Barrier(2, timeout=0.06)

    async def main():
        with pytest.raises(BrokenBarrierError):
            await barrier.wait_async()
        assert barrier.broken
        with pytest.raises(BrokenBarrierError):
            await barrier.wait_async()

    asyncio.run(main())


def test_a_cancelled_task_has_not_come():
    barrier = Barrier(2)

    async def main():
        task = asyncio.create_task(barrier.wait_async())
        await asyncio.sleep(0.02)
        assert barrier.n_waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert barrier.n_waiting == 0 and not barrier.broken

    asyncio.run(main())


def test_a_death_breaks_it_for_a_task(child):
    barrier = Barrier(3)
    other = child(lambda: barrier.wait(60))

    async def main():
        task = asyncio.create_task(barrier.wait_async())
        while barrier.n_waiting < 2:
            await asyncio.sleep(0.001)
        other.kill()
        with pytest.raises(BrokenBarrierError):
            await asyncio.wait_for(task, 30)

    asyncio.run(main())


# As objects.

def test_a_pickle_is_the_same():
    barrier = Barrier(2, action=print, timeout=3)
    again = pickle.loads(pickle.dumps(barrier))
    assert again.parties == 2 and again._timeout == 3
    barrier.abort()
    assert again.broken


def test_repr():
    barrier = Barrier(2)
    assert repr(barrier).endswith(f"synchronize.Barrier at {id(barrier):#x}: waiters=0/2>")
    barrier.abort()
    assert repr(barrier).endswith("broken>")


def test_it_leaves_nothing(no_leaked_objects):
    def use():
        barrier = Barrier(1, action=list)
        barrier.wait()
        barrier.abort()
        pickle.loads(pickle.dumps(barrier))

    no_leaked_objects(use)
