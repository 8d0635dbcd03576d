# SPDX-License-Identifier: MIT
"""What a transport tells about itself, asked by other threads while its connection ends.

Most of this can only go wrong without a GIL: nobody may get hold of what the loop's thread lets go of.
"""
import asyncio
import contextlib
import os
import socket

import pytest

pytestmark = pytest.mark.stress
SECONDS = 1.5
ATTRIBUTES = ("_loop", "_protocol", "_server", "_empty_waiter", "_extra", "_sock", "_pipe", "_ssl_protocol")
OF_TLS = ("_app_protocol", "_app_transport", "_transport", "_waiter", "_loop")
METHODS = ("is_closing", "get_protocol", "is_reading", "get_write_buffer_limits", "__repr__")


def ask_for_all(transport):
    for name in METHODS:
        if hasattr(transport, name):
            getattr(transport, name)()
    for name in ("socket", "sockname", "peername", "sslcontext", "cipher", "pipe", "nothing"):
        transport.get_extra_info(name)
    for name in ATTRIBUTES:
        getattr(transport, name, None)
    beneath = getattr(transport, "_ssl_protocol", None)
    for name in OF_TLS:
        getattr(beneath, name, None)
    for name in ("get_write_buffer_size", "get_read_buffer_size"):
        # RuntimeError in another thread than the loop's, where that has to be asked.
        with contextlib.suppress(RuntimeError, AttributeError):
            getattr(transport, name)()
    with contextlib.suppress(AttributeError):
        transport.set_write_buffer_limits(high=1000)


def ask_for_the_protocol(transport):
    get_protocol = transport.get_protocol
    for _ in range(100):
        assert get_protocol() is not transport


def ask_whether_it_closes(transport):
    is_closing = transport.is_closing
    for _ in range(100):
        is_closing()


QUESTIONS = ask_for_all, ask_for_the_protocol, ask_for_the_protocol, ask_whether_it_closes


class End(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class Another(asyncio.Protocol):
    """For a moment."""


def come_and_go(run_ours, crowd, connect, protocol_type=End):
    """Connections of `connect`, asked about all their lives, while their protocols come and go as well."""
    transports, asked = [], 0

    def ask(me):
        nonlocal asked
        for transport in transports:
            QUESTIONS[me](transport)
            asked += 1

    async def main():
        nonlocal transports
        loop = asyncio.get_running_loop()
        with crowd(ask, len(QUESTIONS)):
            end = loop.time() + SECONDS
            while loop.time() < end:
                protocols = await connect()
                transports = [protocol.transport for protocol in protocols]
                for number, protocol in enumerate(protocols):
                    set_protocol = protocol.transport.set_protocol
                    for _ in range(1000):
                        set_protocol(Another())
                    another = protocol_type()
                    another.transport = protocol.transport
                    protocol.transport.set_protocol(another)
                    await asyncio.sleep(0)
                    (protocol.transport.abort if number else protocol.transport.close)()
                    protocols[number] = another
                    del protocol, set_protocol
                for protocol in protocols:
                    await protocol.lost
                del protocols, another

    run_ours(main)
    assert asked and not run_ours.reports


def test_streams(run_ours, crowd):
    async def connect():
        loop = asyncio.get_running_loop()
        return [(await loop.create_connection(End, sock=sock))[1] for sock in socket.socketpair()]

    come_and_go(run_ours, crowd, connect)


def test_tls(run_ours, crowd, tls):
    class TLSEnd(End):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.made.set_result(None)

        def __init__(self):
            super().__init__()
            self.made = self.lost.get_loop().create_future()

    contexts = tls.contexts()

    async def connect():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        (_, accepted), (_, connected) = await asyncio.gather(
            loop.connect_accepted_socket(TLSEnd, theirs, ssl=contexts[1]),
            loop.create_connection(TLSEnd, sock=ours, ssl=contexts[0], server_hostname="localhost"))
        return [accepted, connected]

    come_and_go(run_ours, crowd, connect, TLSEnd)


def test_pipes(run_ours, crowd):
    async def connect():
        loop = asyncio.get_running_loop()
        r, w = os.pipe()
        _, reader = await loop.connect_read_pipe(End, open(r, "rb", 0))
        _, writer = await loop.connect_write_pipe(End, open(w, "wb", 0))
        return [reader, writer]

    come_and_go(run_ours, crowd, connect)


def test_datagrams(run_ours, crowd):
    class Datagrams(End, asyncio.DatagramProtocol):
        """An End of datagrams."""

    async def connect():
        loop = asyncio.get_running_loop()
        return [(await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0)))[1] for _ in range(2)]

    come_and_go(run_ours, crowd, connect, Datagrams)
