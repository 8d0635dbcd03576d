# SPDX-License-Identifier: MIT
"""create_unix_server() and connections over Unix sockets."""
import asyncio
import errno
import logging
import os
import pathlib
import socket

import pytest

import pyconc

pytestmark = pytest.mark.usefixtures("no_leaked_fds")
pyconc.new_event_loop().close()  # libuv opens a pipe with the first one and keeps it


def run(main):
    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        return runner.run(main)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def serve(*args, **kwargs):
    return await asyncio.get_running_loop().create_unix_server(Echo, *args, **kwargs)


async def echo(path, data=b"data"):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    info = {name: writer.get_extra_info(name) for name in ("peername", "sockname", "socket")}
    writer.close()
    await writer.wait_closed()
    return info


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A path short enough for a Unix socket."""
    monkeypatch.chdir(tmp_path)
    return "socket"


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_any_path(kind, path):
    async def main():
        server = await serve(kind(path))
        info = await echo(path)
        assert info["peername"] == path and info["sockname"] == ""
        assert info["socket"].family == socket.AF_UNIX
        server.close()
        assert not os.path.exists(path)
        await server.wait_closed()
    run(main())


@pytest.mark.parametrize("kind", [str, str.encode])
def test_abstract_names(kind):
    name = kind(f"\0pyconc-test-{os.getpid()}")

    async def main():
        server = await serve(name)
        info = await echo(name)
        assert info["peername"] == (name if isinstance(name, bytes) else name.encode())
        server.close()
        server = await serve(name)
        server.close()
    run(main())


def test_the_accepted_side_knows_its_names(path):
    names = []

    class Note(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            names.append((transport.get_extra_info("peername"), transport.get_extra_info("sockname"),
                          transport.get_extra_info("socket").family))

    async def main():
        server = await asyncio.get_running_loop().create_unix_server(Note, path)
        await echo(path)
        server.close()
    run(main())
    assert names == [("", path, socket.AF_UNIX)]


def test_a_stale_socket_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)

    async def main():
        server = await serve(path)
        await echo(path)
        server.close()
    run(main())


def test_a_file_is_not(path):
    pathlib.Path(path).write_text("precious")

    async def main():
        with pytest.raises(OSError, match=f"Address '{path}' is already in use") as caught:
            await serve(path)
        assert caught.value.errno == errno.EADDRINUSE
    run(main())
    assert pathlib.Path(path).read_text() == "precious"


def test_cleanup_can_be_turned_off(path):
    async def main():
        server = await serve(path, cleanup_socket=False)
        server.close()
        assert os.path.exists(path)
    run(main())


def test_cleanup_leaves_anothers_socket(path):
    async def main():
        first = await serve(path)
        second = await serve(path)
        first.close()
        assert os.path.exists(path)
        await echo(path)
        second.close()
        assert not os.path.exists(path)
    run(main())


def test_cleanup_of_what_is_gone(path, caplog):
    async def main():
        server = await serve(path)
        os.unlink(path)
        server.close()
    with caplog.at_level(logging.ERROR):
        run(main())
    assert not caplog.records


def test_a_socket_of_the_caller(path):
    async def main():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        server = await serve(sock=sock)
        await echo(path)
        server.close()
        assert not os.path.exists(path)
    run(main())


@pytest.mark.parametrize("args, kwargs, error, message", [
    ((), {}, ValueError, "path was not specified, and no sock specified"),
    (("x",), {"ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
    (("x",), {"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
    (("x",), {"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    (("no/such/folder",), {}, FileNotFoundError, "No such file"),
    (("x" * 200,), {}, OSError, "AF_UNIX path too long"),
    ((5,), {}, TypeError, "expected str, bytes or os.PathLike object, not int"),
])
def test_arguments_that_make_no_sense(args, kwargs, error, message, path):
    async def main():
        with pytest.raises(error, match=message):
            await serve(*args, **kwargs)
    run(main())


def test_sockets_that_cannot_listen(path):
    async def main():
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="path and sock can not be specified at the same time"):
                await serve(path, sock=sock)
            with pytest.raises(ValueError, match="A UNIX Domain Stream Socket was expected, got <socket.socket fd="):
                await serve(sock=sock)
    run(main())


def test_half_close_and_large_data(path):
    data = bytes(range(256)) * 20_000

    async def handle(reader, writer):
        writer.write((await reader.read())[::-1])
        writer.close()

    async def main():
        server = await asyncio.start_unix_server(handle, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data[::-1]
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
    run(main())


@pytest.mark.parametrize("new_loop", [pyconc.new_event_loop, asyncio.SelectorEventLoop])
def test_names_asked_for_after_the_end(path, new_loop):
    async def main():
        server = await asyncio.start_unix_server(lambda r, w: w.close(), path)
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        await writer.wait_closed()
        server.close()
        return writer.get_extra_info("peername"), writer.get_extra_info("sockname")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(main()) == (path, "")
    if os.path.exists(path):
        os.unlink(path)
