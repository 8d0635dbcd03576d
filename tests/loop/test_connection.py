# SPDX-License-Identifier: MIT
"""loop.create_connection() and create_unix_connection()."""
import asyncio
import contextlib
import errno
import gc
import inspect
import os
import socket
import ssl
import sys
import warnings

import pytest

import pyconc

STREAM, TCP = socket.SOCK_STREAM, socket.IPPROTO_TCP


class Recorder(asyncio.Protocol):
    def __init__(self):
        self.events = []
        self.lost = asyncio.get_running_loop().create_future()
        self.data = b""

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


def run(main, **kwargs):
    with asyncio.Runner(loop_factory=pyconc.new_event_loop, **kwargs) as runner:
        return runner.run(main)


@contextlib.contextmanager
def listener(family=socket.AF_INET, address=("127.0.0.1", 0)):
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen()
        yield sock


def closed_port(family=socket.AF_INET, host="127.0.0.1"):
    """An address on which nothing listens."""
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return sock.getsockname()


def answers(loop, *infos):
    """Has the loop's getaddrinfo() give these (family, address) for every name."""
    async def getaddrinfo(host, port, **kwargs):
        return [(family, STREAM, TCP, "", address) for family, address in infos]

    loop.getaddrinfo = getaddrinfo


async def finish(transport, protocol):
    transport.close()
    assert await protocol.lost is None
    assert protocol.events == ["made", "lost"]


@pytest.mark.parametrize("family, host", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"),
                                          (socket.AF_INET, "localhost")])
@pytest.mark.parametrize("debug", [False, True])
def test_connects_and_talks(family, host, debug):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, host, 0, family=family)
        port = server.sockets[0].getsockname()[1]
        transport, protocol = await loop.create_connection(Recorder, host, port, family=family)
        assert protocol.events == ["made"] and protocol.transport is transport
        assert transport.get_extra_info("peername")[:2] == (socket.getaddrinfo(host, port, family)[0][4][0], port)
        transport.write(b"hello")
        while protocol.data != b"hello":
            await asyncio.sleep(0)
        await finish(transport, protocol)
        server.close()

    run(main(), debug=debug)


def test_every_keyword_of_the_newest_python():
    names = set(inspect.signature(pyconc.Loop.create_connection).parameters)
    assert names == {
        "self", "protocol_factory", "host", "port", "ssl", "family", "proto", "flags", "sock", "local_addr",
        "server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout", "happy_eyeballs_delay", "interleave",
        "all_errors"}
    for name in "create_connection", "create_unix_connection", "getaddrinfo", "getnameinfo":
        theirs = inspect.signature(getattr(asyncio.SelectorEventLoop, name)).parameters.values()
        ours = inspect.signature(getattr(pyconc.Loop, name)).parameters
        for parameter in theirs:
            assert ours[parameter.name] == parameter


def test_connected_socket():
    async def main():
        ours, theirs = socket.socketpair()
        transport, protocol = await asyncio.get_running_loop().create_connection(Recorder, sock=ours)
        transport.write(b"x")
        assert theirs.recv(1) == b"x"
        await finish(transport, protocol)
        assert ours.fileno() == -1
        theirs.close()

    run(main())


def test_local_address():
    async def main():
        loop = asyncio.get_running_loop()
        with listener() as sock:
            port = sock.getsockname()[1]
            mine = closed_port()[1]
            transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port,
                                                               local_addr=("127.0.0.1", mine))
            assert transport.get_extra_info("sockname") == ("127.0.0.1", mine)
            await finish(transport, protocol)
            with pytest.raises(OSError, match="error while attempting to bind on address \\('127.0.0.1', "
                                              f"{port}\\): .*address already in use") as caught:
                await loop.create_connection(Recorder, "127.0.0.1", port, local_addr=("127.0.0.1", port))
            assert caught.value.errno == errno.EADDRINUSE
            with pytest.raises(OSError, match="no matching local address with family=.*AF_INET"):
                await loop.create_connection(Recorder, "127.0.0.1", port, local_addr=("::1", 0))

    run(main())


def test_scope_id():
    async def main():
        seen = []

        async def connect(exceptions, info, local=None):
            seen.append(info[4])
            raise OSError("only looking")

        loop = asyncio.get_running_loop()
        loop._connect_sock = connect
        with pytest.raises(OSError):
            await loop.create_connection(Recorder, "fe80::1%lo", 80)
        assert seen == [socket.getaddrinfo("fe80::1%lo", 80)[0][4]]
        assert seen[0][3] == socket.if_nametoindex("lo")
        assert loop._resolver is None

    run(main())


@pytest.mark.parametrize("eager", [False, True] if hasattr(asyncio, "eager_task_factory") else [False])
@pytest.mark.parametrize("options", [{}, {"interleave": 1}, {"happy_eyeballs_delay": 10},
                                     {"happy_eyeballs_delay": 0.001, "interleave": 2}])
def test_first_address_that_answers(options, eager):
    async def main():
        loop = asyncio.get_running_loop()
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        with listener() as sock:
            address = sock.getsockname()
            answers(loop, (socket.AF_INET, closed_port()), (socket.AF_INET6, closed_port(socket.AF_INET6, "::1")),
                    (socket.AF_INET, address), (socket.AF_INET, closed_port()))
            transport, protocol = await loop.create_connection(Recorder, "several", 1, **options)
            assert transport.get_extra_info("peername") == address
            await finish(transport, protocol)
        assert len(asyncio.all_tasks()) == 1

    run(main())


class SilentAddress:
    """connect() to `silent` never ends; to others it is as ever. Tells which were tried, and the sockets."""

    def __init__(self, monkeypatch, silent):
        self.tried, self.sockets = [], []
        self.cancelled = 0

        async def connect(loop, sock, address):
            self.tried.append(address)
            self.sockets.append(sock)
            if address == silent:
                try:
                    await loop.create_future()
                finally:
                    self.cancelled += 1
            return await real(loop, sock, address)

        real = pyconc.Loop._connect
        monkeypatch.setattr(pyconc.Loop, "_connect", connect)


def test_happy_eyeballs_passes_by_a_silent_address(monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        with listener() as sock:
            address = sock.getsockname()
            silent = ("2001:db8::1", 1, 0, 0)
            net = SilentAddress(monkeypatch, silent)
            answers(loop, (socket.AF_INET6, silent), (socket.AF_INET6, ("2001:db8::2", 1, 0, 0)),
                    (socket.AF_INET, address))
            transport, protocol = await loop.create_connection(Recorder, "several", 1, happy_eyeballs_delay=0.001)
            assert transport.get_extra_info("peername") == address
            assert net.tried[:2] == [silent, address]   # interleaved; the third where the second takes its time
            assert net.cancelled == 1
            assert net.sockets[0].fileno() == -1
            await finish(transport, protocol)
        assert len(asyncio.all_tasks()) == 1

    run(main())


@pytest.mark.parametrize("delay", [None, 0.001])
def test_cancel_while_connecting(monkeypatch, delay):
    async def main():
        loop = asyncio.get_running_loop()
        silent = ("192.0.2.1", 1)
        net = SilentAddress(monkeypatch, silent)
        answers(loop, (socket.AF_INET, silent), (socket.AF_INET, silent))
        connecting = loop.create_task(loop.create_connection(Recorder, "several", 1, happy_eyeballs_delay=delay))
        while len(net.tried) < (1 if delay is None else 2):
            await asyncio.sleep(0.001)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert net.cancelled == len(net.tried) and all(sock.fileno() == -1 for sock in net.sockets)
        assert len(asyncio.all_tasks()) == 1

    run(main())


@contextlib.contextmanager
def full_listener():
    """A listening socket whose queue is full: further connections get no answer until accept() makes room."""
    with listener() as sock, contextlib.ExitStack() as stack:
        sock.listen(0)
        waiting = []
        while not waiting or waiting[-1].connect_ex(sock.getsockname()) != errno.EALREADY:
            waiting.append(stack.enter_context(socket.socket()))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(sock.getsockname())
        yield sock


@pytest.mark.parametrize("delay", [None, 0.1])
def test_connection_that_takes_time(delay):
    async def main():
        loop = asyncio.get_running_loop()
        with full_listener() as sock:
            for room in False, True:
                task = loop.create_task(loop.create_connection(Recorder, *sock.getsockname(),
                                                               happy_eyeballs_delay=delay))
                done, _ = await asyncio.wait([task], timeout=0.05)
                assert not done
                if not room:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
            sock.setblocking(False)
            accepted = []
            while not task.done():
                with contextlib.suppress(BlockingIOError):
                    accepted.append(sock.accept()[0])
                await asyncio.sleep(0.01)
            await finish(*task.result())
            for peer in accepted:
                peer.close()

    run(main())


def test_cancel_does_not_close_twice():
    """A socket number given out again right after the cancel is nobody else's to close."""
    async def main(step):
        loop = asyncio.get_running_loop()
        with listener() as sock:
            task = asyncio.ensure_future(loop.create_connection(Recorder, *sock.getsockname()))
            for _ in range(step):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            done, _ = await asyncio.wait([task])
            if not task.cancelled():
                await finish(*task.result())
            new = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
            for _ in range(4):
                await asyncio.sleep(0)
            for fd in new:
                os.close(fd)    # OSError if somebody did
            return ended

    step = 0
    while not run(main(step)):
        step += 1
    assert step > 0


def test_cancel_with_a_socket_given():
    async def main():
        ours, theirs = socket.socketpair()
        task = asyncio.ensure_future(asyncio.get_running_loop().create_connection(Recorder, sock=ours))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert theirs.recv(1) == b""
        theirs.close()

    run(main())


def test_refused():
    async def main():
        loop = asyncio.get_running_loop()
        address = closed_port()
        with pytest.raises(ConnectionRefusedError, match=f"Connect call failed .*{address[1]}"):
            await loop.create_connection(Recorder, *address)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, *address, happy_eyeballs_delay=1)
        with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
            await loop.create_connection(Recorder, *address, all_errors=True)
        assert [type(e) for e in caught.value.exceptions] == [ConnectionRefusedError]

    run(main())


@pytest.mark.parametrize("delay", [None, 0.001])
def test_all_addresses_fail(delay):
    async def main():
        loop = asyncio.get_running_loop()
        one, two = closed_port(), closed_port(socket.AF_INET6, "::1")
        answers(loop, (socket.AF_INET, one), (socket.AF_INET6, two))
        with pytest.raises(OSError, match="^Multiple exceptions: ") as caught:
            await loop.create_connection(Recorder, "several", 1, happy_eyeballs_delay=delay)
        assert str(one) in str(caught.value) and str(two) in str(caught.value)
        with pytest.raises(ExceptionGroup) as caught:
            await loop.create_connection(Recorder, "several", 1, happy_eyeballs_delay=delay, all_errors=True)
        assert all(str(address) in str(e) for address, e in zip((one, two), caught.value.exceptions, strict=True))
        answers(loop, (socket.AF_INET, one), (socket.AF_INET, one))
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, "several", 1, happy_eyeballs_delay=delay)
        answers(loop)
        with pytest.raises(OSError, match="getaddrinfo\\(\\) returned empty list for \\('several', 1\\)"):
            await loop.create_connection(Recorder, "several", 1, happy_eyeballs_delay=delay)

    run(main())


def test_failed_connection_is_no_garbage():
    async def main():
        loop = asyncio.get_running_loop()
        address = closed_port()
        for options in {}, {"happy_eyeballs_delay": 1}:
            with contextlib.suppress(OSError):
                await loop.create_connection(Recorder, *address, **options)
            gc.collect()
            gc.disable()
            try:
                with contextlib.suppress(OSError):
                    await loop.create_connection(Recorder, *address)
                assert not [o for o in gc.get_objects() if isinstance(o, ConnectionRefusedError)]
            finally:
                gc.enable()

    run(main())


@pytest.mark.parametrize("error, kwargs", [
    (ValueError, {}),
    (ValueError, {"host": "127.0.0.1", "sock": socket.socket}),
    (ValueError, {"port": 1, "sock": socket.socket}),
    (ValueError, {"sock": lambda: socket.socket(type=socket.SOCK_DGRAM)}),
    (ValueError, {"host": "127.0.0.1", "port": 1, "server_hostname": "x"}),
    (ValueError, {"host": "127.0.0.1", "port": 1, "ssl_handshake_timeout": 1}),
    (ValueError, {"host": "127.0.0.1", "port": 1, "ssl_shutdown_timeout": 1}),
    (ValueError, {"port": 1, "ssl": True}),
    (ValueError, {"sock": socket.socket, "ssl": True}),
    (OverflowError, {"host": "127.0.0.1", "port": 70000}),
    (socket.gaierror, {"host": "127.0.0.1", "port": 80, "family": socket.AF_INET6}),
    (socket.gaierror, {"host": "127.0.0.1", "port": 80, "family": 999}),
    (socket.gaierror, {"host": "127.0.0.1", "port": "no such service"}),
    (TypeError, {"sock": lambda: ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x")}),
], ids=str)
def test_bad_arguments(error, kwargs):
    async def main(loop, kwargs):
        await loop.create_connection(asyncio.Protocol, **kwargs)

    said = []
    for new in asyncio.SelectorEventLoop, pyconc.new_event_loop:
        with contextlib.ExitStack() as stack:
            made = {k: stack.enter_context(v()) if callable(v) else v for k, v in kwargs.items()}
            loop = new()
            stack.callback(loop.close)
            with pytest.raises(error) as caught:
                loop.run_until_complete(main(loop, made))
            said.append(caught)
    assert type(said[0].value) is type(said[1].value)
    assert str(said[1].value).startswith(str(said[0].value).split(", got")[0].rstrip("."))


def test_protocol_factory_that_raises_leaves_no_socket():
    async def main():
        with listener() as sock:
            with pytest.raises(ZeroDivisionError):
                await asyncio.get_running_loop().create_connection(lambda: 1 / 0, *sock.getsockname())
        ours, theirs = socket.socketpair()
        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().create_connection(lambda: 1 / 0, sock=ours)
        assert theirs.recv(1) == b""
        theirs.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        run(main())
        gc.collect()


@pytest.mark.parametrize("kind", ["str", "bytes", "path", "abstract"])
def test_unix(tmp_path, kind):
    async def main():
        loop = asyncio.get_running_loop()
        name = str(tmp_path / "socket")
        path = {"str": name, "bytes": name.encode(), "path": tmp_path / "socket", "abstract": f"\0{name}"}[kind]
        with listener(socket.AF_UNIX, os.fspath(path)) as sock:
            transport, protocol = await loop.create_unix_connection(Recorder, path)
            peer, _ = sock.accept()
            transport.write(b"x")
            assert peer.recv(1) == b"x"
            await finish(transport, protocol)
            peer.close()

    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are Linux's")
    run(main())


def test_unix_errors(tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        missing = str(tmp_path / "missing")
        with pytest.raises(FileNotFoundError, match="missing"):
            await loop.create_unix_connection(Recorder, missing)
        with listener(socket.AF_UNIX, missing):
            pass
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(Recorder, missing)
        with pytest.raises(OSError, match="path too long"):
            await loop.create_unix_connection(Recorder, "x" * 200)
        for kwargs in ({}, {"path": missing, "server_hostname": "x"}, {"path": missing, "ssl": True},
                       {"path": missing, "ssl_handshake_timeout": 1}, {"path": missing, "ssl_shutdown_timeout": 1}):
            with pytest.raises(ValueError):
                await loop.create_unix_connection(Recorder, **kwargs)
        with socket.socket() as sock:
            for kwargs in {"sock": sock}, {"sock": sock, "path": missing}:
                with pytest.raises(ValueError):
                    await loop.create_unix_connection(Recorder, **kwargs)
        with pytest.raises(TypeError):
            await loop.create_unix_connection(Recorder, 5)

    run(main())


def test_server_of_the_same_loop_has_the_connection_too():
    async def main():
        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        made = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Server, "127.0.0.1", 0)
        for count in range(1, 10):
            transport, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            assert len(made) == count
            await finish(transport, protocol)
        for transport in made:
            transport.close()
        server.close()

    run(main())


def test_streams():
    async def main():
        async def serve(reader, writer):
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(serve, "localhost", 0, family=socket.AF_INET)
        reader, writer = await asyncio.open_connection(
            "localhost", server.sockets[0].getsockname()[1], happy_eyeballs_delay=0.25)
        writer.write(b"line\n")
        assert await reader.read() == b"line\n"
        writer.close()
        await writer.wait_closed()
        server.close()

    run(main())


@pytest.fixture
def first_loop():
    """libuv opens a pipe for the process with the first loop, and keeps it."""
    pyconc.new_event_loop().close()


@pytest.mark.leak
def test_connections_leave_nothing(first_loop, no_leaked_fds, no_leaked_objects):
    refused = closed_port()

    async def once():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(asyncio.Protocol, *address)
        transport.close()
        for options in {}, {"happy_eyeballs_delay": 1}, {"all_errors": True}:
            with contextlib.suppress(OSError, ExceptionGroup):
                await loop.create_connection(asyncio.Protocol, *refused, **options)
        with contextlib.suppress(ZeroDivisionError):
            await loop.create_connection(lambda: 1 / 0, *address)
        task = loop.create_task(loop.create_connection(asyncio.Protocol, *address))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await loop.getaddrinfo("localhost", "http")
        while peers:
            peers.pop().abort()
        await asyncio.sleep(0)

    class Peer(asyncio.Protocol):
        def connection_made(self, transport):
            peers.append(transport)

    peers = []
    loop = pyconc.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Peer, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    no_leaked_objects(lambda: loop.run_until_complete(once()), rounds=100)
    server.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.mark.parametrize("new_loop", [pyconc.new_event_loop, asyncio.SelectorEventLoop])
def test_names_asked_for_after_the_end(new_loop):
    async def main():
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*address)
        name = writer.transport._sock.getsockname()
        writer.close()
        await writer.wait_closed()
        server.close()
        assert writer.get_extra_info("peername") == address
        assert writer.get_extra_info("sockname") == name

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_what_is_no_protocol_is_told_to_who_connects():
    async def main():
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        async with server:
            with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'connection_made'"):
                await asyncio.get_running_loop().create_connection(
                    lambda: None, *server.sockets[0].getsockname())
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        runner.run(main())


def test_connecting_with_a_closed_loop_or_an_impossible_port():
    loop = pyconc.new_event_loop()
    with pytest.raises(OverflowError, match=r"connect\(\): port must be 0-65535, not \('127.0.0.1', 70000\)"):
        loop.run_until_complete(loop.create_connection(asyncio.Protocol, "127.0.0.1", 70000))
    with pytest.raises(OverflowError, match="connect.*flowinfo must be 0-1048575, not"):
        address = "::1", 1, 1 << 20, 0
        loop.run_until_complete(loop._connect_sock([], (socket.AF_INET6, socket.SOCK_STREAM, 0, "", address)))
    loop.close()
    connecting = loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        connecting.send(None)


def test_wrong_keywords_are_the_loops():
    loop = pyconc.new_event_loop()
    with pytest.raises(TypeError, match=r"Loop\.create_datagram_endpoint\(\)"):
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, no_such=1)
    loop.close()
