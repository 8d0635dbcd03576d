# SPDX-License-Identifier: MIT
"""loop.create_datagram_endpoint() and its transport, on real sockets."""
import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import socket
import struct
import threading
import warnings
import weakref
from asyncio import trsock

import pytest

import pyconc

LOCAL = ("127.0.0.1", 0)
pyconc.new_event_loop().close()     # libuv opens a pipe with the first loop of a process, and keeps it
FACTORIES = [pyconc.new_event_loop, asyncio.new_event_loop]


class Recorder(asyncio.DatagramProtocol):
    def __init__(self):
        self.events = asyncio.Queue()
        self.flow = []
        self.lost = asyncio.get_running_loop().create_future()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.events.put_nowait((data, addr))

    def error_received(self, exc):
        self.events.put_nowait(exc)

    def pause_writing(self):
        self.flow.append("pause")

    def resume_writing(self):
        self.flow.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    async def next(self):
        return await asyncio.wait_for(self.events.get(), 60)


def run(main, factory=pyconc.new_event_loop, **kwargs):
    with asyncio.Runner(loop_factory=factory, **kwargs) as runner:
        return runner.run(main)


async def endpoint(*args, **kwargs):
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(Recorder, *args, **kwargs)


async def closed(*transports):
    for transport in transports:
        transport.close()
        await transport._protocol.lost


def collect_errors():
    """The contexts that the running loop's exception handler gets from now on."""
    contexts = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: contexts.append(context))
    return contexts


@contextlib.asynccontextmanager
async def blocked_pair():
    """A transport whose socket is full, its protocol, and the peer's socket."""
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.setblocking(False)
    transport, protocol = await endpoint(sock=ours)
    sent = 0
    while transport.get_write_buffer_size() == 0:
        transport.sendto(b"fill")
        sent += 1
    try:
        yield transport, protocol, peer, sent
    finally:
        transport.abort()
        await protocol.lost
        peer.close()


async def drain(peer, count):
    """The next `count` datagrams of a socket whose sender is blocked."""
    loop = asyncio.get_running_loop()
    return [await asyncio.wait_for(loop.sock_recv(peer, 65536), 60) for _ in range(count)]


# ---- what goes over the wire


@pytest.mark.parametrize("host,family", [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_echo(host, family, no_leaked_fds):
    async def main():
        server, received = await endpoint((host, 0))
        address = server.get_extra_info("sockname")
        client, answered = await endpoint(remote_addr=address[:2])
        client.sendto(b"ping")
        data, peer = await received.next()
        assert (data, peer) == (b"ping", client.get_extra_info("sockname"))
        server.sendto(b"pong", peer)
        assert await answered.next() == (b"pong", address)
        assert client.get_extra_info("peername") == address
        assert client.get_extra_info("socket").family == family
        await closed(client, server)
    run(main())


def test_empty_datagrams_are_sent():
    async def main():
        server, received = await endpoint(LOCAL)
        client, answered = await endpoint(remote_addr=server.get_extra_info("sockname"))
        for empty in (b"", bytearray(), memoryview(b"")):
            client.sendto(empty)
            data, peer = await received.next()
            assert data == b"" and type(data) is bytes
            server.sendto(empty, peer)
            assert (await answered.next())[0] == b""
        await closed(client, server)
    run(main())


def test_the_largest_datagram():
    async def main():
        server, received = await endpoint(LOCAL)
        client, _ = await endpoint(remote_addr=server.get_extra_info("sockname"))
        payload = os.urandom(65507)
        client.sendto(payload)
        assert (await received.next())[0] == payload
        await closed(client, server)
    run(main())


def test_a_burst_is_read_whole_and_in_order():
    async def main():
        server, received = await endpoint(LOCAL)
        client, _ = await endpoint(remote_addr=server.get_extra_info("sockname"))
        for i in range(100):
            client.sendto(b"%d" % i)
        assert [(await received.next())[0] for _ in range(100)] == [b"%d" % i for i in range(100)]
        await closed(client, server)
    run(main())


def test_every_peer_keeps_its_address():
    async def main():
        server, received = await endpoint(LOCAL)
        clients = [await endpoint(remote_addr=server.get_extra_info("sockname")) for _ in range(300)]
        for _ in range(2):
            for transport, _ in clients:
                transport.sendto(b"%d" % transport.get_extra_info("sockname")[1])
                data, peer = await received.next()
                assert data == b"%d" % peer[1]
                server.sendto(data, peer)
            for transport, protocol in clients:
                assert (await protocol.next())[0] == b"%d" % transport.get_extra_info("sockname")[1]
        await closed(server, *(transport for transport, _ in clients))
    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", b"127.0.0.1"])
def test_destinations(host):
    async def main():
        server, received = await endpoint(LOCAL)
        client, _ = await endpoint(LOCAL)
        client.sendto(b"x", (host, server.get_extra_info("sockname")[1]))
        client.sendto(data=b"y", addr=(host, server.get_extra_info("sockname")[1]))
        assert [(await received.next())[0] for _ in range(2)] == [b"x", b"y"]
        await closed(client, server)
    run(main())


@pytest.mark.parametrize("abstract", [False, True])
def test_unix(abstract, tmp_path, no_leaked_fds):
    async def main():
        names = [f"\0pyconc-{os.getpid()}-{i}" if abstract else str(tmp_path / f"socket{i}") for i in range(2)]
        server, received = await endpoint(names[0], family=socket.AF_UNIX)
        client, answered = await endpoint(names[1], names[0], family=socket.AF_UNIX)
        client.sendto(b"ping")
        expected = [name.encode() if abstract else name for name in names]
        assert await received.next() == (b"ping", expected[1])
        server.sendto(b"pong", expected[1])
        assert await answered.next() == (b"pong", expected[0])
        await closed(client, server)
        # A path left behind is taken over.
        again, _ = await endpoint(names[0], family=socket.AF_UNIX)
        await closed(again)
    run(main())


def test_unix_pair_without_names():
    async def main():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        left, received_left = await endpoint(sock=ours)
        right, received_right = await endpoint(sock=theirs)
        left.sendto(b"x" * 100_000)
        assert (await received_right.next())[0] == b"x" * 100_000
        right.sendto(b"")
        assert (await received_left.next())[0] == b""
        await closed(left, right)
    run(main())


def test_netlink():
    """A family whose addresses only the socket module knows."""
    async def main():
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        sock.bind((0, 0))
        transport, protocol = await endpoint(sock=sock)
        get_links, dump = 18, 0x301
        transport.sendto(struct.pack("=IHHIIB3x", 20, get_links, dump, 7, 0, socket.AF_UNSPEC), (0, 0))
        data, address = await protocol.next()
        assert struct.unpack_from("=IHHI", data)[3] == 7 and address == (0, 0)
        await closed(transport)
    run(main())


def test_broadcast_and_reuse_port():
    async def main():
        first, received = await endpoint(LOCAL, reuse_port=True)
        address = first.get_extra_info("sockname")
        second, _ = await endpoint(address, reuse_port=True)
        second.abort()
        await second._protocol.lost
        sender, _ = await endpoint(remote_addr=address, allow_broadcast=True)
        sock = sender.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1
        assert sender.get_extra_info("peername") is None    # not connected, yet it has one destination
        sender.sendto(b"x")
        sender.sendto(b"y", address)
        assert [(await received.next())[0] for _ in range(2)] == [b"x", b"y"]
        with pytest.raises(ValueError):
            sender.sendto(b"z", ("127.0.0.1", 9))
        await closed(first, sender)
    run(main())


# ---- errors


def test_refused_and_then_reachable():
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as placeholder:
            placeholder.bind(LOCAL)
            address = placeholder.getsockname()
        client, protocol = await endpoint(remote_addr=address)
        for _ in range(3):
            client.sendto(b"into the void")
            assert isinstance(await protocol.next(), ConnectionRefusedError)
        server, received = await endpoint(address)
        client.sendto(b"hello")
        data, peer = await received.next()
        server.sendto(b"there", peer)
        assert await protocol.next() == (b"there", address)
        await closed(client, server)
    run(main())


def test_too_large_is_told_to_the_protocol():
    async def main():
        server, _ = await endpoint(LOCAL)
        client, protocol = await endpoint(LOCAL)
        client.sendto(bytes(70_000), server.get_extra_info("sockname"))
        error = await protocol.next()
        assert isinstance(error, OSError) and not client.is_closing()
        await closed(client, server)
    run(main())


def test_connected_endpoint_takes_no_other_address():
    async def main():
        server, received = await endpoint(LOCAL)
        address = server.get_extra_info("sockname")
        client, _ = await endpoint(remote_addr=address)
        with pytest.raises(ValueError) as caught:
            client.sendto(b"x", ("127.0.0.2", 53))
        assert str(address) in str(caught.value) and "('127.0.0.2', 53)" in str(caught.value)
        client.sendto(b"same", tuple(list(address)))
        assert (await received.next())[0] == b"same"
        await closed(client, server)
    run(main())


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
def test_only_bytes_like(data):
    async def main():
        transport, _ = await endpoint(LOCAL)
        with pytest.raises(TypeError, match=type(data).__name__):
            transport.sendto(data, ("127.0.0.1", 9))
        with pytest.raises(TypeError):
            transport.sendto()
        with pytest.raises(TypeError):
            transport.sendto(b"", None, None)
        with pytest.raises(TypeError, match="nonsense"):
            transport.sendto(b"", nonsense=1)
        with pytest.raises(TypeError, match="data"):
            transport.sendto(b"", data=b"")
        await closed(transport)
    run(main())


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("address,error", [
    (("127.0.0.1", 70_000), OverflowError), (("127.0.0.1",), TypeError), ("127.0.0.1", TypeError),
    (None, TypeError), (("127.0.0.1", "80"), TypeError), ((None, 80), TypeError)])
def test_impossible_destinations_are_fatal(factory, address, error):
    async def main():
        contexts = collect_errors()
        transport, protocol = await endpoint(LOCAL)
        transport.sendto(b"x", address)
        assert isinstance(await protocol.lost, error)
        context, = contexts
        assert context["message"] == "Fatal write error on datagram transport"
        assert context["transport"] is transport and context["protocol"] is protocol
        assert isinstance(context["exception"], error)
    run(main(), factory)


@pytest.mark.parametrize("factory", FACTORIES)
def test_unknown_names_are_told_to_the_protocol(factory):
    async def main():
        transport, protocol = await endpoint(LOCAL)
        transport.sendto(b"x", ("name.invalid", 80))
        assert isinstance(await protocol.next(), socket.gaierror)
        await closed(transport)
    run(main(), factory)


def test_exceptions_of_the_protocol():
    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ValueError("made")

        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise ValueError("received")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ValueError("lost")

    async def main():
        contexts = collect_errors()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Failing, LOCAL)
        for _ in range(2):
            transport.sendto(b"x", transport.get_extra_info("sockname"))
            await protocol.next()
        transport.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert [str(context["exception"]) for context in contexts] == ["made", "received", "received", "lost"]
        assert transport.get_extra_info("socket").fileno() == -1
    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exceptions_that_end_the_loop(error):
    class Ending(Recorder):
        def datagram_received(self, data, addr):
            raise error("now")

    loop = pyconc.new_event_loop()
    async def make():
        return await loop.create_datagram_endpoint(Ending, LOCAL)
    transport, protocol = loop.run_until_complete(make())
    transport.sendto(b"x", transport.get_extra_info("sockname"))
    with pytest.raises(error, match="now"):
        loop.run_forever()
    transport.close()
    loop.run_until_complete(protocol.lost)
    loop.close()


def test_stream_sockets_are_refused():
    async def main():
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="socket"):
                await endpoint(sock=sock)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="local_addr"):
                await endpoint(LOCAL, sock=sock)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
            with pytest.raises(ValueError, match="reuse_port"):
                await endpoint(reuse_port=True, sock=sock)
        with pytest.raises(ValueError):
            await endpoint()
        with pytest.raises(TypeError):
            await endpoint("127.0.0.1")
    run(main())


def test_arguments_of_the_type():
    loop = pyconc.new_event_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        make = pyconc._core.DatagramTransport
        with pytest.raises(TypeError):
            make()
        with pytest.raises(TypeError, match="Loop"):
            make(object(), sock, None)
        with pytest.raises(TypeError, match="extra"):
            make(loop, sock, None, extra=5)
        with pytest.raises(TypeError):
            make(loop, object(), None)
        with pytest.raises(TypeError, match="context"):
            make(loop, sock, None, context=5)
        loop.close()
        with pytest.raises(RuntimeError):
            make(loop, sock, None)
        assert sock.fileno() >= 0


# ---- flow control


def test_what_waits_does_not_change():
    async def main():
        async with blocked_pair() as (transport, _, peer, sent):
            buffer = bytearray(b"before")
            transport.sendto(buffer)
            transport.sendto(memoryview(buffer)[:3])
            buffer[:] = b"after!"
            assert (await drain(peer, sent + 2))[sent:] == [b"before", b"bef"]
            assert transport.get_write_buffer_size() == 0
    run(main())


def test_pause_and_resume_writing():
    async def main():
        async with blocked_pair() as (transport, protocol, peer, sent):
            assert protocol.flow == []
            waiting = transport.get_write_buffer_size()
            transport.set_write_buffer_limits(high=waiting + 100, low=10)
            assert transport.get_write_buffer_limits() == (10, waiting + 100)
            transport.sendto(bytes(92))
            assert protocol.flow == []
            transport.sendto(b"")
            assert protocol.flow == ["pause"]
            await drain(peer, sent + 2)
            await asyncio.sleep(0)
            assert protocol.flow == ["pause", "resume"]
            assert transport.get_write_buffer_size() == 0
    run(main())


def test_limits():
    async def main():
        transport, protocol = await endpoint(LOCAL)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=400)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (16384, 65536)
        for wrong in ({"high": 1, "low": 2}, {"low": -1}, {"high": -1}):
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(**wrong)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits("much")
        await closed(transport)
    run(main())


def test_close_sends_what_waits():
    async def main():
        async with blocked_pair() as (transport, protocol, peer, sent):
            for i in range(10):
                transport.sendto(b"%d" % i)
            transport.close()
            transport.close()
            assert transport.is_closing() and not transport.is_reading()
            assert not protocol.lost.done()
            assert (await drain(peer, sent + 10))[sent:] == [b"%d" % i for i in range(10)]
            assert await protocol.lost is None
            with pytest.raises(BlockingIOError):
                peer.recv(1)
    run(main())


def test_abort_drops_what_waits():
    async def main():
        async with blocked_pair() as (transport, protocol, peer, sent):
            transport.sendto(b"lost")
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            assert await protocol.lost is None
            got = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    got.append(peer.recv(100))
            assert b"lost" not in got
    run(main())


def test_peer_goes_while_datagrams_wait():
    async def main():
        async with blocked_pair() as (transport, protocol, peer, _):
            transport.sendto(b"x")
            transport.sendto(b"y")
            peer.close()
            while transport.get_write_buffer_size() > 0:
                assert isinstance(await protocol.next(), ConnectionError)
            assert not transport.is_closing()
    run(main())


def test_pause_reading():
    async def main():
        transport, protocol = await endpoint(LOCAL)
        address = transport.get_extra_info("sockname")
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.sendto(b"1", address)
        for _ in range(3):
            await asyncio.sleep(0)
        assert protocol.events.empty()
        transport.resume_reading()
        assert await protocol.next() == (b"1", address)
        await closed(transport)
        transport.resume_reading()
        assert not transport.is_reading()
    run(main())


def test_pausing_in_a_callback_leaves_the_rest_in_the_kernel():
    class OneByOne(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(OneByOne, LOCAL)
        for i in range(3):
            transport.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        for i in range(3):
            assert (await protocol.next())[0] == b"%d" % i
            await asyncio.sleep(0)
            assert protocol.events.empty()
            transport.resume_reading()
        await closed(transport)
    run(main())


# ---- the object


def test_interface():
    async def main():
        transport, protocol = await endpoint(LOCAL)
        assert isinstance(transport, asyncio.DatagramTransport) and isinstance(transport, asyncio.Transport)
        assert isinstance(transport.get_extra_info("socket"), trsock.TransportSocket)
        assert transport.get_extra_info("peername") is None
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport.get_protocol() is protocol is protocol.transport._protocol
        assert repr(transport).startswith("<DatagramTransport fd=")
        assert "read=polling" in repr(transport) and "bufsize=0" in repr(transport)
        assert weakref.ref(transport)() is transport
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="transport"):
            loop.add_reader(transport.get_extra_info("socket").fileno(), print)
        transport.close()
        assert "closing" in repr(transport)
        await protocol.lost
        await asyncio.sleep(0)
        assert "closed" in repr(transport) and transport.is_closing()
        assert transport.get_protocol() is None and transport._sock is None
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
    run(main())


def test_set_protocol_from_a_callback():
    class Switching(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.transport.set_protocol(after)

    async def main():
        nonlocal after
        after = Recorder()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Switching, LOCAL)
        transport.sendto(b"1", transport.get_extra_info("sockname"))
        transport.sendto(b"2", transport.get_extra_info("sockname"))
        assert (await after.next())[0] == b"2"
        await closed(transport)
    after = None
    run(main())


def test_sending_after_close(caplog):
    async def main():
        server, received = await endpoint(LOCAL)
        address = server.get_extra_info("sockname")
        for connected in (True, False):
            caplog.clear()
            transport, protocol = await endpoint(**({"remote_addr": address} if connected else {"local_addr": LOCAL}))
            transport.close()
            for _ in range(3):
                transport.sendto(b"late", address)
            if not connected:               # as asyncio's: as long as there is a socket
                assert [(await received.next())[0] for _ in range(3)] == [b"late"] * 3
            await protocol.lost
            await asyncio.sleep(0)
            assert not caplog.records
            for _ in range(8):
                transport.sendto(b"too late", address)
            assert "socket.send() raised exception." in caplog.text
        await asyncio.sleep(0)
        assert received.events.empty()
        await closed(server)
    caplog.set_level(logging.WARNING, "asyncio")
    run(main(), debug=False)    # debug mode tells of a machine that stalls


@pytest.mark.parametrize("factory", FACTORIES)
def test_errors_after_close_are_told_too(factory):
    async def main():
        transport, protocol = await endpoint(LOCAL)
        transport.close()
        transport.sendto(bytes(70_000), transport.get_extra_info("sockname"))
        assert isinstance(await protocol.next(), OSError)
        assert await protocol.lost is None
    run(main(), factory)


def test_closing_in_every_callback():
    class Closing(Recorder):
        def __init__(self, where):
            super().__init__()
            self.where = where

        def connection_made(self, transport):
            super().connection_made(transport)
            if self.where == "made":
                transport.abort()

        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if self.where == "received":
                self.transport.close()

        def error_received(self, exc):
            if self.where == "error":
                self.transport.close()

    async def main():
        loop = asyncio.get_running_loop()
        for where in ("made", "received", "error"):
            transport, protocol = await loop.create_datagram_endpoint(lambda where=where: Closing(where), LOCAL)
            address = transport.get_extra_info("sockname")
            transport.sendto(bytes(70_000) if where == "error" else b"1", address)
            transport.sendto(b"2", address)
            assert await protocol.lost is None
            assert protocol.events.qsize() == (where == "received")
    run(main())


def test_callbacks_run_in_the_context_of_their_making():
    var = contextvars.ContextVar("var", default="outside")

    class Seeing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.seen = [var.get()]

        def datagram_received(self, data, addr):
            self.seen.append(var.get())
            var.set(var.get() + "+")
            super().datagram_received(data, addr)

        def connection_lost(self, exc):
            self.seen.append(var.get())
            super().connection_lost(exc)

    async def make(name):
        var.set(name)
        return await asyncio.get_running_loop().create_datagram_endpoint(Seeing, LOCAL)

    async def main():
        made = [await asyncio.create_task(make(name)) for name in "ab"]
        for transport, protocol in made * 2:
            transport.sendto(b"x", transport.get_extra_info("sockname"))
            await protocol.next()
        await closed(*(transport for transport, _ in made))
        assert [protocol.seen for _, protocol in made] == [["a", "a", "a+", "a++"], ["b", "b", "b+", "b++"]]
        assert var.get() == "outside"
    run(main())


def test_a_loop_inside_a_callback():
    """Callbacks of one transport within a callback of its own, as nested loops make them."""
    class Nesting(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"outer":
                self.transport.sendto(b"inner", addr)
                thread = threading.Thread(target=run, args=(asyncio.sleep(0),))
                thread.start()
                thread.join()

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Nesting, LOCAL)
        transport.sendto(b"outer", transport.get_extra_info("sockname"))
        assert [(await protocol.next())[0] for _ in range(2)] == [b"outer", b"inner"]
        await closed(transport)
    run(main())


def test_cancelled_while_it_is_made(no_leaked_fds):
    async def main():
        task = asyncio.create_task(endpoint(LOCAL))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(3):
            await asyncio.sleep(0)
    run(main())


# ---- what is left open


def test_lives_without_a_reference():
    async def main():
        transport, protocol = await endpoint(LOCAL)
        address = transport.get_extra_info("sockname")
        ref = weakref.ref(transport)
        protocol.transport = transport = None
        gc.collect()
        assert ref() is not None
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", address)
            assert (await protocol.next())[0] == b"x"
        ref().close()
        await protocol.lost
        await asyncio.sleep(0)
        gc.collect()
        assert ref() is None
    run(main())


def test_left_open_when_the_loop_closes(no_leaked_fds):
    loop = pyconc.new_event_loop()

    async def make():
        return await endpoint(LOCAL)
    transport, protocol = loop.run_until_complete(make())
    loop.close()
    assert transport._sock is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport, protocol, loop
        gc.collect()
    assert any("unclosed transport <DatagramTransport fd=" in str(warning.message) for warning in caught)


def test_loop_dropped_with_an_open_transport(no_leaked_fds):
    loop = pyconc.new_event_loop()

    async def make():
        return await endpoint(LOCAL)
    loop.run_until_complete(make())
    refs = [weakref.ref(loop)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in caught)
    caught.clear()      # a warning refers to its source
    gc.collect()
    assert refs[0]() is None


def test_closed_after_its_loop():
    loop = pyconc.new_event_loop()

    async def make():
        return await endpoint(LOCAL)
    transport, protocol = loop.run_until_complete(make())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        with pytest.raises(RuntimeError, match="closed"):
            transport.close()
        del transport, protocol
        gc.collect()


def test_descriptor_closed_under_the_transport():
    """Wrong, but nothing that may end the process or break the next one with that number."""
    async def main():
        transport, _ = await endpoint(LOCAL)
        fd = transport.get_extra_info("socket").fileno()
        os.close(fd)
        await asyncio.sleep(0)
        transport.sendto(b"x", ("127.0.0.1", 9))
        assert isinstance(await transport._protocol.next(), OSError)
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind(LOCAL)
        assert sock.fileno() == fd
        with pytest.raises(RuntimeError, match="used by"):
            await endpoint(sock=sock)
        transport._sock.detach()
        transport.abort()
        await transport._protocol.lost
        again, protocol = await endpoint(sock=sock)
        again.sendto(b"x", again.get_extra_info("sockname"))
        assert (await protocol.next())[0] == b"x"
        await closed(again)
    run(main())


@pytest.mark.leak
def test_no_leaks(no_leaked_objects, no_leaked_fds):
    loop = pyconc.new_event_loop()

    async def once():
        server, received = await endpoint(LOCAL)
        client, answered = await endpoint(remote_addr=server.get_extra_info("sockname"))
        client.sendto(b"x" * 100)
        data, peer = await received.next()
        server.sendto(data, peer)
        await answered.next()
        await closed(server)
        client.sendto(b"x")
        assert isinstance(await answered.next(), ConnectionRefusedError)
        with contextlib.suppress(ValueError):
            client.sendto(b"x", ("127.0.0.9", 9))
        client.abort()
        await answered.lost
        async with blocked_pair() as (transport, _, _, _):
            transport.sendto(b"waits")
    no_leaked_objects(lambda: loop.run_until_complete(once()), 50)
    loop.close()
