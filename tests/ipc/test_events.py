"""Event between processes, threads and coroutines."""
import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

from pyconc.multiprocessing.synchronize import Event


def test_it_is_set_and_cleared():
    event = Event()
    assert event.is_set() is False
    assert event.wait(0) is False
    assert event.wait(timeout=0.06) is False
    assert event.wait(-1) is False
    event.set()
    event.set()
    assert event.is_set() is True
    assert event.wait() is True
    assert event.wait(0) is True
    event.clear()
    event.clear()
    assert event.is_set() is False
    assert event.wait(0) is False


def test_wrong_arguments():
    with pytest.raises(TypeError):
        Event(1)
    with pytest.raises(TypeError):
        Event().wait("a")
    with pytest.raises(ValueError):
        Event().wait(float("nan"))
    Event(ctx=multiprocessing.get_context())


def wait(event, pipe):
    pipe.send("here")
    pipe.send(event.wait(60))


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_all_are_woken(start, in_time):
    context = multiprocessing.get_context(start)
    event, (ours, theirs) = Event(), context.Pipe()
    processes = [context.Process(target=wait, args=(event, theirs)) for _ in range(3)]
    got = []
    threads = [threading.Thread(target=lambda: got.append(event.wait(60))) for _ in range(3)]
    for one in processes:
        one.start()
        assert ours.recv() == "here"
    for one in threads:
        one.start()
    time.sleep(0.1)
    assert not ours.poll(0) and not got
    with in_time(30):
        event.set()
        assert [ours.recv() for _ in processes] == [True] * 3
        for one in [*threads, *processes]:
            one.join(60)
    assert got == [True] * 3


def test_who_waited_goes_on_though_it_is_cleared_at_once(child):
    event = Event()
    for _ in range(10):
        waiting = [child(lambda c: (c.tell(), event.wait(30))[1]) for _ in range(2)]
        for one in waiting:
            one.wait_told()
        time.sleep(0.06)
        event.set()
        event.clear()
        assert [one.result() for one in waiting] == [True, True]


def test_turns(child, in_time):
    here, there = Event(), Event()

    def play():
        for _ in range(300):
            there.wait()
            there.clear()
            here.set()

    other = child(play)
    with in_time(30):
        for _ in range(300):
            there.set()
            assert here.wait(20)
            here.clear()
        assert other.result() is None


def test_a_killed_waiter_is_no_matter(child, in_time):
    event = Event()
    for _ in range(10):
        waiting = [child(lambda c: (c.tell(), event.wait())) for _ in range(3)]
        for one in waiting:
            one.wait_told()
        waiting[0].kill()
        with in_time():
            event.set()
            waiting[1].kill()
            assert waiting[2].result() == (None, True)
        event.clear()


def test_a_signal_interrupts_who_waits(meanwhile):
    event = Event()
    with meanwhile(os.kill, os.getpid(), signal.SIGINT):
        with pytest.raises(KeyboardInterrupt):
            event.wait()
    event.set()
    assert event.wait()


def test_a_handler_that_returns_interrupts_nothing(meanwhile):
    event = Event()
    before = signal.signal(signal.SIGUSR1, lambda *args: event.set())
    try:
        with meanwhile(os.kill, os.getpid(), signal.SIGUSR1):
            assert event.wait() is True
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_task_waits_for_a_process(child):
    event = Event()
    other = child(lambda c: (c.theirs.recv(), event.set()))
    steps = []

    async def count():
        while True:
            steps.append(1)
            await asyncio.sleep(0.001)

    async def main():
        counting = asyncio.create_task(count())
        assert await event.wait_async(timeout=0.1) is False
        assert len(steps) > 5
        waiting = [asyncio.create_task(event.wait_async()) for _ in range(5)]
        await asyncio.sleep(0.02)
        waiting.pop(2).cancel()
        other.ours.send("go")
        assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [True] * 4
        assert await event.wait_async() is True
        counting.cancel()

    asyncio.run(main())


def test_tasks_and_processes_play(child):
    here, there = Event(), Event()

    def play():
        for _ in range(100):
            there.wait()
            there.clear()
            here.set()

    other = child(play)

    async def main():
        for _ in range(100):
            there.set()
            assert await here.wait_async(timeout=30)
            here.clear()

    asyncio.run(main())
    assert other.result() is None


def test_a_task_that_waited_goes_on_though_it_is_cleared_at_once():
    event = Event()

    async def main():
        waiting = [asyncio.create_task(event.wait_async()) for _ in range(3)]
        await asyncio.sleep(0.02)
        event.set()
        event.clear()
        assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [True] * 3

    asyncio.run(main())


def test_repr():
    event = Event()
    assert repr(event) == f"<Event at {id(event):#x} unset>"
    event.set()
    assert repr(event) == f"<Event at {id(event):#x} set>"


def test_a_pickle_is_the_same():
    event = Event()
    again = pickle.loads(pickle.dumps(event))
    event.set()
    assert again.is_set()


def test_it_leaves_nothing(no_leaked_objects):
    def use():
        event = Event()
        event.wait(0)
        event.set()
        event.wait()
        event.clear()
        pickle.loads(pickle.dumps(event))

    no_leaked_objects(use)
