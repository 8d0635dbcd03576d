"""call_soon_threadsafe: nothing lost, each thread's order kept, one wake for many."""
import asyncio
import collections
import contextvars
import os
import threading
import time

import pytest

import pyconc


def start(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_nothing_is_lost_and_order_is_kept(loop, threads):
    each, seen, left = 5000, [], [threads]

    def done():
        left[0] -= 1
        if not left[0]:
            loop.stop()

    def produce(name):
        for number in range(each):
            loop.call_soon_threadsafe(seen.append, (name, number))
        loop.call_soon_threadsafe(done)

    started = start(*(lambda name=name: produce(name) for name in range(threads)))
    loop.run_forever()
    for thread in started:
        thread.join()
    by_thread = collections.defaultdict(list)
    for name, number in seen:
        by_thread[name].append(number)
    assert len(by_thread) == threads
    assert all(numbers == list(range(each)) for numbers in by_thread.values())


def test_one_at_a_time_through_a_sleeping_loop(loop):
    """Each call finds the loop asleep, or about to be: none may be left waiting."""
    rounds = 2000
    answers = threading.Semaphore(0)

    def produce():
        for _ in range(rounds):
            loop.call_soon_threadsafe(answers.release)
            answers.acquire()
        loop.call_soon_threadsafe(loop.stop)

    thread, = start(produce)
    loop.run_forever()
    thread.join()


def test_ping_pong_of_two_loops():
    """Two sleeping loops wake each other: a lost wake would hang both."""
    first, second = pyconc.new_event_loop(), pyconc.new_event_loop()
    left = [3000]

    def ping():
        left[0] -= 1
        if left[0] > 0:
            second.call_soon_threadsafe(pong)
        else:
            second.call_soon_threadsafe(second.stop)
            first.stop()

    def pong():
        first.call_soon_threadsafe(ping)

    first.call_soon(ping)
    thread, = start(second.run_forever)
    first.run_forever()
    thread.join()
    first.close()
    second.close()


def test_before_the_loop_runs(either):
    seen = []
    thread, = start(lambda: either.call_soon_threadsafe(seen.append, 1))
    thread.join()
    either.call_soon_threadsafe(either.stop)
    either.run_forever()
    assert seen == [1]


def test_order_of_both_kinds(either):
    seen = []

    def schedule():
        for number in range(100):
            (either.call_soon if number % 3 else either.call_soon_threadsafe)(seen.append, number)
        either.call_soon_threadsafe(either.stop)

    schedule()
    either.run_forever()
    either.call_soon(schedule)
    either.run_forever()
    assert seen == [*range(100)] * 2


def test_wakes_are_shared(loop):
    """Ten thousand calls do not cost ten thousand system calls: the wake-up descriptor is written once a sleep."""
    before = os.times()
    for _ in range(10_000):
        loop.call_soon_threadsafe(int)
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert os.times().system - before.system < 1


def test_cancelled_before_it_runs(either):
    seen = []
    handle = either.call_soon_threadsafe(seen.append, 1)
    handle.cancel()
    either.call_soon_threadsafe(either.stop)
    either.run_forever()
    assert seen == []


def test_stop_from_another_thread(loop):
    for _ in range(50):
        thread, = start(lambda: loop.call_soon_threadsafe(loop.stop))
        loop.run_forever()
        thread.join()


def test_close_while_threads_still_call(no_leaked_fds):
    """Threads get RuntimeError from the moment the loop is closed, never a crash."""
    for _ in range(20):
        loop = pyconc.new_event_loop()
        told = []

        def produce(loop=loop, told=told):
            try:
                while True:
                    loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                told.append(str(error))

        threads = start(produce, produce)
        loop.call_later(0.005, loop.stop)
        loop.run_forever()
        loop.close()
        for thread in threads:
            thread.join()
        assert told == ["Event loop is closed"] * 2


def test_run_coroutine_threadsafe(loop):
    async def double(number):
        await asyncio.sleep(0)
        return number * 2

    results = []

    def ask():
        for number in range(200):
            results.append(asyncio.run_coroutine_threadsafe(double(number), loop).result(30))
        loop.call_soon_threadsafe(loop.stop)

    thread, = start(ask)
    loop.run_forever()
    thread.join()
    assert results == [number * 2 for number in range(200)]


def test_context_of_the_calling_thread(loop):
    variable = contextvars.ContextVar("variable", default=None)
    seen = []

    def call():
        variable.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(variable.get()))
        loop.call_soon_threadsafe(loop.stop)

    thread, = start(call)
    loop.run_forever()
    thread.join()
    assert seen == ["thread"]


def test_a_busy_loop_still_hears_threads(loop):
    def spin():
        if time.monotonic() < end:
            loop.call_soon(spin)

    end = time.monotonic() + 30
    spin()
    thread, = start(lambda: loop.call_soon_threadsafe(loop.stop))
    loop.run_forever()
    thread.join()
    assert time.monotonic() < end


def test_timers_and_threads_together(loop):
    """The loop sleeps to a deadline and is woken before it, again and again."""
    fired = []

    def tick():
        fired.append(time.monotonic())
        if len(fired) < 100:
            loop.call_later(0.0005, tick)
        else:
            loop.stop()

    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            loop.call_soon_threadsafe(int)
            time.sleep(0.0002)

    thread, = start(disturb)
    loop.call_soon(tick)
    loop.run_forever()
    stop.set()
    thread.join()
    assert all(later - earlier >= 0.0005 for earlier, later in zip(fired, fired[1:], strict=False))
