# SPDX-License-Identifier: MIT
"""What streams and pipes share, each asked the same."""
import asyncio
import os
import socket
import threading

import pytest

import pyconc

from .conftest import Recorder

pytestmark = pytest.mark.usefixtures("no_leaked_fds")


def of_a_socket(loop, factory):
    """((transport, protocol), the other end) of a socket."""
    ours, theirs = socket.socketpair()
    return loop.run_until_complete(loop.create_connection(factory, sock=ours)), theirs


def of_a_pipe(loop, factory):
    r, w = os.pipe()
    return loop.run_until_complete(loop.connect_write_pipe(factory, open(w, "wb", 0))), open(r, "rb", 0)


@pytest.fixture(params=[of_a_socket, of_a_pipe], ids=["socket", "pipe"])
def connect(request):
    """connect(factory=Recorder): (loop, transport, protocol, other end) of a transport that writes."""
    loop, files = pyconc.new_event_loop(), []

    def connect(factory=Recorder):
        (transport, protocol), other = request.param(loop, factory)
        files.append(other)
        return loop, transport, protocol, other

    yield connect
    loop.close()
    for file in files:
        file.close()


def receive(other):
    """What is there at the other end, b"" after the last of it, None if nothing is yet."""
    os.set_blocking(other.fileno(), False)
    try:
        return os.read(other.fileno(), 1 << 20)
    except BlockingIOError:
        return None


def test_lost_within_pause_writing(connect, monkeypatch):
    """The loop does not run, so pause_writing() may run it, until the transport has no loop any more."""
    class Ending(Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.transport.abort()
            self.loop.run_until_complete(self.close())
            raise ValueError("after the end")

    raised = []
    monkeypatch.setattr("sys.unraisablehook", raised.append)
    loop, transport, protocol, _ = connect(Ending)
    transport.write(bytes(5_000_000))
    transport.write(b"dropped")
    assert protocol.events == ["made", "pause", ("lost", None)]
    assert [(one.object, str(one.exc_value)) for one in raised] == [(transport, "after the end")]
    raised.clear()


def test_pause_and_resume(connect):
    loop, transport, protocol, other = connect()
    transport.set_write_buffer_limits(high=1000, low=10)
    assert transport.get_write_buffer_limits() == (10, 1000)
    transport.write(bytes(5_000_000))
    assert protocol.events == ["made", "pause"] and transport.get_write_buffer_size() > 1000

    async def main():
        got = 0
        while (data := receive(other)) != b"":
            got += len(data or b"")
            if "resume" in protocol.events:
                transport.close()
            await asyncio.sleep(0)
        await protocol.lost
        return got

    assert loop.run_until_complete(main()) == 5_000_000
    assert protocol.events == ["made", "pause", "resume", ("lost", None)]


@pytest.mark.parametrize("limits", [{"high": 0}, {"high": 1}, {"low": 0, "high": 100}], ids=str)
def test_limits_that_are_exceeded_already(connect, limits):
    """As asyncio's: set_write_buffer_limits() pauses the protocol itself."""
    loop, transport, protocol, other = connect()
    transport.set_write_buffer_limits(high=1 << 30)
    transport.write(bytes(5_000_000))
    assert protocol.events == ["made"]
    transport.set_write_buffer_limits(**limits)
    assert protocol.events == ["made", "pause"]
    transport.abort()
    loop.run_until_complete(protocol.close())


def test_limits_set_by_another_thread(connect):
    """It does no harm, with a GIL or without."""
    loop, transport, protocol, other = connect()
    transport.set_write_buffer_limits(high=1 << 30)

    async def main():
        stop = threading.Event()

        def work():
            while not stop.is_set():
                transport.set_write_buffer_limits(high=1 << 30)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(200):
            transport.writelines([b"x" * 100] * 10)
            transport.write(b"y" * 1000)
            await asyncio.sleep(0)
            receive(other)
        stop.set()
        thread.join()
        transport.abort()
        await protocol.close()

    loop.run_until_complete(main())
    assert protocol.events == ["made", ("lost", None)]


@pytest.mark.parametrize("lines", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_lines_written_by_another_thread(connect, lines):
    loop, transport, protocol, other = connect()

    async def main():
        await asyncio.to_thread(transport.writelines, lines([]))
        await asyncio.to_thread(transport.writelines, lines([b"a", bytearray(b"bc"), memoryview(b"def")]))
        received = b""
        while len(received) < 6:
            received += receive(other) or b""
            await asyncio.sleep(0)
        transport.close()
        await protocol.close()
        return received

    assert loop.run_until_complete(main()) == b"abcdef"
    loop.run_until_complete(loop.shutdown_default_executor())
