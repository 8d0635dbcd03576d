# SPDX-License-Identifier: MIT
"""create_server(), its Server, connect_accepted_socket(): real sockets."""
import asyncio
import contextvars
import errno
import gc
import inspect
import os
import resource
import socket
import ssl
import subprocess
import sys
import textwrap
import weakref

import pytest

import pyconc

pytestmark = pytest.mark.usefixtures("no_leaked_fds")
pyconc.new_event_loop().close()  # libuv opens a pipe with the first one and keeps it
HOST = "127.0.0.1"


def run(main, **kwargs):
    with asyncio.Runner(loop_factory=pyconc.new_event_loop, **kwargs) as runner:
        return runner.run(main)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def serve(factory=Echo, host=HOST, port=0, **kwargs):
    return await asyncio.get_running_loop().create_server(factory, host, port, **kwargs)


def address(server):
    return server.sockets[0].getsockname()


async def echo(server, data=b"data"):
    reader, writer = await asyncio.open_connection(*address(server)[:2])
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return reader, writer


async def hang_up(*writers):
    for writer in writers:
        writer.close()
    for writer in writers:
        await writer.wait_closed()


# ---- create_server()

def test_takes_what_3_13_takes():
    names = ["protocol_factory", "host", "port", "family", "flags", "sock", "backlog", "ssl", "reuse_address",
             "reuse_port", "keep_alive", "ssl_handshake_timeout", "ssl_shutdown_timeout", "start_serving"]
    assert list(inspect.signature(pyconc.Loop.create_server).parameters)[1:] == names


@pytest.mark.parametrize("host", [HOST, "localhost", "::1"])
def test_one_host(host):
    async def main():
        server = await serve(host=host)
        reader, writer = await echo(server)
        await hang_up(writer)
        server.close()
        await server.wait_closed()
    run(main())


@pytest.mark.parametrize("host", [None, ""])
def test_all_interfaces(host):
    async def main():
        server = await serve(host=host)
        families = {sock.family for sock in server.sockets}
        assert socket.AF_INET in families and families <= {socket.AF_INET, socket.AF_INET6}
        for sock in server.sockets:
            if sock.family == socket.AF_INET6:
                assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        server.close()
        server = await serve(host=host, family=socket.AF_INET)
        assert [sock.family for sock in server.sockets] == [socket.AF_INET]
        server.close()
    run(main())


def test_several_hosts_each_once():
    async def main():
        server = await serve(host=["127.0.0.1", "127.0.0.2", "127.0.0.1"])
        hosts = sorted(sock.getsockname()[0] for sock in server.sockets)
        assert hosts == ["127.0.0.1", "127.0.0.2"]
        server.close()
    run(main())


def test_a_socket_of_the_caller():
    async def main():
        with socket.socket() as sock:
            sock.bind((HOST, 0))
            server = await serve(host=None, port=None, sock=sock)
            await hang_up((await echo(server))[1])
            server.close()
            assert sock.fileno() == -1
    run(main())


@pytest.mark.parametrize("kwargs, option, on", [
    ({}, socket.SO_REUSEADDR, True), ({"reuse_address": False}, socket.SO_REUSEADDR, False),
    ({"reuse_port": True}, socket.SO_REUSEPORT, True), ({}, socket.SO_REUSEPORT, False),
    ({"keep_alive": True}, socket.SO_KEEPALIVE, True), ({}, socket.SO_KEEPALIVE, False),
])
def test_options(kwargs, option, on):
    async def main():
        server = await serve(**kwargs)
        assert bool(server.sockets[0].getsockopt(socket.SOL_SOCKET, option)) is on
        server.close()
    run(main())


@pytest.mark.parametrize("kwargs, error, message", [
    ({"ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
    ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
    ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ({"host": None, "port": None}, ValueError, "Neither host/port nor sock were specified"),
])
def test_arguments_that_make_no_sense(kwargs, error, message):
    async def main():
        with pytest.raises(error, match=message):
            await serve(**kwargs)
    run(main())


def test_sockets_that_cannot_listen():
    async def main():
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="host/port and sock can not be specified at the same time"):
                await serve(sock=sock)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="A Stream Socket was expected, got <socket.socket fd="):
                await serve(host=None, port=None, sock=sock)
    run(main())


def test_an_address_in_use_is_named():
    async def main():
        server = await serve()
        name = address(server)
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            await serve(port=name[1])
        assert caught.value.errno == errno.EADDRINUSE and repr(name) in str(caught.value)
        server.close()
        with pytest.raises(OSError, match="could not bind on any address out of"):
            await serve(host="192.0.2.1")
    run(main())


def test_start_serving_later():
    async def main():
        server = await serve(start_serving=False)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address(server))
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        await hang_up((await echo(server))[1])
        server.close()
        assert not server.is_serving()
    run(main())


def test_many_connections_at_once():
    async def main():
        server = await serve(backlog=200)
        connections = await asyncio.gather(*[echo(server, b"%d" % i) for i in range(200)])
        assert len(server._clients.copy()) == 200
        await hang_up(*[writer for _, writer in connections])
        server.close()
        await server.wait_closed()
    run(main())


# ---- Server

def test_is_an_asyncio_server():
    async def main():
        server = await serve()
        assert isinstance(server, asyncio.Server) and isinstance(server, asyncio.AbstractServer)
        assert server.get_loop() is asyncio.get_running_loop()
        assert all(type(sock) is asyncio.trsock.TransportSocket for sock in server.sockets)
        assert repr(server).startswith("<Server sockets=(<asyncio.TransportSocket fd=")
        server.close()
        server.close()
        assert server.sockets == ()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*name)
    name = (HOST, 1)
    run(main())


def test_async_with_closes():
    async def main():
        async with await serve() as server:
            name = address(server)
            await hang_up((await echo(server))[1])
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*name)
    run(main())


def test_serve_forever_ends_with_close():
    async def main():
        server = await serve(start_serving=False)
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        assert server.is_serving()
        with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
            await server.serve_forever()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()
    run(main())


def test_serve_forever_cancelled_closes():
    async def main():
        server = await serve()
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sockets == ()
    run(main())


@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_ending_the_clients(how):
    async def main():
        server = await serve()
        connections = [await echo(server) for _ in range(5)]
        server.close()
        waiter = asyncio.create_task(server.wait_closed())
        getattr(server, how)()
        assert all(transport.is_closing() for transport in server._clients.copy())
        for reader, _ in connections:
            assert await reader.read() == b""
        await waiter
        assert len(server._clients) == 0
        await hang_up(*[writer for _, writer in connections])
    run(main())


def test_close_clients_sends_what_is_queued_abort_clients_does_not():
    class Flood(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(bytes(20_000_000))

    async def main():
        for how, complete in [("close_clients", True), ("abort_clients", False)]:
            server = await serve(Flood)
            reader, writer = await asyncio.open_connection(*address(server))
            while not len(server._clients):
                await asyncio.sleep(0.001)
            getattr(server, how)()
            assert (len(await reader.read()) == 20_000_000) is complete
            await hang_up(writer)
            server.close()
    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="asyncio's own does not wait there")
def test_wait_closed_waits_for_connections():
    async def main():
        server = await serve()
        _, writer = await echo(server)
        server.close()
        waiter = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0.01)
        assert not waiter.done()
        await hang_up(writer)
        await waiter
        await server.wait_closed()
    run(main())


def test_connections_survive_the_server():
    async def main():
        server = await serve()
        reader, writer = await echo(server)
        server.close()
        writer.write(b"more")
        assert await reader.readexactly(4) == b"more"
        await hang_up(writer)
    run(main())


def test_who_has_connected_before_close_is_served():
    async def main():
        server = await serve()
        with socket.create_connection(address(server)) as client:
            client.send(b"early")
            server.close()
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 10) == b"early"
        await server.wait_closed()
    run(main())


def test_clients_does_not_keep_transports_alive():
    async def main():
        protocols = []

        def factory():
            protocols.append(Echo())
            return protocols[-1]
        server = await serve(factory)
        _, writer = await echo(server)
        ref = weakref.ref(protocols[0].transport)
        ref().pause_reading()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            protocols.clear()
            gc.collect()
        gc.collect()    # the warning had it
        assert ref() is None and server._clients.copy() == []
        await hang_up(writer)
        server.close()
        await server.wait_closed()
    run(main())


# ---- accepting

def test_each_connection_has_a_context_of_its_own():
    variable = contextvars.ContextVar("variable", default=0)
    seen = []

    class Count(Echo):
        def __init__(self):
            seen.append(variable.get())
            variable.set(variable.get() + 1)

        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(variable.get())

    async def main():
        variable.set(10)
        server = await serve(Count)
        variable.set(20)
        await hang_up(*[(await echo(server))[1] for _ in range(3)])
        server.close()
    run(main())
    assert seen == [10, 11] * 3


def test_a_factory_that_raises_is_reported_and_the_server_goes_on():
    async def main():
        reports, calls = [], []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))

        def factory():
            calls.append(1)
            if len(calls) == 1:
                raise ZeroDivisionError
            return Echo()
        server = await serve(factory)
        reader, writer = await asyncio.open_connection(*address(server))
        assert await reader.read() == b""
        await hang_up(writer)
        await hang_up((await echo(server))[1])
        server.close()
        assert [(report["message"], type(report["exception"])) for report in reports] == [
            ("Error on transport creation for incoming connection", ZeroDivisionError)]
    run(main())


def test_too_many_open_files(monkeypatch):
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.05)

    async def main():
        loop = asyncio.get_running_loop()
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        server = await serve()
        client, name = socket.socket(), address(server)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 10, hard))
        taken = []
        try:
            with pytest.raises(OSError):
                while True:
                    taken.append(os.dup(client.fileno()))
            client.connect(name)
            client.send(b"data")
            client.setblocking(False)
            while not reports:
                await asyncio.sleep(0.001)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)
        assert await loop.sock_recv(client, 10) == b"data"
        client.close()
        assert reports[0]["message"] == "socket.accept() out of system resource"
        assert reports[0]["exception"].errno == errno.EMFILE
        assert type(reports[0]["socket"]) is asyncio.trsock.TransportSocket
        server.close()
    run(main())


def test_a_server_closed_while_it_waits_for_descriptors_stays_closed(monkeypatch):
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        server = await serve()
        listener = next(iter(loop._listeners.values()))
        loop._accept_failed(listener, OSError(errno.EMFILE, "x"))
        server.close()
        await asyncio.sleep(0.03)
        assert loop._listeners == {}
    run(main())


def test_quitting_in_a_factory_ends_the_run():
    loop = pyconc.new_event_loop()

    def factory():
        raise KeyboardInterrupt

    async def start():
        server = await serve(factory)
        return server, socket.create_connection(address(server))
    server, client = loop.run_until_complete(start())
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    client.close()
    server.close()
    loop.close()


def test_a_server_of_asyncio_itself():
    async def main():
        sock = socket.socket()
        sock.bind((HOST, 0))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        server = asyncio.base_events.Server(loop, [sock], Echo, None, 100, None)
        await server.start_serving()
        await hang_up((await echo(server))[1])
        server.close()
        await server.wait_closed()
    run(main())


def test_ten_thousand_connections_leave_nothing():
    code = textwrap.dedent("""
        import asyncio, gc, os, sys, pyconc
        class Echo(asyncio.Protocol):
            def connection_made(self, transport): self.transport = transport
            def data_received(self, data): self.transport.write(data)
        async def client(address, count):
            for _ in range(count):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                writer.transport.abort()
                await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])
        async def main():
            server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            async def many(count):
                await asyncio.gather(*[client(address, count // 20) for _ in range(20)])
                while len(server._clients):
                    await asyncio.sleep(0.01)
                gc.collect()
                return (sum(isinstance(o, pyconc._core.StreamTransport) for o in gc.get_objects()),
                        len(os.listdir("/proc/self/fd")), sys.getallocatedblocks())
            before = await many(2000)
            after = await many(10000)
            server.close()
            print(*before, *after)
        with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
            runner.run(main())
    """)
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    transports, fds, blocks, transports_after, fds_after, blocks_after = map(int, output.split())
    assert transports == transports_after == 0
    assert fds_after == fds
    assert blocks_after < blocks + 1000


# ---- connect_accepted_socket()

def test_connect_accepted_socket():
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server((HOST, 0)) as listening, socket.create_connection(listening.getsockname()) as client:
            accepted, peer = listening.accept()
            transport, protocol = await loop.connect_accepted_socket(Echo, accepted)
            assert transport.get_extra_info("peername") == peer
            client.sendall(b"data")
            client.setblocking(False)
            assert await loop.sock_recv(client, 10) == b"data"
            transport.close()
            await protocol.lost
            assert accepted.fileno() == -1
    run(main())


def test_connect_accepted_socket_refuses():
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="A Stream Socket was expected, got <socket.socket fd="):
                await loop.connect_accepted_socket(Echo, sock)
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="ssl_handshake_timeout is only meaningful with ssl"):
                await loop.connect_accepted_socket(Echo, sock, ssl_handshake_timeout=1)
            with pytest.raises(ValueError, match="ssl_shutdown_timeout is only meaningful with ssl"):
                await loop.connect_accepted_socket(Echo, sock, ssl_shutdown_timeout=1)
    run(main())


# ---- TLS, by asyncio's own protocol over these transports

@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """(of the server, of the client)."""
    path = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path / "key", "-out",
                    path / "cert", "-days", "10", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                   check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path / "cert", path / "key")
    return server, ssl.create_default_context(cafile=path / "cert")


def test_tls(contexts):
    data = bytes(range(256)) * 10_000

    async def main():
        server = await serve(ssl=contexts[0], ssl_handshake_timeout=20, ssl_shutdown_timeout=20)
        reader, writer = await asyncio.open_connection(*address(server), ssl=contexts[1], server_hostname="localhost")
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert len(server._clients) == 1
        assert writer.get_extra_info("ssl_object") is not None
        assert writer.get_extra_info("peername") == address(server)
        await hang_up(writer)
        server.close()
        await server.wait_closed()
    run(main())


def test_start_tls(contexts):
    async def handle(reader, writer):
        writer.write(await reader.readline())
        await writer.start_tls(contexts[0])
        writer.write((await reader.readline()).upper())
        await hang_up(writer)

    async def main():
        server = await asyncio.start_server(handle, HOST, 0)
        reader, writer = await asyncio.open_connection(*address(server))
        writer.write(b"plain\n")
        assert await reader.readline() == b"plain\n"
        await writer.start_tls(contexts[1], server_hostname="localhost")
        writer.write(b"secret\n")
        assert await reader.readline() == b"SECRET\n"
        await hang_up(writer)
        server.close()
        await server.wait_closed()
    run(main())


# ---- sendfile, by asyncio's own

@pytest.mark.parametrize("fallback", [False, True])
def test_sendfile(fallback, tmp_path):
    data = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(data)

    async def main():
        loop = asyncio.get_running_loop()
        server = await serve()
        reader, writer = await asyncio.open_connection(*address(server), limit=1 << 26)
        writer.write(b"before")
        with open(tmp_path / "file", "rb") as file:
            if fallback:
                sent = await loop._sendfile_fallback(writer.transport, file, 0, None)
            else:
                sent = await loop.sendfile(writer.transport, file, fallback=False)
        assert sent == len(data)
        writer.write(b"after")
        assert await reader.readexactly(len(data) + 11) == b"before" + data + b"after"
        await hang_up(writer)
        server.close()
    run(main())


def test_sendfile_to_a_connection_that_ends(tmp_path):
    (tmp_path / "file").write_bytes(bytes(50_000_000))

    async def main():
        loop = asyncio.get_running_loop()
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        server = await serve(asyncio.Protocol)
        for queued in (b"", bytes(50_000_000)):
            reader, writer = await asyncio.open_connection(*address(server))
            while not len(server._clients):
                await asyncio.sleep(0.001)
            for transport in server._clients.copy():
                transport.pause_reading()
            writer.write(queued)
            with open(tmp_path / "file", "rb") as file:
                task = asyncio.ensure_future(loop.sendfile(writer.transport, file))
                await asyncio.sleep(0.01)
                server.abort_clients()
                if queued:
                    writer.transport.abort()
                with pytest.raises(ConnectionError):
                    await task
            writer.transport.abort()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])
            transport = None
        server.close()
        assert not reports
    run(main())
