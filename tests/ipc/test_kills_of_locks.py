"""Processes use every kind of lock at random and are killed at random, hundreds of them: nobody hangs, and what the
locks protect is right whenever nobody was told that it may not be."""
import os
import random
import signal
import time
import warnings
from threading import BrokenBarrierError

import pytest

from pyconc import _ipc
from pyconc.multiprocessing.synchronize import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    OwnerDied,
    ReadWriteLock,
    RLock,
)

WORKERS = 5
STUCK = 20      # seconds after which a worker that makes no progress hangs; 0.1 is what it takes on an idle machine


class Board:
    """Numbers in shared memory."""

    def __init__(self):
        self.segment = _ipc.Segment(4096)
        self.numbers = memoryview(self.segment).cast("q")

    def __getitem__(self, at):
        return self.numbers[at]

    def __setitem__(self, at, value):
        self.numbers[at] = value


# Where on the board.
PAIR, PAIR_OF_RLOCK, PAIR_OF_RW, INSIDE, PROGRESS = 0, 2, 4, 6, 10


class World:
    """What all workers share."""

    def __init__(self):
        self.board = Board()
        self.lock, self.rlock, self.rw = Lock(), RLock(), ReadWriteLock()
        self.units = BoundedSemaphore(2)
        self.condition, self.other_condition = Condition(), Condition(Lock())
        self.event = Event()
        self.barrier = Barrier(2)

    def change(self, at):
        """Both numbers of a pair, with a while in between."""
        board = self.board
        assert board[at] == board[at + 1], "somebody else is here"
        board[at] += 1
        for _ in range(random.randrange(50)):
            pass
        board[at + 1] += 1

    def repair(self, at):
        self.board[at + 1] = self.board[at]

    def use_lock(self):
        try:
            self.lock.acquire()
        except OwnerDied:
            self.repair(PAIR)
        self.change(PAIR)
        self.lock.release()

    def use_rlock(self):
        try:
            self.rlock.acquire()
        except OwnerDied:
            self.repair(PAIR_OF_RLOCK)
        with self.rlock:
            self.change(PAIR_OF_RLOCK)
        self.rlock.release()

    def write(self):
        try:
            self.rw.acquire_write()
        except OwnerDied:
            self.repair(PAIR_OF_RW)
        self.change(PAIR_OF_RW)
        self.rw.release_write()

    def read(self):
        try:
            self.rw.acquire_read()
        except OwnerDied:
            self.repair(PAIR_OF_RW)
            self.rw.release_write()
        else:
            assert self.board[PAIR_OF_RW] == self.board[PAIR_OF_RW + 1]
            self.rw.release_read()

    def take_unit(self):
        with self.units:
            for _ in range(random.randrange(50)):
                pass

    def try_things(self):
        for lock in (self.lock, self.rlock, self.units):
            try:
                if lock.acquire(block=random.random() < 0.5, timeout=random.choice([0, 0.001])):
                    lock.release()
            except OwnerDied:
                if lock is self.lock:
                    self.repair(PAIR)
                elif lock is self.rlock:
                    self.repair(PAIR_OF_RLOCK)
                lock.release()

    def wait_for_condition(self):
        condition = random.choice([self.condition, self.other_condition])
        try:
            with condition:
                if random.random() < 0.5:
                    condition.notify(random.choice([1, 2, 10]))
                else:
                    condition.wait(random.choice([0, 0.001, 0.01]))
        except OwnerDied:
            pass

    def wait_for_event(self):
        random.choice([self.event.set, self.event.clear, lambda: self.event.wait(0.005)])()

    def meet(self):
        try:
            self.barrier.wait(0.01)
        except BrokenBarrierError:
            self.barrier.reset()

    def work(self, at):
        random.seed()
        things = [self.use_lock, self.use_rlock, self.write, self.read, self.take_unit, self.try_things,
                  self.wait_for_condition, self.wait_for_event, self.meet]
        while True:
            random.choice(things)()
            self.board[PROGRESS + at] += 1


class Workers:
    def __init__(self, work, count=WORKERS):
        self.work = work
        self.pids = [self.start(at) for at in range(count)]

    def start(self, at):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # of a process with threads, 3.12
            pid = os.fork()
        if pid == 0:
            status = 1
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(300)   # it outlives no test
            try:
                self.work(at)
                status = 0
            except BaseException as error:
                os.write(2, f"worker: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(status)
        return pid

    def kill(self, at):
        os.kill(self.pids[at], signal.SIGKILL)
        _, status = os.waitpid(self.pids[at], 0)
        self.pids[at] = None
        assert status == signal.SIGKILL, f"a worker had failed before it was killed: {status}"

    def replace(self, at):
        self.kill(at)
        self.pids[at] = self.start(at)

    def end(self):
        for pid in self.pids:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def longest_standstill(board, seconds, but=()):
    """The most seconds that a worker took for a step, meanwhile."""
    start = time.monotonic()
    last = {at: (board[PROGRESS + at], start) for at in range(WORKERS) if at not in but}
    longest = 0
    while True:
        now = time.monotonic()
        for at, (count, since) in last.items():
            longest = max(longest, now - since)
            if board[PROGRESS + at] != count:
                last[at] = board[PROGRESS + at], now
        if now - start > seconds and all(since > start for _, since in last.values()):
            return longest
        assert longest < STUCK, f"no progress: {last}, since {start}"
        time.sleep(0.0005)


@pytest.mark.stress
def test_survivors_go_on(times):
    world = World()
    workers = Workers(world.work)
    longest = []
    try:
        for _ in range(times(300)):
            victim = random.randrange(WORKERS)
            workers.replace(victim)
            longest.append(longest_standstill(world.board, random.random() * 0.02))
    finally:
        workers.end()
    longest.sort()
    assert longest[len(longest) // 2] < 5, longest      # some 0.05


@pytest.mark.stress
def test_all_die_and_one_is_left(times):
    """Whatever the dead had is free for one process that comes at the end, each time."""
    world = World()
    for _ in range(times(30)):
        workers = Workers(world.work)
        try:
            time.sleep(random.random() * 0.05)
            for at in random.sample(range(WORKERS), WORKERS):
                workers.kill(at)
        finally:
            workers.end()
        start = time.monotonic()
        for thing in (world.use_lock, world.use_rlock, world.write, world.take_unit, world.take_unit, world.meet):
            thing()
        for condition in (world.condition, world.other_condition):
            try:
                condition.acquire()
            except OwnerDied:
                pass
            condition.notify_all()
            condition.release()
        assert time.monotonic() - start < STUCK
        while world.units.get_value() < 2:     # the rest comes back when it is asked for
            assert world.units.acquire(timeout=STUCK)
            assert world.units.acquire(timeout=STUCK)
            world.units.release()
            world.units.release()
    assert not world.lock.locked() and not world.rlock.locked()


@pytest.mark.stress
def test_no_notification_is_lost(times):
    """Whoever notifies knows that somebody waited; of two who wait, one is killed at any time."""
    # board[at]: that one waits, or will before it lets go of the lock; board[2]: how often one heard; board[3 + at]:
    # how often that one was told of a death.
    condition, board = Condition(), Board()

    def wait(at):
        while True:
            try:
                with condition:
                    board[at] = 1
                    condition.wait()
                    board[at] = 0
                    board[2] += 1
            except OwnerDied:
                board[3 + at] += 1

    workers = Workers(wait, 2)
    try:
        for _ in range(times(150)):
            deadline = time.monotonic() + STUCK
            while True:     # until both wait
                assert time.monotonic() < deadline
                try:
                    condition.acquire()
                except OwnerDied:
                    pass
                if board[0] and board[1]:
                    break
                condition.release()
                time.sleep(0.0005)
            before = board[2], board[3], board[4]
            condition.notify()
            if random.random() < 0.5:
                condition.release()
                time.sleep(random.random() * 0.0002)
                workers.kill(0)
            else:
                os.kill(workers.pids[0], signal.SIGKILL)
                condition.release()
                workers.kill(0)
            board[0] = 0
            workers.pids[0] = workers.start(0)
            deadline = time.monotonic() + STUCK
            # Or one that had heard was killed before it could say so: who takes the lock next is told.
            while (board[2], board[3], board[4]) == before:
                assert time.monotonic() < deadline, "nobody heard"
                time.sleep(0.0005)
                try:
                    with condition:
                        pass
                except OwnerDied:
                    break
    finally:
        workers.end()
