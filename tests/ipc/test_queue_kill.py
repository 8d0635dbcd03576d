"""Processes that use a queue are killed at any moment; the others go on, and lose nothing of their own."""
import multiprocessing
import os
import queue as standard
import random
import signal
import time

import numpy as np
import pytest

from pyconc.multiprocessing.queues import JoinableQueue, Queue

pytestmark = pytest.mark.stress
context = multiprocessing.get_context("fork")


def item_of(which, number):
    """Of all the ways an item goes: at once, pickled, in pieces of its own."""
    kind = number % 50
    if kind == 7:
        return (which, number, np.full(9000, number))
    if kind == 8:
        return (which, number, "x" * 20_000)
    if kind % 2:
        return (which, number)
    return f"{which} {number}".encode()


def read(item):
    if isinstance(item, bytes):
        which, number = item.split()
        return int(which), int(number)
    if len(item) == 3:
        assert (item[2] == item[1]).all() if item[1] % 50 == 7 else item[2] == "x" * 20_000
    return item[:2]


def produce(queue, which, batch):
    number = 0
    while True:
        if batch:
            queue.put_many([item_of(which, number + i) for i in range(batch)])
        else:
            queue.put(item_of(which, number))
        number += batch or 1


def consume(queue, out, which):
    """Tells of each item before it takes the next."""
    while True:
        out.put((which, *read(queue.get())))


def start(target, *args):
    child = context.Process(target=target, args=args, daemon=True)
    child.start()
    return child


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.join()


@pytest.mark.parametrize("maxsize", [0, 5])
@pytest.mark.parametrize("batch", [0, 7])
def test_producers_are_killed(maxsize, batch, times):
    """Of each producer its first items arrive, each once and in order, up to some number."""
    queue, numbers = Queue(maxsize), random.Random(3)
    seen, children, killed = {}, {}, 0
    rounds = times(60)

    def take(limit):
        taken = 0
        while taken < limit:
            try:
                which, number = read(queue.get(timeout=30 if limit == 1 else 0.2))
            except standard.Empty:
                assert limit != 1, "nothing comes though producers live"
                return
            assert number == seen.get(which, -1) + 1
            seen[which] = number
            taken += 1

    for which in range(rounds):
        children[which] = start(produce, queue, which, batch)
        if len(children) > 2:
            take(1)
            victim = numbers.choice(list(children))
            end = time.monotonic() + numbers.random() * 0.01
            while time.monotonic() < end:
                take(1)
            kill(children.pop(victim))
            killed += 1
            take(1)
    for child in children.values():
        kill(child)
    take(1_000_000)
    assert killed == rounds - 2
    assert queue.empty()
    assert len(seen) > 2


def produce_numbers(queue, count, size):
    for number in range(count):
        queue.put(item_of(0, number) if size == 0 else np.full(size, number))


def test_consumers_are_killed(times):
    """Each item arrives at most once, and for each one killed one is lost at most."""
    queue, out, numbers = Queue(), Queue(), random.Random(4)
    count, kills, most = 30_000, 0, times(100)
    consumers = {which: start(consume, queue, out, which) for which in range(3)}
    producer = start(produce_numbers, queue, count, 0)
    got, which = [], 3
    while len(got) + kills < count and kills < most:
        end = time.monotonic() + numbers.random() * 0.01
        while time.monotonic() < end:
            try:
                got.append(out.get(timeout=0.001))
            except standard.Empty:
                pass
        victim = numbers.choice(list(consumers))
        kill(consumers.pop(victim))
        kills += 1
        consumers[which] = start(consume, queue, out, which)
        which += 1
    producer.join()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            got.append(out.get(timeout=1))
        except standard.Empty:
            if queue.empty():
                break
    arrived = [number for _, _, number in got]
    assert len(set(arrived)) == len(arrived)
    # One is lost by who was killed with it, or by who was killed while it told of it.
    assert count - len(arrived) <= kills
    for child in consumers.values():
        kill(child)


def test_who_waits_goes_on_soon_after_a_kill(times):
    """A consumer beside those that are killed is not held up."""
    queue, back = Queue(), Queue()
    others = [start(consume, queue, back, i) for i in range(2)]
    worst = 0
    for number in range(times(60)):
        kill(others.pop(0))
        began = time.monotonic()
        queue.put((0, number))
        while True:
            try:
                back.get(timeout=30)
                break
            except standard.Empty:
                raise AssertionError("it hangs") from None
        worst = max(worst, time.monotonic() - began)
        others.append(start(consume, queue, back, number))
    for child in others:
        kill(child)
    assert worst < 5


def churn(queue):
    while True:
        queue.put(b"y" * random.choice([10, 3000, 100_000]))
        queue.put_many([1, (2, 3), np.zeros(10_000)])
        queue.get_many(3)
        queue.get()


def test_all_are_killed_and_the_queue_still_works(times):
    queue, numbers = JoinableQueue(), random.Random(5)
    children = [start(churn, queue) for _ in range(3)]
    for _ in range(times(100)):
        time.sleep(numbers.random() * 0.02)
        kill(children.pop(numbers.randrange(len(children))))
        children.append(start(churn, queue))
    for child in children:
        kill(child)
    began = time.monotonic()
    queue.put("after all")
    while queue.get(timeout=10) is not None:
        if queue.empty():
            break
    for i in range(1000):
        queue.put((i, "pickled"))
        assert queue.get(timeout=10) == (i, "pickled")
    assert time.monotonic() - began < 20
    assert queue.memory_size < 200 << 20


def get_one(queue):
    queue.get()


def test_a_killed_waiter_costs_nobody_an_item():
    queue = Queue()
    waiters = [start(get_one, queue) for _ in range(4)]
    time.sleep(0.2)
    for child in waiters[:3]:
        os.kill(child.pid, signal.SIGKILL)
    queue.put("for the last")
    waiters[3].join(20)
    taken = waiters[3].exitcode == 0
    for child in waiters:
        child.kill()
        child.join()
    # A killed one may have woken in time to take it.
    assert taken or queue.empty()
