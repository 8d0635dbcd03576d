"""Workers of a channel are killed at any moment: each task is over once, run again only if it was the dead one's."""
import mmap
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from pyconc._ipc import Channel
from tests.ipc.conftest import channel_worker

context = multiprocessing.get_context("fork")
runs = None     # how often each task was begun, a byte for each


def run(number, payload):
    runs[number] += 1
    return number, payload


def payload_of(number):
    kind = number % 50
    if kind == 7:
        return np.full(20_000, number)
    if kind == 8:
        return "x" * 20_000
    if kind == 9:
        return bytes(100_000)
    return number


class Ended(Future):
    """Counts how often it was ended."""

    times = 0

    def set_result(self, result):
        self.times += 1
        super().set_result(result)


class Workers:
    def __init__(self, channel):
        self.channel = channel
        self.processes = [self.start(i) for i in range(channel.workers)]
        self.kills = 0

    def start(self, number):
        process = context.Process(target=channel_worker, args=(self.channel, number), daemon=True)
        process.start()
        return process

    def kill(self, number):
        """The Future of what it had begun, if any, with its call."""
        os.kill(self.processes[number].pid, signal.SIGKILL)
        self.processes[number].join()
        self.kills += 1
        self.channel.collect()
        suspect = self.channel.running(number)
        call = None if suspect is None else self.channel.call_of(suspect)
        guilty = self.channel.bury(number)
        assert guilty is suspect
        self.processes[number] = self.start(number)
        return guilty, call

    def end(self):
        for process in self.processes:
            process.kill()
            process.join(60)


@pytest.fixture
def counts():
    global runs
    runs = mmap.mmap(-1, 20_000)
    yield
    runs.close()


@pytest.mark.parametrize("pause", [0.0005, 0.01])
def test_workers_are_killed(counts, pause):
    channel, numbers = Channel(3, slots=50), random.Random(7)
    workers = Workers(channel)
    blob, count = pickle.dumps(run), 6000
    futures, blamed = [Ended() for _ in range(count)], [0] * count
    to_send = [(future, (blob, (i, payload_of(i)), {})) for i, future in enumerate(futures)][::-1]
    number_of = {future: i for i, future in enumerate(futures)}
    end = time.monotonic() + 120
    try:
        while (to_send or channel.in_flight() or workers.kills < 60) and time.monotonic() < end:
            until = time.monotonic() + numbers.random() * pause
            while time.monotonic() < until:
                while to_send and channel.send(to_send[-1][0], *to_send[-1][1]):
                    to_send.pop()
                channel.collect()
            if workers.kills < 60:
                guilty, call = workers.kill(numbers.randrange(3))
                if guilty is not None:
                    blamed[number_of[guilty]] += 1
                    to_send.append((guilty, call))
    finally:
        workers.end()
    assert not to_send
    assert channel.in_flight() == 0
    assert [future.times for future in futures] == [1] * count
    for i, future in enumerate(futures):
        number, payload = future.result(0)
        assert number == i
        assert np.all(payload == payload_of(i))
        assert runs[i] <= 1 + blamed[i]
    assert workers.kills == 60
    assert sum(blamed) <= 60


def test_nothing_is_left_behind(counts):
    """The memory of tasks and results of the dead is used again."""
    channel, numbers = Channel(2, slots=8), random.Random(8)
    workers = Workers(channel)
    blob, payload = pickle.dumps(run), np.ones(500_000)     # 4 MB
    try:
        for i in range(40):
            futures = [Future() for _ in range(4)]
            for future in futures:
                assert channel.send(future, blob, (i, payload), {})
            time.sleep(numbers.random() * 0.01)
            guilty, _ = workers.kill(i % 2)
            end = time.monotonic() + 60
            while not all(future.done() or future is guilty for future in futures) and time.monotonic() < end:
                channel.watch(0.1)
                channel.collect()
            assert channel.in_flight() == 0
            del futures, future, guilty
    finally:
        workers.end()
    assert channel.memory_size < 150_000_000


def test_a_worker_stands_still(counts):
    """Stopped at any instant, perhaps with a lock, it holds others up only until it is killed."""
    channel, numbers = Channel(2, slots=50), random.Random(9)
    workers = Workers(channel)
    blob = pickle.dumps(run)

    def send(futures, n):
        for i in range(n):
            futures.append(Future())
            assert channel.send(futures[-1], blob, (i, payload_of(i)), {})

    try:
        for _ in range(15):
            futures = []
            send(futures, 20)
            time.sleep(numbers.random() * 0.002)
            os.kill(workers.processes[0].pid, signal.SIGSTOP)
            killer = threading.Timer(0.02, os.kill, (workers.processes[0].pid, signal.SIGKILL))
            killer.start()
            send(futures, 20)
            channel.collect()
            killer.join()
            guilty, _ = workers.kill(0)
            end = time.monotonic() + 60
            while not all(future.done() or future is guilty for future in futures) and time.monotonic() < end:
                channel.watch(0.05)
                channel.collect()
            assert [future for future in futures if not future.done()] == ([] if guilty is None else [guilty])
            assert channel.in_flight() == 0
    finally:
        workers.end()
