# SPDX-License-Identifier: MIT
"""What other loops' TLS gets wrong, asyncio's among them, so that only pyconc's is tested here."""
import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import sysconfig
import weakref
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("no_leaked_fds")
MIB = 1 << 20
GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


# ---- a transport that is closed once more

@pytest.mark.parametrize("when", ["at once", "after the end"])
def test_every_method_after_a_second_close(run_ours, tls, when):
    """asyncio's: AttributeError: 'NoneType' object has no attribute ..."""
    async def main():
        protocol, peer = await tls.pair()
        transport = protocol.transport
        transport.close()
        if when == "after the end":
            await protocol.lost
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert transport.get_extra_info("cipher") and transport.get_extra_info("ssl_object")
        assert transport.get_extra_info("nonsense", 5) == 5
        assert transport.get_write_buffer_size() >= 0
        assert len(transport.get_write_buffer_limits()) == 2
        transport.set_write_buffer_limits(1000)
        transport.write(b"late")
        transport.writelines([b"later"])
        transport.pause_reading()
        transport.resume_reading()
        transport.is_reading()
        transport.get_protocol()
        assert "transport" in repr(transport).lower()
        transport.abort()
        await protocol.lost
        await peer.lost
        assert [event for event in protocol.events if event != "eof"] == ["made", ("lost", None)]

    run_ours(main)
    assert not run_ours.reports


def test_stream_writer_closed_twice(run_ours, tls):
    async def main():
        listener, _ = await tls.serve()
        _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), ssl=tls.client_context(),
                                                  server_hostname="localhost")
        for _ in range(2):
            writer.close()
            await writer.wait_closed()
        assert writer.is_closing() and writer.get_extra_info("cipher")
        writer.write(b"late")
        listener.close()

    run_ours(main)
    assert not run_ours.reports


# ---- memory

@pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="AddressSanitizer keeps what is freed")
def test_write_buffer_is_freed_with_its_connection(run_ours, tls):
    """Who keeps a transport after connection_lost() does not keep what it could not send."""
    async def main():
        protocol, peer = await tls.with_peer()
        before = resident()
        for _ in range(100):
            protocol.transport.write(b"x" * MIB)
        peer.reset()
        await protocol.lost
        assert protocol.transport.get_write_buffer_size() == 0
        await asyncio.sleep(0)
        # One connection that kept it all would cost 10 MiB, four have come since; without a GIL malloc keeps more.
        assert resident() - before < (20 if GIL else 30) * MIB
        return protocol.transport

    run_ours(main)


@pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="AddressSanitizer keeps what is freed")
def test_buffers_shrink_when_the_rush_is_over(run_ours, tls):
    """A connection that once had much to send or to receive costs little again afterwards."""
    async def main():
        pairs = [await tls.pair() for _ in range(5)]
        before = None
        for protocol, peer in pairs:
            peer.transport.pause_reading()
            for _ in range(40):
                protocol.transport.write(b"x" * (MIB // 4))
            peer.transport.resume_reading()
            await peer.received(10 * MIB)
            peer.data = bytearray()
            before = before or resident()       # what the allocators keep after one they have for the others
        # One connection that kept it all would cost 10 MiB, four have come since; without a GIL malloc keeps more.
        assert resident() - before < (20 if GIL else 30) * MIB
        for pair in pairs:
            await tls.finish(*pair)

    run_ours(main)


@pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="AddressSanitizer rounds up what is allocated")
def test_memory_of_idle_connections(run_ours, tls):
    """Both ends of 200 connections that have nothing to do."""
    async def main():
        listener, protocols = await tls.serve()
        context = tls.client_context()

        async def connect(count):
            made = []
            for _ in range(count):
                protocol = await tls.connect(listener, context=context)
                protocol.transport.write(b"x" * 1000)
                assert await protocol.received(1000) == b"x" * 1000
                made.append(protocol)
            return made

        warm = await connect(20)
        before = resident()
        clients = await connect(200)
        cost = (resident() - before) / 400
        await tls.finish(*warm, *clients)
        await asyncio.gather(*[protocol.lost for protocol in protocols])
        listener.close()
        # OpenSSL's own part, the SSLObject with its certificate, and the recorder's futures are most of it.
        assert cost < 96 * 1024, f"{cost / 1024:.0f} KiB an end"

    run_ours(main)


def test_protocol_dies_with_the_last_reference(run_ours, tls):
    """Without the garbage collector's help: a transport and its protocol make no cycle that stays behind."""
    async def main():
        for server_side in (False, True):
            protocol, peer = await tls.with_peer(server_side=server_side)
            await peer.write(b"data")
            await protocol.received(4)
            peer.close()
            await protocol.lost
            seen = weakref.ref(protocol), weakref.ref(protocol.transport.get_extra_info("ssl_object"))
            protocol.made = protocol.transport = protocol = None
            for _ in range(5):
                await asyncio.sleep(0)
            assert [ref() for ref in seen] == [None, None]

    gc.collect()
    gc.disable()
    try:
        run_ours(main)
    finally:
        gc.enable()


# ---- buffers of the user's

def test_buffered_protocol_gives_a_bytearray(run_ours, tls):
    """All of it is filled: asyncio writes whatever is behind the first record into a copy."""
    async def main():
        class Whole(tls.Buffered):
            size = 200_000

            def get_buffer(self, sizehint):
                self.buffer = bytearray(self.size)
                return self.buffer

        protocol, peer = await tls.pair(Whole, tls.Echo)
        data = bytes(range(251)) * 2000
        protocol.transport.write(data)
        assert await protocol.received(len(data)) == data
        await tls.finish(protocol, peer)

    run_ours(main)
    assert not run_ours.reports


def test_buffer_is_let_go_between_reads(run_ours, tls):
    """The protocol's bytearray may be resized as soon as buffer_updated() is called."""
    async def main():
        class Grows(tls.Recorder, asyncio.BufferedProtocol):
            def connection_made(self, transport):
                self.buffer = bytearray(100)
                super().connection_made(transport)

            def get_buffer(self, sizehint):
                return self.buffer

            def buffer_updated(self, nbytes):
                self.data_received(bytes(self.buffer[:nbytes]))
                self.buffer.extend(bytes(100))

        protocol, peer = await tls.pair(Grows, tls.Echo)
        data = bytes(range(251)) * 200
        protocol.transport.write(data)
        assert await protocol.received(len(data)) == data
        await tls.finish(protocol, peer)

    run_ours(main)
    assert not run_ours.reports


# ---- start_tls()

def test_paused_writer_starts_tls(run_ours, tls):
    """asyncio tells the TLS layer to resume that was never told to pause, and reports an AssertionError."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()
        _, protocol = await loop.create_connection(tls.Recorder, sock=ours)
        plain = bytes(range(256)) * 40_000
        protocol.transport.write(plain)
        assert protocol.events == ["made", "pause"]
        starting = asyncio.ensure_future(loop.start_tls(protocol.transport, protocol, tls.client_context(),
                                                        server_hostname="localhost"))
        got = bytearray()
        while len(got) < len(plain):
            got += await loop.sock_recv(theirs, min(65536, len(plain) - len(got)))
        assert got == plain
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        await peer.handshake()
        transport = await starting
        transport.write(b"encrypted")
        assert await peer.read() == b"encrypted"
        await peer.write(b"as well")
        assert await protocol.received(7) == b"as well"
        peer.close()
        await protocol.lost

    run_ours(main)
    assert not run_ours.reports


# ---- ends

def test_alert_tells_the_peer_why(run_ours, tls):
    """A peer that is refused gets the alert that says why before it is hung up on."""
    async def main():
        ours, theirs = tls.tcp_pair()
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
            tls.Recorder, sock=ours, ssl=tls.client_context(), server_hostname="wrong.example"))
        with contextlib.suppress(OSError):
            await peer.handshake()
            await peer.read()
        with pytest.raises(OSError):
            await connecting
        peer.close()

    run_ours(main)
    assert not run_ours.reports


def test_close_in_the_middle_of_a_flood_from_many(run_ours, tls):
    """close() of 20 connections whose peers go on sending: all end, and what is downloaded meanwhile is bounded."""
    async def main():
        loop = asyncio.get_running_loop()

        async def flood():
            protocol, peer = await tls.with_peer()
            await peer.write(b"x" * 100_000)
            await protocol.until(lambda: protocol.data)
            protocol.transport.close()
            before, sent = len(protocol.data), 0
            with contextlib.suppress(ConnectionError):
                while sent < 32 * MIB:
                    data = peer.records(b"x" * 100_000)
                    await loop.sock_sendall(peer.sock, data)
                    sent += len(data)
            await protocol.lost
            assert sent < 16 * MIB and len(protocol.data) - before < 16 * MIB
            peer.close()

        await asyncio.gather(*[flood() for _ in range(20)])

    run_ours(main)
    assert not run_ours.reports


# ---- memory that is missing

@pytest.mark.skipif(sys.version_info < (3, 14) and bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
                    reason="SSLContext.wrap_bio() without memory crashes, in 3.13 without a GIL")
def test_no_memory_to_begin_with():
    """Each allocation fails once: it is what is told, and nothing that comes after it."""
    script = """if True:
        import _testcapi, asyncio, pyconc, ssl
        from pyconc import _core
        context = ssl.create_default_context()
        async def main():
            for allowed in range(1000):
                protocol, loop = asyncio.Protocol(), asyncio.get_running_loop()
                _testcapi.set_nomemory(allowed, allowed + 1)
                try:
                    _core.SSLProtocol(loop, protocol, context, None, server_hostname="host")
                except (MemoryError, RuntimeError):     # RuntimeError: the module ssl has no lock
                    continue
                finally:
                    _testcapi.remove_mem_hooks()
                break
            print("refused" if allowed else "never refused")
        pyconc.run(main())
    """
    pytest.importorskip("_testcapi")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "refused\n", ended.stderr


# ---- the other engine

@pytest.mark.engine
@pytest.mark.parametrize("name", ["handshake", "transport", "upgrade", "hostile"])
def test_the_same_on_ssl_objects(pytestconfig, name):
    """The tests with PYCONC_TLS_ENGINE=object, where libssl is not called directly; those of TLS 1.2 are left out."""
    if os.environ.get("PYCONC_TLS_ENGINE") == "object":
        pytest.skip("this is that run")
    done = subprocess.run(
        [sys.executable, *(["-X", "dev"] if sys.flags.dev_mode else []), "-m", "pytest", "-q", "--tb=short",
         "-p", "no:cacheprovider", f"--rootdir={pytestconfig.rootpath}",
         "-k", "not asyncio and not many_half_open and not 1.2", Path(__file__).with_name(f"test_tls_{name}.py")],
        env={**os.environ, "PYCONC_TLS_ENGINE": "object", "PYTEST_ADDOPTS": ""}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-10_000:]
    assert " passed" in done.stdout.splitlines()[-1]
