# SPDX-License-Identifier: MIT
"""Protocols that note what happens. For TLS: certificates of this run, loops to compare, peers driven by hand."""
import asyncio
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import types
from contextlib import closing

import pytest

import pyconc

pyconc.new_event_loop().close()     # libuv's first loop opens a pipe for the whole process

HOST = "127.0.0.1"
LOOPS = {"pyconc": pyconc.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
CALLBACK = re.compile("(?<=^Exception in callback ).*")    # how a callback is told is each loop's own
# What a test may take before it counts as hung; none waits for it.
SECONDS = 100 if "PYCONC_SANITIZE" in os.environ else 60


# ---- loops

class Run:
    """run(main): runs main() on a loop of its own. What reached its exception handler is in run.reports."""

    def __init__(self, name):
        self.name = name
        self.reports = []

    def handle(self, loop, context):
        # Debug mode reports every handshake that a server does not finish as well.
        if context["message"] != "Error on transport creation for incoming connection":
            self.reports.append(context)

    def __call__(self, main, **kwargs):
        async def watched():
            asyncio.get_running_loop().set_exception_handler(self.handle)
            async with asyncio.timeout(SECONDS):
                return await main()

        self.reports.clear()
        with asyncio.Runner(loop_factory=LOOPS[self.name], **kwargs) as runner:
            return runner.run(watched())

    def reported(self):
        """[(message, exception)] of the reports."""
        return [(context["message"], context.get("exception")) for context in self.reports]


@pytest.fixture(params=LOOPS)
def run(request):
    """Runs a test on pyconc's loop and on asyncio's, for what has to be the same."""
    return Run(request.param)


@pytest.fixture
def run_ours():
    """Runs a test on pyconc's loop only."""
    return Run("pyconc")


@pytest.fixture
def same():
    """same(main): what main() returns on either loop, which must be the same, together with what was reported."""
    def compare(main, **kwargs):
        results = {}
        for name in LOOPS:
            run = Run(name)
            result = run(main, **kwargs)
            results[name] = result, [(CALLBACK.sub("", message), describe(exc)) for message, exc in run.reported()]
        assert results["pyconc"] == results["asyncio"]
        return results["pyconc"]
    return compare


def describe(exc):
    """An exception as (type, text, ...), the text without the line of _ssl.c, which each version has its own."""
    if exc is None:
        return None
    names = ("errno", "library", "reason") if isinstance(exc, ssl.SSLError) else ()
    detail = [getattr(exc, name, None) for name in names]
    return type(exc).__name__, str(exc).rpartition(" (_ssl.c:")[0] or str(exc), *detail


# ---- protocols

class Recorder(asyncio.Protocol):
    """Notes what happens to it, at either end of a connection or a pipe."""

    keep_open = None

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.events = []
        self.data = bytearray()
        self.sizes = []             # of the data, as it came
        self.ended = self.loop.create_future()
        self.lost = self.loop.create_future()
        self.changed = asyncio.Event()

    def note(self, *event):
        self.events.append(event[0] if len(event) == 1 else event)
        self.changed.set()

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        assert type(data) is bytes and data
        self.data += data
        self.sizes.append(len(data))
        self.changed.set()

    def eof_received(self):
        self.note("eof")
        self.ended.set_result(None)
        return self.keep_open

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, exc):
        self.note("lost", exc)
        self.lost.set_result(exc)

    async def until(self, condition):
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def received(self, size):
        """All that has come, once it is `size` bytes."""
        await self.until(lambda: len(self.data) >= size)
        data, self.data = bytes(self.data), bytearray()
        return data

    async def close(self):
        self.transport.close()
        await self.lost
        await asyncio.sleep(0)      # the descriptor is closed after connection_lost()


class TLSRecorder(Recorder):
    """Among the events is data, in one piece as long as nothing else happens; exceptions are told in words."""

    def __init__(self):
        super().__init__()
        self.made = self.loop.create_future()

    def connection_made(self, transport):
        super().connection_made(transport)
        self.made.set_result(transport)

    def note(self, *event):
        super().note(*(describe(part) if isinstance(part, Exception) else part for part in event))

    def data_received(self, data):
        super().data_received(data)
        if self.events[-1:] != ["data"]:
            self.events.append("data")

    async def received(self, size):
        """The next `size` bytes."""
        await self.until(lambda: len(self.data) >= size)
        data = bytes(self.data[:size])
        del self.data[:size]
        return data


class TLSBuffered(TLSRecorder, asyncio.BufferedProtocol):
    """Receives into a buffer of its own, which is small."""

    size = 1000

    def get_buffer(self, sizehint):
        self.buffer = memoryview(bytearray(self.size))      # a bytearray itself asyncio does not fill beyond one record
        return self.buffer

    def buffer_updated(self, nbytes):
        assert 0 < nbytes <= self.size
        self.data_received(bytes(self.buffer[:nbytes]))


class Echo(TLSRecorder):
    """Sends back what it gets."""

    def data_received(self, data):
        self.transport.write(data)


# ---- peers

class Peer:
    """One end of a TLS connection over a non-blocking socket, record by record, as the test decides."""

    def __init__(self, sock, context, server_side=False, server_hostname="localhost"):
        sock.setblocking(False)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side,
                                    server_hostname=None if server_side else server_hostname)

    async def flush(self):
        if self.outgoing.pending:
            await asyncio.get_running_loop().sock_sendall(self.sock, self.outgoing.read())

    async def fill(self):
        """Reads from the socket. False at its end."""
        data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    async def do(self, operation, *args):
        while True:
            try:
                result = operation(*args)
            except ssl.SSLWantReadError:
                await self.flush()
                await self.fill()
            else:
                await self.flush()
                return result

    async def handshake(self):
        await self.do(self.ssl.do_handshake)
        return self

    async def write(self, data):
        await self.do(self.ssl.write, data)

    async def read(self, size=65536):
        """Some decrypted bytes, b"" after close_notify."""
        try:
            return await self.do(self.ssl.read, size)
        except ssl.SSLZeroReturnError:
            return b""

    async def unwrap(self):
        await self.do(self.ssl.unwrap)

    def records(self, data):
        """The bytes that would carry `data`: for the test to send, or not."""
        self.ssl.write(data)
        return self.outgoing.read()

    def close_notify(self):
        """The bytes of a close_notify alert."""
        try:
            self.ssl.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    async def send(self, data):
        """Raw bytes, past TLS."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def end(self):
        """Raw reading until the socket's end: "eof" or "reset"."""
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(self.sock, 65536):
                pass
        except ConnectionError:
            return "reset"
        return "eof"

    def close(self):
        self.sock.close()

    def reset(self):
        """Closes with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


# ---- certificates and contexts

def openssl(*args, **kwargs):
    subprocess.run(["openssl", *args], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.PIPE, **kwargs)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder with ca.pem, NAME.pem and NAME.key for localhost, other.example and client, and stray.pem of no CA."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]

    def make(name, subject, *extensions, issuer=None):
        signer = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"] if issuer else []
        openssl("req", "-x509", *key, *signer, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", subject,
                *[part for extension in extensions for part in ("-addext", extension)], cwd=folder)

    usage = "keyUsage=critical,digitalSignature"
    make("ca", "/CN=Test CA", "keyUsage=critical,keyCertSign,cRLSign")
    make("localhost", "/CN=localhost", f"subjectAltName=DNS:localhost,IP:{HOST},IP:::1", usage,
         "basicConstraints=critical,CA:false", issuer="ca")
    make("other.example", "/CN=other.example", "subjectAltName=DNS:other.example", usage,
         "basicConstraints=critical,CA:false", issuer="ca")
    make("client", "/CN=A client", "basicConstraints=critical,CA:false", usage, issuer="ca")
    make("stray", "/CN=localhost", "subjectAltName=DNS:localhost")
    return folder


class TLS(types.SimpleNamespace):
    """Contexts and connections. What is made here has to be closed by the test."""

    Recorder, Buffered, Echo, Peer, HOST, describe = TLSRecorder, TLSBuffered, Echo, Peer, HOST, staticmethod(describe)

    def server_context(self, name="localhost", version=None, client_certificate=False, cls=ssl.SSLContext):
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        if client_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.folder / "ca.pem")
        return self.limit(context, version)

    def client_context(self, version=None, certificate=None, authority="ca", cls=ssl.SSLContext):
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.folder / f"{authority}.pem")
        if certificate:
            context.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        return self.limit(context, version)

    @staticmethod
    def limit(context, version):
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def contexts(self, version=None):
        """(client's, server's)"""
        return self.client_context(version), self.server_context(version=version)

    async def serve(self, factory=Echo, context=None, **kwargs):
        """(server, list of the protocols it makes)"""
        protocols = []

        def accept():
            protocols.append(factory())
            return protocols[-1]

        server = await asyncio.get_running_loop().create_server(
            accept, HOST, 0, ssl=context or self.server_context(), **kwargs)
        return server, protocols

    async def connect(self, server, factory=TLSRecorder, context=None, server_hostname="localhost", **kwargs):
        _, protocol = await asyncio.get_running_loop().create_connection(
            factory, *server.sockets[0].getsockname()[:2], ssl=context or self.client_context(),
            server_hostname=server_hostname, **kwargs)
        return protocol

    async def pair(self, factory=TLSRecorder, peer_factory=TLSRecorder, version=None, server=None, **client):
        """The protocols of a client and of a server that are connected."""
        listener, protocols = await self.serve(peer_factory, self.server_context(version=version), **server or {})
        protocol = await self.connect(listener, factory, self.client_context(version), **client)
        listener.close()
        await protocols[0].made
        return protocol, protocols[0]

    async def with_peer(self, factory=TLSRecorder, version=None, peer_context=None, server_side=False, **kwargs):
        """A protocol and a Peer at its other end: a client's protocol, or a server's."""
        loop = asyncio.get_running_loop()
        ours, theirs = tcp_pair()
        client, server = self.contexts(version)
        peer = Peer(theirs, peer_context or (client if server_side else server), server_side=not server_side)
        if server_side:
            connecting = loop.connect_accepted_socket(factory, ours, ssl=server, **kwargs)
        else:
            connecting = loop.create_connection(factory, sock=ours, ssl=client, server_hostname="localhost", **kwargs)
        (_, protocol), _ = await asyncio.gather(connecting, peer.handshake())
        return protocol, peer

    @staticmethod
    def tcp_pair():
        return tcp_pair()

    @staticmethod
    async def finish(*protocols):
        """Closes the connections of the protocols and waits until each is lost."""
        for protocol in protocols:
            protocol.transport.close()
        for protocol in protocols:
            await protocol.lost


def tcp_pair():
    """Two connected TCP sockets, non-blocking."""
    with closing(socket.create_server((HOST, 0))) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    for sock in (a, b):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return a, b


@pytest.fixture
def tls(certificates):
    return TLS(folder=certificates)


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(params=VERSIONS)
def version(request):
    """Runs a test with TLS 1.2 and with 1.3."""
    return VERSIONS[request.param]


@pytest.fixture
def turns():
    """await turns(n): lets the loop turn n times."""
    async def turn(count=10):
        for _ in range(count):
            await asyncio.sleep(0)
    return turn

