# SPDX-License-Identifier: MIT
"""Pipe transports on terminals and other character devices."""
import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import termios
import textwrap
import tty

import pytest

import pyconc
from pyconc import _core

from .conftest import Recorder

pytestmark = pytest.mark.usefixtures("no_leaked_fds")


def run(main, **kwargs):
    with asyncio.Runner(loop_factory=pyconc.new_event_loop, **kwargs) as runner:
        return runner.run(main)


async def read_end(file):
    return (await asyncio.get_running_loop().connect_read_pipe(Recorder, file))[1]


async def write_end(file):
    return (await asyncio.get_running_loop().connect_write_pipe(Recorder, file))[1]


@contextlib.contextmanager
def terminal():
    """(master, slave): descriptors of a terminal that passes everything on as it is."""
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def file_of(fd, mode):
    return open(os.dup(fd), mode, 0)


async def write_all(fd, data):
    """Writes to a blocking descriptor beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, os.write, fd, data)


# ---- terminals

def test_reading_a_terminal():
    async def main(master, slave):
        reader = await read_end(file_of(slave, "rb"))
        os.write(master, b"typed")
        assert await reader.received(5) == b"typed"
        reader.transport.pause_reading()
        os.write(master, b"ahead")
        reader.transport.resume_reading()
        assert await reader.received(5) == b"ahead"
        await reader.close()

    with terminal() as fds:
        run(main(*fds))


def test_writing_to_a_terminal():
    async def main(master, slave):
        file = file_of(slave, "wb")
        writer, reader = await write_end(file), await read_end(file_of(master, "rb"))
        assert writer.transport.get_extra_info("pipe") is file
        payload = bytes(range(256)) * 1000
        writer.transport.write(payload)
        writer.transport.writelines([b"a", b"b"])
        assert await reader.received(len(payload) + 2) == payload + b"ab"
        assert writer.events == ["made", "pause", "resume"]
        await writer.close()
        assert file.closed
        await reader.close()

    with terminal() as fds:
        run(main(*fds))


def test_a_terminal_is_left_in_blocking_mode():
    """The shell and this process' own print() have the same open file."""
    async def main(master, slave):
        reader, writer = await read_end(file_of(slave, "rb")), await write_end(file_of(slave, "wb"))
        assert os.get_blocking(slave)
        os.write(master, b"x")
        await reader.received(1)
        writer.transport.write(b"y")
        assert os.read(master, 10) == b"y"
        # More than the terminal holds: print() has to wait, not to fail.
        printing = asyncio.create_task(write_all(slave, b"p" * 100_000))
        screen = await read_end(file_of(master, "rb"))
        assert await screen.received(100_000) == b"p" * 100_000
        await printing
        for end in reader, writer, screen:
            await end.close()
        assert os.get_blocking(slave) and os.get_blocking(master)

    with terminal() as fds:
        run(main(*fds))


@contextlib.contextmanager
def nobody_opens(slave):
    """A terminal that cannot be opened anew, as after su."""
    fcntl.ioctl(slave, termios.TIOCEXCL)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # the superuser may, else
    try:
        yield
    finally:
        os.seteuid(user)
        fcntl.ioctl(slave, termios.TIOCNXCL)


def test_a_terminal_that_cannot_be_opened_anew():
    async def main(master, slave):
        with nobody_opens(slave):
            reader, writer = await read_end(file_of(slave, "rb")), await write_end(file_of(slave, "wb"))
        assert not os.get_blocking(slave)
        os.write(master, b"x")
        assert await reader.received(1) == b"x"
        await reader.close()
        assert os.get_blocking(slave)  # though the other still uses it
        screen = await read_end(file_of(master, "rb"))
        writer.transport.write(b"y" * 100_000)  # and does not rely on it
        writer.transport.write(b"z")
        assert await screen.received(100_001) == b"y" * 100_000 + b"z"
        await writer.close()
        await screen.close()
        assert os.get_blocking(slave)

    with terminal() as fds:
        run(main(*fds))


def test_the_master_by_one_number():
    """Terminal emulators read and write one descriptor."""
    async def main(master, slave):
        reader = await read_end(open(master, "rb", 0, closefd=False))
        writer = await write_end(open(master, "wb", 0, closefd=False))
        os.write(slave, b"screen")
        assert await reader.received(6) == b"screen"
        writer.transport.write(b"k" * 100_000)  # more than it holds: waits until it is read
        got = b""
        while len(got) < 100_000:
            got += await asyncio.get_running_loop().run_in_executor(None, os.read, slave, 65536)
        assert got == b"k" * 100_000
        assert os.ttyname(slave)  # still the slave of this master
        await writer.close()
        os.write(slave, b"more")
        assert await reader.received(4) == b"more"
        await reader.close()
        assert os.get_blocking(master)

    with terminal() as fds:
        run(main(*fds))


def test_the_terminal_hangs_up():
    """The last program that had it is gone: EIO, which is no failure."""
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(context))
        master, slave = os.openpty()
        reader = await read_end(open(master, "rb", 0))
        os.write(slave, b"bye")
        assert await reader.received(3) == b"bye"
        os.close(slave)
        exc = await reader.lost
        assert isinstance(exc, OSError) and exc.errno == errno.EIO
        assert reader.events == ["made", ("lost", exc)] and not seen

    run(main())


def test_the_master_goes():
    async def main():
        master, slave = os.openpty()
        reader, writer = await read_end(file_of(slave, "rb")), await write_end(file_of(slave, "wb"))
        os.close(master)
        await reader.lost
        writer.transport.write(b"x")
        assert (await writer.lost).errno == errno.EIO
        os.close(slave)

    run(main())


def test_a_line_and_the_end_key():
    async def main():
        master, slave = os.openpty()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), open(slave, "rb", 0))
        os.write(master, b"a line\n")
        assert await reader.readline() == b"a line\n"
        os.write(master, b"\x04")
        assert await reader.readline() == b""
        os.close(master)
        await asyncio.sleep(0)

    run(main())


PROGRAM = """
    import asyncio, os, pyconc, signal, sys

    class Echo(asyncio.Protocol):
        def data_received(self, data):
            if data == b"kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if data == b"exit":
                sys.exit(3)
            if data == b"print":
                print("p" * 100_000, flush=True)    # to the terminal that is read meanwhile
            out.write(data)

    async def main():
        global out
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(Echo, sys.stdin)
        out, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stderr)
        out.write(b"ready")
        await asyncio.sleep(60)

    pyconc.run(main())
"""


@pytest.mark.parametrize("end, status", [(b"kill", -signal.SIGKILL), (b"exit", 3)])
def test_a_program_on_its_terminal(end, status):
    """stdin, stdout and stderr are one open file, which the shell has as well; it is usable after any end."""
    async def main(master, slave):
        screen = await read_end(file_of(master, "rb"))
        program = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROGRAM)],
                                   stdin=slave, stdout=slave, stderr=slave)
        assert await screen.received(5) == b"ready"
        os.write(master, b"print")
        assert (await screen.received(100_006)).replace(b"\n", b"") == b"p" * 100_000 + b"print"
        assert os.get_blocking(slave)
        os.write(master, end)
        assert await asyncio.get_running_loop().run_in_executor(None, program.wait) == status
        assert os.get_blocking(slave)
        await screen.close()

    with terminal() as fds:
        run(main(*fds))


# ---- devices

def test_writing_to_null():
    async def main():
        file = open("/dev/null", "wb", 0)
        writer = await write_end(file)
        for _ in range(100):
            writer.transport.write(b"x" * 100_000)
            writer.transport.writelines([b"y"] * 100)
            assert writer.transport.get_write_buffer_size() == 0
        await writer.close()
        assert writer.events == ["made", ("lost", None)] and file.closed

    run(main())


def test_reading_null():
    async def main():
        reader = await read_end(open("/dev/null", "rb", 0))
        assert await reader.lost is None
        assert reader.events == ["made", "eof", ("lost", None)]

    run(main())


def test_reading_zero():
    """A device that is always ready does not keep the loop to itself."""
    async def main():
        loop = asyncio.get_running_loop()
        reader = await read_end(open("/dev/zero", "rb", 0))
        assert type(reader.transport) is _core.ReadPipeTransport
        await reader.received(1_000_000)
        fired = loop.create_future()
        loop.call_later(0.001, fired.set_result, None)
        await fired
        reader.transport.pause_reading()
        await asyncio.sleep(0)
        before, cpu = len(reader.data), sum(os.times()[:2])
        await asyncio.sleep(0.3)
        assert len(reader.data) == before and sum(os.times()[:2]) - cpu < 0.2
        reader.transport.resume_reading()
        await reader.until(lambda: len(reader.data) > before)
        await reader.close()
        assert set(reader.data) == {0}

    run(main())


def test_zero_left_to_itself():
    """The loop ends with the device still read: nothing is left of it."""
    async def main():
        file = open("/dev/zero", "rb", 0)
        await read_end(file)
        return file

    with pytest.warns(ResourceWarning, match="unclosed transport <ReadPipeTransport"):
        file = run(main())
        import gc
        gc.collect()
    assert file.closed


def test_a_full_device():
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(context))
        writer = await write_end(open("/dev/full", "wb", 0))
        writer.transport.write(b"x")
        assert (await writer.lost).errno == errno.ENOSPC
        assert not seen

    run(main())


def test_reading_random():
    async def main():
        reader = await read_end(open("/dev/urandom", "rb", 0))
        assert len(set(await reader.received(100_000))) == 256
        await reader.close()

    run(main())
