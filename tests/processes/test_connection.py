"""Connections: those of the standard library, and for coroutines."""
import asyncio
import multiprocessing.connection
import os
import pickle
import socket
import struct
import threading

import pytest
from process_children import echo, hand_over

import pyconc
from pyconc.multiprocessing import BufferTooShort, connection
from pyconc.multiprocessing.connection import Client, Connection, Listener, Pipe, wait

BIG = bytes(range(256)) * 20_000    # more than a socket holds


@pytest.fixture(params=["asyncio", "pyconc"])
def run(request):
    """Runs a coroutine in asyncio's loop and in pyconc's."""
    return asyncio.run if request.param == "asyncio" else pyconc.run


@pytest.fixture(params=[True, False], ids=["duplex", "simplex"])
def pipe(request, no_leaked_fds):
    """(reading, writing) ends of a pipe."""
    reading, writing = Pipe(request.param)
    with reading, writing:
        yield reading, writing


def test_is_the_standard_librarys():
    reading, writing = Pipe()
    with reading, writing:
        assert isinstance(reading, multiprocessing.connection.Connection)
        theirs = multiprocessing.connection.Connection(os.dup(writing.fileno()))
        with theirs:
            theirs.send({"from": "theirs"})
            assert reading.recv() == {"from": "theirs"}
            reading.send_bytes(BIG[:100_000])
            assert theirs.recv_bytes() == BIG[:100_000]


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_536, 65_537, len(BIG)])
def test_sizes(pipe, size):
    reading, writing = pipe
    message = BIG[:size]
    sender = threading.Thread(target=writing.send_bytes, args=[message])
    sender.start()
    assert reading.recv_bytes() == message
    sender.join()


def test_above_two_gib_has_a_long_header():
    one, other = socket.socketpair()
    with one, Connection(other.detach()) as reading:
        one.sendall(struct.pack("!iQ", -1, 3) + b"abc")
        assert reading.recv_bytes() == b"abc"
        one.sendall(struct.pack("!i", -2))
        with pytest.raises(OSError, match="bad message length"):
            reading.recv_bytes()


def test_longer_than_allowed(pipe):
    reading, writing = pipe
    writing.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        reading.recv_bytes(4)


def test_into(pipe):
    reading, writing = pipe
    writing.send_bytes(b"12345")
    target = bytearray(8)
    assert reading.recv_bytes_into(target, 2) == 5
    assert target == b"\0\00012345\0"
    writing.send_bytes(b"123456789")
    with pytest.raises(BufferTooShort) as raised:
        reading.recv_bytes_into(target)
    assert raised.value.args == (b"123456789",)


class Sends:
    """Its __reduce__ sends something else."""

    def __init__(self, connection, state):
        self.connection, self.state = connection, state

    def __reduce__(self):
        self.connection.send("from inside")
        return list, (self.state,)


def test_pickling_that_sends_and_that_fails(pipe):
    reading, writing = pipe
    shared = ["shared"]
    writing.send(Sends(writing, shared))
    assert [reading.recv(), reading.recv()] == ["from inside", ["shared"]]
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        writing.send([shared, lambda: None])
    writing.send([shared, shared])
    first, second = reading.recv()
    assert first is second == ["shared"]


def test_a_reducer_that_is_registered_later(pipe):
    reading, writing = pipe

    class Local:
        pass

    writing.send(1)
    assert reading.recv() == 1
    multiprocessing.reduction.register(Local, lambda local: (list, ()))
    writing.send(Local())
    assert reading.recv() == []


def test_end(pipe):
    reading, writing = pipe
    writing.send(1)
    writing.close()
    assert reading.poll()
    assert reading.recv() == 1
    with pytest.raises(EOFError):
        reading.recv()
    reading.close()
    with pytest.raises(OSError, match="handle is closed"):
        reading.recv()


def test_end_inside_a_message():
    one, other = socket.socketpair()
    with Connection(other.detach()) as reading:
        one.sendall(struct.pack("!i", 10) + b"123")
        one.close()
        with pytest.raises(OSError, match="end of file during message"):
            reading.recv_bytes()


def test_directions():
    reading, writing = Pipe(duplex=False)
    with reading, writing:
        for refused in (reading.send, reading.send_bytes):
            with pytest.raises(OSError, match="read-only"):
                refused(b"")
        for refused in (writing.recv, writing.recv_bytes, writing.poll):
            with pytest.raises(OSError, match="write-only"):
                refused()


def test_poll_waits(pipe):
    reading, writing = pipe
    assert not reading.poll()
    assert not reading.poll(0.01)
    assert not reading.poll(-1)
    timer = threading.Timer(0.05, writing.send, [1])
    timer.start()
    assert reading.poll(30)
    assert reading.poll(None)
    assert reading.recv() == 1
    timer.join()


def test_wait():
    pipes = [Pipe() for _ in range(3)]
    reading = [one for one, _ in pipes]
    assert wait(reading, 0.01) == []
    pipes[1][1].send(1)
    assert wait(reading, 30) == [reading[1]]
    assert wait(iter(reading)) == [reading[1]]
    for one, other in pipes:
        one.close()
        other.close()


def test_listener_and_client():
    with Listener(authkey=b"secret") as listener:
        accepted = []
        acceptor = threading.Thread(target=lambda: accepted.append(listener.accept()))
        acceptor.start()
        with Client(listener.address, authkey=b"secret") as client:
            acceptor.join()
            with accepted[0] as server:
                assert type(client) is type(server) is Connection
                client.send("hello")
                assert server.recv() == "hello"


def test_is_sent_to_another_process(context):
    ours, theirs = Pipe()
    handed, kept = Pipe()
    with ours, kept:
        child = context.Process(target=hand_over, args=[theirs])
        child.start()
        theirs.close()
        ours.send(handed)
        assert kept.recv() == "from the child"
        assert ours.recv() == "pyconc.multiprocessing.connection"
        handed.close()
        child.join()
    with pytest.raises(OSError, match="handle is closed"):
        multiprocessing.reduction.ForkingPickler.dumps(handed)


def test_echo(context):
    ours, theirs = context.Pipe()
    child = context.Process(target=echo, args=[theirs, 3])
    child.start()
    theirs.close()
    with ours:
        for size in (0, 10, 100_000):
            ours.send_bytes(BIG[:size])
            assert ours.recv_bytes() == BIG[:size]
    child.join()
    assert child.exitcode == 0


def test_coroutines_receive_and_send(run, pipe):
    reading, writing = pipe

    async def main():
        received = asyncio.create_task(reading.recv_async())
        await asyncio.sleep(0)
        assert not received.done()
        await writing.send_async({"some": ["thing"]})
        assert await received == {"some": ["thing"]}
        received = asyncio.create_task(reading.recv_bytes_async())
        await writing.send_bytes_async(BIG)
        assert await received == BIG
        await writing.send_bytes_async(b"0123456789", 2, 3)
        assert await reading.recv_bytes_async() == b"234"
        with pytest.raises(ValueError):
            await writing.send_bytes_async(b"0123456789", 8, 3)
    run(main())


def test_coroutines_do_not_block_their_loop(run, pipe):
    """Half a message is there, or half of one fits: the loop goes on."""
    reading, writing = pipe

    async def main():
        sent = asyncio.create_task(writing.send_bytes_async(BIG))
        await asyncio.sleep(0.01)
        assert not sent.done()
        received = asyncio.create_task(reading.recv_bytes_async())
        assert await received == BIG
        await sent
        os.write(writing.fileno(), struct.pack("!i", 4) + b"ab")
        received = asyncio.create_task(reading.recv_bytes_async())
        await asyncio.sleep(0.01)
        assert not received.done()
        os.write(writing.fileno(), b"cd")
        assert await received == b"abcd"
    run(main())


def test_messages_of_coroutines_keep_their_order(run, pipe):
    reading, writing = pipe

    async def main():
        sent = [asyncio.create_task(writing.send_bytes_async(bytes([number]) * 100_000)) for number in range(20)]
        received = [asyncio.create_task(reading.recv_bytes_async()) for _ in range(20)]
        assert [(await one)[:1] for one in received] == [bytes([number]) for number in range(20)]
        await asyncio.gather(*sent)
    run(main())


def test_cancelled_receive_loses_nothing(run, pipe):
    """Neither a part of a message nor a whole one; who goes on may be a coroutine or not."""
    reading, writing = pipe

    async def cancelled():
        receiving = asyncio.create_task(reading.recv_bytes_async())
        await asyncio.sleep(0.005)
        assert receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving

    async def main():
        for finish in (reading.recv_bytes_async, lambda: asyncio.sleep(0, reading.recv_bytes())):
            message = struct.pack("!i", 6) + b"abcdef"
            for end in (2, 4, 5, 9):
                os.write(writing.fileno(), message[:end])
                await cancelled()
                assert reading.poll()
                assert wait([reading], 0) == [reading]
                os.write(writing.fileno(), message[end:])
                assert await finish() == b"abcdef"
        assert not reading.poll()
        await cancelled()
        writing.send_bytes(b"whole")
        assert reading.recv_bytes() == b"whole"
    run(main())


def test_cancelled_send_is_all_or_nothing(run, pipe):
    reading, writing = pipe

    async def main():
        begun, waiting, kept = [asyncio.create_task(writing.send_bytes_async(message))
                                for message in (BIG, b"withdrawn", b"kept")]
        await asyncio.sleep(0.01)
        for task in (begun, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await reading.recv_bytes_async() == BIG
        await kept
        assert await reading.recv_bytes_async() == b"kept"
    run(main())


def test_send_goes_on_with_what_a_coroutine_began(run, pipe):
    reading, writing = pipe

    async def main():
        sending = asyncio.create_task(writing.send_bytes_async(BIG))
        await asyncio.sleep(0.01)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    run(main())
    sender = threading.Thread(target=writing.send_bytes, args=[b"next"])
    sender.start()
    assert reading.recv_bytes() == BIG
    assert reading.recv_bytes() == b"next"
    sender.join()


def test_half_a_message_goes_along_when_a_connection_is_sent():
    one, other = socket.socketpair()
    carrier, receiver = Pipe()
    with one, carrier, receiver, Connection(other.detach()) as reading:
        one.sendall(struct.pack("!i", 6) + b"abc")

        async def cancelled():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reading.recv_bytes_async(), 0.01)
        asyncio.run(cancelled())
        carrier.send(reading)
        with receiver.recv() as copy:
            one.sendall(b"def")
            assert copy.recv_bytes() == b"abcdef"


def test_end_for_coroutines(run, pipe):
    reading, writing = pipe

    async def main():
        receiving = asyncio.create_task(reading.recv_async())
        await asyncio.sleep(0)
        writing.close()
        with pytest.raises(EOFError):
            await receiving
        assert await reading.poll_async()
        reading.close()
        with pytest.raises(OSError, match="handle is closed"):
            await reading.recv_async()
    run(main())


def test_other_end_gone_while_sending(run, pipe):
    reading, writing = pipe

    async def main():
        sending = [asyncio.create_task(writing.send_bytes_async(BIG)) for _ in range(2)]
        await asyncio.sleep(0.01)
        reading.close()
        for task in sending:
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await task
        with pytest.raises(BrokenPipeError):
            await writing.send_async(1)
    run(main())


def test_close_ends_the_wait_of_coroutines(run, pipe):
    reading, writing = pipe

    async def main():
        waiting = [asyncio.create_task(one) for one in (reading.recv_async(), reading.poll_async())]
        await asyncio.sleep(0.01)
        waiting.pop(0).cancel()
        reading.close()
        with pytest.raises(OSError, match="handle is closed"):
            await waiting[0]
    run(main())


def test_close_ends_the_wait_of_sending_coroutines(run, pipe):
    _, writing = pipe

    async def main():
        waiting = [asyncio.create_task(writing.send_bytes_async(BIG)) for _ in range(2)]
        await asyncio.sleep(0.01)
        waiting.pop(0).cancel()
        writing.close()
        with pytest.raises(OSError, match="handle is closed"):
            await waiting[0]
    run(main())


def test_poll_of_a_coroutine(run, pipe):
    reading, writing = pipe

    async def main():
        assert not await reading.poll_async(0)
        assert not await reading.poll_async(0.01)
        polling = asyncio.create_task(reading.poll_async(30))
        await asyncio.sleep(0)
        await writing.send_async(1)
        assert await polling
        assert await reading.poll_async()
        assert reading.recv() == 1
    run(main())


def test_a_connection_outlives_its_loop(run, pipe):
    reading, writing = pipe

    async def receive():
        return await asyncio.wait_for(reading.recv_async(), 0.01)

    for _ in range(2):
        with pytest.raises(TimeoutError):
            run(receive())
    writing.send(1)
    assert run(receive()) == 1


def test_names():
    for name in dir(multiprocessing.connection):
        assert hasattr(connection, name)
