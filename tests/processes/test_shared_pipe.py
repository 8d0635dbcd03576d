"""Pipes in shared memory."""
import array
import asyncio
import gc
import os
import random
import signal
import socket
import threading
import time

import pytest
from process_children import count_up, double_all, echo, echo_objects, hand_over, stay

import pyconc
from pyconc.multiprocessing import BufferTooShort, Pipe, SharedPipe, get_context
from pyconc.multiprocessing.connection import wait


@pytest.fixture(params=["asyncio", "pyconc"])
def run(request):
    """Runs a coroutine in asyncio's loop and in pyconc's."""
    return asyncio.run if request.param == "asyncio" else pyconc.run


@pytest.fixture
def pipe():
    one, other = SharedPipe()
    with one, other:
        yield one, other


def test_objects_and_bytes(pipe):
    one, other = pipe
    for item in (None, 1, "text", [1, {"two": 3}], b"bytes", bytes(200_000)):
        one.send(item)
        assert other.recv() == item
        other.send(item)
        assert one.recv() == item
    one.send_bytes(b"0123456789", 2, 3)
    assert other.recv_bytes() == b"234"
    one.send_bytes(array.array("i", [1, 2]))
    assert other.recv_bytes() == array.array("i", [1, 2]).tobytes()
    one.send_bytes(b"")
    assert other.recv_bytes(0) == b""
    target = bytearray(6)
    one.send_bytes(b"abc")
    assert other.recv_bytes_into(target, 2) == 3
    assert target == b"\0\0abc\0"
    one.send_bytes(b"too much")
    with pytest.raises(BufferTooShort) as raised:
        other.recv_bytes_into(target)
    assert raised.value.args == (b"too much",)
    for offset, size in ((-1, None), (4, None), (0, 4), (0, -1)):
        with pytest.raises(ValueError):
            one.send_bytes(b"abc", offset, size)


def test_longer_than_allowed(pipe):
    one, other = pipe
    one.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        other.recv_bytes(4)


def test_directions():
    reading, writing = SharedPipe(duplex=False)
    with reading, writing:
        assert (reading.readable, reading.writable, writing.readable, writing.writable) == (True, False, False, True)
        with pytest.raises(OSError, match="read-only"):
            reading.send(1)
        for refused in (writing.recv, writing.recv_bytes, writing.poll):
            with pytest.raises(OSError, match="write-only"):
                refused()
        writing.send(1)
        assert reading.recv() == 1


def test_what_was_sent_before_the_end_is_received(pipe):
    one, other = pipe
    one.send(1)
    one.send(2)
    one.close()
    assert one.closed and not other.closed
    assert [other.recv(), other.recv()] == [1, 2]
    assert other.poll()
    for _ in range(2):
        with pytest.raises(EOFError):
            other.recv()
    with pytest.raises(BrokenPipeError):
        other.send(1)
    other.close()
    for refused in (other.recv, other.poll, lambda: other.send(1)):
        with pytest.raises(OSError, match="handle is closed"):
            refused()


def test_an_end_that_is_dropped():
    one, other = SharedPipe()
    del one
    gc.collect()
    with other, pytest.raises(EOFError):
        other.recv()


def test_end_of_who_waits(pipe):
    one, other = pipe
    timer = threading.Timer(0.1, one.close)
    timer.start()
    with pytest.raises(EOFError):
        other.recv()
    timer.join()


def test_send_waits_for_room():
    one, other = SharedPipe(maxsize=2)
    with one, other:
        one.send(1)
        one.send(2)
        timer = threading.Timer(0.1, other.recv)
        timer.start()
        one.send(3)
        timer.join()
        assert [other.recv(), other.recv()] == [2, 3]
        one.send(4)
        one.send(5)
        timer = threading.Timer(0.1, other.close)
        timer.start()
        with pytest.raises(BrokenPipeError):
            one.send(6)
        timer.join()


def test_poll(pipe):
    one, other = pipe
    assert not other.poll()
    assert not other.poll(0.01)
    timer = threading.Timer(0.05, one.send, ["polled"])
    timer.start()
    assert other.poll(30)
    assert other.poll(None)
    assert other.recv() == "polled"
    timer.join()
    assert not other.poll()


def test_wait(pipe):
    one, other = pipe
    plain, plain_other = Pipe()
    first, second = socket.socketpair()
    with plain, plain_other, first, second:
        objects = [other, plain, first.fileno()]
        assert wait(objects, 0) == wait(objects, 0.01) == []
        timer = threading.Timer(0.05, one.send, [1])
        timer.start()
        assert wait(objects, 30) == [other]
        timer.join()
        plain_other.send(2)
        second.send(b"3")
        assert wait(objects) == objects
        assert [other.recv(), plain.recv(), first.recv(1)] == [1, 2, b"3"]
        timer = threading.Timer(0.05, one.close)
        timer.start()
        assert wait(objects, 30) == [other]
        timer.join()
    with pytest.raises(OSError, match="no descriptor"):
        other.fileno()


def test_a_child(context):
    ours, theirs = SharedPipe()
    child = context.Process(target=echo, args=[theirs, 3])
    child.start()
    theirs.close()
    with ours:
        for size in (0, 10, 100_000):
            ours.send_bytes(bytes(size))
            assert ours.recv_bytes() == bytes(size)
        child.join()
        assert child.exitcode == 0


def test_a_child_that_ends(context):
    ours, theirs = SharedPipe()
    child = context.Process(target=double_all, args=[theirs, 1])
    child.start()
    theirs.close()
    with ours:
        ours.send(21)
        assert ours.recv() == 42
        with pytest.raises(EOFError):
            ours.recv()
        child.join()


def test_a_child_that_is_killed(context):
    ours, theirs = SharedPipe()
    child = context.Process(target=stay, args=[theirs])
    child.start()
    theirs.close()
    with ours:
        assert ours.recv() == "alive"
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EOFError):
            ours.recv()
        with pytest.raises(BrokenPipeError):
            while True:
                ours.send(1)
        child.join()


@pytest.mark.parametrize("size", [10, 100_000])
def test_killed_while_it_sends(size):
    """Whenever that is: all that came before is received, in order, and then the end."""
    chance = random.Random(size)
    for _ in range(20):
        ours, theirs = SharedPipe()
        child = get_context("fork").Process(target=count_up, args=[theirs, bytes(size)])
        child.start()
        theirs.close()
        with ours:
            received = [ours.recv()[0]]
            time.sleep(chance.uniform(0, 0.01))
            child.kill()
            with pytest.raises(EOFError):
                while True:
                    received.append(ours.recv()[0])
        child.join()
        assert received == list(range(len(received)))


def test_handed_over_at_any_time(context):
    """Through a pipe, a shared pipe and a queue, to a child that runs already; what was polled goes along."""
    queue = context.Queue()
    for carrier, theirs in (Pipe(), SharedPipe()):
        handed, kept = SharedPipe()
        child = context.Process(target=hand_over, args=[theirs])
        child.start()
        theirs.close()
        with carrier, kept:
            carrier.send(handed)
            assert kept.recv() == "from the child"
            handed.close()
            assert carrier.recv() == "pyconc.multiprocessing.shared_pipe"
            child.join()
    one, other = SharedPipe()
    with one, other:
        one.send("polled")
        assert other.poll()
        queue.put(other)
        with queue.get() as copy:
            assert copy.recv() == "polled"
            copy.send("from the copy")
            assert one.recv() == "from the copy"
    queue.close()


def test_coroutines(run, context):
    ours, theirs = SharedPipe()
    child = context.Process(target=echo_objects, args=[theirs])
    child.start()
    theirs.close()

    async def main():
        for number in range(50):
            await ours.send_async(number)
            assert await ours.recv_async() == number
        await ours.send_bytes_async(b"some", 1)
        assert await ours.recv_bytes_async() == b"ome"
        assert not await ours.poll_async(0.01)
        polling = asyncio.create_task(ours.poll_async())
        await ours.send_async("polled")
        assert await polling
        assert await ours.recv_async() == "polled"
        receiving = asyncio.create_task(ours.recv_async())
        await asyncio.sleep(0.01)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await ours.send_async("after")
        assert await ours.recv_async() == "after"
        child.kill()
        with pytest.raises(EOFError):
            await ours.recv_async()
        assert await ours.poll_async()
    with ours:
        run(main())
    child.join()


def test_coroutines_wait_for_room(run):
    one, other = SharedPipe(maxsize=1)

    async def main():
        await one.send_async(1)
        sending = asyncio.create_task(one.send_async(2))
        await asyncio.sleep(0.01)
        assert not sending.done()
        assert await other.recv_async() == 1
        await sending
        blocked = asyncio.create_task(one.send_async(3))
        await asyncio.sleep(0.01)
        other.close()
        with pytest.raises(BrokenPipeError):
            await blocked
    with one, other:
        run(main())


def test_the_end_is_noticed_soon():
    one, other = SharedPipe()
    with other:
        start = time.monotonic()
        one.close()
        with pytest.raises(EOFError):
            other.recv()
        assert time.monotonic() - start < 10


def test_nothing_is_left(no_leaked_fds):
    for _ in range(10):
        one, other = SharedPipe()
        one.send(1)
        one.close()
        other.close()
