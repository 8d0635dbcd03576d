# SPDX-License-Identifier: MIT
"""TLS transports at work: data both ways, flow control, ends of connections, exceptions out of protocols."""
import array
import asyncio
import contextlib
import contextvars
import gc
import hashlib
import logging
import socket
import ssl
import warnings
import weakref

import pytest

pytestmark = pytest.mark.usefixtures("no_leaked_fds")
MIB = 1 << 20


async def exchange(protocol, data=b"ping"):
    """The echo of `data`."""
    protocol.transport.write(data)
    return await protocol.received(len(data))


# ---- writing

@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data)),
                                  lambda data: memoryview(array.array("I", data))], ids=str)
def test_what_may_be_written(run, tls, make):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo)
        data = make(bytes(range(256)) * 4)
        assert await exchange(protocol, memoryview(data).cast("B")) == memoryview(data).tobytes()
        protocol.transport.write(data)
        assert await protocol.received(memoryview(data).nbytes) == memoryview(data).tobytes()
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


@pytest.mark.parametrize("data", ["text", None, 5, [b"data"], array.array("B", b"data")], ids=repr)
def test_what_may_not_be_written(run, tls, data):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo)
        with pytest.raises(TypeError, match=f"got {type(data).__name__}"):
            protocol.transport.write(data)
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol, peer)

    run(main)


def test_nothing_written(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        for nothing in (b"", bytearray(), memoryview(b"")):
            protocol.transport.write(nothing)
        protocol.transport.writelines([])
        protocol.transport.write(b"end")
        assert await peer.received(3) == b"end"
        assert peer.events == ["made", "data"]
        await tls.finish(protocol, peer)

    run(main)


def test_writelines(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        protocol.transport.writelines([b"one ", bytearray(b"two "), memoryview(b"three ")])
        protocol.transport.writelines(b"%d " % number for number in range(4, 6))
        protocol.transport.writelines((b"x" * 100_000, b"y"))
        assert await peer.received(18) == b"one two three 4 5 "
        assert await peer.received(100_001) == b"x" * 100_000 + b"y"
        with pytest.raises(TypeError):
            protocol.transport.writelines(5)
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


def test_buffer_changed_after_write(run, tls):
    """What was passed to write() may change afterwards, whether it has left already or waits."""
    async def main():
        protocol, peer = await tls.pair()
        peer.transport.pause_reading()
        data = bytearray(b"x" * 300_000)
        for _ in range(20):
            protocol.transport.write(data)
            protocol.transport.write(memoryview(data)[:10])
        data[:] = b"y" * 300_000
        peer.transport.resume_reading()
        assert await peer.received(20 * 300_010) == b"x" * 20 * 300_010
        await tls.finish(protocol, peer)

    run(main)


def test_written_buffer_is_let_go(run, tls):
    """A bytearray can be resized again once it was sent."""
    async def main():
        protocol, peer = await tls.pair()
        data = bytearray(b"x" * 1000)
        protocol.transport.write(data)
        await peer.received(1000)
        data.extend(b"y")
        await tls.finish(protocol, peer)

    run(main)


def test_many_writes_of_one_turn(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        for number in range(2000):
            protocol.transport.write(b"%05d" % number)
        assert await peer.received(10_000) == b"".join(b"%05d" % number for number in range(2000))
        await tls.finish(protocol, peer)

    run(main)


def test_writes_from_connection_made(run, tls):
    """Both ends greet; the greeting is the first that comes."""
    async def main():
        class Greets(tls.Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.write(b"hello")
                transport.writelines([b" ", b"there"])

        protocol, peer = await tls.pair(Greets, Greets)
        assert await protocol.received(11) == await peer.received(11) == b"hello there"
        await tls.finish(protocol, peer)

    run(main)


def test_writes_from_data_received_and_from_a_callback(run, tls):
    async def main():
        class Answers(tls.Recorder):
            def data_received(self, data):
                self.transport.write(data.upper())
                asyncio.get_running_loop().call_soon(self.transport.write, b"!")

        protocol, peer = await tls.pair(peer_factory=Answers)
        assert await exchange(protocol, b"data") == b"DATA"
        assert await protocol.received(1) == b"!"
        await tls.finish(protocol, peer)

    run(main)


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 65536, 262144, 262145, 1_000_000])
def test_sizes_around_those_of_records_and_buffers(run, tls, version, size):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo, version=version)
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        assert await exchange(protocol, data) == data
        await tls.finish(protocol, peer)

    run(main)


def test_much_both_ways_at_once(run, tls):
    """20 MiB each way, written piece by piece as flow control lets it, arrive whole."""
    size, piece = 20 * MIB, 100_003

    class Sends(tls.Recorder):
        """Writes while it may, hashes what comes."""

        def connection_made(self, transport):
            super().connection_made(transport)
            self.left, self.got, self.may = size, 0, True
            self.hashes = hashlib.blake2b(), hashlib.blake2b()
            self.number = 0

        def send(self):
            while self.left and self.may:
                data = (self.number.to_bytes(4, "big") * (piece // 4 + 1))[:min(piece, self.left)]
                self.number += 1
                self.left -= len(data)
                self.hashes[0].update(data)
                self.transport.write(data)

        def pause_writing(self):
            self.may = False

        def resume_writing(self):
            self.may = True
            asyncio.get_running_loop().call_soon(self.send)

        def data_received(self, data):
            self.got += len(data)
            self.hashes[1].update(data)
            self.changed.set()

    async def main():
        protocol, peer = await tls.pair(Sends, Sends)
        protocol.send()
        peer.send()
        await protocol.until(lambda: protocol.got == size)
        await peer.until(lambda: peer.got == size)
        assert protocol.hashes[0].digest() == peer.hashes[1].digest()
        assert protocol.hashes[1].digest() == peer.hashes[0].digest()
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


def test_data_comes_as_soon_as_its_record(run, tls):
    """Half a record waits for its other half, whole ones before it do not."""
    async def main():
        protocol, peer = await tls.with_peer()
        first, second = peer.records(b"first"), peer.records(b"second")
        await peer.send(first + second[:10])
        assert await protocol.received(5) == b"first"
        await peer.send(second[10:])
        assert await protocol.received(6) == b"second"
        peer.close()
        await protocol.lost

    run(main)


# ---- BufferedProtocol, and another protocol

@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_buffered_protocol(run, tls, size):
    async def main():
        class Small(tls.Buffered):
            pass

        Small.size = size
        protocol, peer = await tls.pair(Small, tls.Echo)
        data = bytes(range(256)) * (4 if size < 10 else 400)
        assert await exchange(protocol, data) == data
        await tls.finish(peer)
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", ("lost", None)]

    run(main)
    assert not run.reports


@pytest.mark.parametrize("first, second", ["Recorder Buffered".split(), "Buffered Recorder".split(),
                                           "Recorder Recorder".split(), "Buffered Buffered".split()])
def test_another_protocol(run, tls, first, second):
    async def main():
        protocol, peer = await tls.pair(getattr(tls, first), tls.Echo)
        assert await exchange(protocol, b"data" * 1000) == b"data" * 1000
        other = getattr(tls, second)()
        other.transport = protocol.transport
        other.transport.set_protocol(other)
        assert other.transport.get_protocol() is other
        assert await exchange(other, b"more" * 1000) == b"more" * 1000
        await tls.finish(peer)
        assert await other.lost is None
        assert protocol.events == ["made", "data"] and other.events == ["data", "eof", ("lost", None)]

    run(main)


def test_another_protocol_from_data_received(run, tls):
    """As an upgrade of HTTP does it: what comes next goes to the new protocol."""
    async def main():
        other = tls.Buffered()

        class Upgrades(tls.Recorder):
            def data_received(self, data):
                super().data_received(data)
                self.transport.set_protocol(other)
                self.transport.write(b"upgraded")

        protocol, peer = await tls.pair(peer_factory=Upgrades)
        assert await exchange(protocol, b"upgrade!") == b"upgraded"
        protocol.transport.write(b"more")
        assert await other.received(4) == b"more"
        assert peer.data == b"upgrade!"
        protocol.transport.close()
        assert await other.lost is None
        await protocol.lost

    run(main)


# ---- flow control

def test_pause_and_resume_reading(run, tls, turns):
    async def main():
        protocol, peer = await tls.pair()
        transport = protocol.transport
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        peer.transport.write(b"data")
        await turns()
        assert not protocol.data
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.received(4) == b"data"
        await tls.finish(protocol, peer)

    run(main)


@pytest.mark.parametrize("kind", ["Recorder", "Buffered"])
def test_pause_in_data_received(run, tls, turns, kind):
    """Nothing more comes once a callback has paused, whatever has been decrypted already."""
    async def main():
        class Pauses(getattr(tls, kind)):
            def data_received(self, data):
                assert self.transport.is_reading()
                super().data_received(data)
                self.transport.pause_reading()

        protocol, peer = await tls.pair(Pauses)
        for _ in range(30):
            peer.transport.write(b"x" * 1000)
        got = 0
        while got < 30_000:
            await protocol.until(lambda: len(protocol.data) > got)      # noqa: B023
            got = len(protocol.data)
            await turns(5)
            assert len(protocol.data) == got
            protocol.transport.resume_reading()
        peer.transport.close()
        assert await protocol.lost is None
        assert len(protocol.data) == 30_000

    run(main)


@pytest.mark.parametrize("kind", ["Recorder", "Buffered"])
def test_reader_that_pauses_stops_the_writer(run, tls, kind):
    """The writer is told to pause before too much has piled up on either side, then to resume; nothing is lost."""
    async def main():
        protocol, peer = await tls.pair(peer_factory=getattr(tls, kind))
        peer.transport.pause_reading()
        written = 0
        while protocol.events == ["made"]:
            protocol.transport.write(b"x" * 65536)
            written += 65536
            await asyncio.sleep(0)
            assert written < 64 * MIB
        assert protocol.events == ["made", "pause"]
        assert protocol.transport.get_write_buffer_size() >= 65536
        peer.transport.resume_reading()
        await protocol.until(lambda: "resume" in protocol.events)
        await peer.received(written)
        assert protocol.events == ["made", "pause", "resume"]
        assert protocol.transport.get_write_buffer_size() == 0
        await tls.finish(protocol, peer)

    run(main)
    assert not run.reports


def test_sizes_when_told_to_pause_and_to_resume(run, tls):
    async def main():
        seen = []

        class Looks(tls.Recorder):
            def pause_writing(self):
                seen.append(("pause", self.transport.get_write_buffer_size() >= 200_000))

            def resume_writing(self):
                seen.append(("resume", self.transport.get_write_buffer_size() <= 100_000))
                self.changed.set()

        protocol, peer = await tls.pair(Looks)
        protocol.transport.set_write_buffer_limits(200_000, 100_000)
        for _ in range(3):
            peer.transport.pause_reading()
            written = 0
            while len(seen) % 2 == 0:
                protocol.transport.write(b"x" * 50_000)
                written += 50_000
                await asyncio.sleep(0)
            peer.transport.resume_reading()
            await protocol.until(lambda: len(seen) % 2 == 0)
            await peer.received(written)
        assert seen == [("pause", True), ("resume", True)] * 3
        await tls.finish(protocol, peer)

    run(main)


def test_limits(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        transport = protocol.transport
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        for arguments, limits in [({"high": 100}, (25, 100)), ({"low": 100}, (100, 400)), ({"high": 0}, (0, 0)),
                                  ({"high": 100, "low": 100}, (100, 100)), ({}, (128 * 1024, 512 * 1024))]:
            transport.set_write_buffer_limits(**arguments)
            assert transport.get_write_buffer_limits() == limits
        for high, low in [(1, 2), (-1, None), (5, -1)]:
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high, low)
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        assert transport.get_write_buffer_size() == 0
        await tls.finish(protocol, peer)

    run(main)


def test_limits_of_reading(run, tls):
    """asyncio's TLS transports have limits for what was received and not read yet, too."""
    async def main():
        protocol, peer = await tls.pair()
        transport = protocol.transport
        assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
        transport.set_read_buffer_limits(high=4000)
        assert transport.get_read_buffer_limits() == (1000, 4000)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_read_buffer_limits(1, 2)
        assert transport.get_read_buffer_size() == 0
        peer.transport.write(b"x" * 100_000)
        assert await protocol.received(100_000) == b"x" * 100_000
        await tls.finish(protocol, peer)

    run(main)


def test_lowest_limit(run, tls):
    """Whatever cannot leave at once pauses the writer until all has left."""
    async def main():
        protocol, peer = await tls.pair()
        protocol.transport.set_write_buffer_limits(1, 0)
        peer.transport.pause_reading()
        for _ in range(100):
            protocol.transport.write(b"x" * 100_000)
        assert protocol.events[-1] == "pause"
        peer.transport.resume_reading()
        await peer.received(100 * 100_000)
        await protocol.until(lambda: protocol.events[-1] == "resume")
        assert protocol.transport.get_write_buffer_size() == 0
        await tls.finish(protocol, peer)

    run(main)


def test_paused_reader_hears_of_the_end_afterwards(run, tls, turns):
    async def main():
        protocol, peer = await tls.pair()
        protocol.transport.pause_reading()
        peer.transport.write(b"last words")
        peer.transport.close()
        await turns()
        assert protocol.events == ["made"] and not protocol.data
        protocol.transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", ("lost", None)] and protocol.data == b"last words"
        await peer.lost

    run(main)


# ---- ends of a connection

def test_close_sends_what_was_written(run, tls, version):
    async def main():
        protocol, peer = await tls.pair(version=version)
        data = bytes(range(256)) * 20_000
        protocol.transport.write(data)
        protocol.transport.write(b"end")
        protocol.transport.close()
        assert protocol.transport.is_closing()
        assert await peer.lost is None and await protocol.lost is None
        assert peer.data == data + b"end"
        assert peer.events == ["made", "data", "eof", ("lost", None)]

    run(main)
    assert not run.reports


def test_close_is_a_clean_end_for_the_peer(run, tls, version):
    async def main():
        protocol, peer = await tls.with_peer(version=version)
        protocol.transport.write(b"data")
        protocol.transport.close()
        protocol.transport.close()
        assert await peer.read() == b"data"
        assert await peer.read() == b""         # close_notify
        await peer.unwrap()
        assert await protocol.lost is None
        assert await peer.end() == "eof"
        peer.close()

    run(main)
    assert not run.reports


def test_connection_lost_does_not_come_from_within(run, tls):
    async def main():
        for method in ("close", "abort"):
            protocol, peer = await tls.pair()
            getattr(protocol.transport, method)()
            assert protocol.events == ["made"]
            await protocol.lost
            await peer.lost

    run(main)


def test_abort(run, tls):
    async def main():
        protocol, peer = await tls.with_peer()
        protocol.transport.write(b"x" * 50 * MIB)
        protocol.transport.abort()
        protocol.transport.abort()
        assert protocol.transport.is_closing()
        assert await protocol.lost is None
        assert protocol.events[-1] == ("lost", None) and "eof" not in protocol.events
        assert await peer.end() in ("eof", "reset")
        peer.close()

    run(main)
    assert not run.reports


def test_abort_after_close(run, tls):
    """Does not wait any longer for a peer that does not answer."""
    async def main():
        protocol, peer = await tls.with_peer()
        protocol.transport.close()
        protocol.transport.abort()
        assert await protocol.lost is None
        peer.close()

    run(main)


def test_close_from_each_callback(run, tls):
    async def main():
        for name in ("connection_made", "data_received", "eof_received"):
            def close(self, *args, name=name):
                result = getattr(tls.Recorder, name)(self, *args)
                self.transport.close()
                return result

            protocol, peer = await tls.pair(type("Closes", (tls.Recorder,), {name: close}))
            if name == "data_received":
                peer.transport.write(b"data")
            elif name == "eof_received":
                peer.transport.close()
            assert await protocol.lost is None and await peer.lost is None
            assert protocol.events[-1] == peer.events[-1] == ("lost", None)

    run(main)
    assert not run.reports


def test_abort_from_each_callback(run, tls):
    async def main():
        for name in ("data_received", "eof_received"):
            def abort(self, *args, name=name):
                result = getattr(tls.Recorder, name)(self, *args)
                self.transport.abort()
                return result

            protocol, peer = await tls.pair(type("Aborts", (tls.Recorder,), {name: abort}))
            if name == "data_received":
                peer.transport.write(b"data")
            else:
                peer.transport.close()
            assert await protocol.lost is None
            await peer.lost

    run(main)
    assert not run.reports


def test_abort_from_connection_made(run, tls):
    """Who waits for the connection gets it all the same, or hears of its end."""
    async def main():
        class Aborts(tls.Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.abort()

        listener, protocols = await tls.serve(Aborts)
        try:
            protocol = await tls.connect(listener)
        except ConnectionResetError:
            pass
        else:
            await protocol.lost
        await protocols[0].lost
        assert protocols[0].events == ["made", ("lost", None)]
        listener.close()

    run(main)
    assert not run.reports


def test_peer_closes(run, tls, version):
    async def main():
        protocol, peer = await tls.with_peer(version=version)
        await peer.send(peer.records(b"bye") + peer.close_notify())
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", ("lost", None)]
        assert protocol.transport.is_closing()
        assert await peer.read() == b""         # it is answered
        peer.close()

    run(main)
    assert not run.reports


def test_unclean_end(run, tls, version):
    """A peer that closes the socket without close_notify: an end as any other."""
    async def main():
        protocol, peer = await tls.with_peer(version=version)
        await peer.write(b"bye")
        peer.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", ("lost", None)]

    run(main)
    assert not run.reports


def test_half_of_a_record_then_the_end(same, tls):
    async def main():
        protocol, peer = await tls.with_peer()
        await peer.send(peer.records(b"whole") + peer.records(b"half of it")[:9])
        peer.close()
        await protocol.lost
        return protocol.events

    assert same(main)[0] == ["made", "data", "eof", ("lost", None)]


def test_reset(run, tls):
    async def main():
        protocol, peer = await tls.with_peer()
        await peer.write(b"data")
        await protocol.received(4)
        peer.reset()
        assert isinstance(await protocol.lost, ConnectionResetError)
        assert protocol.events[-1][0] == "lost" and "eof" not in protocol.events

    run(main)
    assert not run.reports


def test_keep_open_has_no_effect(run, tls, caplog):
    async def main():
        class Keeps(tls.Recorder):
            keep_open = True

        protocol, peer = await tls.pair(Keeps)
        peer.transport.close()
        assert await protocol.lost is None
        await peer.lost
        assert protocol.events == ["made", "eof", ("lost", None)]

    run(main, debug=False)      # debug mode tells of a machine that stalls
    assert [record.message for record in caplog.records if record.name == "asyncio" and record.levelname == "WARNING"] \
        == ["returning true from eof_received() has no effect when using ssl"]


def test_write_in_eof_received(run, tls, version):
    """The answer to an end still goes out, before ours."""
    async def main():
        class Answers(tls.Recorder):
            def eof_received(self):
                self.transport.write(b"good" * 1000)
                self.transport.write(b"bye")
                return super().eof_received()

        protocol, peer = await tls.with_peer(Answers, version=version)
        await peer.send(peer.close_notify())
        got = b""
        while data := await peer.read():
            got += data
        assert got == b"good" * 1000 + b"bye"
        assert await protocol.lost is None
        peer.close()

    run(main)
    assert not run.reports


def test_write_eof(run, tls):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo)
        assert protocol.transport.can_write_eof() is False
        with pytest.raises(NotImplementedError):
            protocol.transport.write_eof()
        assert await exchange(protocol) == b"ping"
        await tls.finish(protocol, peer)

    run(main)


def test_write_after_close(run, tls, caplog):
    """Is dropped, and told after a few times."""
    async def main():
        protocol, peer = await tls.pair()
        protocol.transport.write(b"before")
        protocol.transport.close()
        protocol.transport.write(b"after")
        protocol.transport.writelines([b"after"])
        await protocol.lost
        for _ in range(10):
            protocol.transport.write(b"after")
        await peer.lost
        assert peer.data == b"before"

    run(main, debug=False)      # debug mode tells of a machine that stalls
    messages = {record.message for record in caplog.records if record.levelname == "WARNING"}
    assert messages == {"SSL connection is closed"}
    assert not run.reports


def test_methods_after_the_end(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        transport = protocol.transport
        cipher, context = transport.get_extra_info("cipher"), transport.get_extra_info("sslcontext")
        await tls.finish(protocol, peer)
        assert transport.is_closing()
        assert transport.get_extra_info("cipher") == cipher and transport.get_extra_info("sslcontext") is context
        assert transport.get_write_buffer_size() == 0
        transport.pause_reading()
        transport.resume_reading()
        transport.abort()
        await asyncio.sleep(0)
        assert protocol.events.count(("lost", None)) == 1

    run(main)
    assert not run.reports


def test_shutdown_timeout(run, tls, version):
    """A peer that does not answer close_notify is not waited for longer than that."""
    async def main():
        protocol, peer = await tls.with_peer(version=version, ssl_shutdown_timeout=0.01)
        protocol.transport.close()
        exc = await protocol.lost
        assert exc is None or isinstance(exc, TimeoutError) and str(exc) == "SSL shutdown timed out"
        assert await peer.read() == b""
        assert await peer.end() in ("eof", "reset")
        peer.close()

    run(main)
    assert not run.reports


def test_shutdown_timeout_is_over_with_the_connection(run, tls):
    """No timer stays behind."""
    async def main():
        protocol, peer = await tls.pair(ssl_shutdown_timeout=0.05, server={"ssl_shutdown_timeout": 0.05})
        await tls.finish(protocol, peer)
        events = len(protocol.events)
        await asyncio.sleep(0.1)
        assert len(protocol.events) == events

    run(main)
    assert not run.reports


def test_close_while_the_peer_writes(run, tls):
    """Data that crosses a close is no reason to stay, nor to report anything."""
    async def main():
        protocol, peer = await tls.pair()
        for _ in range(20):
            peer.transport.write(b"x" * 100_000)
        await protocol.until(lambda: protocol.data)
        protocol.transport.close()
        for _ in range(20):
            peer.transport.write(b"x" * 100_000)
        await protocol.lost
        peer.transport.abort()
        await peer.lost
        assert [event[0] for event in protocol.events if isinstance(event, tuple)] == ["lost"]

    run(main)
    assert not run.reports


def test_both_close_at_once(run, tls, version):
    async def main():
        protocol, peer = await tls.pair(version=version)
        await tls.finish(protocol, peer)
        for one in (protocol, peer):
            assert [event for event in one.events if event != "eof"] == ["made", ("lost", None)]

    run(main)
    assert not run.reports


def test_loop_closed_with_open_connections(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        protocol.transport.write(b"data")
        return protocol, peer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(main)
        gc.collect()
    assert not run.reports


def test_forgotten_transport_warns(run, tls):
    async def main():
        protocol, peer = await tls.with_peer()
        await asyncio.sleep(0)
        return peer

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peer = run(main)
        gc.collect()
    assert any(warning.category is ResourceWarning and "unclosed transport" in str(warning.message)
               for warning in caught)
    peer.close()


def test_closed_transport_does_not_warn(run, tls):
    async def main():
        protocol, peer = await tls.pair()
        await tls.finish(protocol, peer)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main)
        gc.collect()
    assert not [str(warning.message) for warning in caught if "transport" in str(warning.message)]


def test_protocol_is_let_go(run, tls):
    """A connection that has ended keeps nothing of its protocol."""
    async def main():
        protocol, peer = await tls.pair()
        transport = protocol.transport
        await tls.finish(protocol, peer)
        seen = weakref.ref(protocol)
        del protocol
        await asyncio.sleep(0)
        gc.collect()
        assert seen() is None
        return transport

    run(main)


# ---- exceptions out of protocols

def raises(base, name, exc):
    """A protocol whose method `name` raises."""
    def method(self, *args):
        self.note("raises")
        raise exc

    return type("Raises", (base,), {name: method})


@pytest.mark.parametrize("exc", [ZeroDivisionError("why"), OSError("why"), ConnectionResetError("why"),
                                 ssl.SSLError("why")], ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received", "pause_writing",
                                  "resume_writing", "connection_lost", "get_buffer", "buffer_updated"])
def test_exception_in_a_callback(same, tls, turns, name, exc):
    """The connection ends with it or goes on, and the exception handler hears of it, as with asyncio."""
    async def main():
        base = tls.Buffered if "buffer" in name else tls.Recorder
        factory = raises(base, name, exc)
        protocol = None

        def keep():
            nonlocal protocol
            protocol = factory()
            return protocol

        ours, theirs = tls.tcp_pair()
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
            keep, sock=ours, ssl=tls.client_context(), server_hostname="localhost"))
        with contextlib.suppress(ssl.SSLEOFError, ConnectionError):     # our end may not last as long as theirs takes
            await peer.handshake()
            if "writing" not in name:
                await peer.send(peer.records(b"data"))
                await peer.send(peer.close_notify())
        outcome = None
        try:
            transport, _ = await connecting
        except Exception as error:
            outcome = tls.describe(error)
        else:
            if "writing" in name:
                transport.set_write_buffer_limits(1000, 0)
                for _ in range(100):
                    transport.write(b"x" * 100_000)
                while "raises" not in protocol.events:
                    await peer.read()
                transport.abort()
        await protocol.until(lambda: protocol.events[-1:] == ["raises"] or protocol.lost.done())
        peer.close()
        await turns()
        return outcome, [event for event in protocol.events if event not in ("pause", "resume")]

    (outcome, events), reports = same(main, debug=False)
    assert events.count("raises") >= 1


@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received"])
def test_exit_out_of_a_callback(run, tls, name, exc):
    """SystemExit and KeyboardInterrupt end the loop's run."""
    async def main():
        protocol, peer = await tls.pair(raises(tls.Recorder, name, exc))
        peer.transport.write(b"data")
        peer.transport.close()
        await asyncio.get_running_loop().create_future()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(exc):
            run(main)
        gc.collect()
    assert not run.reports


# ---- contexts

def test_context_of_callbacks(run_ours, tls):
    """Callbacks see the variables that were set when the connection was asked for."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen = {}

    def look(base, side):
        def method(name):
            def noted(self, *args):
                seen.setdefault((side, name), set()).add(variable.get())
                return getattr(base, name)(self, *args)
            return noted

        return type("Looks", (base,), {name: method(name) for name in (
            "connection_made", "data_received", "eof_received", "connection_lost", "pause_writing", "resume_writing")})

    async def main():
        variable.set("server")
        listener, protocols = await tls.serve(look(tls.Recorder, "server"))
        variable.set("client")
        protocol = await tls.connect(listener, look(tls.Recorder, "client"))
        variable.set("later")
        await protocols[0].made if protocols else None
        peer = protocols[0]
        for one, other in ((protocol, peer), (peer, protocol)):
            one.transport.set_write_buffer_limits(1000)
            other.transport.pause_reading()
            for _ in range(100):
                one.transport.write(b"x" * 100_000)
            other.transport.resume_reading()
            await other.received(100 * 100_000)
            await one.until(lambda: one.events[-1] == "resume")     # noqa: B023
        await tls.finish(protocol, peer)
        listener.close()

    run_ours(main)
    for (side, name), values in seen.items():
        if name != "pause_writing":     # comes out of write(), in its caller's context
            assert values == {side}, (side, name)
    assert len(seen) >= 10


# ---- more than one

def test_connections_come_and_go(run, tls):
    async def main():
        listener, protocols = await tls.serve()
        context = tls.client_context()
        for _ in range(20):
            clients = await asyncio.gather(*[tls.connect(listener, context=context) for _ in range(5)])
            for client in clients:
                assert await exchange(client, b"x" * 5000) == b"x" * 5000
            clients[0].transport.abort()
            await tls.finish(*clients[1:])
            await clients[0].lost
        await asyncio.gather(*[protocol.lost for protocol in protocols])
        assert len(protocols) == 100
        listener.close()
        await listener.wait_closed()

    run(main)
    assert not run.reports


def test_tls_and_plain_ones_beside_each_other(run, tls):
    async def main():
        loop = asyncio.get_running_loop()
        plain = await loop.create_server(tls.Echo, tls.HOST, 0)
        listener, _ = await tls.serve()
        _, first = await loop.create_connection(tls.Recorder, *plain.sockets[0].getsockname())
        second = await tls.connect(listener)
        for protocol in (first, second, first, second):
            assert await exchange(protocol) == b"ping"
        assert first.transport.get_extra_info("ssl_object") is None
        await tls.finish(first, second)
        for server in (plain, listener):
            server.close()
            await server.wait_closed()

    run(main)


def test_no_delay(run, tls):
    """Small records are not held back by the kernel."""
    async def main():
        protocol, peer = await tls.pair()
        for one in (protocol, peer):
            sock = one.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await tls.finish(protocol, peer)

    run(main)


def test_debug_mode(run, tls, caplog):
    async def main():
        protocol, peer = await tls.pair(peer_factory=tls.Echo)
        assert await exchange(protocol, b"x" * 100_000) == b"x" * 100_000
        assert "transport" in repr(protocol.transport).lower()
        await tls.finish(protocol, peer)

    caplog.set_level(logging.DEBUG, "asyncio")
    run(main, debug=True)
    assert not run.reports
