"""ReadWriteLock between processes, threads and coroutines, and when who has it dies."""
import asyncio
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time

import pytest

from pyconc import _ipc
from pyconc.multiprocessing.synchronize import OwnerDied, ReadWriteLock


def test_many_read_and_one_writes(child):
    lock = ReadWriteLock()
    assert lock.acquire_read() is True
    assert lock.acquire_read() is True
    assert child(lambda: (lock.acquire_read(False), lock.acquire_write(False))).result() == (True, False)
    assert lock.acquire_write(timeout=0.06) is False
    lock.release_read()
    lock.release_read()
    with lock.writer as taken:
        assert taken is True
        assert child(lambda: (lock.acquire_read(timeout=0.06), lock.acquire_write(False))).result() == (False, False)
    with lock.reader:
        assert not lock.acquire_write(False)
    assert lock.acquire_write(False) is True
    lock.release_write()


def test_what_is_not_held_is_not_released():
    lock = ReadWriteLock()
    for release in (lock.release_read, lock.release_write):
        with pytest.raises(ValueError):
            release()
    with pytest.raises(TypeError):
        ReadWriteLock(recover=1)


def test_a_writer_keeps_readers_away(child):
    lock = ReadWriteLock()
    lock.acquire_read()
    writer = child(lambda c: (c.tell(), lock.acquire_write(), lock.release_write())[1])
    writer.wait_told()
    deadline = time.monotonic() + 30
    while lock.acquire_read(False):
        lock.release_read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    lock.release_read()
    assert writer.result() is True
    assert lock.acquire_read(timeout=30)


def work(lock, segment, count):
    view = memoryview(segment)
    for i in range(count):
        if i % 4 == 0:
            with lock.writer:
                number = int.from_bytes(view[:8], "little") + 1
                view[:8] = number.to_bytes(8, "little")
                view[8:16] = number.to_bytes(8, "little")
        else:
            with lock.reader:
                assert view[:8] == view[8:16]


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_it_excludes(start):
    context = multiprocessing.get_context(start)
    lock, segment = ReadWriteLock(), _ipc.Segment(4096)
    others = [kind(target=work, args=(lock, segment, 400))
              for kind in (context.Process, context.Process, threading.Thread)]
    for one in others:
        one.start()
    work(lock, segment, 400)
    for one in others:
        one.join(60)
        assert getattr(one, "exitcode", 0) == 0
    assert int.from_bytes(memoryview(segment)[:8], "little") == 400


def killed(child, function):
    def die():
        function()
        os.kill(os.getpid(), signal.SIGKILL)

    one = child(die)
    one.process.join(60)
    return one.process.pid


def test_a_dead_reader_is_forgotten(child, in_time):
    lock = ReadWriteLock()
    killed(child, lambda: (lock.acquire_read(), lock.acquire_read()))
    with in_time():
        assert lock.acquire_write() is True
    lock.release_write()


@pytest.mark.parametrize("side", ["read", "write"])
def test_a_dead_writer_leaves_it_to_the_next(side, child, in_time):
    lock = ReadWriteLock()
    pid = killed(child, lambda: lock.acquire_write())
    with in_time(), pytest.raises(OwnerDied) as caught:
        getattr(lock, f"acquire_{side}")()
    assert caught.value.pid == pid
    assert lock.acquire_write(False) is False   # to repair it, even who wanted to read has it alone
    assert lock.acquire_read(False) is False
    lock.release_write()
    assert lock.acquire_write(False) is True


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_with_leaves_nobody_locked_out(side, child, in_time):
    lock = ReadWriteLock()
    killed(child, lambda: lock.acquire_write())
    with in_time():
        with pytest.raises(OwnerDied):
            with getattr(lock, side):
                raise AssertionError("not reached")
        with lock.writer:
            pass


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_tasks_are_not_locked_out_either(side, child):
    lock = ReadWriteLock()
    killed(child, lambda: lock.acquire_write())

    async def main():
        with pytest.raises(OwnerDied):
            async with getattr(lock, side):
                raise AssertionError("not reached")
        async with lock.writer:
            pass

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_it_recovers_alone(side, child, in_time):
    states, lock = [], None

    def recover(error):
        states.append((error.pid, lock.acquire_read(False), lock.acquire_write(False)))

    lock = ReadWriteLock(recover=recover)
    pid = killed(child, lambda: lock.acquire_write())
    with in_time(), getattr(lock, side):
        assert states == [(pid, False, False)]


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_recovery_may_raise_what_it_was_told(side, child):
    def recover(error):
        raise error

    lock = ReadWriteLock(recover=recover)
    pid = killed(child, lambda: lock.acquire_write())
    with pytest.raises(OwnerDied) as caught:
        with getattr(lock, side):
            raise AssertionError("not reached")
    assert caught.value.pid == pid
    assert lock.acquire_write(False) is True    # the lock is free: nobody let go of it twice


def test_dead_readers_keep_no_reader_away(child, in_time):
    """Though there were as many as there may be."""
    lock = ReadWriteLock()
    killed(child, lambda: [lock.acquire_read() for _ in range(900)])
    with in_time():
        assert lock.acquire_read() is True
    lock.release_read()


@pytest.mark.parametrize("side", ["read", "write"])
def test_a_death_is_told_though_who_found_out_was_interrupted(side, child, meanwhile, in_time):
    """While it waited for a reader that had only looked."""
    lock = ReadWriteLock()
    _, _, fd, block, _ = lock.send()
    memory = mmap.mmap(fd, 0)
    word, first_reader = block + 64, block + 64 + 24

    def who_writes():
        return int.from_bytes(memory[word:word + 4], sys.byteorder) & 0x3fffffff

    def interrupt():
        while who_writes() == dead:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    def read(c):
        lock.acquire_read()
        owner = memory[first_reader:first_reader + 4]
        lock.release_read()
        c.theirs.send(("told", owner))
        signal.pause()

    reader = child(read)
    _, owner = reader.ours.recv()
    pid = killed(child, lambda: lock.acquire_write())
    dead = who_writes()
    memory[first_reader:first_reader + 4] = owner   # it looks
    with meanwhile(interrupt):
        with pytest.raises(KeyboardInterrupt):
            getattr(lock, f"acquire_{side}")()
    memory[first_reader:first_reader + 4] = bytes(4)
    with in_time(), pytest.raises(OwnerDied) as caught:
        getattr(lock, f"acquire_{side}")()
    assert caught.value.pid == pid


def test_a_dead_writer_that_waited_is_no_matter(child, in_time):
    lock = ReadWriteLock()
    lock.acquire_read()
    writer = child(lambda c: (c.tell(), lock.acquire_write()))
    writer.wait_told()
    time.sleep(0.1)
    writer.kill()
    lock.release_read()
    with in_time():
        try:
            lock.acquire_read()
        except OwnerDied:
            pass
    lock.release_read()


def test_a_signal_interrupts_who_waits(meanwhile):
    lock = ReadWriteLock()
    lock.acquire_read()
    with meanwhile(os.kill, os.getpid(), signal.SIGINT):
        with pytest.raises(KeyboardInterrupt):
            lock.acquire_write()
    assert lock.acquire_read(False)
    lock.release_read()
    lock.release_read()
    lock.acquire_write()
    with meanwhile(os.kill, os.getpid(), signal.SIGINT):
        with pytest.raises(KeyboardInterrupt):
            lock.acquire_read()


def test_tasks(child):
    lock, log = ReadWriteLock(), []

    async def read():
        async with lock.reader:
            log.append("r")
            await asyncio.sleep(0.02)
            log.append("R")

    async def write():
        async with lock.writer:
            log.append("w")
            await asyncio.sleep(0.02)
            log.append("W")

    async def main():
        await asyncio.gather(read(), read(), write(), read(), write())
        lock.acquire_read()
        assert await lock.acquire_write_async(timeout=0.06) is False
        assert await lock.acquire_read_async(timeout=1) is True
        task = asyncio.create_task(lock.acquire_write_async())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lock.release_read()
        lock.release_read()

    asyncio.run(asyncio.wait_for(main(), 60))
    text = "".join(log)
    assert text.count("wW") == 2 and sorted(text) == sorted("rRrRrRwWwW")
    assert lock.acquire_write(False)


def test_a_pickle_is_the_same():
    lock = ReadWriteLock()
    again = pickle.loads(pickle.dumps(lock))
    with again.writer:
        assert lock.acquire_read(False) is False


def test_it_leaves_nothing(no_leaked_objects):
    def use():
        lock = ReadWriteLock(recover=print)
        with lock.reader, lock.reader:
            lock.acquire_write(False)
        with lock.writer:
            pass
        pickle.loads(pickle.dumps(lock))

    no_leaked_objects(use)
