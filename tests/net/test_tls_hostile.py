# SPDX-License-Identifier: MIT
"""TLS with peers that mean harm or are broken: errors as asyncio's, memory bounded, and the server goes on."""
import asyncio
import contextlib
import gc
import os
import random
import resource
import socket
import ssl
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.usefixtures("no_leaked_fds")
KIB, MIB = 1 << 10, 1 << 20


def record(kind, payload, length=None, version=b"\x03\x03"):
    return bytes([kind]) + version + (len(payload) if length is None else length).to_bytes(2, "big") + payload


HANDSHAKE, ALERT, DATA = 22, 21, 23
RAW = {
    "zeros": bytes(200),
    "ones": b"\xff" * 200,
    "text": b"hello?\r\n" * 20,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http response": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "http proxy": b"CONNECT localhost:443 HTTP/1.1\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    "smtp": b"220 localhost ESMTP\r\n",
    "one byte": b"\x16",
    "header only": record(HANDSHAKE, b"", 100),
    "longest record": record(HANDSHAKE, bytes(16384)),
    "too long a record": record(HANDSHAKE, b"\x01" * 100, 0xffff),
    "too long a message": record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(500)),
    "empty record": record(HANDSHAKE, b""),
    "empty records": record(HANDSHAKE, b"") * 100,
    "data first": record(DATA, b"data"),
    "unknown kind of record": record(99, b"data"),
    "version of old": record(HANDSHAKE, bytes(100), version=b"\x02\x00"),
    "version of tomorrow": record(HANDSHAKE, bytes(100), version=b"\x07\x00"),
    "finished first": record(HANDSHAKE, b"\x14\x00\x00\x0c" + bytes(12)),
    "hello request": record(HANDSHAKE, b"\x00\x00\x00\x00"),
    "change cipher spec": record(20, b"\x01"),
    "fatal alert": record(ALERT, b"\x02\x28"),
    "fatal alert, unknown": record(ALERT, b"\x02\xff"),
    "close_notify": record(ALERT, b"\x01\x00"),
    "warning": record(ALERT, b"\x01\x5a"),
    "warnings": record(ALERT, b"\x01\x5a") * 50,
    "odd alert": record(ALERT, b"\x02"),
    "sslv2 hello": b"\x80\x2e\x01\x00\x02" + bytes(43),
}


# ---- instead of a handshake

@pytest.mark.parametrize("name", RAW)
def test_sent_to_a_server(same, tls, name):
    async def main():
        ours, theirs = tls.tcp_pair()
        protocol = tls.Recorder()
        accepting = asyncio.ensure_future(asyncio.get_running_loop().connect_accepted_socket(
            lambda: protocol, ours, ssl=tls.server_context()))
        peer = tls.Peer(theirs, tls.client_context())
        await peer.send(RAW[name])
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError) as info:
            await accepting
        await peer.end()
        peer.close()
        return tls.describe(info.value), protocol.events

    (error, events), reports = same(main)
    assert events == [] and reports == []


@pytest.mark.parametrize("name", RAW)
def test_sent_to_a_client(same, tls, name):
    async def main():
        ours, theirs = tls.tcp_pair()
        protocol = tls.Recorder()
        connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=ours, ssl=tls.client_context(), server_hostname="localhost"))
        peer = tls.Peer(theirs, tls.server_context(), server_side=True)
        await peer.fill()
        await peer.send(RAW[name])
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError) as info:
            await connecting
        await peer.end()
        peer.close()
        return tls.describe(info.value), protocol.events

    (error, events), reports = same(main)
    assert events == [] and reports == []


def test_server_goes_on(run, tls):
    """All of that at once, at a server that serves others meanwhile and afterwards."""
    async def main():
        loop = asyncio.get_running_loop()
        listener, protocols = await tls.serve()
        address = listener.sockets[0].getsockname()
        good = await tls.connect(listener)

        async def attack(data, how):
            sock = socket.create_connection(address)
            peer = tls.Peer(sock, tls.client_context())
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(sock, data)
                if how == "eof":
                    sock.shutdown(socket.SHUT_WR)
                    await peer.end()
            peer.reset() if how == "reset" else peer.close()

        await asyncio.gather(*[attack(data, how) for data in RAW.values() for how in ("eof", "close", "reset")])
        good.transport.write(b"still")
        assert await good.received(5) == b"still"
        after = await tls.connect(listener)
        after.transport.write(b"and again")
        assert await after.received(9) == b"and again"
        await tls.finish(good, after)
        listener.close()
        await listener.wait_closed()
        assert sum(bool(protocol.events) for protocol in protocols) == 2

    run(main)
    assert not run.reports


def test_damaged_hellos(same, tls):
    """A ClientHello with one byte changed, or cut off somewhere: the server refuses it as asyncio's does."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    chosen = random.Random(1)
    damaged = [hello[:at] + bytes([hello[at] ^ 1 << chosen.randrange(8)]) + hello[at + 1:]
               for at in [*range(12), *chosen.sample(range(12, len(hello)), 60)]]
    damaged += [hello[:at] for at in chosen.sample(range(len(hello)), 20)]

    async def main():
        results = []
        for data in damaged:
            ours, theirs = tls.tcp_pair()
            protocol = tls.Recorder()
            accepting = asyncio.ensure_future(asyncio.get_running_loop().connect_accepted_socket(
                lambda protocol=protocol: protocol, ours, ssl=tls.server_context()))
            peer = tls.Peer(theirs, tls.client_context())
            await peer.send(data)
            peer.sock.shutdown(socket.SHUT_WR)
            with pytest.raises(OSError) as info:
                await accepting
            peer.close()
            results.append((tls.describe(info.value), protocol.events))
        return results

    results, reports = same(main)
    assert not reports


def test_damaged_answers(same, tls, version):
    """A server's flight with one byte changed: the client refuses it as asyncio's does."""
    places = random.Random(2).sample(range(1, 1000), 30)

    async def main():
        results = []
        for place in places:
            ours, theirs = tls.tcp_pair()
            protocol = tls.Recorder()
            connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
                lambda protocol=protocol: protocol, sock=ours, ssl=tls.client_context(version),
                server_hostname="localhost"))
            peer = tls.Peer(theirs, tls.server_context(version=version), server_side=True)
            await peer.fill()
            with pytest.raises(ssl.SSLWantReadError):
                peer.ssl.do_handshake()
            flight = bytearray(peer.outgoing.read())
            flight[place % len(flight)] ^= 0x10
            await peer.send(flight)
            peer.sock.shutdown(socket.SHUT_WR)
            with pytest.raises(OSError) as info:
                await connecting
            peer.close()
            results.append(protocol.events)
            assert isinstance(info.value, (ssl.SSLError, ConnectionResetError))
        return results

    results, reports = same(main)
    assert not reports and all(events == [] for events in results)


# ---- after the handshake

def flipped(peer):
    data = bytearray(peer.records(b"data"))
    data[-1] ^= 1
    return data


ATTACKS = {
    "bit flip": flipped,
    "bit flip in the second record": lambda peer: peer.records(b"first") + flipped(peer),
    "replay": lambda peer: peer.records(b"data") * 2,
    "swapped": lambda peer: b"".join(reversed([peer.records(b"one"), peer.records(b"two")])),
    "one left out": lambda peer: peer.records(b"gone") and peer.records(b"two"),
    "plain data": lambda peer: record(DATA, b"not encrypted, not encrypted"),
    "short data": lambda peer: record(DATA, b"x"),
    "too long a record": lambda peer: record(DATA, b"x" * 20_000),
    "unknown kind of record": lambda peer: record(99, b"data"),
    "garbage": lambda peer: b"garbage" * 100,
    "http": lambda peer: RAW["http"],
    "plain fatal alert": lambda peer: record(ALERT, b"\x02\x28"),
    "plain close_notify": lambda peer: record(ALERT, b"\x01\x00"),
    "plain hello": lambda peer: record(HANDSHAKE, b"\x01\x00\x00\x05hello"),
    "change cipher spec": lambda peer: record(20, b"\x01"),
    "change cipher specs": lambda peer: record(20, b"\x01") * 100,
    "close_notify, then data": lambda peer: peer.close_notify() + b"more" * 100,
    "close_notify twice": lambda peer: peer.close_notify() * 2,
    "data, close_notify, data": lambda peer: peer.records(b"data") + peer.close_notify() + record(DATA, b"x" * 100),
}


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("name", ATTACKS)
def test_sent_to_a_protocol(same, tls, version, name, server_side):
    """The connection ends as with asyncio; what came before the harm may reach the protocol, where asyncio drops it."""
    received = []

    async def main():
        protocol, peer = await tls.with_peer(version=version, server_side=server_side)
        if not server_side:
            await peer.write(b"!")      # with what comes behind the handshake
            await protocol.received(1)
        data = ATTACKS[name](peer)
        await peer.send(data)
        peer.sock.shutdown(socket.SHUT_WR)
        await protocol.lost
        await peer.end()
        peer.close()
        received.append(bytes(protocol.data))
        return [event for event in protocol.events if event != "data"], protocol.transport.is_closing()

    (events, closing), reports = same(main)
    assert events[-1][0] == "lost" and closing
    ours, theirs = received
    assert ours.startswith(theirs) and ours in (b"", b"data", b"first", b"one", b"two")
    assert not reports


@pytest.mark.parametrize("kind", ["Recorder", "Buffered"])
def test_one_byte_at_a_time(run, tls, version, kind):
    """The handshake, data and the end, each byte a packet of its own."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()

        class Slow(tls.Peer):
            async def send(self, data):
                for byte in data:
                    await loop.sock_sendall(self.sock, bytes([byte]))
                    await asyncio.sleep(0)

            async def flush(self):
                await self.send(self.outgoing.read())

        peer = Slow(theirs, tls.server_context(version=version), server_side=True)
        (_, protocol), _ = await asyncio.gather(
            loop.create_connection(getattr(tls, kind), sock=ours, ssl=tls.client_context(version),
                                   server_hostname="localhost"), peer.handshake())
        await peer.write(b"x" * 500)
        assert await protocol.received(500) == b"x" * 500
        protocol.transport.write(b"y" * 500)
        assert await peer.read() == b"y" * 500
        await peer.send(peer.close_notify())
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", ("lost", None)]
        peer.close()

    run(main)
    assert not run.reports


def test_reset_at_each_step(run, tls, version):
    """RST after each of the first messages of a handshake, and while data goes both ways."""
    async def main():
        listener, protocols = await tls.serve(tls.Recorder, tls.server_context(version=version))
        for steps in range(4):
            sock = socket.create_connection(listener.sockets[0].getsockname())
            peer = tls.Peer(sock, tls.client_context(version))
            with contextlib.suppress(ssl.SSLWantReadError):
                for _ in range(steps):
                    try:
                        peer.ssl.do_handshake()
                        peer.ssl.write(b"data")
                    except ssl.SSLWantReadError:
                        await peer.flush()
                        await peer.fill()
                await peer.flush()
            peer.reset()
        protocol = await tls.connect(listener)
        serving = protocols[-1]
        await serving.made
        for _ in range(50):
            serving.transport.write(b"x" * 100_000)
            protocol.transport.write(b"x" * 100_000)
        await protocol.until(lambda: protocol.data)
        sock = protocol.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        protocol.transport.abort()
        assert isinstance(await serving.lost, (ConnectionResetError, BrokenPipeError, type(None)))
        await protocol.lost
        after = await tls.connect(listener)
        await tls.finish(after)
        listener.close()
        await listener.wait_closed()

    run(main)
    assert not run.reports


# ---- bounded

def shrink(*socks):
    """Small buffers in the kernel, so that little is under way."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * KIB)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * KIB)


async def with_small_buffers(tls, factory):
    loop = asyncio.get_running_loop()
    ours, theirs = tls.tcp_pair()
    shrink(ours, theirs)
    peer = tls.Peer(theirs, tls.server_context(), server_side=True)
    (_, protocol), _ = await asyncio.gather(
        loop.create_connection(factory, sock=ours, ssl=tls.client_context(), server_hostname="localhost"),
        peer.handshake())
    return protocol, peer


def test_peer_stops_reading(run, tls, turns):
    """A writer that obeys pause_writing() is stopped before much has piled up; its transport can still be aborted."""
    async def main():
        class Floods(tls.Recorder):
            may, written = True, 0

            def send(self):
                while self.may:
                    self.transport.write(b"x" * 20_000)
                    self.written += 20_000
                    assert self.written < 8 * MIB

            def pause_writing(self):
                self.may = False

        protocol, peer = await with_small_buffers(tls, Floods)
        protocol.send()
        await turns(100)
        assert not protocol.may and protocol.written < 2 * MIB
        assert protocol.transport.get_write_buffer_size() < 2 * MIB
        protocol.transport.abort()
        assert await protocol.lost is None
        peer.close()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("kind", ["Recorder", "Buffered"])
def test_paused_reader_is_flooded(run, tls, turns, kind):
    """While reading is paused, the transport takes no more from its socket than its limits say."""
    async def main():
        protocol, peer = await with_small_buffers(tls, getattr(tls, kind))
        protocol.transport.pause_reading()
        sent, idle, data = 0, 0, b""
        while idle < 20:
            data = data or peer.records(b"x" * 16000)
            try:
                count = peer.sock.send(data)
            except BlockingIOError:
                idle += 1
                await turns(2)
            else:
                data, sent, idle = data[count:], sent + count, 0
            assert sent < 8 * MIB
        assert sent < 2 * MIB and not protocol.data
        protocol.transport.abort()
        await protocol.lost
        peer.close()

    run(main)
    assert not run.reports


def test_close_ends_though_the_peer_sends_on(run, tls, version):
    """close() does not go on downloading: what the peer can send after it is bounded, and so is the time."""
    async def main():
        protocol, peer = await tls.with_peer(version=version)
        peer.sock.setblocking(False)
        await peer.write(b"x" * 100_000)
        await protocol.until(lambda: protocol.data)
        protocol.transport.close()
        sent = 0
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while sent < 64 * MIB:
                data = peer.records(b"x" * 100_000)
                await loop.sock_sendall(peer.sock, data)
                sent += len(data)
        assert sent < 16 * MIB          # the kernel's buffers alone take a few
        await protocol.lost
        assert len(protocol.data) < 16 * MIB
        peer.close()

    run(main)
    assert not run.reports


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
def test_handshake_message_without_end(run, tls, server_side):
    """A message that says it is 16 MiB long and keeps coming is not collected."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = tls.tcp_pair()
        protocol = tls.Recorder()
        if server_side:
            connecting = loop.connect_accepted_socket(lambda: protocol, ours, ssl=tls.server_context())
        else:
            connecting = loop.create_connection(lambda: protocol, sock=ours, ssl=tls.client_context(),
                                                server_hostname="localhost")
        connecting = asyncio.ensure_future(connecting)
        theirs.setblocking(False)
        sent = 0
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(theirs, record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(1000)))
            while sent < 64 * MIB:
                await loop.sock_sendall(theirs, record(HANDSHAKE, bytes(16000)))
                sent += 16000
        assert sent < 16 * MIB
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connecting
        assert protocol.events == []
        theirs.close()

    run(main)
    assert not run.reports


def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_write_buffer_is_freed_with_its_connection(run_ours, tls):
    """Who keeps a transport after connection_lost() does not keep what it could not send."""
    if "PYCONC_SANITIZE" in os.environ:
        pytest.skip("AddressSanitizer keeps what is freed")

    async def main():
        protocol, peer = await tls.with_peer()
        before = resident()
        for _ in range(100):
            protocol.transport.write(b"x" * MIB)
        held = resident() - before
        peer.reset()
        await protocol.lost
        assert protocol.transport.get_write_buffer_size() == 0
        await asyncio.sleep(0)
        assert resident() - before < 20 * MIB, (held, resident() - before)
        return protocol.transport

    run_ours(main)


CLIENTS = """
    import socket, ssl, sys

    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        hello = outgoing.read()
    open_ = []
    for number in range(count):
        sock = socket.create_connection((host, port))
        # Nothing at all, half of the first message, or all of it and nothing of the last.
        sock.send([b"", hello[:len(hello) // 2], hello][number % 3]) if number % 3 else None
        open_.append(sock)
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.stress
def test_many_half_open_handshakes(run_ours, tls, tmp_path):
    """10 000, or as many as there may be descriptors: each costs little, and others are served as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    script = tmp_path / "clients.py"
    script.write_text(textwrap.dedent(CLIENTS))

    async def main():
        listener, protocols = await tls.serve(backlog=1000, ssl_handshake_timeout=1000)
        address = listener.sockets[0].getsockname()
        before = resident()
        clients = await asyncio.create_subprocess_exec(
            sys.executable, script, *map(str, address), str(count), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert await clients.stdout.readline() == b"open\n"
            first = await tls.connect(listener)
            first.transport.write(b"served")
            assert await first.received(6) == b"served"
            assert len(protocols) == count + 1
            cost = (resident() - before) / count
            await tls.finish(first)
        finally:
            clients.stdin.close()
            await clients.wait()
        after = await tls.connect(listener)
        after.transport.write(b"still")
        assert await after.received(5) == b"still"
        await tls.finish(after)
        assert all(protocol.events == [] for protocol in protocols[:count])
        listener.close()
        await listener.wait_closed()
        return cost

    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        cost = run_ours(main, debug=False)  # which says of each task where it was made
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not run_ours.reports
    if "PYCONC_SANITIZE" not in os.environ:
        assert cost < 160 * KIB, f"{cost / KIB:.0f} KiB a connection"


# ---- calls back into the transport

def test_calls_from_within_flow_control(run_ours, tls):
    """write(), close() and abort() out of pause_writing() and resume_writing(): order kept, nothing raised."""
    async def main():
        for name in ("pause_writing", "resume_writing"):
            for method in ("write", "close", "abort"):
                def call(self, name=name, method=method):
                    getattr(tls.Recorder, name)(self)
                    if "called" not in self.events:
                        self.events.append("called")
                        getattr(self.transport, method)(*[b"<called>"] * (method == "write"))

                protocol, peer = await tls.pair(type("Calls", (tls.Recorder,), {name: call}))
                protocol.transport.set_write_buffer_limits(100_000)
                peer.transport.pause_reading()
                for _ in range(300):
                    protocol.transport.write(b"x" * 50_000)
                await asyncio.sleep(0)
                peer.transport.resume_reading()
                await protocol.until(lambda: "called" in protocol.events)   # noqa: B023
                protocol.transport.write(b"last")
                protocol.transport.close()
                await protocol.lost
                await peer.lost
                assert peer.data.count(b"<called>") == (method == "write")
                if method == "write":
                    assert len(peer.data) == 300 * 50_000 + len(b"<called>last") and peer.data.endswith(b"last")

    run_ours(main)
    assert not run_ours.reports


def test_load_of_small_writes_and_sudden_ends(run, tls):
    """Many connections write all the time, and end at any moment: nothing but connection_lost() comes of it."""
    async def main():
        listener, protocols = await tls.serve(tls.Echo)
        chosen = random.Random(3)
        context = tls.client_context()

        async def one(number):
            protocol = await tls.connect(listener, context=context)
            for _ in range(chosen.randrange(5, 60)):
                for _ in range(chosen.randrange(1, 5)):
                    protocol.transport.write(b"x" * chosen.choice([1, 100, 5000, 70_000]))
                if chosen.randrange(3) == 0:
                    await asyncio.sleep(0)
            end = chosen.choice(["close", "abort", "reset", "other"])
            if end == "other":
                chosen.choice([other for other in protocols if other.events] or [protocol]).transport.abort()
            elif end == "reset" and not protocol.transport.is_closing():
                sock = protocol.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                protocol.transport.abort()
            elif not protocol.transport.is_closing():
                getattr(protocol.transport, end)()
            protocol.transport.abort()
            await protocol.lost

        for result in await asyncio.gather(*[one(number) for number in range(60)], return_exceptions=True):
            assert result is None or isinstance(result, ConnectionError)    # another one's abort() came first
        after = await tls.connect(listener, context=context)
        await tls.finish(after)
        for protocol in protocols:
            if protocol.events:
                await protocol.lost
        listener.close()
        await listener.wait_closed()

    run(main)
    assert not run.reports
