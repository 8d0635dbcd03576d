# SPDX-License-Identifier: MIT
"""_core.StreamTransport: real connections, each end watched."""
import asyncio
import contextvars
import gc
import logging
import os
import socket
import struct
import sys
import threading
import warnings
import weakref

import pytest

import pyconc
from pyconc import _core

from .conftest import Recorder

pytestmark = pytest.mark.usefixtures("no_leaked_fds")


def run(main, **kwargs):
    with asyncio.Runner(loop_factory=pyconc.new_event_loop, **kwargs) as runner:
        return runner.run(main)


class Buffered(asyncio.BufferedProtocol):
    """Receives into its own buffer."""

    def __init__(self, size=65536):
        loop = asyncio.get_running_loop()
        self.buffer = bytearray(size)
        self.data = bytearray()
        self.events = []
        self.lost = loop.create_future()
        self.changed = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data += self.buffer[:nbytes]
        self.changed.set()

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def pair(factory=Recorder, peer_factory=Recorder):
    """Two connected protocols: one made in C by a server, one of a socket object."""
    loop = asyncio.get_running_loop()
    made = loop.create_future()

    def accept():
        protocol = peer_factory()
        made.set_result(protocol)
        return protocol

    server = await loop.create_server(accept, "127.0.0.1", 0)
    _, protocol = await loop.create_connection(factory, *server.sockets[0].getsockname())
    peer = await made
    server.close()
    return protocol, peer


async def finish(*protocols):
    for protocol in protocols:
        protocol.transport.close()
    for protocol in protocols:
        await protocol.lost


@pytest.fixture
def reports():
    """What reached the exception handler, and run(main) with that handler."""
    class Reports(list):
        def run(self, main):
            async def with_handler():
                loop = asyncio.get_running_loop()
                loop.set_exception_handler(lambda loop, context: self.append(context))
                return await main()
            return run(with_handler())
    return Reports()


# ---- what it is

def test_is_an_asyncio_transport():
    async def main():
        a, b = await pair()
        for transport in (a.transport, b.transport):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, _core.StreamTransport)
            assert transport._start_tls_compatible
            assert weakref.ref(transport)() is transport
            transport.anything = 1
            assert transport.anything == 1
        await finish(a, b)
    run(main())


def test_repr_tells_the_state():
    async def main():
        a, b = await pair()
        fd = a.transport.get_extra_info("socket").fileno()
        assert repr(a.transport) == f"<StreamTransport fd={fd} read=polling write=<idle, bufsize=0>>"
        a.transport.pause_reading()
        assert "read=idle" in repr(a.transport)
        a.transport.resume_reading()
        b.transport.pause_reading()
        a.transport.write(bytes(50_000_000))
        assert "write=<polling, bufsize=" in repr(a.transport)
        a.transport.abort()
        assert " closing fd=" in repr(a.transport)
        await a.lost
        assert repr(a.transport) == f"<StreamTransport closed fd={fd}>"
        b.transport.abort()
        await b.lost
    run(main())


def test_extra_info_has_asyncios_types():
    async def main():
        a, b = await pair()
        for here, there in ((a, b), (b, a)):
            sock = here.transport.get_extra_info("socket")
            assert type(sock) is asyncio.trsock.TransportSocket
            assert sock is here.transport.get_extra_info("socket")
            assert here.transport.get_extra_info("peername") == there.transport.get_extra_info("sockname")
            assert sock.getsockname() == here.transport.get_extra_info("sockname")
            assert sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert here.transport.get_extra_info("ssl_object") is None
            assert here.transport.get_extra_info("other", 7) == 7
            assert here.transport.get_extra_info(name="other", default=8) == 8
            assert set(here.transport._extra) == {"socket", "sockname", "peername"}
            assert here.transport._sock.gettimeout() == 0
            assert here.transport._sock.fileno() == here.transport._sock_fd
        peername, socket_info = b.transport.get_extra_info("peername"), a.transport.get_extra_info("socket")
        await finish(a, b)
        assert b.transport.get_extra_info("peername") == peername
        assert socket_info.fileno() == -1
        assert a.transport._sock is None
    run(main())


def test_extra_info_after_the_end():
    async def main():
        a, b = await pair()
        name = a.transport.get_extra_info("sockname")
        await finish(a, b)
        assert b.transport.get_extra_info("peername") == name
        assert b.transport.get_extra_info("socket").fileno() == -1
    run(main())


def test_socket_asked_for_while_the_connection_ends(monkeypatch):
    """By another thread: what it gets is closed, and owns no descriptor that is somebody else's by now."""
    made, over, told = socket.socket.__init__, threading.Event(), []

    async def main():
        a, b = await pair()
        loop, transport, fd = asyncio.get_running_loop(), b.transport, b.transport._sock_fd

        def slow(self, *args, **kwargs):
            if args[3:] == (fd,) and not told:
                told.append(loop.call_soon_threadsafe(transport.abort))
                assert over.wait(60)
            made(self, *args, **kwargs)

        monkeypatch.setattr(socket.socket, "__init__", slow)
        asking = asyncio.create_task(asyncio.to_thread(transport.get_extra_info, "socket"))
        await b.lost
        os.dup2(a.transport._sock_fd, fd)
        over.set()
        sock = await asking
        assert told and sock.fileno() == -1
        await finish(a)
        os.close(fd)    # OSError if it was closed with the object

    run(main())


def test_peername_survives_a_reset():
    async def main():
        a, b = await pair()
        name = a.transport.get_extra_info("sockname")
        a.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        a.transport.abort()
        assert isinstance(await b.lost, ConnectionResetError)
        assert b.transport.get_extra_info("peername") == name
        await a.lost
    run(main())


def test_order_of_the_beginning():
    async def main():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        here.setblocking(False)
        there.send(b"early")
        waiter = loop.create_future()
        protocol = Recorder()
        transport = loop._make_socket_transport(here, protocol, waiter, extra={"a": 1})
        waiter.add_done_callback(lambda _: protocol.note("waiter"))
        assert protocol.events == [] and not waiter.done()
        await protocol.received(5)
        assert protocol.events == ["made", "waiter"]
        assert transport.get_extra_info("a") == 1
        there.close()
        await protocol.lost
        assert protocol.events == ["made", "waiter", "eof", ("lost", None)]
    run(main())


def test_connection_made_that_raises_is_reported(reports):
    class Bad(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

    async def main():
        a, b = await pair(Bad, Bad)
        a.transport.write(b"still there")
        assert await b.received(11) == b"still there"
        await finish(a, b)
    reports.run(main)
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError] * 2
    assert {type(report["transport"]) for report in reports} == {_core.StreamTransport}


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3)])
def test_needs_a_loop(arguments):
    with pytest.raises(TypeError):
        _core.StreamTransport(*arguments)


def test_a_descriptor_has_one_transport():
    async def main():
        loop = asyncio.get_running_loop()
        a, b = await pair()
        sock = a.transport._sock
        with pytest.raises(RuntimeError, match="is used by"):
            loop.add_reader(sock, print)
        with pytest.raises(RuntimeError, match="is used by"):
            await loop.connect_accepted_socket(Recorder, sock)
        await finish(a, b)
    run(main())


# ---- writing

def test_small_writes_of_one_turn_arrive_in_order():
    async def main():
        a, b = await pair()
        for i in range(1000):
            a.transport.write(b"%04d" % i)
        assert await b.received(4000) == b"".join(b"%04d" % i for i in range(1000))
        await finish(a, b)
    run(main())


def test_writes_of_one_turn_are_one_segment():
    async def main():
        a, b = await pair()
        a.transport.write(b"first")
        await b.received(5)
        await asyncio.sleep(0.01)
        chunks = []
        b.data_received = chunks.append     # not looked up again: has no effect
        b.transport.set_protocol(b)
        a.transport.write(b"1")
        for _ in range(63):
            a.transport.write(b"x" * 10)
        while sum(map(len, chunks)) < 631:
            await asyncio.sleep(0)
        assert len(chunks) <= 2
        await finish(a, b)
    run(main())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_writes_any_bytes(kind):
    data = bytes(range(256)) * 8000

    async def main():
        a, b = await pair()
        a.transport.write(kind(b"begin"))
        a.transport.write(kind(b"then"))
        a.transport.write(kind(data))
        a.transport.write(kind(b""))
        assert await b.received(9 + len(data)) == b"beginthen" + data
        await finish(a, b)
    run(main())


def test_a_bytearray_may_change_after_write():
    async def main():
        a, b = await pair()
        b.transport.pause_reading()
        buffer = bytearray(b"x" * 8_000_000)
        a.transport.write(buffer)
        a.transport.write(buffer)
        a.transport.writelines([buffer, memoryview(buffer)[:1000]])
        buffer[:] = b"y" * len(buffer)
        buffer.clear()
        b.transport.resume_reading()
        data = await b.received(24_001_000)
        assert data == b"x" * 24_001_000
        await finish(a, b)
    run(main())


def test_a_view_of_bytes_is_sent_whole():
    async def main():
        a, b = await pair()
        data = bytes(range(256)) * 40000
        a.transport.write(memoryview(data)[1000:-1000])
        assert await b.received(len(data) - 2000) == data[1000:-1000]
        with pytest.raises(BufferError):
            a.transport.write(memoryview(data)[::2])
        await finish(a, b)
    run(main())


def test_writelines():
    async def main():
        a, b = await pair()
        lines = [b"a", bytearray(b"b"), memoryview(b"c"), b""] * 1500
        a.transport.writelines(lines)
        assert await b.received(4500) == b"abc" * 1500
        a.transport.writelines(iter([b"1", b"2"]))
        a.transport.writelines([])
        a.transport.write(b"3")
        a.transport.writelines([b"4", b"5"])
        assert await b.received(5) == b"12345"
        await finish(a, b)
    run(main())


def test_writelines_sends_all_or_nothing():
    async def main():
        a, b = await pair()
        with pytest.raises(TypeError, match="bytes-like object"):
            a.transport.writelines([b"a", "b"])
        with pytest.raises(TypeError, match="iterable"):
            a.transport.writelines(5)
        a.transport.write(b"1")
        a.transport.write(b"2")
        with pytest.raises(TypeError):
            a.transport.writelines([b"a", None])
        a.transport.write(b"3")
        assert await b.received(3) == b"123"
        await finish(a, b)
    run(main())


@pytest.mark.parametrize("data", ["text", 5, None, [b"a"]])
def test_write_names_the_type_it_cannot_send(data):
    async def main():
        a, b = await pair()
        with pytest.raises(TypeError, match=f"data argument must be a bytes-like object, not '{type(data).__name__}'"):
            a.transport.write(data)
        await finish(a, b)
    run(main())


def test_write_after_close_is_dropped(caplog):
    async def main():
        a, b = await pair()
        a.transport.close()
        a.transport.write(b"x")
        a.transport.writelines([b"x"])
        await a.lost
        for _ in range(10):
            a.transport.write(b"x")
        await b.lost
        assert b.data == b""
    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main(), debug=False)    # debug mode tells of a machine that stalls
    assert [record.message for record in caplog.records] == ["socket.send() raised exception."] * 8


def test_a_closed_transport_still_says_what_it_cannot_write():
    async def main():
        a, b = await pair()
        a.transport.close()
        await a.lost
        for lines in ["x"], "x", [b"x", None]:
            with pytest.raises(TypeError, match="bytes-like object"):
                a.transport.writelines(lines)
        with pytest.raises(TypeError, match="bytes-like object"):
            a.transport.write("x")
        await b.lost
        assert b.data == b""
    run(main())


def test_write_while_closing_with_data_queued_is_sent():
    async def main():
        a, b = await pair()
        b.transport.pause_reading()
        a.transport.write(bytes(8_000_000))
        assert a.transport.get_write_buffer_size() > 0
        a.transport.close()
        a.transport.write(b"end")
        b.transport.resume_reading()
        await b.lost
        assert len(b.data) == 8_000_003 and b.data.endswith(b"end")
        await a.lost
    run(main())


def test_close_sends_what_was_written_in_the_same_turn():
    async def main():
        a, b = await pair()
        for i in range(10):
            a.transport.write(b"%d" % i)
        a.transport.close()
        a.transport.close()
        assert a.transport.is_closing()
        assert await b.lost is None
        assert b.data == b"0123456789"
        await a.lost
        assert a.events == ["made", ("lost", None)]
    run(main())


def test_abort_drops_what_is_queued():
    async def main():
        a, b = await pair()
        b.transport.pause_reading()
        a.transport.write(bytes(50_000_000))
        a.transport.abort()
        a.transport.abort()
        assert a.transport.get_write_buffer_size() == 0
        assert await a.lost is None
        b.transport.resume_reading()
        await b.lost
        assert len(b.data) < 50_000_000
    run(main())


def test_what_is_written_last_in_a_run_is_sent():
    loop = pyconc.new_event_loop()
    here, there = socket.socketpair()
    there.setblocking(False)

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, here)
        transport.write(b"a")
        transport.write(b"b")
        return transport, protocol
    transport, protocol = loop.run_until_complete(main())
    assert there.recv(10) == b"ab"
    transport.write(b"c")       # nothing runs
    transport.write(b"d")
    assert there.recv(10) == b"cd"
    transport.close()
    loop.run_until_complete(protocol.lost)
    loop.close()
    there.close()


# ---- flow control

def test_flow_control():
    async def main():
        a, b = await pair()
        b.transport.pause_reading()
        assert a.transport.get_write_buffer_limits() == (16384, 65536)
        a.transport.set_write_buffer_limits(high=1000)
        assert a.transport.get_write_buffer_limits() == (250, 1000)
        while "pause" not in a.events:
            a.transport.write(bytes(500))
        assert a.transport.get_write_buffer_size() > 1000
        assert a.events == ["made", "pause"]
        b.transport.resume_reading()
        await a.until(lambda: "resume" in a.events)
        assert a.transport.get_write_buffer_size() <= 250
        assert a.events == ["made", "pause", "resume"]
        await finish(a, b)
    run(main())


def test_small_writes_do_not_pause():
    async def main():
        a, b = await pair()
        a.transport.set_write_buffer_limits(high=0)
        for _ in range(100):
            a.transport.write(b"x")
            assert a.transport.get_write_buffer_size() == 0
        await b.received(100)
        assert a.events == ["made"]
        await finish(a, b)
    run(main())


def test_limits():
    async def main():
        a, b = await pair()
        transport = a.transport
        for arguments, expected in [({}, (16384, 65536)), ({"low": 100}, (100, 400)), ({"high": 0}, (0, 0)),
                                    ({"high": 10, "low": 10}, (10, 10)),
                                    ({"high": float("inf")}, (sys.maxsize // 4, sys.maxsize))]:
            transport.set_write_buffer_limits(**arguments)
            assert transport.get_write_buffer_limits() == expected
        for arguments in [{"high": 1, "low": 2}, {"low": -1}, {"high": -1}]:
            with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"):
                transport.set_write_buffer_limits(**arguments)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(high="x")
        b.transport.pause_reading()
        transport.write(bytes(8_000_000))
        assert a.events == ["made", "pause"] or a.events == ["made"]
        transport.set_write_buffer_limits(high=1)
        assert a.events == ["made", "pause"]
        transport.abort()
        await a.lost
        b.transport.abort()
        await b.lost
    run(main())


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_flow_control_callbacks_that_raise_are_reported(name, reports):
    class Bad(Recorder):
        pass

    def fail(self):
        raise ZeroDivisionError
    setattr(Bad, name, fail)

    async def main():
        a, b = await pair(Bad)
        b.transport.pause_reading()
        a.transport.write(bytes(8_000_000))
        b.transport.resume_reading()
        await b.received(8_000_000)
        await asyncio.sleep(0)
        await finish(a, b)
    reports.run(main)
    assert [report["message"] for report in reports] == [f"protocol.{name}() failed"]
    assert reports[0]["protocol"].__class__ is Bad and isinstance(reports[0]["transport"], _core.StreamTransport)


def test_large_data_both_ways_at_once():
    data = bytes(range(256)) * 100_000

    async def send(writer):
        for start in range(0, len(data), 100_000):
            writer.write(data[start:start + 100_000])
            await writer.drain()
        writer.write_eof()

    async def receive(reader):
        assert await reader.read() == data

    async def main():
        async def serve(reader, writer):
            await asyncio.gather(send(writer), receive(reader))
            writer.close()
            done.set()
        done = asyncio.Event()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.gather(send(writer), receive(reader), done.wait())
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
    run(main())


# ---- reading

def test_pause_reading():
    async def main():
        a, b = await pair()
        assert b.transport.is_reading()
        b.transport.pause_reading()
        b.transport.pause_reading()
        assert not b.transport.is_reading()
        a.transport.write(b"data")
        await asyncio.sleep(0.01)
        assert b.data == b""
        b.transport.resume_reading()
        b.transport.resume_reading()
        assert await b.received(4) == b"data"
        await finish(a, b)
        assert not b.transport.is_reading()
        b.transport.pause_reading()
        b.transport.resume_reading()
    run(main())


def test_pausing_in_data_received_holds_the_rest():
    class Once(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        a, b = await pair(peer_factory=Once)
        a.transport.write(bytes(4_000_000))
        await b.until(lambda: b.data)
        size = len(b.data)
        await asyncio.sleep(0.01)
        assert len(b.data) == size < 4_000_000
        while len(b.data) < 4_000_000:
            b.changed.clear()
            b.transport.resume_reading()
            await b.changed.wait()
        await finish(a, b)
    run(main())


def test_one_busy_peer_does_not_starve_others():
    sizes = []

    class Busy(Recorder):
        def data_received(self, data):
            sizes.append((turn, len(data)))

    turn = 0

    async def main():
        nonlocal turn
        a, b = await pair(peer_factory=Busy)
        loop = asyncio.get_running_loop()
        total = 30_000_000
        a.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
        b.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000)
        a.transport.write(bytes(total))
        while sum(size for _, size in sizes) < total:
            turn += 1
            # Through the poll: call_soon() alone may run several times between two.
            future = loop.create_future()
            loop.call_later(0, future.set_result, None)
            await future
        await finish(a, b)
    run(main())
    assert max(size for _, size in sizes) <= 256 * 1024


def test_half_close():
    class Answer(Recorder):
        keep_open = True

        def eof_received(self):
            self.transport.write(bytes(self.data)[::-1])
            self.transport.close()
            return super().eof_received()

    async def main():
        a, b = await pair(peer_factory=Answer)
        assert a.transport.can_write_eof()
        a.transport.write(b"question")
        a.transport.write(b"?")
        a.transport.write_eof()
        a.transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            a.transport.write(b"more")
        with pytest.raises(RuntimeError, match=r"Cannot call writelines\(\) after write_eof\(\)"):
            a.transport.writelines([b"more"])
        assert await a.received(9) == b"?noitseuq"
        assert await a.lost is None
        await b.lost
    run(main())


def test_half_closed_stays_open_for_writing():
    class Open(Recorder):
        keep_open = True

    async def main():
        a, b = await pair(peer_factory=Open)
        a.transport.write_eof()
        await b.ended
        for i in range(3):
            b.transport.write(b"%d" % i)
            await a.received(1)
        assert b.events == ["made", "eof"]
        b.transport.close()
        await b.lost
        await a.lost
    run(main())


def test_write_eof_waits_for_what_is_queued():
    async def main():
        a, b = await pair()
        b.transport.pause_reading()
        a.transport.write(bytes(8_000_000))
        a.transport.write_eof()
        b.transport.resume_reading()
        await b.lost
        assert len(b.data) == 8_000_000 and b.events == ["made", "eof", ("lost", None)]
        await a.lost
    run(main())


# ---- errors

@pytest.mark.parametrize("name", ["data_received", "eof_received"])
def test_callbacks_that_raise_end_the_connection(name, reports):
    class Bad(Recorder):
        pass

    def fail(self, *arguments):
        raise ZeroDivisionError
    setattr(Bad, name, fail)

    async def main():
        a, b = await pair(peer_factory=Bad)
        a.transport.write(b"data")
        a.transport.write_eof()
        exc = await b.lost
        assert isinstance(exc, ZeroDivisionError)
        await a.lost
        return b.transport, b, exc
    transport, protocol, exc = reports.run(main)
    assert reports == [{"message": f"Fatal error: protocol.{name}() call failed.", "exception": exc,
                        "transport": transport, "protocol": protocol}]


def test_connection_lost_that_raises_is_reported(reports):
    class Bad(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError

    async def main():
        a, b = await pair(Bad)
        await finish(a, b)
        assert a.transport._sock is None
    reports.run(main)
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]


def test_a_protocol_without_methods(reports):
    class Nothing(asyncio.BaseProtocol):
        def connection_lost(self, exc):
            lost.set_result(exc)

    async def main():
        nonlocal lost
        lost = asyncio.get_running_loop().create_future()
        a, b = await pair(peer_factory=Nothing)
        a.transport.write(b"data")
        assert isinstance(await lost, AttributeError)
        await a.lost
    lost = None
    reports.run(main)
    assert [report["message"] for report in reports] == ["Fatal error: protocol.data_received() call failed."]


def test_reset_connection(reports):
    async def main():
        a, b = await pair()
        a.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        a.transport.abort()
        exc = await b.lost
        assert isinstance(exc, ConnectionResetError) and exc.errno == 104
        assert b.events == ["made", ("lost", exc)]
    reports.run(main)
    assert not reports


def test_write_to_a_closed_peer(reports):
    async def main():
        a, b = await pair()
        b.transport.pause_reading()
        a.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        a.transport.abort()
        await a.lost
        while not b.lost.done():
            b.transport.write(b"x")
            await asyncio.sleep(0)
        assert isinstance(b.lost.result(), (ConnectionResetError, BrokenPipeError))
    reports.run(main)
    assert not reports


@pytest.mark.parametrize("quits", [KeyboardInterrupt, SystemExit])
def test_quitting_in_a_callback_ends_the_run(quits):
    class Quit(Recorder):
        def data_received(self, data):
            raise quits

    loop = pyconc.new_event_loop()

    async def start():
        a, b = await pair(peer_factory=Quit)
        a.transport.write(b"data")
        return a, b
    a, b = loop.run_until_complete(start())
    with pytest.raises(quits):
        loop.run_forever()
    assert not b.transport.is_closing()
    loop.run_until_complete(finish(a, b))
    loop.close()


def test_force_close_and_fatal_error(reports):
    async def main():
        a, b = await pair()
        error = ValueError("why")
        a.transport._force_close(error)
        assert await a.lost is error
        error = ValueError("why not")
        b.transport._fatal_error(error, "message")
        assert await b.lost is error
    reports.run(main)
    assert [report["message"] for report in reports] == ["message"]


# ---- BufferedProtocol

@pytest.mark.parametrize("size", [1, 1000, 65536, 500_000])
def test_buffered_protocol(size):
    async def main():
        a, b = await pair(peer_factory=lambda: Buffered(size))
        data = bytes(range(256)) * (40 if size == 1 else 8000)
        a.transport.write(data)
        while len(b.data) < len(data):
            b.changed.clear()
            await b.changed.wait()
        assert b.data == data
        a.transport.write_eof()
        assert await b.lost is None
        assert b.events == ["eof"]
        await a.lost
    run(main())


@pytest.mark.parametrize("buffer, exc, message", [
    (lambda: bytearray(), RuntimeError, "Fatal error: protocol.get_buffer() call failed."),
    (lambda: None, TypeError, "Fatal error: protocol.get_buffer() call failed."),
    (lambda: 1 / 0, ZeroDivisionError, "Fatal error: protocol.get_buffer() call failed."),
])
def test_get_buffer_that_fails(buffer, exc, message, reports):
    class Bad(Buffered):
        def get_buffer(self, sizehint):
            return buffer()

    async def main():
        a, b = await pair(peer_factory=Bad)
        a.transport.write(b"data")
        assert isinstance(await b.lost, exc)
        await a.lost
    reports.run(main)
    assert [report["message"] for report in reports] == [message]


def test_buffer_updated_that_fails(reports):
    class Bad(Buffered):
        def buffer_updated(self, nbytes):
            raise ZeroDivisionError

    async def main():
        a, b = await pair(peer_factory=Bad)
        a.transport.write(b"data")
        assert isinstance(await b.lost, ZeroDivisionError)
        await a.lost
    reports.run(main)
    assert [report["message"] for report in reports] == ["Fatal error: protocol.buffer_updated() call failed."]


def test_set_protocol_changes_the_kind():
    async def main():
        a, b = await pair()
        a.transport.write(b"plain")
        await b.received(5)
        buffered = Buffered()
        buffered.transport = b.transport
        assert b.transport.get_protocol() is b
        b.transport.set_protocol(buffered)
        assert b.transport.get_protocol() is buffered
        a.transport.write(b"buffered")
        await buffered.changed.wait()
        assert buffered.data == b"buffered"
        b.transport.set_protocol(b)
        a.transport.write(b"plain")
        await b.received(5)
        await finish(a, b)
        assert b.transport.get_protocol() is None
    run(main())


# ---- contexts

variable = contextvars.ContextVar("variable", default="unset")


def test_callbacks_run_in_a_context_of_their_own():
    seen = []

    class Context(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(("made", variable.get()))
            variable.set("connection")

        def data_received(self, data):
            seen.append(("data", variable.get()))
            super().data_received(data)

        def connection_lost(self, exc):
            seen.append(("lost", variable.get()))
            super().connection_lost(exc)

    async def main():
        variable.set("program")
        a, b = await pair(peer_factory=Context)
        variable.set("later")
        a.transport.write(b"data")
        await b.received(4)
        await finish(a, b)
        assert variable.get() == "later"
    run(main())
    assert seen == [("made", "program"), ("data", "connection"), ("lost", "connection")]


# ---- what is left

def test_unclosed_transport_warns():
    async def main():
        a, b = await pair()
        a.transport.pause_reading()
        ref = weakref.ref(a.transport)
        message = f"unclosed transport <StreamTransport fd={a.transport._sock_fd} "
        with pytest.warns(ResourceWarning, match=message):
            a.events.clear()
            a.transport = None
            del a
            gc.collect()
        gc.collect()    # the warning had it
        assert ref() is None
        await b.lost
    run(main())


def test_a_reading_transport_lives_without_references():
    async def main():
        a, b = await pair()
        ref = weakref.ref(a.transport)
        del a
        gc.collect()
        b.transport.write(b"data")
        while len(ref().get_protocol().data) < 4:
            await asyncio.sleep(0.001)
        assert bytes(ref().get_protocol().data) == b"data"
        b.transport.close()
        await b.lost
        await ref().get_protocol().lost
    run(main())


def test_a_closed_loop_lets_go_of_its_transports():
    def left():
        loop = pyconc.new_event_loop()

        async def start():
            a, b = await pair()
            return weakref.ref(a.transport), weakref.ref(b.transport)
        refs = loop.run_until_complete(start())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.close()
            gc.collect()
        assert sum("unclosed transport" in str(warning.message) for warning in caught) == 2
        caught.clear()      # it has the transports
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
    left()


def test_a_transport_outlives_its_loop():
    loop = pyconc.new_event_loop()
    a, b = loop.run_until_complete(pair())
    loop.close()
    assert "fd=" in repr(a.transport)
    a.transport.pause_reading()
    a.transport.resume_reading()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        a.transport.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del a, b
        gc.collect()


def test_connections_leave_nothing(no_leaked_objects):
    async def connections():
        for _ in range(2):
            a, b = await pair()
            a.transport.write(b"data")
            a.transport.write(b"more")
            a.transport.get_extra_info("socket")
            await b.received(8)
            await finish(a, b)

    loop = pyconc.new_event_loop()
    for _ in range(300):    # sockets and tasks fill caches of Python's for long
        loop.run_until_complete(connections())
    no_leaked_objects(lambda: loop.run_until_complete(connections()), rounds=100)
    loop.close()


def test_failing_connections_leave_nothing(no_leaked_objects):
    class Bad(Buffered):
        def buffer_updated(self, nbytes):
            raise ZeroDivisionError

    async def connections():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        for _ in range(2):
            a, b = await pair(peer_factory=Bad)
            a.transport.write(b"data")
            await b.lost
            with pytest.raises(TypeError):
                a.transport.writelines([b"x", 1])
            await finish(a)

    loop = pyconc.new_event_loop()
    for _ in range(300):    # sockets and tasks fill caches of Python's for long
        loop.run_until_complete(connections())
    no_leaked_objects(lambda: loop.run_until_complete(connections()), rounds=100)
    loop.close()


def test_what_a_destructor_writes_before_the_loop_sleeps_is_sent():
    """The values in the contexts of callbacks die there."""
    var = contextvars.ContextVar("var")

    class Writes:
        def __init__(self, transport):
            self.transport = transport

        def __del__(self):
            self.transport.write(b"one")
            self.transport.write(b"two")

    def receive(sock):
        data = b""
        while len(data) < 6:
            data += sock.recv(100)
        return data

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.settimeout(60)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        await asyncio.sleep(0.01)
        loop.call_soon(lambda: var.set(Writes(transport)))
        assert await loop.run_in_executor(None, receive, theirs) == b"onetwo"   # which wakes the loop afterwards only
        transport.abort()
        theirs.close()

    run(main())


def test_a_protocol_lives_while_its_pause_writing_replaces_it():
    seen = []

    class Item:
        def __lt__(self, other):
            seen.append("compared")
            transports[0].set_protocol(asyncio.Protocol())
            return True

    class Sorts(list):
        """With a method in C, which has no reference of its own to the object."""
        pause_writing = list.sort

        def connection_made(self, transport):
            transports.append(transport)

        def __del__(self):
            seen.append("gone")

    async def main():
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().create_connection(lambda: Sorts([Item(), Item(), Item()]), sock=ours)
        transports[0].set_write_buffer_limits(high=0)
        transports[0].write(bytes(1 << 22))
        transports[0].abort()
        theirs.close()

    transports = []
    run(main())
    assert seen[:2] == ["compared"] * 2
    assert seen.index("gone") == len(seen) - 1


def test_a_close_that_raises_still_tells_the_server():
    detached = []

    class Fails(socket.socket):
        def close(self):
            super().close()
            raise OSError("no luck")

    class Server:
        def _attach(self, *args):
            pass

        def _detach(self, *args):
            detached.append(len(args))

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: failures.append(context["exception"]))
        ours, theirs = socket.socketpair()
        transport = _core.StreamTransport(loop, Fails(fileno=ours.detach()), asyncio.Protocol(), None, None, Server())
        await asyncio.sleep(0.01)
        transport.abort()
        await asyncio.sleep(0.01)
        theirs.close()

    failures = []
    run(main())
    assert len(detached) == 1
    assert [str(exc) for exc in failures] == ["no luck"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__() came with Python 3.12")
def test_a_line_that_aborts_the_transport():
    class Aborts:
        def __buffer__(self, flags):
            transports[0].abort()
            return memoryview(b"line")

    async def main():
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        transports.append(transport)
        transport.write(b"sent")
        transport.writelines([b"not", Aborts(), b"sent"])
        ref = weakref.ref(transport)
        transports.clear()
        del transport
        await asyncio.sleep(0.01)
        gc.collect()
        assert ref() is None
        assert theirs.recv(100) == b"sent"
        assert theirs.recv(100) == b""
        theirs.close()

    transports = []
    run(main())


def test_lines_that_end_the_connection_while_they_are_made():
    """By a generator that runs the loop, given to a transport whose loop does not run."""
    async def connect():
        return await asyncio.get_running_loop().create_connection(Recorder, sock=ours)

    def lines():
        transport.abort()
        loop.run_until_complete(protocol.lost)
        yield b"late"

    ours, peer = socket.socketpair()
    loop = pyconc.new_event_loop()
    transport, protocol = loop.run_until_complete(connect())
    transport.writelines(lines())
    assert transport.get_write_buffer_size() == 0
    assert peer.recv(10) == b""
    peer.close()
    loop.close()
