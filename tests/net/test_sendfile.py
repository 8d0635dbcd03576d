# SPDX-License-Identifier: MIT
"""loop.sock_sendfile() and loop.sendfile(): by the kernel, by reading, over TCP, Unix sockets and TLS."""
import asyncio
import concurrent.futures
import contextlib
import io
import os
import socket
import tempfile
import threading

import pytest

pytestmark = pytest.mark.usefixtures("no_leaked_fds")
MIB = 1 << 20
SIZE = 300_000                      # more than a read for the fallback
DATA = bytes(i * 7 % 251 for i in range(251)) * (SIZE // 251 + 1)
DATA = DATA[:SIZE]
LARGE = 16 * MIB                    # more than the buffers of two sockets


class Unmapped(io.BytesIO):
    """A file that only read() reaches, which notes the threads that did."""

    mode = "rb"

    def __init__(self, data=DATA):
        super().__init__(data)
        self.threads = set()

    def readinto(self, buffer):
        self.threads.add(threading.get_ident())
        return super().readinto(buffer)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def large(tmp_path):
    """The path of a file of LARGE bytes, all zero."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE)
    return path


@pytest.fixture(params=["tcp", "unix"])
def sockets(request, tls):
    """Makes two connected, non-blocking sockets."""
    def make():
        if request.param == "tcp":
            return tls.tcp_pair()
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        return a, b
    return make


async def drain(sock):
    """What comes until the socket's end."""
    loop, data = asyncio.get_running_loop(), bytearray()
    while piece := await loop.sock_recv(sock, MIB):
        data += piece
    return bytes(data)


async def take(sock, size):
    """The next `size` bytes."""
    loop, data = asyncio.get_running_loop(), bytearray()
    while len(data) < size:
        piece = await loop.sock_recv(sock, min(MIB, size - len(data)))
        assert piece, f"ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


async def attached(sock, factory):
    """The protocol of a transport of a connected socket."""
    _, protocol = await asyncio.get_running_loop().connect_accepted_socket(factory, sock)
    return protocol


async def start(coroutine, turns=5):
    """A task that has begun."""
    task = asyncio.create_task(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not task.done()
    return task


# ---- sock_sendfile()

PARTS = [(0, None), (0, 1), (0, SIZE), (0, SIZE + 1), (1000, None), (1000, 5000), (SIZE - 1, None), (SIZE, None),
         (SIZE + 5, None), (SIZE - 10, 20), (0, SIZE - 1)]


@pytest.mark.parametrize("offset, count", PARTS)
@pytest.mark.parametrize("kind", ["file", "read"])
def test_parts_of_a_file(run, sockets, path, offset, count, kind):
    async def main():
        ours, peer = sockets()
        with ours, peer, open(path, "rb") if kind == "file" else Unmapped() as file:
            reading = asyncio.create_task(drain(peer))
            sent = await asyncio.get_running_loop().sock_sendfile(ours, file, offset, count)
            ours.shutdown(socket.SHUT_WR)
            expected = DATA[offset:][:count]
            assert await reading == expected and sent == len(expected)
            if sent or run.name == "pyconc":    # asyncio since 3.14
                assert file.tell() == offset + sent

    run(main)
    assert not run.reports


@pytest.mark.parametrize("position", [0, 10, 9000, SIZE])
@pytest.mark.parametrize("buffering", [0, -1])
def test_where_the_file_stands(run, sockets, path, position, buffering):
    """The kernel starts at `offset` wherever the file stands."""
    async def main():
        ours, peer = sockets()
        with ours, peer, open(path, "rb", buffering=buffering) as file:
            file.read(position)
            assert await asyncio.get_running_loop().sock_sendfile(ours, file, 5, 100) == 100
            assert await take(peer, 100) == DATA[5:105]
            if buffering == 0 or run.name == "pyconc":      # asyncio forgets what the reader holds
                assert file.tell() == 105
                assert file.read(10) == DATA[105:115]

    run(main)


def test_where_a_file_stands_that_is_read(run_ours, sockets):
    """The same there; asyncio started where it stood until 3.13."""
    async def main():
        ours, peer = sockets()
        with ours, peer:
            file = Unmapped()
            file.seek(7)
            assert await asyncio.get_running_loop().sock_sendfile(ours, file, 0, 100) == 100
            assert await take(peer, 100) == DATA[:100]
            assert file.tell() == 100

    run_ours(main)


def test_several_in_a_row(run, sockets, path):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        with ours, peer, open(path, "rb") as file:
            reading = asyncio.create_task(drain(peer))
            for i in range(5):
                await loop.sock_sendall(ours, b"<%d>" % i)
                assert await loop.sock_sendfile(ours, file) == SIZE
                assert await loop.sock_sendfile(ours, Unmapped(b"in memory"), 3) == 6
                assert await loop.sock_sendfile(ours, file, SIZE - 5) == 5
            ours.shutdown(socket.SHUT_WR)
            assert await reading == b"".join(b"<%d>" % i + DATA + b"memory" + DATA[-5:] for i in range(5))

    run(main)
    assert not run.reports


BAD = [({"count": 0}, ValueError), ({"count": -1}, ValueError), ({"count": 1.5}, TypeError),
       ({"count": "1"}, TypeError), ({"offset": -1}, ValueError), ({"offset": "0"}, TypeError),
       ({"offset": None}, TypeError)]


@pytest.mark.parametrize("arguments, error", BAD, ids=str)
@pytest.mark.parametrize("fallback", [True, False])
def test_bad_arguments(same, tls, path, arguments, error, fallback):
    async def main():
        ours, peer = tls.tcp_pair()
        with ours, peer, open(path, "rb") as file:
            with pytest.raises(error) as caught:
                await asyncio.get_running_loop().sock_sendfile(ours, file, fallback=fallback, **arguments)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            return tls.describe(caught.value)

    same(main)


def test_files_that_are_none(same, tls, path):
    async def main():
        loop, found = asyncio.get_running_loop(), []
        ours, peer = tls.tcp_pair()
        closed = open(path, "rb")
        closed.close()
        with ours, peer, open(path) as text:
            for file in (text, io.StringIO("text"), closed, None, 5, "path", object()):
                with pytest.raises((ValueError, AttributeError)) as caught:
                    await loop.sock_sendfile(ours, file)
                found.append(tls.describe(caught.value))
        return found

    same(main)


def test_sockets_that_are_no_streams(same, tls, path):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, open(path, "rb") as file:
            sock.setblocking(False)
            with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported") as caught:
                await asyncio.get_running_loop().sock_sendfile(sock, file)
            return tls.describe(caught.value)

    same(main)


def test_blocking_sockets_in_debug_mode(run, tls, path):
    async def main():
        ours, peer = tls.tcp_pair()
        with ours, peer, open(path, "rb") as file:
            ours.setblocking(True)
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await asyncio.get_running_loop().sock_sendfile(ours, file)

    run(main, debug=True)


def test_tls_sockets(run, tls, path):
    async def main():
        ours, peer = tls.tcp_pair()
        with peer, tls.client_context().wrap_socket(ours, server_hostname="localhost",
                                                    do_handshake_on_connect=False) as sock, open(path, "rb") as file:
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                await asyncio.get_running_loop().sock_sendfile(sock, file)

    run(main)


@pytest.mark.parametrize("file", [io.BytesIO(b"data"), Unmapped()], ids=["BytesIO", "own"])
def test_nothing_but_the_kernel(run, tls, file):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = tls.tcp_pair()
        with peer:
            with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
                await loop.sock_sendfile(ours, file, fallback=False)
            protocol = await attached(ours, tls.Recorder)
            with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
                await loop.sendfile(protocol.transport, file, fallback=False)
            protocol.transport.write(b"still there")
            assert await take(peer, 11) == b"still there"
            assert file.tell() == 0 and protocol.transport.is_reading()
            await tls.finish(protocol)

    run(main)
    assert not run.reports


def test_an_empty_file(run, sockets):
    async def main():
        ours, peer = sockets()
        with ours, peer, tempfile.TemporaryFile() as file:
            assert await asyncio.get_running_loop().sock_sendfile(ours, file) == 0
            assert await asyncio.get_running_loop().sock_sendfile(ours, file, 0, 5) == 0
            assert await asyncio.get_running_loop().sock_sendfile(ours, io.BytesIO()) == 0
            assert file.tell() == 0

    run(main)


def test_a_file_whose_size_is_not_known(run_ours, sockets):
    """asyncio takes a size of 0 for the whole truth."""
    async def main():
        ours, peer = sockets()
        with ours, peer, open("/proc/self/stat", "rb") as file:
            sent = await asyncio.get_running_loop().sock_sendfile(ours, file)
            assert (await take(peer, sent)).startswith(b"%d (" % os.getpid())

    run_ours(main)


def test_a_fifo_is_read_off_the_loop(run_ours, sockets):
    """It has to wait for its writer, and the loop turns meanwhile. asyncio sends nothing of it."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        source, sink = os.pipe()
        with ours, peer, open(source, "rb", buffering=0) as file, open(sink, "wb", buffering=0) as writer:
            sending = await start(loop.sock_sendfile(ours, file), turns=200)
            for i in range(10):
                writer.write(b"%d" % i)
                assert await take(peer, 1) == b"%d" % i
            writer.close()
            assert await sending == 10

    run_ours(main)
    assert not run_ours.reports


@pytest.mark.parametrize("way", ["socket", "transport", "tls"])
def test_reads_run_in_the_executor(run, tls, way):
    async def main():
        loop, file = asyncio.get_running_loop(), Unmapped(b"x" * MIB)
        if way == "tls":
            protocol, peer = await tls.pair()
            assert await loop.sendfile(protocol.transport, file) == MIB
            assert await peer.received(MIB) == b"x" * MIB
            await tls.finish(protocol, peer)
        else:
            ours, peer = tls.tcp_pair()
            with peer:
                reading = asyncio.create_task(take(peer, MIB))
                if way == "socket":
                    with ours:
                        assert await loop.sock_sendfile(ours, file) == MIB
                        await reading
                else:
                    protocol = await attached(ours, tls.Recorder)
                    assert await loop.sendfile(protocol.transport, file) == MIB
                    await reading
                    await tls.finish(protocol)
        assert file.threads and threading.get_ident() not in file.threads

    run(main)
    assert not run.reports


def test_the_callers_own_executor_reads(run_ours, sockets):
    async def main():
        loop, called = asyncio.get_running_loop(), []

        class Executor(concurrent.futures.ThreadPoolExecutor):
            def submit(self, function, *args, **kwargs):
                called.append(function)
                return super().submit(function, *args, **kwargs)

        loop.set_default_executor(Executor(1))
        ours, peer = sockets()
        with ours, peer:
            assert await loop.sock_sendfile(ours, io.BytesIO(b"data")) == 4
        assert len(called) == 2

    run_ours(main)


class Gated(Unmapped):
    """A file whose every read but the first waits for a gate; `reading` is set once one does."""

    def __init__(self, loop, data):
        super().__init__(data)
        self.loop, self.reading, self.gate = loop, asyncio.Event(), threading.Event()

    def readinto(self, buffer):
        if self.threads:
            self.loop.call_soon_threadsafe(self.reading.set)
            self.gate.wait()
        return super().readinto(buffer)


@pytest.mark.parametrize("seekable", [True, False])
def test_cancelled_during_a_read(run_ours, sockets, seekable):
    """The read is waited for, unless it is one that may never end. asyncio's goes on behind the caller's back."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        file = Gated(loop, DATA)
        file.seekable = lambda: seekable
        with ours, peer:
            reading = asyncio.create_task(drain(peer))
            sending = asyncio.create_task(loop.sock_sendfile(ours, file))
            await file.reading.wait()
            sending.cancel()
            done, _ = await asyncio.wait([sending], timeout=0 if seekable else None)
            assert bool(done) is not seekable
            file.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await sending
            ours.shutdown(socket.SHUT_WR)
            sent = len(await reading)
            assert 0 < sent < SIZE
            if seekable:
                assert file.tell() == sent

    run_ours(main)
    assert not run_ours.reports


def test_cancelled_before_the_first_piece_was_sent(run_ours):
    """asyncio leaves the file behind what it has read."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()        # which takes no more than it takes at first
        ours.setblocking(False)
        with ours, peer, Unmapped() as file:
            with contextlib.suppress(BlockingIOError):
                while True:
                    ours.send(bytes(MIB))
            sending = await start(loop.sock_sendfile(ours, file))
            while file.tell() == 0:
                await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert file.tell() == 0

    run_ours(main)
    assert not run_ours.reports


def test_cancelled_before_a_read_has_begun(run_ours):
    """It is not waited for, and never begins."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()        # which takes no more than it takes at first
        ours.setblocking(False)
        gate, file = threading.Event(), Unmapped()
        with ours, peer, concurrent.futures.ThreadPoolExecutor(1) as executor:
            loop.set_default_executor(executor)
            busy = loop.run_in_executor(None, gate.wait)
            sending = await start(loop.sock_sendfile(ours, file))
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            gate.set()
            await busy
            await loop.run_in_executor(None, int)
            assert file.tell() == 0 and not file.threads

    run_ours(main)
    assert not run_ours.reports


# ---- ends

def test_a_file_that_shrinks(run, sockets, large):
    async def main():
        ours, peer = sockets()
        with ours, peer, open(large, "rb") as file:
            sending = await start(asyncio.get_running_loop().sock_sendfile(ours, file))
            os.truncate(large, 1000)
            reading = asyncio.create_task(drain(peer))
            sent = await sending
            ours.shutdown(socket.SHUT_WR)
            assert 1000 < sent < LARGE and file.tell() == sent
            assert len(await reading) == sent

    run(main)
    assert not run.reports


def test_a_file_that_grows(run, sockets, large):
    async def main():
        ours, peer = sockets()
        with ours, peer, open(large, "rb") as file:
            sending = await start(asyncio.get_running_loop().sock_sendfile(ours, file))
            with open(large, "ab") as more:
                more.write(b"the end")
            reading = asyncio.create_task(drain(peer))
            assert await sending == LARGE + 7
            ours.shutdown(socket.SHUT_WR)
            assert (await reading)[-10:] == b"\0\0\0the end"

    run(main)


@pytest.mark.parametrize("kind", ["file", "read"])
def test_a_peer_that_closes(run, sockets, large, kind):
    async def main():
        ours, peer = sockets()
        with ours, open(large, "rb") if kind == "file" else Unmapped(bytes(LARGE)) as file:
            sending = await start(asyncio.get_running_loop().sock_sendfile(ours, file))
            await take(peer, 1000)
            peer.close()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await sending
            assert (1000 if kind == "file" else 0) <= file.tell() < LARGE   # a piece that went in part does not count

    run(main)
    assert not run.reports


@pytest.mark.parametrize("kind", ["file", "read"])
def test_cancelled_while_the_socket_is_full(run, sockets, large, kind):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        with ours, peer, open(large, "rb") if kind == "file" else Unmapped(bytes(LARGE)) as file:
            sending = asyncio.create_task(loop.sock_sendfile(ours, file))
            await take(peer, 100_000)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            if run.name == "pyconc" and kind == "file":     # asyncio leaves the file where it was
                rest = file.tell() - 100_000
                await take(peer, rest)
                with pytest.raises(BlockingIOError):
                    peer.recv(1)
            reading = asyncio.create_task(drain(peer))
            await loop.sock_sendall(ours, b"the socket is as before")
            with open(large, "rb") as another:      # asyncio may still be reading the first
                assert await loop.sock_sendfile(ours, another, LARGE - 5) == 5
            ours.shutdown(socket.SHUT_WR)
            assert (await reading).endswith(b"the socket is as before" + bytes(5))

    run(main)
    assert not run.reports


def test_a_socket_closed_in_between(run_ours, sockets, large, path):
    """Its number goes to another one, which must not be harmed."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        with peer, open(large, "rb") as file:
            sending = await start(loop.sock_sendfile(ours, file))
            number = ours.fileno()
            ours.close()
            again, other = socket.socketpair()
            with again, other:
                assert number == again.fileno()
                again.setblocking(False)
                other.setblocking(False)
                with open(path, "rb") as second:
                    reading = asyncio.create_task(take(other, SIZE))
                    assert await loop.sock_sendfile(again, second) == SIZE
                    assert await reading == DATA
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await sending
                await loop.sock_sendall(again, b"fine")
                assert await take(other, 4) == b"fine"

    run_ours(main)
    assert not run_ours.reports


# ---- sendfile() over transports

@pytest.fixture(params=["tcp", "unix", "tls"])
def connection(request, tls):
    """connection(): a protocol on a transport, and how to read at its other end, and how to close both."""
    async def make(factory=tls.Recorder):
        if request.param == "tls":
            protocol, peer = await tls.pair(factory)
            return protocol, peer.received, lambda: tls.finish(protocol, peer)
        ours, peer = tls.tcp_pair() if request.param == "tcp" else socket.socketpair()
        peer.setblocking(False)
        protocol = await attached(ours, factory)

        async def finish():
            await tls.finish(protocol)
            peer.close()
        return protocol, lambda size: take(peer, size), finish
    make.kind = request.param
    return make


@pytest.mark.parametrize("kind", ["file", "read"])
def test_order(run, connection, path, kind):
    async def main():
        loop = asyncio.get_running_loop()
        protocol, received, finish = await connection()
        transport = protocol.transport
        with open(path, "rb") if kind == "file" else Unmapped() as file:
            reading = asyncio.create_task(received(3 * (SIZE + 2 * MIB + 3)))
            for i in range(3):
                transport.write(b"<" * MIB)
                assert await loop.sendfile(transport, file) == SIZE
                assert file.tell() == SIZE
                file.seek(0)
                transport.write(b">" * MIB)
                transport.writelines([b"e", b"n", b"d"])
            assert await reading == (b"<" * MIB + DATA + b">" * MIB + b"end") * 3
        await finish()
        assert protocol.events[-1] == ("lost", None)

    run(main)
    assert not run.reports


@pytest.mark.parametrize("offset, count", PARTS)
def test_parts_over_transports(run, connection, path, offset, count):
    async def main():
        loop = asyncio.get_running_loop()
        protocol, received, finish = await connection()
        expected = DATA[offset:][:count]
        with open(path, "rb") as file:
            reading = asyncio.create_task(received(len(expected)))
            assert await loop.sendfile(protocol.transport, file, offset, count) == len(expected)
            assert await reading == expected
            if expected or run.name == "pyconc":
                assert file.tell() == offset + len(expected)
        assert protocol.transport.is_reading()
        await finish()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("arguments, error", BAD, ids=str)
def test_bad_arguments_over_transports(run_ours, connection, tls, path, arguments, error):
    """asyncio does not look at them over TLS."""
    async def main():
        protocol, received, finish = await connection()
        with open(path, "rb") as file:
            with pytest.raises(error, match="must be a"):
                await asyncio.get_running_loop().sendfile(protocol.transport, file, **arguments)
        with open(path) as text:
            with pytest.raises(ValueError, match="file should be opened in binary mode"):
                await asyncio.get_running_loop().sendfile(protocol.transport, text)
        protocol.transport.write(b"fine")
        assert await received(4) == b"fine"
        assert protocol.transport.is_reading() and protocol.transport.get_protocol() is protocol
        await finish()

    run_ours(main)
    assert not run_ours.reports


def test_tls_needs_the_fallback(run, tls, path):
    async def main():
        protocol, peer = await tls.pair()
        with open(path, "rb") as file:
            with pytest.raises(RuntimeError, match="fallback is disabled and native sendfile is not supported for"):
                await asyncio.get_running_loop().sendfile(protocol.transport, file, fallback=False)
        await tls.finish(protocol, peer)

    run(main)


def test_transports_that_are_refused(run, connection, path):
    async def main():
        loop = asyncio.get_running_loop()
        datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        protocol, _, finish = await connection()
        with open(path, "rb") as file:
            with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
                await loop.sendfile(datagrams, file)
            protocol.transport.close()
            with pytest.raises(RuntimeError, match="Transport is closing"):
                await loop.sendfile(protocol.transport, file)
        datagrams.close()
        await finish()

    run(main)


def test_writes_in_between_are_refused(run, tls, large):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = tls.tcp_pair()
        with peer, open(large, "rb") as file, open(large, "rb") as second:
            protocol = await attached(ours, tls.Recorder)
            transport = protocol.transport
            sending = await start(loop.sendfile(transport, file))
            with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
                transport.write(b"data")
            if run.name == "pyconc":    # asyncio's second one breaks the first (and writelines() is newer there)
                with pytest.raises(RuntimeError, match="unable to writelines; sendfile is in progress"):
                    transport.writelines([b"data"])
                with pytest.raises(RuntimeError, match="Empty waiter is already set"):
                    await loop.sendfile(transport, second)
            reading = asyncio.create_task(take(peer, LARGE))
            assert await sending == LARGE and await reading == bytes(LARGE)
            assert transport.is_reading()
            await tls.finish(protocol)

    run(main)
    assert not run.reports


def test_reading_is_paused_meanwhile(run, connection, large):
    async def main():
        loop = asyncio.get_running_loop()
        protocol, received, finish = await connection()
        transport = protocol.transport
        with open(large, "rb") as file:
            for paused in (False, True):
                if paused:
                    transport.pause_reading()
                sending = await start(loop.sendfile(transport, file))
                assert not transport.is_reading()
                await received(LARGE)
                assert await sending == LARGE
                assert transport.is_reading() is not paused
                file.seek(0)
        await finish()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("factory", ["Recorder", "Buffered"])
def test_reading_resumed_by_another(run_ours, tls, factory):
    """asyncio's fallback takes it for an error."""
    async def main():
        protocol, peer = await tls.pair(getattr(tls, factory))
        sending = await start(asyncio.get_running_loop().sendfile(protocol.transport, Unmapped(bytes(LARGE))))
        protocol.transport.resume_reading()
        peer.transport.write(b"early" * 1000)
        assert await protocol.received(5000) == b"early" * 1000
        assert len(await peer.received(LARGE)) == LARGE == await sending
        assert protocol.transport.get_protocol() is protocol
        await tls.finish(protocol, peer)

    run_ours(main)
    assert not run_ours.reports


def test_what_comes_in_meanwhile_is_not_lost(run, tls, large):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = tls.tcp_pair()
        with peer, open(large, "rb") as file:
            protocol = await attached(ours, tls.Recorder)
            sending = await start(loop.sendfile(protocol.transport, file))
            peer.send(b"early")
            await take(peer, 1000)
            assert not protocol.data
            if run.name == "pyconc":
                protocol.transport.resume_reading()     # by whoever wants it
                assert await protocol.received(5) == b"early"
                assert not sending.done()
            await take(peer, LARGE - 1000)
            assert await sending == LARGE
            if run.name == "asyncio":
                assert await protocol.received(5) == b"early"
            await tls.finish(protocol)

    run(main)
    assert not run.reports


def test_it_waits_for_what_was_written_before(run, sockets, tls, path):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        with peer, open(path, "rb") as file:
            protocol = await attached(ours, tls.Recorder)
            protocol.transport.write(b"<" * LARGE)
            sending = await start(loop.sendfile(protocol.transport, file))
            assert await take(peer, LARGE) == b"<" * LARGE
            assert await take(peer, SIZE) == DATA
            assert await sending == SIZE
            assert protocol.events == ["made", "pause", "resume"]
            await tls.finish(protocol)

    run(main)
    assert not run.reports


EARLY = {
    "size": lambda transport: transport.get_write_buffer_size(),
    "limits": lambda transport: transport.set_write_buffer_limits(high=1),
    "eof": lambda transport: transport.can_write_eof() and transport.write_eof(),
}


@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("kind", ["file", "read"])
def test_what_was_written_before_may_go_early(run, connection, path, kind, early):
    """By another task, which has the transport send what would have gone at the end of the turn."""
    async def main():
        protocol, received, finish = await connection()
        transport = protocol.transport

        async def send(file):
            transport.write(b"first,")
            transport.write(b"second,")
            return await asyncio.get_running_loop().sendfile(transport, file, 0, 100)

        async def flush():
            EARLY[early](transport)

        with open(path, "rb") if kind == "file" else Unmapped() as file:
            if kind == "read" and early == "eof":
                return await finish()       # nothing may be written after it
            sent, _ = await asyncio.wait_for(asyncio.gather(send(file), flush()), 60)
            assert sent == 100
            assert await received(113) == b"first,second," + DATA[:100]
        await finish()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_cancelled_before_it_began(run_ours, sockets, tls, path, turns):
    """What was written before goes on, and the transport is as before. asyncio's is not."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        with peer, open(path, "rb") as file:
            protocol = await attached(ours, tls.Recorder)
            protocol.transport.write(b"<" * LARGE)
            sending = await start(loop.sendfile(protocol.transport, file), turns)
            reading = asyncio.create_task(take(peer, LARGE + 1 + SIZE))
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert protocol.transport.is_reading() and file.tell() == 0
            protocol.transport.write(b">")
            assert await loop.sendfile(protocol.transport, file) == SIZE
            assert await reading == b"<" * LARGE + b">" + DATA
            await tls.finish(protocol)

    run_ours(main)
    assert not run_ours.reports


@pytest.mark.parametrize("kind", ["file", "read"])
def test_cancelled_in_the_middle(run, connection, large, kind):
    async def main():
        loop = asyncio.get_running_loop()
        protocol, received, finish = await connection()
        transport = protocol.transport
        with open(large, "rb") if kind == "file" else Unmapped(bytes(LARGE)) as file:
            sending = asyncio.create_task(loop.sendfile(transport, file))
            await received(10_000)
            assert not sending.done()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert transport.is_reading() and transport.get_protocol() is protocol
            if run.name == "pyconc":    # asyncio leaves the file where it was, or reads on
                transport.write(b"next")
                await received(file.tell() - 10_000)
                assert await received(4) == b"next"
        transport.abort()
        await finish()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("kind", ["file", "read"])
def test_a_transport_that_is_closed(run_ours, connection, large, how, kind):
    """asyncio's sendfile() never ends then, over TCP."""
    async def main():
        loop = asyncio.get_running_loop()
        protocol, received, finish = await connection()
        with open(large, "rb") if kind == "file" else Unmapped(bytes(LARGE)) as file:
            sending = asyncio.create_task(loop.sendfile(protocol.transport, file))
            await received(10_000)
            getattr(protocol.transport, how)()
            reading = asyncio.create_task(received(LARGE))      # what is queued
            with pytest.raises(ConnectionError):
                await sending
            await protocol.lost
            reading.cancel()
            await asyncio.wait([reading])
        await finish()
        assert protocol.events[-1] == ("lost", None) and protocol.events.count(("lost", None)) == 1

    run_ours(main)
    assert not run_ours.reports


@pytest.mark.parametrize("kind", ["file", "read"])
def test_a_peer_that_closes_its_end(run, sockets, tls, large, kind):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = sockets()
        with peer, open(large, "rb") if kind == "file" else Unmapped(bytes(LARGE)) as file:
            protocol = await attached(ours, tls.Recorder)
            sending = await start(loop.sendfile(protocol.transport, file))
            await take(peer, 1000)
            peer.close()
            with pytest.raises(ConnectionError):
                await sending
            assert 1000 <= file.tell() < LARGE
            await protocol.lost

    run(main)
    assert not run.reports


def test_a_peer_that_closes_over_tls(run, tls, large):
    async def main():
        protocol, peer = await tls.with_peer()
        with open(large, "rb") as file:
            sending = await start(asyncio.get_running_loop().sendfile(protocol.transport, file))
            await peer.read()
            peer.reset()
            with pytest.raises(ConnectionError):
                await sending
        await protocol.lost

    run(main)
    assert not run.reports


def test_flow_control_is_handed_on(run_ours, tls):
    """The protocol hears of a buffer that the file has filled, and then that it is empty."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = tls.tcp_pair()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)   # else it grows to more than LARGE
        with peer:
            protocol = await attached(ours, tls.Recorder)
            transport = protocol.transport
            transport.write(b"<" * LARGE)               # paused before and, still, after
            file = io.BytesIO(b"x" * 1000)
            sending = await start(loop.sendfile(transport, file))
            await take(peer, LARGE)
            assert await sending == 1000
            assert await take(peer, 1000) == b"x" * 1000
            assert protocol.events == ["made", "pause", "resume"]

            blocked = await start(loop.sendfile(transport, Unmapped(bytes(LARGE)), 0, LARGE))
            while transport.get_write_buffer_size() <= 65536:
                await asyncio.sleep(0)
            assert protocol.events == ["made", "pause", "resume"]
            blocked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await blocked
            assert protocol.events == ["made", "pause", "resume", "pause"]
            reading = asyncio.create_task(drain(peer))
            await protocol.until(lambda: protocol.events[-1] == "resume")
            await tls.finish(protocol)
            await reading

    run_ours(main)
    assert not run_ours.reports


def test_buffered_protocols(run, connection, tls, path):
    async def main():
        protocol, received, finish = await connection(tls.Buffered)
        with open(path, "rb") as file:
            reading = asyncio.create_task(received(SIZE))
            assert await asyncio.get_running_loop().sendfile(protocol.transport, file) == SIZE
            assert await reading == DATA
        assert protocol.transport.is_reading()
        await finish()

    run(main)
    assert not run.reports


def test_streams(run, tls, path):
    async def main():
        async def serve(reader, writer):
            with open(path, "rb") as file:
                while await reader.readline():
                    writer.write(b"%d\n" % SIZE)
                    await asyncio.get_running_loop().sendfile(writer.transport, file)
            writer.close()

        for context, client in ((None, {}), (tls.server_context(), {"ssl": tls.client_context(),
                                                                    "server_hostname": "localhost"})):
            server = await asyncio.start_server(serve, tls.HOST, 0, ssl=context)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), **client)
            for _ in range(1 if context else 3):
                writer.write(b"\n")
                assert int(await reader.readline()) == SIZE
                assert await reader.readexactly(SIZE) == DATA
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            server.close()
            await server.wait_closed()

    run(main)
    assert not run.reports


def test_nothing_is_left_behind(no_leaked_objects, tls, path):
    import pyconc

    loop = pyconc.new_event_loop()

    async def once():
        ours, peer = tls.tcp_pair()
        with peer, open(path, "rb") as file:
            protocol = await attached(ours, tls.Recorder)
            reading = asyncio.create_task(drain(peer))
            await loop.sendfile(protocol.transport, file)
            await loop.sendfile(protocol.transport, io.BytesIO(b"in memory"))
            await tls.finish(protocol)
            assert len(await reading) == SIZE + 9

    try:
        no_leaked_objects(lambda: loop.run_until_complete(once()))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
