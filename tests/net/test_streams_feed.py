# SPDX-License-Identifier: MIT
"""Data into asyncio's streams, for which C does what StreamReaderProtocol and StreamReader do: nobody should notice."""
import asyncio
import socket

import pytest

import pyconc


@pytest.fixture
def run():
    def run(main):
        return pyconc.run(main())
    return run


async def pair(reader=None, limit=2**16, protocol_type=asyncio.StreamReaderProtocol):
    """(reader, protocol, transport, the peer's socket) of a connection."""
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    reader = asyncio.StreamReader(limit=limit, loop=loop) if reader is None else reader
    transport, protocol = await loop.create_connection(lambda: protocol_type(reader, loop=loop), sock=ours)
    return reader, protocol, transport, peer


async def turns(until):
    while not until():
        await asyncio.sleep(0)


def test_what_is_read_is_what_was_sent(run):
    async def main():
        loop = asyncio.get_running_loop()
        reader, _, transport, peer = await pair()
        await loop.sock_sendall(peer, b"line\nexactly" + b"x" * 1000)
        assert await reader.readline() == b"line\n"
        assert await reader.readexactly(7) == b"exactly"
        assert await reader.readexactly(1000) == b"x" * 1000
        waiting = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        await loop.sock_sendall(peer, b"late")
        assert await waiting == b"late"
        peer.close()
        assert await reader.read() == b""
        transport.close()
    run(main)


def test_a_full_reader_pauses_the_transport_and_goes_on(run):
    async def main():
        loop = asyncio.get_running_loop()
        reader, _, transport, peer = await pair(limit=100)
        await loop.sock_sendall(peer, b"x" * 200)
        await turns(lambda: len(reader._buffer) == 200)
        assert transport.is_reading()       # twice the limit is not too much yet
        await loop.sock_sendall(peer, b"x")
        await turns(lambda: not transport.is_reading())
        assert await reader.readexactly(201) == b"x" * 201
        assert transport.is_reading()
        transport.close()
        peer.close()
    run(main)


def test_a_cancelled_read_loses_nothing(run):
    async def main():
        loop = asyncio.get_running_loop()
        reader, _, transport, peer = await pair()
        waiting = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        await loop.sock_sendall(peer, b"kept")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await reader.read(10) == b"kept"
        transport.close()
        peer.close()
    run(main)


def test_subclasses_are_asked(run):
    class Reader(asyncio.StreamReader):
        def feed_data(self, data):
            super().feed_data(data.upper())

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data):
            super().data_received(b"<" + data + b">")

    async def main():
        loop = asyncio.get_running_loop()
        for reader, protocol_type, expected in ((Reader(loop=loop), asyncio.StreamReaderProtocol, b"DATA"),
                                                (None, Protocol, b"<data>"), (Reader(loop=loop), Protocol, b"<DATA>")):
            reader, _, transport, peer = await pair(reader, protocol_type=protocol_type)
            await loop.sock_sendall(peer, b"data")
            assert await reader.read(100) == expected
            transport.close()
            peer.close()
    run(main)


def test_replaced_methods_are_called(run, monkeypatch):
    fed = []

    def feed_data(self, data):
        fed.append(data)
        original(self, data)

    async def main():
        loop = asyncio.get_running_loop()
        reader, protocol, transport, peer = await pair()
        await loop.sock_sendall(peer, b"class")
        assert await reader.read(100) == b"class"
        transport.close()
        peer.close()
        monkeypatch.undo()
        reader, protocol, transport, peer = await pair()
        protocol.data_received = fed.append
        await loop.sock_sendall(peer, b"instance")
        await turns(lambda: len(fed) == 2)
        transport.close()
        peer.close()

    original = asyncio.StreamReader.feed_data
    monkeypatch.setattr(asyncio.StreamReader, "feed_data", feed_data)
    run(main)
    assert fed == [b"class", b"instance"]


def test_nobody_reads_any_more(run):
    """A reader that is gone: what comes is dropped, and the connection lives on."""
    async def main():
        loop = asyncio.get_running_loop()
        reader, protocol, transport, peer = await pair()
        del reader
        await loop.sock_sendall(peer, b"dropped")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        transport.write(b"alive")
        assert await loop.sock_recv(peer, 10) == b"alive"
        transport.close()
        peer.close()
    run(main)


def test_a_buffer_that_cannot_grow_is_an_error(run):
    async def main():
        loop = asyncio.get_running_loop()
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        reader, _, transport, peer = await pair()
        await loop.sock_sendall(peer, b"data")
        await turns(lambda: reader._buffer)
        with memoryview(reader._buffer):
            await loop.sock_sendall(peer, b"more")
            await turns(lambda: reports)
        assert isinstance(reports[0]["exception"], BufferError)
        await turns(transport.is_closing)
        peer.close()
    run(main)
