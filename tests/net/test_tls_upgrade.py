# SPDX-License-Identifier: MIT
"""start_tls() over connections that are there already, TLS inside TLS, streams and sendfile() over TLS."""
import asyncio
import gc
import inspect
import socket
import ssl
import warnings
import weakref

import pytest

pytestmark = pytest.mark.usefixtures("no_leaked_fds")


async def exchange(protocol, data=b"ping"):
    """The echo of `data`."""
    protocol.transport.write(data)
    return await protocol.received(len(data))


async def plain_pair(tls, factory, peer_factory):
    """The protocols of two ends without TLS."""
    loop = asyncio.get_running_loop()
    ours, theirs = tls.tcp_pair()
    (_, protocol), (_, peer) = await asyncio.gather(loop.create_connection(factory, sock=ours),
                                                    loop.connect_accepted_socket(peer_factory, theirs))
    return protocol, peer


async def upgrade(protocol, context, peer=None, **kwargs):
    """The protocol goes on over TLS, `peer` in its place if there is one."""
    transport = await asyncio.get_running_loop().start_tls(protocol.transport, peer or protocol, context, **kwargs)
    (peer or protocol).transport = transport
    return transport


async def upgrade_both(tls, protocol, peer, **kwargs):
    return await asyncio.gather(
        upgrade(protocol, tls.client_context(), server_hostname="localhost", **kwargs),
        upgrade(peer, tls.server_context(), server_side=True, **kwargs))


# ---- start_tls()

def test_both_ends(run, tls):
    async def main():
        protocol, peer = await plain_pair(tls, tls.Recorder, tls.Echo)
        plain = protocol.transport
        assert await exchange(protocol, b"plain") == b"plain"
        ours, theirs = await upgrade_both(tls, protocol, peer)
        assert ours is not plain and ours.get_protocol() is protocol
        assert isinstance(ours, asyncio.Transport)
        for transport in (ours, theirs):
            assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
            assert transport.get_extra_info("cipher") and transport.get_extra_info("peername")
        assert await exchange(protocol, b"x" * 100_000) == b"x" * 100_000
        await tls.finish(protocol, peer)
        # Who is there already is not told again that a connection was made.
        assert [event for event in protocol.events if event != "eof"] == ["made", "data", ("lost", None)]
        assert plain.is_closing()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("server_side", [False, True])
def test_against_a_peer(run, tls, version, server_side):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()
        _, protocol = await loop.create_connection(tls.Recorder, sock=ours)
        client, server = tls.contexts(version)
        peer = tls.Peer(theirs, client if server_side else server, server_side=not server_side)
        await peer.send(b"STARTTLS")
        assert await protocol.received(8) == b"STARTTLS"
        await asyncio.gather(
            upgrade(protocol, server if server_side else client, server_side=server_side,
                    server_hostname=None if server_side else "localhost"), peer.handshake())
        await peer.write(b"encrypted")
        assert await protocol.received(9) == b"encrypted"
        protocol.transport.write(b"as well")
        assert await peer.read() == b"as well"
        peer.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", ("lost", None)]

    run(main)
    assert not run.reports


def test_another_protocol(run, tls):
    """The protocol given to start_tls() is the one that is served from then on."""
    async def main():
        first, peer = await plain_pair(tls, tls.Recorder, tls.Echo)
        second = tls.Buffered()
        await asyncio.gather(upgrade(first, tls.client_context(), second, server_hostname="localhost"),
                             upgrade(peer, tls.server_context(), server_side=True))
        assert await exchange(second, b"x" * 5000) == b"x" * 5000
        await tls.finish(peer)
        assert await second.lost is None
        assert first.events == ["made"] and second.events == ["data", "eof", ("lost", None)]

    run(main)
    assert not run.reports


def test_first_bytes_are_there_already(run, tls, turns):
    """The client's first message waits in the kernel, for a server that had paused until it calls start_tls()."""
    async def main():
        protocol, peer = await plain_pair(tls, tls.Recorder, tls.Echo)
        peer.transport.pause_reading()
        connecting = asyncio.ensure_future(upgrade(protocol, tls.client_context(), server_hostname="localhost"))
        await turns()
        await upgrade(peer, tls.server_context(), server_side=True)
        await connecting
        assert await exchange(protocol) == b"ping"
        assert not peer.data
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


def test_plain_data_not_sent_yet_goes_first(run, tls):
    async def main():
        protocol, peer = await plain_pair(tls, tls.Recorder, tls.Recorder)
        plain = bytes(range(256)) * 40_000
        peer.transport.pause_reading()
        protocol.transport.write(plain)
        assert protocol.transport.get_write_buffer_size()
        connecting = asyncio.ensure_future(upgrade(protocol, tls.client_context(), server_hostname="localhost"))

        class Until(asyncio.BufferedProtocol):
            """Takes the plain bytes and no more."""

            def __init__(self):
                self.got = bytearray()
                self.all = asyncio.get_running_loop().create_future()

            def get_buffer(self, sizehint):
                self.buffer = memoryview(bytearray(min(10_000, len(plain) - len(self.got))))
                return self.buffer

            def buffer_updated(self, count):
                self.got += self.buffer[:count]
                if len(self.got) == len(plain):
                    peer.transport.pause_reading()
                    self.all.set_result(None)

        taker = Until()
        peer.transport.set_protocol(taker)
        peer.transport.resume_reading()
        await taker.all
        await upgrade(peer, tls.server_context(), server_side=True)
        await connecting
        assert taker.got == plain
        protocol.transport.write(b"encrypted")
        assert await peer.received(9) == b"encrypted"
        await tls.finish(protocol, peer)

    run(main)


def test_data_right_behind_the_handshake(run, tls):
    """What the peer sends together with the end of its handshake is not lost."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()
        _, protocol = await loop.create_connection(tls.Recorder, sock=ours)
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        upgrading = asyncio.ensure_future(upgrade(protocol, tls.client_context(), server_hostname="localhost"))
        await peer.handshake()
        await peer.send(peer.records(b"at once") + peer.close_notify())
        await upgrading
        assert await protocol.lost is None
        assert protocol.data == b"at once" and protocol.events == ["made", "data", "eof", ("lost", None)]
        peer.close()

    run(main)
    assert not run.reports


def test_inside_tls(run, tls, version):
    """TLS through a TLS proxy, as aiohttp does it: three layers here."""
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo, version=version)
        layers = [protocol.transport]
        for name in ("localhost", "other.example"):
            await asyncio.gather(
                upgrade(protocol, tls.client_context(), server_hostname=name),
                upgrade(peer, tls.server_context(name), server_side=True))
            layers.append(protocol.transport)
        assert len({id(layer) for layer in layers}) == 3
        assert layers[2].get_extra_info("ssl_object").server_hostname == "other.example"
        assert layers[2].get_extra_info("peername") == layers[0].get_extra_info("peername")
        data = bytes(range(256)) * 2000
        assert await exchange(protocol, data) == data
        await tls.finish(protocol, peer)
        assert [event for event in protocol.events if event != "eof"] == ["made", "data", ("lost", None)]

    run(main)
    assert not run.reports


def test_inside_tls_much_both_ways(run, tls):
    """Flow control goes through the layers."""
    async def main():
        protocol, peer = await tls.pair()
        await upgrade_both(tls, protocol, peer)
        piece = bytes(range(251)) * 1000
        for one in (protocol, peer):
            one.transport.pause_reading()
        pieces = 0
        while protocol.events[-1] != "pause" or peer.events[-1] != "pause":
            for one in (protocol, peer):
                one.transport.write(piece)
            pieces += 1
            await asyncio.sleep(0)
        data = piece * pieces
        for one in (protocol, peer):
            one.transport.resume_reading()
        assert await protocol.received(len(data)) == data
        assert await peer.received(len(data)) == data
        await protocol.until(lambda: "resume" in protocol.events)
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


def test_abort_inside_tls(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        await upgrade_both(tls, protocol, peer)
        protocol.transport.write(b"x" * 1_000_000)
        protocol.transport.abort()
        assert await protocol.lost is None
        await peer.lost

    run(main)
    assert not run.reports


def test_refused_name(run, tls):
    async def main():
        protocol, peer = await plain_pair(tls, tls.Recorder, tls.Recorder)
        results = await asyncio.gather(
            upgrade(protocol, tls.client_context(), server_hostname="wrong.example"),
            upgrade(peer, tls.server_context(version=ssl.TLSVersion.TLSv1_2), server_side=True),
            return_exceptions=True)
        assert isinstance(results[0], ssl.SSLCertVerificationError)
        assert isinstance(results[1], (ssl.SSLError, ConnectionResetError))
        assert protocol.transport.is_closing() and peer.transport.is_closing()

    run(main)
    assert not run.reports


def test_timeout(run, tls):
    async def main():
        for _ in range(20):     # a machine that stalls has the time over before anything is sent
            protocol, peer = await plain_pair(tls, tls.Recorder, tls.Recorder)
            with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer than 0.01 seconds"):
                await upgrade(protocol, tls.client_context(), server_hostname="localhost", ssl_handshake_timeout=0.01)
            assert await peer.lost is None
            if peer.data:
                break
        assert peer.data[:1] == b"\x16"         # it did begin

    run(main)
    assert not run.reports


def test_peer_goes_before_it_answers(run, tls):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()
        _, protocol = await loop.create_connection(tls.Recorder, sock=ours)
        upgrading = asyncio.ensure_future(upgrade(protocol, tls.client_context(), server_hostname="localhost"))
        assert await loop.sock_recv(theirs, 10000)
        theirs.close()
        with pytest.raises(ConnectionResetError):
            await upgrading

    run(main)
    assert not run.reports


def test_cancelled(run, tls):
    """The connection is closed with it."""
    async def main():
        protocol, peer = await plain_pair(tls, tls.Recorder, tls.Recorder)
        upgrading = asyncio.ensure_future(upgrade(protocol, tls.client_context(), server_hostname="localhost"))
        await peer.until(lambda: peer.data)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        assert protocol.transport.is_closing()
        await peer.lost

    run(main)
    assert not run.reports


def test_bad_arguments(run, tls):
    async def main():
        loop = asyncio.get_running_loop()
        protocol, peer = await plain_pair(tls, tls.Recorder, tls.Echo)
        context = tls.client_context()
        for wrong in (None, True, "context"):
            with pytest.raises(TypeError, match="sslcontext is expected to be an instance of ssl.SSLContext"):
                await loop.start_tls(protocol.transport, protocol, wrong)
        for wrong in (None, asyncio.Transport(), object()):
            with pytest.raises(TypeError, match=r"transport .* is not supported by start_tls\(\)"):
                await loop.start_tls(wrong, protocol, context)
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match=f"{name} should be a positive number, got -1"):
                await loop.start_tls(protocol.transport, protocol, context, server_hostname="localhost", **{name: -1})
        assert await exchange(protocol) == b"ping"     # none of it has touched the connection
        await tls.finish(protocol, peer)

    run(main)


def test_context_for_the_other_side(run, tls):
    async def main():
        protocol, peer = await plain_pair(tls, tls.Recorder, tls.Echo)
        context = tls.client_context()
        context.check_hostname = False
        with pytest.raises(ssl.SSLError, match="Cannot create a client socket with a PROTOCOL_TLS_SERVER context"):
            await asyncio.get_running_loop().start_tls(protocol.transport, protocol, tls.server_context(),
                                                       server_hostname="localhost")
        with pytest.raises(ssl.SSLError, match="Cannot create a server socket with a PROTOCOL_TLS_CLIENT context"):
            await asyncio.get_running_loop().start_tls(protocol.transport, protocol, context,
                                                       server_side=True)
        await tls.finish(protocol, peer)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)    # asyncio's transport of TLS that never was
        run(main)


def test_over_unix_sockets(run, tls):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        (_, protocol), (_, peer) = await asyncio.gather(loop.create_unix_connection(tls.Recorder, sock=ours),
                                                        loop.connect_accepted_socket(tls.Echo, theirs))
        await upgrade_both(tls, protocol, peer)
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


# ---- streams

@pytest.fixture
def served(tls):
    """`async with served(handler) as (reader, writer)`: a client's streams, TLS all along."""
    class Served:
        def __init__(self, handler, limit=2**16):
            self.handler, self.limit, self.seen = handler, limit, []

        async def handle(self, reader, writer):
            try:
                await self.handler(reader, writer)
            finally:
                writer.close()
                self.done.set_result(None)

        async def __aenter__(self):
            self.done = asyncio.get_running_loop().create_future()
            self.server = await asyncio.start_server(self.handle, tls.HOST, 0, ssl=tls.server_context(),
                                                     limit=self.limit)
            reader, self.writer = await asyncio.open_connection(
                *self.server.sockets[0].getsockname(), ssl=tls.client_context(), server_hostname="localhost",
                limit=self.limit)
            return reader, self.writer

        async def __aexit__(self, *exc_info):
            self.writer.close()
            await self.writer.wait_closed()
            await self.done
            self.server.close()
            await self.server.wait_closed()

    return Served


async def echo(reader, writer):
    while data := await reader.read(10_000):
        writer.write(data)
        await writer.drain()


def test_streams(run, served):
    async def main():
        async with served(echo) as (reader, writer):
            for data in (b"line\n", b"x" * 1_000_000):
                writer.write(data)
                reading = asyncio.ensure_future(reader.readexactly(len(data)))
                await writer.drain()
                assert await reading == data
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert not writer.can_write_eof()

    run(main)
    assert not run.reports


def test_stream_ends(run, served):
    async def main():
        async def hello(reader, writer):
            writer.write(b"first\nsecond\nrest")

        async with served(hello) as (reader, writer):
            assert [line async for line in reader] == [b"first\n", b"second\n", b"rest"]
            assert reader.at_eof() and await reader.read() == b""
            with pytest.raises(asyncio.IncompleteReadError):
                await reader.readexactly(1)

    run(main)
    assert not run.reports


def test_limit_of_a_stream(run, served):
    """A reader that nobody reads stops the writer; a line that is too long raises."""
    async def main():
        stopped = asyncio.get_running_loop().create_future()

        async def floods(reader, writer):
            try:
                while True:
                    writer.write(b"x" * 50_000)
                    try:
                        await asyncio.wait_for(writer.drain(), 0.05)
                    except TimeoutError:
                        stopped.set_result(None)
                        await reader.readline()
                        break
            finally:
                writer.write(b"\nend\n")

        async with served(floods, limit=1000) as (reader, writer):
            await stopped
            writer.write(b"go on\n")
            while True:
                try:
                    line = await reader.readline()
                except ValueError as exc:
                    assert "limit" in str(exc) or "chunk" in str(exc)
                else:
                    if line == b"end\n":
                        break

    run(main)
    assert not run.reports


def test_stream_upgraded(run, tls):
    """StreamWriter.start_tls() on both ends, after a few plain lines."""
    async def main():
        handling = []

        async def handle(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"OK\n")
            await writer.start_tls(tls.server_context())
            while line := await reader.readline():
                writer.write(line.upper())
            cipher = writer.get_extra_info("cipher")
            writer.close()
            await writer.wait_closed()
            return cipher

        def accept(*streams):
            handling.append(asyncio.ensure_future(handle(*streams)))

        server = await asyncio.start_server(accept, tls.HOST, 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"OK\n"
        assert writer.get_extra_info("cipher") is None
        await writer.start_tls(tls.client_context(), server_hostname="localhost")
        assert writer.get_extra_info("cipher")
        for line in (b"one\n", b"two" * 10_000 + b"\n"):
            writer.write(line)
            assert await reader.readline() == line.upper()
        writer.close()
        await writer.wait_closed()
        assert await handling[0]
        server.close()
        await server.wait_closed()

    run(main)
    assert not run.reports


def test_stream_upgraded_with_data_in_the_reader(run, tls):
    """The client's first message may be in the StreamReader by the time that the server starts TLS."""
    theirs = inspect.getsource(asyncio.base_events.BaseEventLoop.start_tls)
    if run.name == "asyncio" and "stream_reader._buffer" not in theirs:
        pytest.skip("this Python's asyncio loses what a StreamReader holds when TLS starts (gh-142352)")

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()
        peer = tls.Peer(theirs, tls.client_context())
        with pytest.raises(ssl.SSLWantReadError):
            peer.ssl.do_handshake()
        await peer.send(b"STARTTLS\n" + peer.outgoing.read())

        async def handle(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            await writer.start_tls(tls.server_context())
            writer.write(await reader.readline())
            writer.close()

        reader = asyncio.StreamReader()
        await loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader, handle), ours)
        await peer.handshake()
        await peer.write(b"line\n")
        assert await peer.read() == b"line\n"
        peer.close()

    run(main)
    assert not run.reports


def test_a_refused_certificate_leaves_no_cycle(run_ours, tls):
    """With the garbage collector off: the exception holds nothing of the connection that it came from."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
        shaking = asyncio.ensure_future(peer.handshake())
        try:
            await loop.start_tls(transport, protocol, tls.client_context(authority="stray"),
                                 server_hostname="localhost")
        except ssl.SSLCertVerificationError:
            refused = weakref.ref(transport)
        await asyncio.wait([shaking])
        assert shaking.exception()
        peer.close()
        return refused

    gc.collect()
    gc.disable()
    try:
        assert run_ours(main)() is None
    finally:
        gc.enable()


# ---- sendfile()

@pytest.mark.parametrize("offset, count", [(0, None), (1000, None), (1000, 200_001), (0, 10**9)])
def test_sendfile(run, tls, tmp_path, offset, count):
    """A file goes through write(), between what was written before and after."""
    path = tmp_path / "file"
    content = bytes(range(256)) * 2000
    path.write_bytes(content)
    wanted = content[offset:offset + count if count else None]

    async def main():
        loop = asyncio.get_running_loop()
        protocol, peer = await tls.pair()
        protocol.transport.write(b"before")
        with path.open("rb") as file:
            assert await loop.sendfile(protocol.transport, file, offset, count) == len(wanted)
            assert file.tell() == offset + len(wanted)
        protocol.transport.write(b"after")
        assert await peer.received(len(wanted) + 11) == b"before" + wanted + b"after"
        assert protocol.transport.get_protocol() is protocol
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


def test_sendfile_that_must_be_native(run, tls, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def main():
        protocol, peer = await tls.pair()
        with path.open("rb") as file, pytest.raises(RuntimeError, match="fallback is disabled and native sendfile"):
            await asyncio.get_running_loop().sendfile(protocol.transport, file, fallback=False)
        await tls.finish(protocol, peer)
        with path.open("rb") as file, pytest.raises(RuntimeError, match="Transport is closing"):
            await asyncio.get_running_loop().sendfile(protocol.transport, file)

    run(main)


def test_sendfile_to_who_goes(run, tls, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)

    async def main():
        protocol, peer = await tls.with_peer()
        with path.open("rb") as file:
            sending = asyncio.ensure_future(asyncio.get_running_loop().sendfile(protocol.transport, file))
            assert await peer.read()
            peer.reset()
            with pytest.raises(ConnectionError):
                await sending
        await protocol.lost

    run(main)
