# SPDX-License-Identifier: MIT
"""_core.ReadPipeTransport and WritePipeTransport: pipes, FIFOs and sockets, each end watched."""
import asyncio
import contextvars
import errno
import fcntl
import gc
import logging
import os
import signal
import socket
import subprocess
import threading
import warnings

import pytest

import pyconc
from pyconc import _core

from .conftest import Recorder

pytestmark = pytest.mark.usefixtures("no_leaked_fds")


def run(main, **kwargs):
    with asyncio.Runner(loop_factory=pyconc.new_event_loop, **kwargs) as runner:
        return runner.run(main)


SOCKETS = {"socket": socket.SOCK_STREAM, "datagrams": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}


def files(kind, tmp_path):
    """(reading file, writing file) of one channel of that kind."""
    if kind in SOCKETS:
        return socket.socketpair(type=SOCKETS[kind])
    if kind == "fifo":
        path = tmp_path / "fifo"
        os.mkfifo(path)
        r = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        w = os.open(path, os.O_WRONLY)
        os.set_blocking(r, True)
    else:
        r, w = os.pipe2(os.O_DIRECT) if kind == "packets" else os.pipe()
    return open(r, "rb", 0), open(w, "wb", 0)


async def read_end(file, factory=Recorder):
    transport, protocol = await asyncio.get_running_loop().connect_read_pipe(factory, file)
    assert type(transport) is _core.ReadPipeTransport and protocol.transport is transport
    return protocol


async def write_end(file, factory=Recorder):
    transport, protocol = await asyncio.get_running_loop().connect_write_pipe(factory, file)
    assert type(transport) is _core.WritePipeTransport and protocol.transport is transport
    return protocol


async def ends(kind="pipe", tmp_path=None):
    r, w = files(kind, tmp_path)
    return await read_end(r), await write_end(w)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


kinds = pytest.mark.parametrize("kind", ["pipe", "fifo", "socket"])
message_kinds = pytest.mark.parametrize("kind", ["packets", "datagrams", "seqpacket"])


# ---- what it is

def test_types():
    assert issubclass(_core.ReadPipeTransport, asyncio.ReadTransport)
    assert issubclass(_core.WritePipeTransport, asyncio.WriteTransport)
    assert not issubclass(_core.ReadPipeTransport, asyncio.WriteTransport)
    for kind in _core.ReadPipeTransport, _core.WritePipeTransport:
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            kind(None, None, None)


@kinds
def test_one_message(kind, tmp_path):
    async def main():
        reader, writer = await ends(kind, tmp_path)
        assert reader.transport.get_protocol() is reader and writer.transport.get_protocol() is writer
        assert isinstance(reader.transport, asyncio.ReadTransport)
        assert isinstance(writer.transport, asyncio.WriteTransport)
        for data in b"abc", bytearray(b"def"), memoryview(b"xghi")[1:], b"":
            writer.transport.write(data)
        assert await reader.received(9) == b"abcdefghi"
        writer.transport.writelines([b"1", b"", bytearray(b"2"), memoryview(b"3")])
        assert await reader.received(3) == b"123"
        assert writer.transport.can_write_eof()
        writer.transport.write_eof()
        assert writer.transport.is_closing()
        assert await writer.lost is None and await reader.lost is None
        assert writer.events == ["made", ("lost", None)]
        assert reader.events == ["made", "eof", ("lost", None)]
        assert reader.transport.is_closing() and not reader.transport.is_reading()

    run(main())


def test_streams_over_a_pipe():
    async def main():
        loop = asyncio.get_running_loop()
        r, w = files("pipe", None)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), r)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, w)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        payload = os.urandom(3_000_000)

        async def write():
            for start in range(0, len(payload), 100_000):
                writer.write(payload[start:start + 100_000])
                await writer.drain()
            writer.write(b"\nlast line\n")
            writer.close()

        task = loop.create_task(write())
        assert await reader.readexactly(len(payload)) == payload
        assert await reader.readline() == b"\n"
        assert await reader.readline() == b"last line\n"
        assert await reader.read() == b""
        await task

    run(main())


def test_extra_info_and_repr():
    async def main():
        r, w = files("pipe", None)
        fds = r.fileno(), w.fileno()
        reader, writer = await read_end(r), await write_end(w)
        assert reader.transport.get_extra_info("pipe") is r
        assert writer.transport.get_extra_info("pipe") is w
        assert reader.transport.get_extra_info("peername", 3) == 3
        assert repr(reader.transport) == f"<ReadPipeTransport fd={fds[0]} polling>"
        assert repr(writer.transport) == f"<WritePipeTransport fd={fds[1]} idle bufsize=0>"
        reader.transport.pause_reading()
        assert repr(reader.transport) == f"<ReadPipeTransport fd={fds[0]} idle>"
        writer.transport.write(bytes(1 << 20))
        assert f" polling bufsize={(1 << 20) - 65536}>" in repr(writer.transport)
        writer.transport.abort()
        reader.transport.close()
        assert " closing " in repr(reader.transport) and " closing " in repr(writer.transport)
        await reader.lost
        await writer.lost
        await asyncio.sleep(0)
        assert repr(reader.transport) == f"<ReadPipeTransport closed fd={fds[0]}>"
        assert repr(writer.transport) == f"<WritePipeTransport closed fd={fds[1]}>"
        assert r.closed and w.closed
        assert reader.transport.get_extra_info("pipe") is r
        assert reader.transport.get_protocol() is None

    run(main())


def test_hooks_take_asyncios_arguments():
    async def main():
        loop = asyncio.get_running_loop()
        r, w = files("pipe", None)
        waiter, extra = loop.create_future(), {"mine": 1}
        reader = Recorder()
        transport = loop._make_read_pipe_transport(r, reader, waiter, extra)
        assert reader.events == []
        await waiter
        assert reader.events == ["made"] and transport.get_extra_info("mine") == 1 and extra["pipe"] is r
        writer = Recorder()
        transport = loop._make_write_pipe_transport(w, writer, waiter=None, extra=None)
        await writer.until(lambda: writer.events)
        transport.close()
        await reader.lost

    run(main())


def test_attributes_may_be_added():
    async def main():
        reader, writer = await ends()
        writer.transport.mine = 1
        assert writer.transport.mine == 1
        writer.transport.close()
        await reader.lost

    run(main())


# ---- what is no pipe

def test_unfit_files(tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = tmp_path / "file"
        path.write_bytes(b"x")
        for connect in loop.connect_read_pipe, loop.connect_write_pipe:
            with open(path, "r+b") as file:
                with pytest.raises(ValueError, match="only for pipes, sockets and character devices, not <_io.*file"):
                    await connect(Recorder, file)
                assert not file.closed and os.get_blocking(file.fileno())
            with pytest.raises(ValueError, match="closed file"):
                await connect(Recorder, file)
            with pytest.raises(AttributeError):
                await connect(Recorder, 0)
            r, w = os.pipe()
            os.close(w)
            with open(r, "rb", closefd=False) as file:
                os.close(r)
                with pytest.raises(OSError) as caught:
                    await connect(Recorder, file)
                assert caught.value.errno == errno.EBADF

    run(main())


def test_unfit_protocol_leaves_the_pipe_alone():
    async def main():
        loop = asyncio.get_running_loop()
        r, w = files("pipe", None)
        with r, w:
            with pytest.raises(AttributeError):
                await loop.connect_read_pipe(object, r)
            with pytest.raises(ZeroDivisionError):
                await loop.connect_write_pipe(lambda: 1 / 0, w)
            assert os.get_blocking(r.fileno()) and os.get_blocking(w.fileno())
            w.write(b"x")
            assert r.read(1) == b"x"

    run(main())


def test_unfit_data():
    async def main():
        reader, writer = await ends()
        for data in "text", 1, None, [b"x"]:
            with pytest.raises(TypeError, match="must be a bytes-like object, not '"):
                writer.transport.write(data)
        with pytest.raises(TypeError):
            writer.transport.writelines([b"abc", "text"])
        with pytest.raises(TypeError):
            writer.transport.writelines(3)
        with pytest.raises(BufferError):
            writer.transport.write(memoryview(b"abcdef")[::2])
        with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
            writer.transport.set_write_buffer_limits(high=1, low=2)
        writer.transport.close()
        await reader.lost
        assert not reader.data

    run(main())


# ---- reading

def test_pause_and_resume_reading():
    async def main():
        reader, writer = await ends()
        assert reader.transport.is_reading()
        reader.transport.pause_reading()
        reader.transport.pause_reading()
        assert not reader.transport.is_reading()
        writer.transport.write(b"abc")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not reader.data
        reader.transport.resume_reading()
        reader.transport.resume_reading()
        assert reader.transport.is_reading()
        assert await reader.received(3) == b"abc"
        reader.transport.pause_reading()
        writer.transport.close()
        await writer.lost
        assert reader.events == ["made"]  # the end waits, too
        reader.transport.resume_reading()
        assert await reader.lost is None
        reader.transport.pause_reading()
        reader.transport.resume_reading()

    run(main())


def test_paused_from_the_beginning():
    class Paused(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        r, w = files("pipe", None)
        w.write(b"abc")
        w.close()
        reader = await read_end(r, Paused)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not reader.data
        reader.transport.resume_reading()
        assert await reader.received(3) == b"abc"
        await reader.lost

    run(main())


def test_closed_in_connection_made():
    class Closing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    async def main():
        r, w = files("pipe", None)
        reader, writer = await read_end(r, Closing), await write_end(w, Closing)
        assert await reader.lost is None and await writer.lost is None
        assert reader.events == writer.events == ["made", ("lost", None)]

    run(main())


def test_close_while_reading():
    class Once(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()
            assert self.transport.is_closing()

    async def main():
        r, w = files("pipe", None)
        reader, writer = await read_end(r, Once), await write_end(w)
        writer.transport.write(b"abc")
        assert await reader.lost is None
        assert reader.data == b"abc" and reader.events == ["made", ("lost", None)]
        await asyncio.sleep(0)
        assert reader.transport._pipe is None
        assert await writer.lost is None  # sees its reader go

    run(main())


def test_another_protocol():
    async def main():
        reader, writer = await ends()
        writer.transport.write(b"abc")
        await reader.received(3)
        second = Recorder()
        reader.transport.set_protocol(second)
        assert reader.transport.get_protocol() is second
        writer.transport.write(b"def")
        assert await second.received(3) == b"def"
        writer.transport.close()
        assert await second.lost is None
        assert reader.events == ["made"]

    run(main())


def test_reads_of_every_size():
    """From the scratch buffer, directly, and back."""
    async def main():
        r, w = files("pipe", None)
        fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 1 << 20)
        reader, writer = await read_end(r), await write_end(w)
        for size in 10, 65535, 65536, 65537, 200_000, 256 * 1024, 1 << 20, 3, 1 << 20, 100_000, 1:
            payload = os.urandom(size)
            writer.transport.write(payload)
            assert await reader.received(size) == payload
        assert max(reader.sizes) <= 256 * 1024
        writer.transport.close()
        await reader.lost

    run(main())


def test_one_read_each_turn():
    """A pipe that is always full does not keep the loop to itself."""
    async def main():
        r, w = files("pipe", None)
        fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 1 << 20)
        w.write(bytes(1 << 20))
        reader = await read_end(r)
        turns = 0
        while sum(reader.sizes) < 1 << 20:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= len(reader.sizes) - 1 and len(reader.sizes) >= 4
        w.close()
        await reader.lost

    run(main())


# ---- writing

@kinds
def test_large_transfer_with_back_pressure(kind, tmp_path):
    payload = os.urandom(1 << 20) * 8

    class Source(Recorder):
        free = True

        def connection_made(self, transport):
            super().connection_made(transport)
            self.left = memoryview(payload)

        def feed(self):
            while self.free and self.left:
                self.transport.write(self.left[:50_000])
                self.left = self.left[50_000:]
            if not self.left and not self.transport.is_closing():
                self.transport.close()

        def pause_writing(self):
            assert self.free
            assert self.transport.get_write_buffer_size() > 65536
            self.free = False
            self.note("pause")

        def resume_writing(self):
            assert not self.free
            assert self.transport.get_write_buffer_size() <= 16384
            self.free = True
            self.note("resume")
            self.feed()

    async def main():
        r, w = files(kind, tmp_path)
        reader, writer = await read_end(r), await write_end(w, Source)
        writer.feed()
        assert await reader.lost is None and await writer.lost is None
        assert reader.data == payload
        assert writer.events.count("pause") == writer.events.count("resume") > 0

    run(main())


@kinds
def test_close_sends_what_is_queued(kind, tmp_path):
    async def main():
        reader, writer = await ends(kind, tmp_path)
        payload = os.urandom(2_000_000)
        writer.transport.write(payload)
        writer.transport.write(b"end")
        writer.transport.close()
        writer.transport.close()
        writer.transport.write(b"dropped")
        assert not writer.lost.done() and writer.transport.is_closing()
        assert await writer.lost is None
        await reader.lost
        assert reader.data == payload + b"end"

    run(main())


def test_abort_drops_what_is_queued():
    async def main():
        reader, writer = await ends()
        reader.transport.pause_reading()
        writer.transport.write(bytes(1_000_000))
        writer.transport.write(bytes(1_000_000))
        assert writer.transport.get_write_buffer_size() == 2_000_000 - 65536
        writer.transport.abort()
        assert writer.transport.get_write_buffer_size() == 0
        writer.transport.abort()
        writer.transport.close()
        assert await writer.lost is None
        assert writer.events == ["made", "pause", ("lost", None)]
        reader.transport.resume_reading()
        await reader.lost
        assert len(reader.data) == 65536

    run(main())


def test_marks():
    async def main():
        reader, writer = await ends()
        transport = writer.transport
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits(high=100_000, low=10)
        reader.transport.pause_reading()
        transport.write(bytes(65536))
        transport.write(bytes(50_000))
        assert transport.get_write_buffer_size() == 50_000
        assert writer.events == ["made"]
        transport.set_write_buffer_limits(high=49_999)
        assert writer.events == ["made", "pause"]
        reader.transport.resume_reading()
        await writer.until(lambda: "resume" in writer.events)
        transport.set_write_buffer_limits(0)
        reader.transport.pause_reading()
        transport.write(bytes(65536 + 1))
        assert writer.events == ["made", "pause", "resume", "pause"]
        reader.transport.resume_reading()
        transport.close()
        await reader.lost
        await writer.lost
        assert writer.events[3:] == ["pause", "resume", ("lost", None)]

    run(main())


def test_a_closed_pipe_still_says_what_it_cannot_write():
    async def main():
        reader, writer = await ends()
        writer.transport.write(b"a")
        writer.transport.close()
        await writer.lost
        for lines in ["x"], "x", [b"x", None]:
            with pytest.raises(TypeError, match="bytes-like object"):
                writer.transport.writelines(lines)
        writer.transport.writelines([b"b"])
        await reader.lost
        assert reader.data == b"a"

    run(main())


def test_a_mutable_buffer_is_free_after_write():
    async def main():
        reader, writer = await ends()
        reader.transport.pause_reading()
        data = bytearray(os.urandom(200_000))
        before = bytes(data)
        for view in data, memoryview(data):
            writer.transport.write(view)
        writer.transport.writelines([data, memoryview(data)])
        data[:] = bytes(len(data))
        reader.transport.resume_reading()
        writer.transport.close()
        await reader.lost
        assert reader.data == before * 4

    run(main())


def test_writes_of_one_turn_go_together():
    async def main():
        r, w = files("pipe", None)
        with r:
            os.set_blocking(r.fileno(), False)
            writer = await write_end(w)
            writer.transport.write(b"1")
            writer.transport.write(b"2")
            writer.transport.writelines([b"3", b"4"])
            assert os.read(r.fileno(), 100) == b"1"  # the first is not kept waiting
            readable = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(r.fileno(), lambda: readable.done() or readable.set_result(None))
            await readable
            asyncio.get_running_loop().remove_reader(r.fileno())
            assert os.read(r.fileno(), 100) == b"234"
            writer.transport.write(b"5")
            writer.transport.write(b"6")
            assert writer.transport.get_write_buffer_size() == 0  # asking sends
            assert os.read(r.fileno(), 100) == b"56"
            writer.transport.close()
            await writer.lost

    run(main())


def test_more_pieces_than_one_system_call_takes():
    async def main():
        reader, writer = await ends()
        pieces = [b"%d," % i for i in range(5000)]
        writer.transport.writelines(pieces)
        writer.transport.writelines(iter(pieces))
        for piece in pieces:
            writer.transport.write(piece)
        writer.transport.close()
        await reader.lost
        assert reader.data == b"".join(pieces) * 3

    run(main())


@message_kinds
def test_messages_stay_apart(kind):
    """Where each write is a message of its own, even those of one turn and those that had to wait."""
    async def main():
        reader, writer = await ends(kind)
        messages = [b"%d" % i * 100 for i in range(1, 300)]
        for message in messages:
            writer.transport.write(message)
        await reader.received(sum(map(len, messages)))
        assert reader.sizes == [len(message) for message in messages]
        writer.transport.close()
        reader.transport.close()
        await reader.lost
        await writer.lost

    run(main())


@message_kinds
@pytest.mark.parametrize("lines", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_lines_are_one_message(kind, lines):
    """As asyncio sends them."""
    async def main():
        reader, writer = await ends(kind)
        writer.transport.writelines(lines([b"a", bytearray(b"bc"), memoryview(b"def"), b""]))
        writer.transport.writelines(lines([]))
        writer.transport.write(b"next")
        with pytest.raises(TypeError, match="bytes-like object"):
            writer.transport.writelines(lines([b"never", "sent"]))
        await reader.received(10)
        assert reader.sizes == [6, 4]
        writer.transport.close()
        reader.transport.close()
        await reader.lost
        await writer.lost

    run(main())


# ---- the other end goes

@kinds
def test_reader_goes_away(kind, tmp_path):
    async def main():
        r, w = files(kind, tmp_path)
        writer = await write_end(w)
        r.close()
        assert await writer.lost is None
        assert writer.events == ["made", ("lost", None)]

    run(main())


@kinds
def test_reader_goes_away_while_data_is_queued(kind, tmp_path):
    async def main():
        r, w = files(kind, tmp_path)
        writer = await write_end(w)
        writer.transport.write(bytes(4_000_000))
        await asyncio.sleep(0)
        r.close()
        assert isinstance(await writer.lost, BrokenPipeError if kind != "socket" else OSError)
        assert writer.events[:2] == ["made", "pause"]

    run(main())


@kinds
@pytest.mark.parametrize("many", [False, True])
def test_write_to_nobody(kind, many, tmp_path, caplog):
    async def main():
        r, w = files(kind, tmp_path)
        writer = await write_end(w)
        r.close()
        if many:
            writer.transport.writelines([b"a", b"b"])
        else:
            writer.transport.write(b"a")
        assert writer.transport.is_closing()
        for _ in range(6):
            writer.transport.write(b"b")
        assert isinstance(await writer.lost, BrokenPipeError)
        writer.transport.write(b"c")

    run(main())
    said = [record.getMessage() for record in caplog.records]
    assert said.count("pipe closed by peer or os.write(pipe, data) raised exception.") == 2


def test_writes_of_other_ends_are_not_the_end():
    """A socket that is written and read by two transports: data and a half-close concern the reader alone."""
    async def main():
        left, right = socket.socketpair()
        writer, reader = await write_end(left.dup()), await read_end(left)
        right.sendall(b"question")
        assert await reader.received(8) == b"question"
        right.shutdown(socket.SHUT_WR)
        assert await reader.lost is None
        writer.transport.write(b"answer")
        assert not writer.transport.is_closing()
        writer.transport.close()
        await writer.lost
        await asyncio.sleep(0)
        assert right.recv(100) == b"answer"
        right.close()

    run(main())


def test_unread_data_does_not_keep_the_loop_awake():
    async def main():
        left, right = socket.socketpair()
        writer = await write_end(left)
        right.sendall(b"nobody reads this")
        before = sum(os.times()[:2])
        await asyncio.sleep(0.3)
        assert sum(os.times()[:2]) - before < 0.2
        assert not writer.transport.is_closing()
        right.close()
        await writer.lost

    run(main())


def test_urgent_data_is_not_the_end():
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            right = socket.create_connection(server.getsockname())
            left, _ = server.accept()
        writer = await write_end(left)
        right.send(b"!", socket.MSG_OOB)
        await asyncio.sleep(0.05)
        writer.transport.write(b"still here")
        loop = asyncio.get_running_loop()
        right.setblocking(False)
        assert await loop.sock_recv(right, 100) == b"still here"
        right.close()
        writer.transport.close()
        await writer.lost

    run(main())


def test_a_fifo_open_for_both():
    """It is its own reader: what was written and not read is not the end."""
    async def main():
        path = f"/tmp/pyconc-fifo-{os.getpid()}"
        os.mkfifo(path)
        try:
            file = open(os.open(path, os.O_RDWR), "r+b", 0)
        finally:
            os.unlink(path)
        second = open(os.dup(file.fileno()), "wb", 0)
        writer = await write_end(second)
        writer.transport.write(b"abc")
        await asyncio.sleep(0.01)
        assert not writer.transport.is_closing()
        reader = await read_end(file)
        assert await reader.received(3) == b"abc"
        for end in reader, writer:
            end.transport.close()
            await end.lost

    run(main())


# ---- descriptors

@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("end", ["read", "write"])
def test_the_descriptor_is_closed_once(kind, end):
    """Another file that gets the number in between stays open."""
    async def main():
        r, w = files(kind, None)
        mine, other = (r, w) if end == "read" else (w, r)
        fd = mine.fileno()
        recorder = await (read_end if end == "read" else write_end)(mine)
        recorder.transport.close()
        await recorder.lost
        await asyncio.sleep(0)
        assert not is_open(fd)
        stranger = os.open("/dev/null", os.O_RDONLY)
        assert stranger == fd
        recorder.transport.close()
        mine.close()
        del recorder, mine
        (r, w)[0 if end == "write" else 1].close()
        del r, w
        gc.collect()
        await asyncio.sleep(0)
        gc.collect()
        assert os.path.samestat(os.fstat(stranger), os.stat("/dev/null"))
        os.close(stranger)
        other.close()

    run(main())


@pytest.mark.parametrize("end", ["read", "write"])
def test_cancelled_while_connecting(end):
    async def main():
        loop = asyncio.get_running_loop()
        r, w = files("pipe", None)
        mine, other = (r, w) if end == "read" else (w, r)
        fd = mine.fileno()
        recorder = Recorder()
        connect = loop.connect_read_pipe if end == "read" else loop.connect_write_pipe
        task = loop.create_task(connect(lambda: recorder, mine))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await recorder.lost
        await asyncio.sleep(0)
        assert mine.closed and not is_open(fd)
        assert recorder.events == ["made", ("lost", None)]
        other.close()

    run(main())


def test_closed_by_its_user_first():
    """The transport forgets the number, which another file has by then; it does not change that one's mode either."""
    async def main():
        r, w = files("pipe", None)
        reader = await read_end(r)
        fd = r.fileno()
        r.close()
        other = os.open("/dev/null", os.O_RDWR | os.O_NONBLOCK)
        assert other == fd
        reader.transport.close()
        await reader.lost
        await asyncio.sleep(0)
        assert is_open(other) and not os.get_blocking(other)
        os.close(other)
        w.close()

    run(main())


def test_blocking_mode_is_given_back():
    """Others have the same open file: the process that started us, the next one to get it."""
    async def main():
        r, w = files("pipe", None)
        r2, w2 = os.dup(r.fileno()), os.dup(w.fileno())
        reader, writer = await read_end(r), await write_end(w)
        assert not os.get_blocking(r2) and not os.get_blocking(w2)
        writer.transport.close()
        await writer.lost
        await asyncio.sleep(0)
        assert os.get_blocking(w2) and not os.get_blocking(r2)
        os.close(w2)
        await reader.lost
        await asyncio.sleep(0)
        assert os.get_blocking(r2)
        os.close(r2)

    run(main())


def test_nonblocking_mode_stays():
    async def main():
        r, w = files("pipe", None)
        r2 = os.dup(r.fileno())
        os.set_blocking(r2, False)
        reader = await read_end(r)
        w.close()
        await reader.lost
        await asyncio.sleep(0)
        assert not os.get_blocking(r2)
        os.close(r2)

    run(main())


def test_blocking_mode_put_back_by_somebody_else():
    """A transport that has found it set does not rely on it."""
    async def main():
        r, w = files("pipe", None)
        first, second = open(os.dup(w.fileno()), "wb", 0), open(os.dup(w.fileno()), "wb", 0)
        first, second = await write_end(first), await write_end(second)
        first.transport.close()
        await first.lost
        await asyncio.sleep(0)
        second.transport.write(bytes(100_000))  # more than it takes: would block for ever
        assert second.transport.get_write_buffer_size() == 100_000 - 65536
        second.transport.abort()
        await second.lost
        await asyncio.sleep(0)
        assert os.get_blocking(w.fileno())
        r.close()
        w.close()

    run(main())


def test_a_forked_child_leaves_the_mode_alone():
    async def main():
        r, w = files("pipe", None)
        reader = await read_end(r)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                reader.transport.__class__.__del__(reader.transport)
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert not os.get_blocking(reader.transport._fileno)
        w.close()
        await reader.lost

    run(main())


def test_both_ends_of_a_socket_by_one_number():
    async def main():
        left, right = socket.socketpair()
        right.setblocking(False)
        loop = asyncio.get_running_loop()
        files_ = [open(left.fileno(), mode, 0, closefd=False) for mode in ("rb", "wb")]
        reader, writer = await read_end(files_[0]), await write_end(files_[1])
        right.sendall(b"in")
        assert await reader.received(2) == b"in"
        payload = os.urandom(1_000_000)
        writer.transport.write(payload)
        got = b""
        while len(got) < len(payload):
            got += await loop.sock_recv(right, 1 << 20)
        assert got == payload
        writer.transport.close()
        await writer.lost
        right.sendall(b"more")
        assert await reader.received(4) == b"more"
        reader.transport.close()
        await reader.lost
        left.close()
        right.close()

    run(main())


def test_many_at_once():
    async def main():
        pairs = [await ends() for _ in range(100)]
        for i, (_, writer) in enumerate(pairs):
            writer.transport.write(b"%d" % i)
            writer.transport.close()
        for i, (reader, _) in enumerate(pairs):
            await reader.lost
            assert reader.data == b"%d" % i

    run(main())


# ---- real pipes for children

def test_a_child_may_open_its_output_by_name():
    """Pipes, not socketpairs: /proc/self/fd/1 opens."""
    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "cat /proc/self/fd/0 > /proc/self/fd/1; echo err > /proc/self/fd/2",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        assert process._transport.get_pipe_transport(1).get_extra_info("pipe") is not None
        assert await process.communicate(b"hello") == (b"hello", b"err\n")
        assert process.returncode == 0

    run(main())


def test_a_child_at_each_end():
    async def main():
        loop = asyncio.get_running_loop()
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        reader, writer = await read_end(child.stdout), await write_end(child.stdin)
        assert writer.transport.get_extra_info("pipe") is child.stdin
        payload = os.urandom(3_000_000)
        writer.transport.write(payload)
        writer.transport.close()
        await reader.lost
        assert reader.data == payload
        assert await loop.run_in_executor(None, child.wait) == 0

    run(main())


def test_killed_child():
    async def main():
        child = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, bufsize=0)
        writer = await write_end(child.stdin)
        writer.transport.write(bytes(1_000_000))
        child.send_signal(signal.SIGKILL)
        assert isinstance(await writer.lost, BrokenPipeError)
        child.wait()

    run(main())


# ---- callbacks

def test_callbacks_run_in_the_context_of_the_making():
    var = contextvars.ContextVar("var", default="none")

    class Noting(Recorder):
        def note(self, *event):
            super().note(event[0], var.get())

        def data_received(self, data):
            super().data_received(data)
            self.note("data")

    async def main():
        r, w = files("pipe", None)
        var.set("read")
        reader = await read_end(r, Noting)
        var.set("write")
        writer = await write_end(w, Noting)
        var.set("later")
        writer.transport.write(bytes(200_000))
        await reader.received(200_000)
        await writer.until(lambda: ("resume", "write") in writer.events)
        writer.transport.close()
        await writer.lost
        await reader.lost
        assert {event[1] for event in reader.events} == {"read"}
        assert {event[1] for event in writer.events if event[0] != "pause"} == {"write"}

    run(main())


@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_exceptions_of_callbacks(name):
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(context))

        class Failing(Recorder):
            pass

        def fail(self, *args):
            getattr(Recorder, name)(self, *args)
            raise ZeroDivisionError(name)

        setattr(Failing, name, fail)
        r, w = files("pipe", None)
        reader, writer = await read_end(r, Failing), await write_end(w)
        writer.transport.write(b"abc")
        assert await reader.received(3) == b"abc"
        writer.transport.close()
        assert await reader.lost is None
        await asyncio.sleep(0)
        assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]
        assert seen[0]["transport"] is reader.transport and name in seen[0]["message"]
        assert reader.events == ["made", "eof", ("lost", None)] and r.closed

    run(main())


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_exceptions_of_flow_control(name):
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(context))

        class Failing(Recorder):
            pass

        def fail(self, *args):
            raise ZeroDivisionError(name)

        setattr(Failing, name, fail)
        r, w = files("pipe", None)
        reader, writer = await read_end(r), await write_end(w, Failing)
        writer.transport.write(bytes(200_000))
        await reader.received(200_000)
        writer.transport.close()
        await writer.lost
        assert [context["message"] for context in seen] == [f"protocol.{name}() failed"]
        await reader.lost

    run(main())


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupts_end_the_loop(exception):
    loop = pyconc.new_event_loop()
    protocols = []

    class Interrupting(Recorder):
        def data_received(self, data):
            raise exception

    async def main():
        r, w = files("pipe", None)
        protocols.append(await write_end(w))
        protocols.append(await read_end(r, Interrupting))
        protocols[0].transport.write(b"x")
        await asyncio.sleep(10)

    task = loop.create_task(main())
    with pytest.raises(exception):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    protocols[0].transport.close()
    loop.run_until_complete(protocols[1].lost)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_protocol_without_the_method():
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))
        r, w = files("pipe", None)
        w.write(b"x")
        transport, _ = await loop.connect_read_pipe(asyncio.BaseProtocol, r)
        while not seen:
            await asyncio.sleep(0)
        assert isinstance(seen[0], AttributeError)
        transport.close()
        w.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())


def test_read_errors_are_reported():
    """An error that is none of the usual: reading a directory is EISDIR, a socket that was reset ECONNRESET."""
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(context))
        with socket.create_server(("127.0.0.1", 0)) as server:
            right = socket.create_connection(server.getsockname())
            left, _ = server.accept()
        reader = await read_end(left)
        right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        right.close()
        exc = await reader.lost
        assert isinstance(exc, ConnectionResetError)
        assert [context["message"] for context in seen] == ["Fatal read error on pipe transport"]
        assert seen[0]["exception"] is exc and seen[0]["transport"] is reader.transport

    run(main())


def test_debug_logging(caplog):
    async def main():
        reader, writer = await ends()
        reader.transport.pause_reading()
        reader.transport.resume_reading()
        writer.transport.close()
        await reader.lost
        r, w = files("pipe", None)
        writer = await write_end(w)
        r.close()
        await writer.lost
        r, w = files("pipe", None)
        writer = await write_end(w)
        r.close()
        writer.transport.write(b"x")
        await writer.lost

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main(), debug=True)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    for level, end in [("DEBUG", "pauses reading"), ("DEBUG", "resumes reading"), ("INFO", "was closed by peer")]:
        assert any(entry[0] == level and entry[1].startswith("<ReadPipeTransport") and entry[1].endswith(end)
                   for entry in said), (level, end)
    assert any(entry[1].startswith("<WritePipeTransport") and entry[1].endswith("was closed by peer") for entry in said)
    failed = [record for record in caplog.records if "Fatal write error on pipe transport" in record.getMessage()]
    assert len(failed) == 1 and failed[0].levelname == "DEBUG" and failed[0].exc_info[0] is BrokenPipeError


# ---- ends and leaks

@pytest.mark.parametrize("end", ["read", "write"])
def test_unclosed_transport_warns(end):
    async def main():
        r, w = files("pipe", None)
        recorder = await (read_end(r) if end == "read" else write_end(w))
        fd = (r if end == "read" else w).fileno()
        if end == "read":
            recorder.transport.pause_reading()
        return fd, (w if end == "read" else r)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fd, other = run(main())
        gc.collect()
        assert not is_open(fd)
    other.close()
    messages = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    assert any(message.startswith("unclosed transport <") for message in messages), messages


def test_loop_closed_under_it():
    async def main():
        return await ends()

    loop = pyconc.new_event_loop()
    reader, writer = loop.run_until_complete(main())
    loop.close()
    assert repr(reader.transport) == f"<ReadPipeTransport fd={reader.transport._fileno} open>"
    for end in reader, writer:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            end.transport.close()
    with pytest.warns(ResourceWarning):
        reader.transport = None
        gc.collect()
    with pytest.warns(ResourceWarning):
        writer.transport = None
        gc.collect()


def test_disowned():
    """Some set the private _pipe to None to say that they have closed it: no warning then."""
    async def main():
        return await ends()

    loop = pyconc.new_event_loop()
    reader, writer = loop.run_until_complete(main())
    loop.close()
    for end in reader, writer:
        end.transport._pipe.close()
        with pytest.raises(AttributeError):
            end.transport._pipe = 1
        end.transport._pipe = None
        assert repr(end.transport).startswith(f"<{type(end.transport).__name__} closed fd=")
    del reader, writer, end
    gc.collect()


def test_nobody_else_has_to_keep_it():
    async def main():
        loop = asyncio.get_running_loop()
        r, w = files("pipe", None)
        got = loop.create_future()

        class Got(asyncio.Protocol):
            def data_received(self, data):
                got.set_result(data)

        await loop.connect_read_pipe(Got, r)
        gc.collect()
        w.write(b"abc")
        assert await got == b"abc"
        w.close()
        while not r.closed:
            await asyncio.sleep(0)

    run(main())


def test_written_and_forgotten():
    """What is queued goes out before the transport does."""
    async def main():
        loop = asyncio.get_running_loop()
        r, w = files("pipe", None)
        reader = await read_end(r)

        async def write():
            transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, w)
            transport.write(b"a" * 300_000)
            transport.write(b"b")
            transport.close()

        await write()
        gc.collect()
        await reader.lost
        assert reader.data == b"a" * 300_000 + b"b"

    run(main())


@pytest.mark.leak
def test_no_leaks(no_leaked_objects):
    loop = pyconc.new_event_loop()

    async def once():
        reader, writer = await ends()
        writer.transport.write(b"x")
        writer.transport.write(bytes(100_000))
        writer.transport.writelines([b"y", bytearray(b"z")])
        await reader.received(100_003)
        with pytest.raises(TypeError):
            writer.transport.write("")
        with pytest.raises(ValueError):
            await loop.connect_read_pipe(Recorder, sys_file)
        reader.transport.close()
        await writer.lost
        await reader.lost
        await asyncio.sleep(0)

    with open(__file__, "rb") as sys_file:
        for _ in range(300):  # files and tasks fill caches of Python's for long
            loop.run_until_complete(once())
        no_leaked_objects(lambda: loop.run_until_complete(once()), rounds=100)
    loop.close()


@pytest.mark.leak
def test_no_leaks_of_the_forsaken(no_leaked_objects):
    """Transports that nobody closed, in cycles."""
    async def once():
        for _ in range(5):
            reader, writer = await ends()
            reader.transport.pause_reading()
            reader.cycle = reader

    def round_():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            run(once())
            gc.collect()

    for _ in range(40):  # here, too
        round_()
    no_leaked_objects(round_, rounds=40)


# ---- threads

def test_writes_from_other_threads():
    """No promise of asyncio's; they arrive nevertheless, and nothing breaks."""
    async def main():
        loop = asyncio.get_running_loop()
        reader, writer = await ends()

        def write():
            for _ in range(200):
                writer.transport.write(b"x" * 10)
                writer.transport.writelines([b"y", bytearray(b"z")])

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        await loop.run_in_executor(None, lambda: [thread.join() for thread in threads])
        data = await reader.received(2 * 200 * 12)
        assert data.count(b"x") == 4000 and data.count(b"yz") == 400
        await loop.run_in_executor(None, writer.transport.close)
        await reader.lost

    run(main())
