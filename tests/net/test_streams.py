# SPDX-License-Identifier: MIT
"""asyncio's streams on pyconc's loop, where their reading and draining is C: as on asyncio's loop."""
import asyncio
import contextlib
import fractions
import gc
import inspect
import socket
import subprocess
import sys
import weakref

import pytest

import pyconc
from pyconc._core import StreamSource
from pyconc.loop import streams

OURS = not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled()     # without a GIL the streams stay asyncio's
needs_ours = pytest.mark.skipif(not OURS, reason="without a GIL the streams are asyncio's own")


class Connection:
    """async with Connection(): a StreamReader and StreamWriter of a client, and of a server the same."""

    def __init__(self, limit=2**16, server_limit=2**16):
        self.limit, self.server_limit = limit, server_limit

    async def __aenter__(self):
        accepted = asyncio.get_running_loop().create_future()
        self.server = await asyncio.start_server(lambda *streams: accepted.set_result(streams), "127.0.0.1", 0,
                                                 limit=self.server_limit)
        self.reader, self.writer = await asyncio.open_connection(*self.server.sockets[0].getsockname(),
                                                                 limit=self.limit)
        self.peer_reader, self.peer_writer = await accepted
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        for writer in self.writer, self.peer_writer:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def sent(self, data):
        """Sends `data` from the peer, and waits until all of it is in the reader."""
        self.peer_writer.write(data)
        while len(self.reader._buffer) < len(data):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("read", [
    lambda r: r.read(4), lambda r: r.read(100), lambda r: r.read(0), lambda r: r.read(n=5), lambda r: r.readexactly(3),
    lambda r: r.readexactly(12), lambda r: r.readexactly(0), lambda r: r.readline(), lambda r: r.readuntil(b"e"),
    lambda r: r.readuntil(), lambda r: r.readuntil(separator=b"li"), lambda r: r.readuntil(b"line\nlast"),
])
def test_what_is_there_is_read_at_once(run, read):
    async def main():
        async with Connection() as it:
            await it.sent(b"line\nlast line")
            before = bytes(it.reader._buffer)
            data = await read(it.reader)
            assert data == before[:len(data)] and type(data) is bytes
            assert it.reader._buffer == before[len(data):]
            return data

    assert run(main) == {
        0: b"line", 1: b"line\nlast line", 2: b"", 3: b"line\n", 4: b"lin", 5: b"line\nlast li", 6: b"", 7: b"line\n",
        8: b"line", 9: b"line\n", 10: b"li", 11: b"line\nlast",
    }[[*test_what_is_there_is_read_at_once.pytestmark[0].args[1]].index(read)]


@pytest.mark.parametrize("name, arguments, expected", [
    ("read", (3,), b"abc"), ("readexactly", (7,), b"abcdefg"), ("readline", (), b"abcdefgh\n"),
    ("readuntil", (b"fg",), b"abcdefg"),
])
def test_what_comes_in_pieces_is_waited_for(run, name, arguments, expected):
    async def main():
        async with Connection() as it:
            reading = asyncio.create_task(getattr(it.reader, name)(*arguments))
            for piece in (b"abc", b"def", b"gh", b"\nmore"):
                await asyncio.sleep(0.01)
                it.peer_writer.write(piece)
            assert await reading == expected
            rest = b"abcdefgh\nmore"[len(expected):]
            assert await it.reader.readexactly(len(rest)) == rest

    run(main)


@pytest.mark.parametrize("name, arguments, expected", [
    ("read", (-1,), b"partial"), ("read", (), b"partial"), ("read", (100,), b"partial"), ("readline", (), b"partial"),
    ("readexactly", (100,), asyncio.IncompleteReadError(b"partial", 100)),
    ("readuntil", (b"x",), asyncio.IncompleteReadError(b"partial", None)),
])
def test_the_end_of_the_stream(run, name, arguments, expected):
    async def main():
        async with Connection() as it:
            it.peer_writer.write(b"partial")
            it.peer_writer.write_eof()
            while not it.reader._eof:
                await asyncio.sleep(0.001)
            if isinstance(expected, bytes):
                assert await getattr(it.reader, name)(*arguments) == expected
            else:
                with pytest.raises(type(expected)) as raised:
                    await getattr(it.reader, name)(*arguments)
                assert raised.value.args == expected.args
                assert raised.value.partial == expected.partial
            assert it.reader.at_eof()
            assert await it.reader.read(10) == await it.reader.readline() == await it.reader.read() == b""

    run(main)


@pytest.mark.parametrize("name, arguments, error", [
    ("readexactly", (-1,), ValueError), ("readuntil", (b"",), ValueError), ("readexactly", ("1",), TypeError),
    ("read", (1.5,), TypeError), ("read", (1, 2), TypeError), ("readuntil", ("x",), TypeError),
    ("readexactly", (), TypeError), ("readline", (1,), TypeError),
])
def test_bad_arguments(same, name, arguments, error):
    async def main():
        async with Connection() as it:
            await it.sent(b"something")
            with pytest.raises(error) as raised:
                await getattr(it.reader, name)(*arguments)
            assert await it.reader.read(100) == b"something"
            return str(raised.value)

    same(main)


def test_lines_longer_than_the_limit(run):
    async def main():
        async with Connection(limit=10) as it:
            await it.sent(b"x" * 15 + b"\nshort\n")
            with pytest.raises(asyncio.LimitOverrunError, match="longer than limit") as raised:
                await it.reader.readuntil(b"\n")
            assert raised.value.consumed == 15
            with pytest.raises(ValueError, match="longer than limit"):
                await it.reader.readline()
            assert await it.reader.readline() == b"short\n"
            await it.sent(b"y" * 11)
            with pytest.raises(asyncio.LimitOverrunError, match="exceed the limit"):
                await it.reader.readuntil(b"\n")
            assert await it.reader.readexactly(11) == b"y" * 11
            await it.sent(b"exactly 10\n")
            assert await it.reader.readline() == b"exactly 10\n"

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="readuntil() takes several separators from 3.13 on")
def test_several_separators(run):
    async def main():
        async with Connection() as it:
            await it.sent(b"a;b,c;")
            assert [await it.reader.readuntil((b",", b";")) for _ in range(3)] == [b"a;", b"b,", b"c;"]

    run(main)


def test_a_second_reader_is_an_error(run):
    async def main():
        async with Connection() as it:
            first = asyncio.create_task(it.reader.read(5))
            await asyncio.sleep(0)
            for name, arguments in ("read", (1,)), ("readexactly", (1,)), ("readline", ()), ("readuntil", (b"x",)):
                called = "readuntil" if name == "readline" else name
                with pytest.raises(RuntimeError, match=rf"^{called}\(\) called while another coroutine is already"):
                    await getattr(it.reader, name)(*arguments)
            it.peer_writer.write(b"first")
            assert await first == b"first"

    run(main)


def test_cancelled_and_timed_out_reads_lose_nothing(run):
    async def main():
        async with Connection() as it:
            for name, arguments in ("read", (100,)), ("readexactly", (9,)), ("readline", ()), ("readuntil", (b"\n",)):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(getattr(it.reader, name)(*arguments), 0.001)
                assert it.reader._waiter is None
            await it.sent(b"complete\n")
            reading = asyncio.create_task(it.reader.readexactly(100))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await it.reader.readline() == b"complete\n"

    run(main)


def test_data_is_read_before_the_connection_is_found_lost(run):
    async def main():
        async with Connection() as it:
            reading = asyncio.create_task(it.reader.read(100))
            await asyncio.sleep(0)
            it.reader.feed_data(b"the last words")
            it.reader.set_exception(ConnectionResetError("lost"))
            assert await reading == b"the last words"
            assert isinstance(it.reader.exception(), ConnectionResetError)
            for read in (it.reader.read(1), it.reader.readexactly(1), it.reader.readline(), it.reader.readuntil(b"x"),
                         it.reader.read()):
                with pytest.raises(ConnectionResetError, match="lost"):
                    await read
            it.reader.set_exception(None)

    run(main)


@needs_ours
def test_bytes_that_the_lost_connection_did_not_bring(run_ours):
    async def main():
        async with Connection() as it:
            reading = asyncio.create_task(it.reader.readexactly(100))
            await asyncio.sleep(0)
            it.reader.feed_data(b"some")
            it.reader.set_exception(ConnectionResetError("lost"))
            with pytest.raises(ConnectionResetError, match="lost"):
                await asyncio.wait_for(reading, 60)

    run_ours(main)


READS = {"read": lambda r: r.read(50), "readexactly": lambda r: r.readexactly(50), "readline": lambda r: r.readline(),
         "readuntil": lambda r: r.readuntil(b"zz")}


@pytest.mark.parametrize("data, limit", [(b"part", 20), (b"", 20), (b"more than the limit", 4),
                                         (b"more than the limit\nzz", 4)])
@pytest.mark.parametrize("read", READS)
def test_the_end_or_too_much_before_the_connection_is_found_lost(same, read, data, limit):
    """And all of it before the waiting read, which was woken, runs: it gets what it would have got without the loss."""
    async def main():
        async with Connection(limit=limit) as it:
            reading = asyncio.create_task(READS[read](it.reader))
            await asyncio.sleep(0)
            it.reader.feed_data(data)
            it.reader.feed_eof()
            it.reader.set_exception(ConnectionResetError("lost"))
            try:
                result = await reading
            except Exception as error:
                result = repr(error), getattr(error, "partial", None), getattr(error, "consumed", None)
            assert isinstance(it.reader.exception(), ConnectionResetError)
            return result, bytes(it.reader._buffer)

    same(main)


@needs_ours
def test_data_taken_by_another_is_not_the_end(run_ours):
    async def main():
        async with Connection() as it:
            first = asyncio.create_task(it.reader.read(10))
            await asyncio.sleep(0)
            it.reader.feed_data(b"data")
            assert await it.reader.read(10) == b"data"      # before the first, which was woken, runs
            await asyncio.sleep(0)
            assert not first.done()
            it.peer_writer.write(b"more")
            assert await first == b"more"

    run_ours(main)


def test_a_waiting_read_is_told_that_the_connection_is_lost(run):
    async def main():
        async with Connection() as it:
            reading = asyncio.create_task(it.reader.readexactly(100))
            await asyncio.sleep(0)
            sock = it.peer_writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            it.peer_writer.transport.abort()
            with pytest.raises(ConnectionResetError):
                await reading
            with pytest.raises(ConnectionResetError):
                await it.writer.drain()

    run(main)


def test_a_full_reader_stops_the_peer_and_goes_on(run):
    async def main():
        async with Connection(limit=1000, server_limit=1000) as it:
            total = 5_000_000

            async def send():
                for _ in range(total // 10_000):
                    it.peer_writer.write(b"x" * 10_000)
                    await it.peer_writer.drain()

            sending = asyncio.create_task(send())
            while not it.reader._paused:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert not sending.done()
            assert it.reader._paused and not it.writer.transport.is_reading()
            assert await it.reader.readexactly(total - 10) == b"x" * (total - 10)
            await sending
            assert await it.reader.read(100) == b"x" * 10
            assert not it.reader._paused and it.writer.transport.is_reading()

    run(main)


def test_drain_waits_for_room_and_tells_of_the_end(run):
    async def main():
        async with Connection() as it:
            await it.peer_writer.drain()
            it.peer_writer.transport.set_write_buffer_limits(high=0)
            while not it.peer_writer._protocol._paused:
                it.peer_writer.write(bytes(1_000_000))
            draining = asyncio.create_task(it.peer_writer.drain())
            await asyncio.sleep(0.01)
            assert not draining.done()

            async def discard():
                while await it.reader.read(1_000_000):
                    pass

            discarding = asyncio.create_task(discard())
            await draining
            it.peer_writer.close()
            with pytest.raises(ConnectionResetError, match="Connection lost"):
                await it.peer_writer.drain()
            await it.peer_writer.wait_closed()
            await discarding

    run(main)


def test_a_program_may_feed_and_look_inside(run):
    """The attributes that asyncio's StreamReader has, which programs do use."""
    async def main():
        async with Connection() as it:
            reader = it.reader
            assert (reader._buffer, reader._eof, reader._waiter, reader._exception, reader._paused, reader._limit) \
                == (bytearray(), False, None, None, False, 2**16)
            assert reader._loop is asyncio.get_running_loop() and reader._transport is it.writer.transport
            assert repr(reader) == f"<StreamReader transport={it.writer.transport!r}>"
            reader.feed_data(b"bytes ")
            assert repr(reader).startswith("<StreamReader 6 bytes ")
            reader.feed_data(bytearray(b"bytearray "))
            reader.feed_data(memoryview(b"memoryview"))
            reader.feed_data(b"")
            assert await reader.readexactly(26) == b"bytes bytearray memoryview"
            reader._buffer += b"appended"
            reader._limit = 3
            assert await reader.read(100) == b"appended"
            reader._buffer = bytearray(b"replaced")
            assert await reader.read(100) == b"replaced"
            reader.feed_data(b"end")
            reader.feed_eof()
            with pytest.raises(AssertionError, match="feed_data after feed_eof"):
                reader.feed_data(b"more")
            assert not reader.at_eof()
            assert await reader.read() == b"end"
            assert reader.at_eof()

    run(main)


def test_iteration_by_lines(run):
    async def main():
        async with Connection() as it:
            it.peer_writer.write(b"".join(b"%d\n" % n for n in range(1000)))
            it.peer_writer.close()
            assert [int(line) async for line in it.reader] == [*range(1000)]

    run(main)


def test_a_read_is_a_coroutine_like_any(run):
    async def main():
        async with Connection() as it:
            assert inspect.iscoroutinefunction(it.reader.read)
            tasks = [asyncio.ensure_future(it.reader.readline())]
            done, _ = await asyncio.wait(tasks, timeout=0.001)
            assert not done
            stack = tasks[0].get_stack()
            assert stack[0].f_code.co_name == "readline"
            it.peer_writer.write(b"a line\n")
            assert await asyncio.gather(*tasks, it.peer_writer.drain()) == [b"a line\n", None]
            with pytest.warns(RuntimeWarning, match="coroutine 'StreamReader.read' was never awaited"):
                it.reader.read(1)

    run(main)


# ---- whose streams they are

@needs_ours
def test_the_classes_are_pyconc_s_and_asyncio_s():
    from pyconc.loop.streams import StreamReader, StreamWriter

    async def main():
        async with Connection() as it:
            assert type(it.reader) is type(it.peer_reader) is StreamReader
            assert type(it.peer_writer) is StreamWriter
            assert isinstance(it.reader, asyncio.StreamReader) and isinstance(it.peer_writer, asyncio.StreamWriter)
            assert repr(it.peer_writer).startswith("<StreamWriter transport=")

    pyconc.run(main())


@pytest.mark.parametrize("cls, name", [(asyncio.StreamReader, "read"), (asyncio.StreamReader, "feed_data"),
                                       (asyncio.StreamReader, "_wait_for_data"), (asyncio.StreamWriter, "drain")])
def test_methods_that_a_program_replaced_are_called(run, monkeypatch, cls, name):
    called = []
    original = getattr(cls, name)

    def replacement(self, *args):
        called.append(name)
        return original(self, *args)

    async def main():
        async with Connection() as it:
            it.writer.write(b"ping")
            assert await it.peer_reader.read(4) == b"ping"
            it.peer_writer.write(b"pong")
            await it.peer_writer.drain()
            assert await it.reader.readexactly(4) == b"pong"

    monkeypatch.setattr(cls, name, replacement)
    run(main)
    assert called


def test_a_method_that_was_replaced_before_the_first_connection_is_called():
    script = """if True:
        import asyncio, pyconc
        async def replacement(self, n):
            return b"replaced"
        async def main():
            connected = asyncio.get_running_loop().create_future()
            async with await asyncio.start_server(lambda *streams: connected.set_result(streams), "127.0.0.1", 0) as it:
                reader, writer = await asyncio.open_connection(*it.sockets[0].getsockname())
                peer = (await connected)[1]
                peer.write(b"data")
                data = await reader.readexactly(4)
                writer.close()
                peer.close()
                return data
        original = asyncio.StreamReader.readexactly
        asyncio.StreamReader.readexactly = replacement
        print(pyconc.run(main()))
        asyncio.StreamReader.readexactly = original
        print(pyconc.run(main()))
    """
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.stdout.split(), ended.stderr) == (["b'replaced'", "b'data'"], "")


def test_methods_replaced_in_one_stream_are_called(run):
    async def main():
        async with Connection() as it:
            fed, original = [], it.reader.feed_data
            it.reader.feed_data = lambda data: (fed.append(data), original(data))
            await it.sent(b"data")
            assert await it.reader.read(4) == b"data"
            assert fed == [b"data"]

    run(main)


def test_a_method_replaced_in_a_reader_before_its_connection(run):
    async def main():
        loop = asyncio.get_running_loop()
        reader, waits = asyncio.StreamReader(loop=loop), []
        original = reader._wait_for_data
        reader._wait_for_data = lambda name: (waits.append(name), original(name))[1]
        ours, peer = socket.socketpair()
        transport, _ = await loop.create_connection(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), sock=ours)
        loop.call_later(0.01, peer.send, b"data")
        assert await reader.readexactly(4) == b"data"
        assert waits == ["readexactly"]
        transport.close()
        peer.close()

    run(main)


def test_a_protocol_that_is_not_initialized(run):
    """A program's own class, derived from asyncio's only to be one of them."""
    class Protocol(asyncio.StreamReaderProtocol):
        def __init__(self, made):
            self.made = made

        def connection_made(self, transport):
            self.made.set_result(transport)

        def connection_lost(self, exc):
            """Has nothing of asyncio's to clear."""

    async def main():
        loop = asyncio.get_running_loop()
        made = loop.create_future()
        ours, peer = socket.socketpair()
        await loop.create_connection(lambda: Protocol(made), sock=ours)
        made.result().close()
        peer.close()

    run(main)
    assert run.reports == []


def test_a_reader_without_attributes(run):
    """A class of a program's own, which has nothing of asyncio's but the methods that a protocol calls."""
    class Reader:
        __slots__ = ("got", "__weakref__")
        _source_traceback = None

        def set_transport(self, transport):
            self.got = []

        def feed_data(self, data):
            self.got.append(data)

        def feed_eof(self):
            self.got.append(None)

    async def main():
        loop, reader = asyncio.get_running_loop(), Reader()
        ours, peer = socket.socketpair()
        with peer:
            transport, _ = await loop.create_connection(lambda: asyncio.StreamReaderProtocol(reader), sock=ours)
            peer.send(b"data")
            peer.shutdown(socket.SHUT_WR)
            while None not in reader.got:
                await asyncio.sleep(0)
            assert reader.got == [b"data", None]
            transport.close()

    run(main)
    assert run.reports == []


@needs_ours
@pytest.mark.parametrize("over_tls", [False, True])
def test_streams_that_cannot_be_taken_over_stay_asyncio_s(run_ours, tls, monkeypatch, over_tls):
    def fail(reader):
        raise MemoryError

    async def main():
        client, server = tls.contexts() if over_tls else (None, None)
        accepted = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(60), await asyncio.start_server(
                lambda *streams: accepted.set_result(streams), "127.0.0.1", 0, ssl=server) as it:
            reader, writer = await asyncio.open_connection(*it.sockets[0].getsockname(), ssl=client,
                                                           server_hostname="localhost" if over_tls else None)
            peer_reader, peer_writer = await accepted
            assert type(reader) is type(peer_reader) is asyncio.StreamReader
            writer.write(b"line\n")
            assert await peer_reader.readline() == b"line\n"
            peer_writer.write(b"answer\n")
            await peer_writer.drain()
            assert await reader.readline() == b"answer\n"
            writer.close()
            peer_writer.close()
            await peer_writer.wait_closed()

    monkeypatch.setattr(streams, "adopt_reader", fail)
    run_ours(main)
    assert [(message, type(error)) for message, error in run_ours.reported()] == [
        ("Exception in taking over asyncio's streams", MemoryError)] * 2


@needs_ours
@pytest.mark.parametrize("over_tls", [False, True])
def test_a_writer_that_cannot_be_taken_over_stays_asyncio_s(run_ours, tls, monkeypatch, over_tls):
    change = streams.change

    def change_readers_only(stream, cls, *args):
        if cls is streams.StreamWriter:
            raise MemoryError
        change(stream, cls, *args)

    async def handle(reader, writer):
        assert type(reader) is streams.StreamReader and type(writer) is asyncio.StreamWriter
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def main():
        client, server = tls.contexts() if over_tls else (None, None)
        async with asyncio.timeout(60), await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server) as it:
            reader, writer = await asyncio.open_connection(*it.sockets[0].getsockname(), ssl=client,
                                                           server_hostname="localhost" if over_tls else None)
            writer.write(b"line\n")
            assert await reader.read() == b"line\n"
            writer.close()
            await writer.wait_closed()

    monkeypatch.setattr(streams, "change", change_readers_only)
    run_ours(main)
    assert [(message, type(error)) for message, error in run_ours.reported()] == [
        ("Exception in taking over asyncio's streams", MemoryError)]


@needs_ours
def test_no_memory_to_take_a_reader_over():
    """Wherever it is missing, the reader is asyncio's as before, with what it has."""
    script = """if True:
        import asyncio, _testcapi
        from pyconc.loop import streams
        change = streams.change
        def change_without_memory(*args):
            _testcapi.set_nomemory(allowed, allowed + 1)
            change(*args)
        streams.change = change_without_memory
        async def main():
            global allowed
            for allowed in range(1000):
                reader = asyncio.StreamReader()
                reader.feed_data(b"data")
                reader.mine = "kept"
                try:
                    source = streams.adopt_reader(reader)
                except MemoryError:
                    source = None
                finally:
                    _testcapi.remove_mem_hooks()
                reader.feed_data(b"more")
                assert await reader.readexactly(8) == b"datamore" and reader.mine == "kept", allowed
                if source is not None:
                    break
            assert type(reader) is streams.StreamReader and "_buffer" not in vars(reader), allowed
            print("done after", "some" if allowed else "none")
        asyncio.run(main())
    """
    pytest.importorskip("_testcapi")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("done after some\n", "")


@contextlib.asynccontextmanager
async def handed_out(kind):
    """The protocol of this kind, the streams that its callback is given, and the socket of its peer."""
    loop, accepted = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    own = asyncio.StreamReader()        # the protocol has a weak reference
    ours, peer = socket.socketpair()
    with peer:
        transport, protocol = await loop.create_connection(
            lambda: kind(own, lambda *streams: accepted.set_result(streams)), sock=ours)
        yield protocol, *await accepted, peer
        transport.close()


def test_a_reader_in_the_place_of_the_protocol_s_own(run):
    """Its writer goes by that one."""
    class Protocol(asyncio.StreamReaderProtocol):
        def connection_made(self, transport):
            reader = asyncio.StreamReader()
            reader.set_transport(transport)
            writer = asyncio.StreamWriter(transport, self, reader, asyncio.get_running_loop())
            self._client_connected_cb(reader, writer)

    async def main():
        async with handed_out(Protocol) as (_, reader, writer, _):
            reader.set_exception(ValueError("lost"))
            with pytest.raises(ValueError, match="lost"):
                await writer.drain()

    run(main)
    assert run.reports == []


def test_a_writer_of_another_reader(run):
    """It is that one whose end drain() tells of, though the other is handed out with it."""
    class Protocol(asyncio.StreamReaderProtocol):
        def connection_made(self, transport):
            self._stream_reader.set_transport(transport)
            self.other = asyncio.StreamReader()
            writer = asyncio.StreamWriter(transport, self, self.other, asyncio.get_running_loop())
            self._client_connected_cb(self._stream_reader, writer)

    async def main():
        async with handed_out(Protocol) as (protocol, _, writer, _):
            protocol.other.set_exception(ValueError("lost"))
            with pytest.raises(ValueError, match="lost"):
                await writer.drain()

    run(main)
    assert run.reports == []


def test_a_writer_of_a_protocol_that_cannot_drain(run):
    """As asyncio's, it can do all but that."""
    class Protocol(asyncio.StreamReaderProtocol):
        def connection_made(self, transport):
            self._stream_reader.set_transport(transport)
            writer = asyncio.StreamWriter(transport, asyncio.Protocol(), self._stream_reader,
                                          asyncio.get_running_loop())
            self._client_connected_cb(self._stream_reader, writer)

    async def main():
        async with handed_out(Protocol) as (_, _, writer, peer):
            writer.write(b"data")
            assert peer.recv(10) == b"data"
            with pytest.raises(AttributeError):
                await writer.drain()

    run(main)
    assert run.reports == []


@pytest.mark.parametrize("where", ["class", "instance"])
def test_a_protocol_that_drains_in_its_own_way(run, where):
    called = []

    class Protocol(asyncio.StreamReaderProtocol):
        if where == "class":
            async def _drain_helper(self):
                called.append(self)
                await super()._drain_helper()

    async def main():
        def protocol_of(*args):
            protocol = Protocol(*args)
            if where == "instance":
                original = protocol._drain_helper
                protocol._drain_helper = lambda: (called.append(protocol), original())[1]
            return protocol

        async with handed_out(protocol_of) as (protocol, _, writer, _):
            await writer.drain()
            assert called == [protocol]

    run(main)
    assert run.reports == []


@pytest.mark.parametrize("limit", [10**400, 2.5, float("inf"), fractions.Fraction(5, 2)])
def test_a_limit_may_be_any_number(run, limit):
    async def main():
        async with Connection(limit=limit) as it:
            await it.sent(b"1\n23\n456\n")
            assert await it.reader.readline() == b"1\n"
            assert await it.reader.readline() == b"23\n"
            if limit < 3:
                assert not it.reader._transport.is_reading()
                with pytest.raises(ValueError, match="limit"):
                    await it.reader.readline()
                assert it.reader._transport.is_reading()
            else:
                assert await it.reader.readline() == b"456\n"

    run(main)


def test_a_limit_that_takes_the_buffer_away_when_it_is_compared():
    class Limit(int):
        reader = None

        def __rmul__(self, factor):
            if self.reader is not None:
                self.reader._buffer = object()
            return factor * int(self)

        __float__ = __rmul__

        def __lt__(self, other):
            return self.__rmul__(1) < other

    async def main():
        limit = Limit(100)
        async with Connection(limit=limit) as it:
            await it.sent(b"one two")
            limit.reader = it.reader
            with pytest.raises((TypeError, AttributeError)):
                await it.reader.readuntil(b" ")

    pyconc.run(main())


def test_data_for_a_reader_that_the_collector_has_taken_apart():
    """Python code runs in the middle of a collection: here when a code object goes, which is none of the cycle's."""
    found = []

    def feed(ref):
        for it in gc.get_objects():
            if type(it) is StreamSource and it.buffer is None:
                found.append(it.feed(b"data"))

    class Reader:
        """Anything with a weak reference."""

    def make():
        source = StreamSource(Reader(), bytearray(), 100, loop)
        code = compile("0", "", "eval")
        ring = [source, code]
        ring.append(ring)
        source.transport = ring
        return weakref.ref(code, feed)

    loop = pyconc.new_event_loop()
    gc.collect()
    ref = make()
    gc.collect()
    loop.close()
    assert ref() is None and found in ([None], [])      # not found where code objects are the collector's, too


def test_classes_that_a_program_derived_stay_its_own(run):
    class Reader(asyncio.StreamReader):
        async def read(self, n=-1):
            return b"<" + await super().read(n) + b">"

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data):
            super().data_received(data.upper())

    async def main():
        loop = asyncio.get_running_loop()
        reader = Reader(loop=loop)
        ours, peer = socket.socketpair()
        transport, protocol = await loop.create_connection(lambda: Protocol(reader, loop=loop), sock=ours)
        assert type(reader) is Reader and type(protocol) is Protocol
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        peer.send(b"data")
        assert await reader.read(10) == b"<DATA>"
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        peer.close()

    run(main)


def test_streams_are_collected():
    async def main():
        async with Connection() as it:
            await it.sent(b"data")
            assert await it.reader.read(4) == b"data"
            left = [weakref.ref(stream) for stream in (it.reader, it.writer, it.peer_reader, it.peer_writer)]
        await asyncio.sleep(0.01)
        return left

    left = pyconc.run(main())
    gc.collect()
    assert [stream() for stream in left] == [None] * 4


def test_many_connections_leave_nothing(no_leaked_objects, no_leaked_fds):
    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        async def one():
            async with Connection() as it:
                it.writer.write(b"ping\n")
                assert await it.peer_reader.readline() == b"ping\n"
                it.peer_writer.write(b"pong")
                await it.peer_writer.drain()
                assert await it.reader.readexactly(4) == b"pong"
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        for _ in range(600):       # until Python's and the loop's caches are full
            runner.run(one())
        no_leaked_objects(lambda: runner.run(one()), rounds=100)
