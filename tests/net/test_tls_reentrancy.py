# SPDX-License-Identifier: MIT
"""TLS connections that are called from within their own callbacks, or paused when something happens to them."""
import asyncio

import pytest

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
        async with asyncio.timeout(5):
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
