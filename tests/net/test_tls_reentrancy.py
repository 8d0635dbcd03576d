# SPDX-License-Identifier: MIT
"""TLS connections that are called from within their own callbacks, or paused when something happens to them."""
import asyncio
import contextlib
import ctypes
import socket
import ssl

import pytest

from pyconc import _core

pytestmark = pytest.mark.usefixtures("no_leaked_fds")
MIB = 1 << 20


# ---- the end, while reading is paused

@pytest.mark.parametrize("kind", ["Recorder", "Buffered"])
@pytest.mark.parametrize("clean", [True, False], ids=["close_notify", "end of file"])
def test_nothing_is_lost_when_it_is_paused_at_the_end(run_ours, tls, version, kind, clean):
    """A protocol that pauses with each piece gets all that came before the end."""
    size = 300_000

    async def main():
        loop = asyncio.get_running_loop()

        class Pauses(getattr(tls, kind)):
            size = 10_000

            def data_received(self, data):
                super().data_received(data)
                self.transport.pause_reading()
                loop.call_soon(loop.call_soon, self.transport.resume_reading)

        protocol, peer = await tls.with_peer(Pauses, version)
        protocol.transport.pause_reading()
        protocol.transport.set_read_buffer_limits(2 * MIB)
        await peer.write(bytes(size))
        if clean:
            await peer.send(peer.close_notify())
        peer.close()
        await asyncio.sleep(0.1)
        protocol.transport.resume_reading()
        assert await protocol.lost is None
        assert len(protocol.data) == size
        assert protocol.events[-2:] == ["eof", ("lost", None)]

    run_ours(main)


def test_stream_gets_all_before_the_end(run, tls):
    size = MIB

    async def main():
        async def serve(reader, writer):
            writer.write(bytes(size))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, tls.HOST, 0, ssl=tls.server_context())
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()[:2], ssl=tls.client_context(), server_hostname="localhost")
        got = 0
        while data := await reader.read(20_000):
            got += len(data)
            await asyncio.sleep(0)
        assert got == size
        writer.close()
        server.close()

    run(main)


def test_close_after_the_peer_has_gone_while_paused(run_ours, tls):
    """Nobody has to resume a connection to get it closed. asyncio's waits for that for ever."""
    async def main():
        protocol, peer = await tls.with_peer()
        protocol.transport.pause_reading()
        await peer.write(b"data")
        peer.close()
        await asyncio.sleep(0.1)
        protocol.transport.close()
        async with asyncio.timeout(30):
            assert await protocol.lost is None
        assert "data" not in protocol.events

    run_ours(main)




@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("method", ["close", "abort"])
def test_closed_after_its_loop(run, tls, method):
    """It raises, and nothing else is told of it."""
    async def main():
        protocol, peer = await tls.with_peer()
        return protocol.transport, peer

    transport, peer = run(main)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(transport, method)()
    assert not run.reports
    peer.close()


# ---- transports beneath that are not the loop's own

class Below(asyncio.Transport):
    """Hands what it is to send to `send`."""

    def __init__(self, protocol, send):
        super().__init__()
        self.protocol, self.send = protocol, send

    def write(self, data):
        self.send(data)

    def lose(self, data=None):
        """Breaks the rule that connection_lost() does not come from within a call."""
        self.protocol.connection_lost(None)

    def close(self):
        pass

    _force_close = lose


def over_transport(tls, app, version=None):
    """(SSLProtocol, the transport beneath it, a Peer without a socket), after the handshake."""
    client, server = tls.contexts(version)
    peer = tls.Peer.__new__(tls.Peer)
    peer.incoming, peer.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer.ssl = client.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
    protocol = _core.SSLProtocol(asyncio.get_running_loop(), app, server, server_side=True)
    below = Below(protocol, peer.incoming.write)
    protocol.connection_made(below)
    while not app.made.done():
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.ssl.do_handshake()
        protocol.data_received(peer.outgoing.read())
    return protocol, below, peer


@pytest.mark.parametrize("kind", ["Recorder", "Buffered"])
def test_lost_while_an_alert_is_sent(run_ours, tls, version, kind):
    """What is read together with the reason for the alert comes before the end, or not at all."""
    async def main():
        app = getattr(tls, kind)()
        protocol, below, peer = over_transport(tls, app, version)
        below.send = below.lose
        protocol.data_received(peer.records(b"data") + b"\x17\x03\x03\x00\x20" + bytes(32))
        assert await app.lost is None
        assert app.data in (b"", b"data") and app.events[-1] == ("lost", None)

    run_ours(main)


@pytest.mark.parametrize("method", ["write", "close", "abort"])
def test_lost_while_it_is_called(run_ours, tls, method):
    async def main():
        app = tls.Recorder()
        protocol, below, peer = over_transport(tls, app)
        below.send = below.lose
        for _ in range(2):
            getattr(app.transport, method)(*[bytes(MIB)] * (method == "write"))
        protocol.connection_lost(None)
        assert await app.lost is None
        assert app.events[0] == "made" and app.events.count(("lost", None)) == 1

    run_ours(main)


def test_lost_in_the_handshake_and_again(run_ours, tls):
    async def main():
        app = tls.Recorder()
        protocol = _core.SSLProtocol(asyncio.get_running_loop(), app, tls.server_context(), server_side=True,
                                     call_connection_made=False)
        protocol.connection_made(Below(protocol, print))
        protocol.connection_lost(None)
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        assert app.events == []

    run_ours(main)


# ---- answers that nobody takes

def libssl_of(ssl_object):
    """(libssl, the SSL of an ssl.SSLObject), by the layout that _ssl's objects have had so far."""
    library = ctypes.CDLL(ssl._ssl.__file__)
    offset = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    address = ctypes.c_void_p.from_address(id(ssl_object._sslobj) + offset)
    return library, address


def test_requests_for_new_keys_without_end(run_ours, tls):
    """A peer that has us answer all the time and does not read is not read from any more, until it reads."""
    async def main():
        loop = asyncio.get_running_loop()
        protocol, peer = await tls.with_peer(version=ssl.TLSVersion.TLSv1_3)
        protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        library, address = libssl_of(peer.ssl)
        below = protocol.transport._ssl_protocol._transport

        async def flood():
            for _ in range(500):
                for _ in range(1000):
                    assert library.SSL_key_update(address, 1) == library.SSL_do_handshake(address) == 1
                await loop.sock_sendall(peer.sock, peer.outgoing.read())

        flooding = loop.create_task(flood())
        while below.is_reading():
            assert not flooding.done()
            await asyncio.sleep(0)
        assert below.get_write_buffer_size() < MIB

        while not below.is_reading():
            await peer.fill()
        flooding.cancel()
        protocol.transport.abort()
        await protocol.lost
        peer.close()

    run_ours(main)
