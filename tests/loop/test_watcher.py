"""Descriptors of transports: asked for, closed and reused, by any thread."""
import asyncio
import gc
import socket
import threading

import pytest


class Sink(asyncio.Protocol):
    def __init__(self, loop):
        self.lost = loop.create_future()
        self.made = loop.create_future()
        self.received = bytearray()
        self.all = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.made.set_result(transport)

    def data_received(self, data):
        self.received += data

    def eof_received(self):
        self.all.set_result(None)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def connected(loop):
    ours, theirs = socket.socketpair()
    transport, protocol = await loop.create_unix_connection(lambda: Sink(loop), sock=ours)
    return transport, protocol, theirs


def in_thread(function):
    thread = threading.Timer(0.02, function)        # when the loop sleeps in its poll
    thread.start()
    return thread


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closed_by_another_thread_while_the_loop_sleeps(loop, method):
    """Not promised by asyncio; but it must not harm the loop, and the loop must hear of it."""
    async def main():
        transport, protocol, theirs = await connected(loop)
        thread = in_thread(getattr(transport, method))
        assert await asyncio.wait_for(protocol.lost, 60) is None
        thread.join()
        assert theirs.recv(10) == b""
        theirs.close()

    loop.set_debug(False)
    loop.run_until_complete(main())


def test_paused_and_resumed_by_another_thread(loop):
    async def main():
        transport, protocol, theirs = await connected(loop)
        transport.pause_reading()
        theirs.send(b"x")
        theirs.shutdown(socket.SHUT_WR)
        thread = in_thread(transport.resume_reading)
        await asyncio.wait_for(protocol.all, 60)
        thread.join()
        assert protocol.received == b"x"
        transport.close()
        await protocol.lost
        theirs.close()

    loop.set_debug(False)
    loop.run_until_complete(main())


def test_little_written_by_another_thread(loop):
    """What is gathered for the end of the turn does not wait for a turn that nobody wakes."""
    async def main():
        transport, protocol, theirs = await connected(loop)
        got = loop.create_future()

        def read():
            text = b""
            while len(text) < 5:
                text += theirs.recv(10)
            loop.call_soon_threadsafe(got.set_result, text)

        reader = threading.Thread(target=read)
        reader.start()
        thread = in_thread(lambda: [transport.write(b"%d" % number) for number in range(5)])
        assert await asyncio.wait_for(got, 60) == b"01234"
        thread.join()
        reader.join()
        transport.close()
        await protocol.lost
        theirs.close()

    loop.set_debug(False)
    loop.run_until_complete(main())


def test_much_written_by_another_thread(loop):
    """More than the socket takes at once: the rest goes when the loop is told that there is room."""
    data = bytes(1 << 20)

    async def main():
        transport, protocol, theirs = await connected(loop)
        received = []

        def read():
            while sum(map(len, received)) < len(data):
                received.append(theirs.recv(1 << 16))
            loop.call_soon_threadsafe(done.set_result, None)

        done = loop.create_future()
        reader = threading.Thread(target=read)
        thread = in_thread(lambda: (transport.write(data), reader.start()))
        await asyncio.wait_for(done, 60)
        thread.join()
        reader.join()
        assert b"".join(received) == data
        transport.close()
        await protocol.lost
        theirs.close()

    loop.set_debug(False)
    loop.run_until_complete(main())


def test_threads_close_while_the_loop_is_busy(loop, no_leaked_fds):
    """Each closing in another thread meets the loop at another place."""
    async def main():
        for _ in range(20):
            made = [await connected(loop) for _ in range(10)]
            threads = [threading.Thread(target=transport.close) for transport, _, _ in made[::2]]
            for _, _, theirs in made:
                theirs.send(b"x")
            for thread in threads:
                thread.start()
            for transport, _, _ in made[1::2]:
                transport.close()
            for _, protocol, theirs in made:
                await asyncio.wait_for(protocol.lost, 60)
                theirs.close()
            for thread in threads:
                thread.join()

    loop.set_debug(False)
    loop.run_until_complete(main())


def test_loop_closed_with_transports_open(loop, no_leaked_fds):
    """What is left is closed with the transports, whose loop is not there any more."""
    async def main():
        return [await connected(loop) for _ in range(5)]

    made = loop.run_until_complete(main())
    loop.close()
    with pytest.warns(ResourceWarning):
        for transport, protocol, theirs in made:
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                transport.abort()
            theirs.close()
            del protocol.transport
        del made, transport, protocol
        gc.collect()


def test_the_number_of_a_socket_closed_under_its_transport(loop):
    """The collector may close the socket of a transport that is garbage before the transport itself."""
    async def main():
        left, peer = socket.socketpair()
        old, _ = await loop.create_connection(lambda: Sink(loop), sock=left)
        number = left.fileno()
        left.close()
        right, other = socket.socketpair()
        assert number in (right.fileno(), other.fileno())
        again, far = (right, other) if right.fileno() == number else (other, right)
        _, sink = await loop.create_connection(lambda: Sink(loop), sock=again)
        far.sendall(b"hello")
        far.close()
        await sink.all
        assert bytes(sink.received) == b"hello"
        sink.transport.close()
        old.abort()
        peer.close()
        await sink.lost

    loop.run_until_complete(main())
