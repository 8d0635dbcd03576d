"""Threads of one process use what is for processes, all at once: for ThreadSanitizer, too, whose children may have no
threads."""
import subprocess
import sys
import textwrap
import threading

import pytest

from pyconc.multiprocessing.atomic import AtomicInt
from pyconc.multiprocessing.queues import Queue
from pyconc.multiprocessing.sharedctypes import Array, Value
from pyconc.multiprocessing.synchronize import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

THREADS, ROUNDS = 4, 300


def at_once(*functions):
    """Runs all in threads; what one raises is raised."""
    raised = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("kind", [Lock, RLock, Semaphore, BoundedSemaphore, Condition])
def test_one_at_a_time(kind):
    lock, count = kind(), 0

    def add():
        nonlocal count
        for _ in range(ROUNDS):
            with lock:
                seen = count
                count = seen + 1

    at_once(*[add] * THREADS)
    assert count == THREADS * ROUNDS


def test_values_under_their_lock_and_atomic_ones():
    value, array, atomic = Value("q", 0), Array("q", 2), AtomicInt()

    def add():
        for _ in range(ROUNDS):
            with value.get_lock():
                value.value += 1
            with array.get_lock():
                array[1] += 1
            atomic.fetch_add(1)

    at_once(*[add] * THREADS)
    assert value.value == array[1] == atomic.load() == THREADS * ROUNDS


def test_a_queue_between_many():
    items, got = Queue(maxsize=7), []

    def put():
        for number in range(ROUNDS):
            items.put(number)

    def get():
        got.append([items.get() for _ in range(ROUNDS)])

    at_once(*[put] * THREADS, *[get] * THREADS)
    assert sorted(number for part in got for number in part) == sorted(list(range(ROUNDS)) * THREADS)


def test_events_conditions_and_barriers_in_turn():
    barrier, event, condition, turns = Barrier(THREADS), Event(), Condition(), [0]

    def go(me):
        for _ in range(ROUNDS // 3):
            barrier.wait(60)
            if me == 0:
                event.set()
            assert event.wait(60)
            with condition:
                assert condition.wait_for(lambda: turns[-1] % THREADS == me, 60)
                turns.append(me + 1)
                condition.notify_all()

    at_once(*[lambda me=me: go(me) for me in range(THREADS)])
    assert len(turns) == 1 + THREADS * (ROUNDS // 3)


def test_threads_that_make_and_drop_objects_do_not_keep_the_program_from_its_end():
    """A thread that waits for the interpreter then has nothing that the main thread waits for; without a GIL, too."""
    program = textwrap.dedent("""
        import threading, time
        from pyconc.multiprocessing.synchronize import Event

        def work():
            while True:
                Event()

        for _ in range(6):
            threading.Thread(target=work, daemon=True).start()
        kept = [Event() for _ in range(20_000)]
        time.sleep(0.05)
        """)
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
