# SPDX-License-Identifier: MIT
"""Many TLS connections leave nothing behind: no descriptor, no object, no memory, whatever became of them.

PYCONC_LEAK_CONNECTIONS says how many of each kind: 200 by default, 20000 for a long look.
"""
import asyncio
import collections
import contextlib
import gc
import os
import ssl

import pytest

import pyconc

pytestmark = [pytest.mark.leak, pytest.mark.usefixtures("no_leaked_fds")]
COUNT = int(os.environ.get("PYCONC_LEAK_CONNECTIONS", 200))
AT_ONCE = 10


class Kinds:
    """What a connection may come to: a coroutine for each."""

    def __init__(self, tls, version):
        def data_received(self, data):
            raise ZeroDivisionError

        self.tls = tls
        self.contexts = tls.contexts(version)
        # Not one for each connection: Python 3.13t keeps every class for ever once it has had a second thread.
        self.raising = type("Raising", (tls.Recorder,), {"data_received": data_received})

    async def two(self, factory=None):
        """The protocols of both ends, over sockets made here: no server whose own garbage would count."""
        loop = asyncio.get_running_loop()
        ours, theirs = self.tls.tcp_pair()
        client, server = self.contexts
        (_, protocol), (_, peer) = await asyncio.gather(
            loop.create_connection(factory or self.tls.Recorder, sock=ours, ssl=client, server_hostname="localhost"),
            loop.connect_accepted_socket(self.tls.Echo, theirs, ssl=server))
        return protocol, peer

    async def closed(self):
        protocol, peer = await self.two()
        protocol.transport.write(b"x" * 50_000)
        await protocol.received(50_000)
        await self.tls.finish(protocol, peer)

    async def buffered(self):
        protocol, peer = await self.two(self.tls.Buffered)
        protocol.transport.write(b"x" * 5000)
        await protocol.received(5000)
        await self.tls.finish(peer, protocol)

    async def aborted(self):
        protocol, peer = await self.two()
        protocol.transport.write(b"x" * 200_000)
        protocol.transport.abort()
        await protocol.lost
        peer.transport.abort()
        await peer.lost

    async def reset(self):
        protocol, peer = await self.tls.with_peer()
        protocol.transport.write(b"x" * 200_000)
        peer.reset()
        await protocol.lost

    async def handshake_aborted(self):
        loop = asyncio.get_running_loop()
        for server_side in (False, True):
            ours, theirs = self.tls.tcp_pair()
            client, server = self.contexts
            peer = self.tls.Peer(theirs, client if server_side else server, server_side=not server_side)
            connecting = asyncio.ensure_future(
                loop.connect_accepted_socket(self.tls.Recorder, ours, ssl=server) if server_side else
                loop.create_connection(self.tls.Recorder, sock=ours, ssl=client, server_hostname="localhost"))
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.ssl.do_handshake()
            await peer.flush()
            await peer.fill()
            peer.reset()
            with pytest.raises(ConnectionResetError):
                await connecting

    async def handshake_cancelled(self):
        ours, theirs = self.tls.tcp_pair()
        connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
            self.tls.Recorder, sock=ours, ssl=self.contexts[0], server_hostname="localhost"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        theirs.close()

    async def garbage(self):
        ours, theirs = self.tls.tcp_pair()
        theirs.send(b"garbage" * 100)
        with pytest.raises(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(self.tls.Recorder, ours, ssl=self.contexts[1])
        theirs.close()

    async def wrong_name(self):
        loop = asyncio.get_running_loop()
        ours, theirs = self.tls.tcp_pair()
        client, server = self.contexts
        results = await asyncio.gather(
            loop.create_connection(self.tls.Recorder, sock=ours, ssl=client, server_hostname="wrong.example"),
            loop.connect_accepted_socket(self.tls.Recorder, theirs, ssl=server), return_exceptions=True)
        assert isinstance(results[0], ssl.SSLCertVerificationError)
        if not isinstance(results[1], Exception):
            await results[1][1].lost

    async def started(self):
        """start_tls(), and once more inside."""
        loop = asyncio.get_running_loop()
        ours, theirs = self.tls.tcp_pair()
        (_, protocol), (_, peer) = await asyncio.gather(
            loop.create_connection(self.tls.Recorder, sock=ours),
            loop.connect_accepted_socket(self.tls.Echo, theirs))
        client, server = self.contexts
        for _ in range(2):
            protocol.transport, peer.transport = await asyncio.gather(
                loop.start_tls(protocol.transport, protocol, client, server_hostname="localhost"),
                loop.start_tls(peer.transport, peer, server, server_side=True))
        protocol.transport.write(b"data")
        await protocol.received(4)
        await self.tls.finish(protocol, peer)

    async def raises(self):
        protocol, peer = await self.two(self.raising)
        peer.transport.write(b"data")
        assert isinstance(await protocol.lost, ZeroDivisionError)
        await peer.lost


KINDS = [name for name in vars(Kinds) if not name.startswith("_") and name != "two"]


@pytest.fixture
def many(tls):
    """many(version, kind, at_once): an operation that makes that many connections of a kind."""
    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda *_: None)

        def operation(version, kind, at_once):
            one = getattr(Kinds(tls, version), kind)

            async def some():
                await asyncio.gather(*[one() for _ in range(at_once)])

            return lambda: runner.run(some())

        yield operation
        gc.collect()


def alive():
    """How many there are of each type that the garbage collector knows."""
    gc.collect()
    return collections.Counter(f"{type(obj).__module__}.{type(obj).__qualname__}" for obj in gc.get_objects())


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_is_left(many, kind):
    operation = many(ssl.TLSVersion.TLSv1_3, kind, AT_ONCE)
    for _ in range(2):
        operation()
        before = alive()
    for _ in range(COUNT // 2 // AT_ONCE):
        operation()
    left = {name: count for name, count in (alive() - before).items() if count >= COUNT // 4}
    assert not left


@pytest.mark.skipif(COUNT < 2000, reason="Python's own caches hide what few connections leave")
@pytest.mark.parametrize("kind", KINDS)
def test_no_block_is_left(many, no_leaked_objects, kind):
    no_leaked_objects(many(ssl.TLSVersion.TLSv1_3, kind, 1), COUNT // 4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_memory_is_left(many, flat_memory, kind):
    """Neither OpenSSL's nor ours."""
    flat_memory(many(ssl.TLSVersion.TLSv1_2, kind, AT_ONCE), COUNT // 4 // AT_ONCE, 1024)
