# SPDX-License-Identifier: MIT
"""TLS with programs not written here: openssl's s_client and s_server, curl, nginx on either side."""
import asyncio
import contextlib
import hashlib
import importlib.util
import os
import shutil
import socket
import ssl
import subprocess

import pytest

pytestmark = pytest.mark.usefixtures("no_leaked_fds")

OP_ALLOW_CLIENT_RENEGOTIATION = 0x100    # OpenSSL's; the module ssl has no name for it
VERSION_OPTION = {ssl.TLSVersion.TLSv1_2: "-tls1_2", ssl.TLSVersion.TLSv1_3: "-tls1_3"}
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(not NGINX, reason="no nginx here")
needs_aiohttp = pytest.mark.skipif(not importlib.util.find_spec("aiohttp"), reason="no aiohttp for this Python")


# ---- programs

# AddressSanitizer, preloaded for our own extension modules, is nothing for a foreign program: curl locks up in its
# first setlocale() with it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


class Program:
    """A process. What one say() says, it gets with one read; hear() gives what it writes."""

    def __init__(self, *command, **kwargs):
        self.loop = asyncio.get_running_loop()
        self.stdin, stdin = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.stdout, stdout = socket.socketpair()
        self.stdin.setblocking(False)
        self.stdout.setblocking(False)
        self.output = b""
        with stdin, stdout:
            self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stdout, env=ENVIRONMENT,
                                            **kwargs)

    async def say(self, data):
        await self.loop.sock_sendall(self.stdin, data)

    async def hear(self, text):
        """Waits until it has written `text`; what it wrote before and with it."""
        while text not in self.output:
            data = await self.loop.sock_recv(self.stdout, 65536)
            assert data, self.output
            self.output += data
        head, _, self.output = self.output.partition(text)
        return head + text

    async def rest(self):
        """What it writes until it ends."""
        self.stdin.close()
        while data := await self.loop.sock_recv(self.stdout, 65536):
            self.output += data
        return self.output

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        self.stdin.close()
        self.stdout.close()
        self.process.kill()
        await self.loop.run_in_executor(None, self.process.wait)


def s_client(tls, listener, *options, version=None):
    return Program("openssl", "s_client", "-connect", "{}:{}".format(*listener.sockets[0].getsockname()),
                   "-CAfile", tls.folder / "ca.pem", "-servername", "localhost", "-verify_hostname", "localhost",
                   "-verify_return_error", *options, *[VERSION_OPTION[version]] if version else [])


@contextlib.asynccontextmanager
async def s_server(tls, *options, version=None, cwd=None):
    """(program, address)"""
    async with Program("openssl", "s_server", "-accept", f"{tls.HOST}:0", "-cert", tls.folder / "localhost.pem",
                       "-key", tls.folder / "localhost.key", *options,
                       *[VERSION_OPTION[version]] if version else [], cwd=cwd) as program:
        await program.hear(b"ACCEPT " + tls.HOST.encode() + b":")
        port = int((await program.hear(b"\n")).strip())
        yield program, (tls.HOST, port)


async def client_of(tls, address, factory=None, version=None):
    _, protocol = await asyncio.get_running_loop().create_connection(
        factory or tls.Recorder, *address, ssl=tls.client_context(version), server_hostname="localhost")
    return protocol


# ---- openssl s_client

def test_s_client(run, tls, version):
    async def main():
        listener, protocols = await tls.serve()
        async with s_client(tls, listener, "-quiet", "-no_ign_eof", version=version) as client:
            for line in (b"hello\n", b"x" * 5000 + b"\n"):
                await client.say(line)
                assert (await client.hear(line)).endswith(line)
            client.stdin.close()
            assert await protocols[0].lost is None
            assert protocols[0].events == ["made", "eof", ("lost", None)]
            assert protocols[0].transport.get_extra_info("ssl_object").version() \
                == {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}[VERSION_OPTION[version]]
        listener.close()

    run(main)
    assert not run.reports


def test_s_client_is_closed(run, tls, version):
    """It takes our end for a clean one."""
    async def main():
        listener, protocols = await tls.serve(tls.Recorder)
        async with s_client(tls, listener, version=version) as client:
            await client.say(b"hello\n")
            await client.hear(b"Verify return code: 0 (ok)")
            while not (protocols and protocols[0].data):
                await asyncio.sleep(0.001)
            protocols[0].transport.write(b"goodbye\n")
            protocols[0].transport.close()
            await client.hear(b"goodbye\n")
            assert b"closed" in await client.rest()
            assert client.process.wait() == 0
        assert await protocols[0].lost is None
        listener.close()

    run(main)
    assert not run.reports


def test_s_client_sends_much(run, tls, tmp_path, version):
    content = bytes(range(256)) * 20_000

    async def main():
        class Hashes(tls.Recorder):
            got = 0

            def connection_made(self, transport):
                super().connection_made(transport)
                self.hash = hashlib.blake2b(digest_size=16)

            def data_received(self, data):
                self.hash.update(data)
                self.got += len(data)
                if self.got == len(content):
                    self.transport.write(self.hash.hexdigest().encode() + b"\n")

        listener, protocols = await tls.serve(Hashes)
        async with s_client(tls, listener, "-quiet", "-no_ign_eof", version=version) as client:
            for start in range(0, len(content), 8000):
                await client.say(content[start:start + 8000])
            await client.hear(hashlib.blake2b(content, digest_size=16).hexdigest().encode())
        await protocols[0].lost
        listener.close()

    run(main)
    assert not run.reports


def test_s_client_updates_keys(run, tls):
    """TLS 1.3: k changes one key, K both. Data in between, and many in a row."""
    async def main():
        listener, protocols = await tls.serve()
        async with s_client(tls, listener, version=ssl.TLSVersion.TLSv1_3) as client:
            for number in range(20):
                await client.say(b"K\n" if number % 2 else b"k\n")
                await client.hear(b"KEYUPDATE\n")
                await client.say(b"line %d\n" % number)
                await client.hear(b"line %d\n" % number)
            for _ in range(200):
                await client.say(b"K\n")
            await client.say(b"after the storm\n")
            await client.hear(b"after the storm\n")
        await protocols[0].lost
        listener.close()

    run(main)
    assert not run.reports


def test_s_client_renegotiates(run, tls):
    """TLS 1.2, with a context that lets clients do it: data in between, and a storm."""
    async def main():
        context = tls.server_context(version=ssl.TLSVersion.TLSv1_2)
        context.options = (context.options | OP_ALLOW_CLIENT_RENEGOTIATION) & ~ssl.OP_NO_RENEGOTIATION
        listener, protocols = await tls.serve(context=context)
        async with s_client(tls, listener) as client:
            for number in range(10):
                await client.say(b"R\n")
                await client.hear(b"RENEGOTIATING\n")
                await client.say(b"line %d\n" % number)
                await client.hear(b"line %d\n" % number)
        await protocols[0].lost
        listener.close()

    run(main)
    assert not run.reports


def test_s_client_may_not_renegotiate(same, tls):
    """By default no client can keep a server busy with handshakes."""
    async def main():
        listener, protocols = await tls.serve(context=tls.server_context(version=ssl.TLSVersion.TLSv1_2))
        async with s_client(tls, listener) as client:
            await client.say(b"line\n")
            await client.hear(b"line\n")
            for _ in range(20):
                with contextlib.suppress(OSError):
                    await client.say(b"R\n")
            await client.rest()
        await protocols[0].lost
        after = await tls.connect(listener)
        await tls.finish(after)
        listener.close()
        return protocols[0].events

    events, reports = same(main)
    assert not reports and events[-1][0] == "lost"


def test_s_client_resumes_its_session(run, tls, tmp_path, version):
    async def main():
        listener, protocols = await tls.serve(context=tls.server_context(version=version))
        for options in (["-sess_out", tmp_path / "session"], ["-sess_in", tmp_path / "session"]):
            async with s_client(tls, listener, *options) as client:
                await client.say(b"line\n")
                await client.hear(b"line\n")
                await client.rest()
            await protocols[-1].lost
        reused = [protocol.transport.get_extra_info("ssl_object").session_reused for protocol in protocols]
        assert reused == [False, True]
        listener.close()

    run(main)
    assert not run.reports


def test_s_client_with_certificate_and_alpn(run, tls, version):
    async def main():
        context = tls.server_context(version=version, client_certificate=True)
        context.set_alpn_protocols(["h2", "http/1.1"])
        listener, protocols = await tls.serve(context=context)
        async with s_client(tls, listener, "-cert", tls.folder / "client.pem", "-key", tls.folder / "client.key",
                            "-alpn", "http/1.1") as client:
            await client.say(b"line\n")
            await client.hear(b"line\n")
            info = protocols[0].transport.get_extra_info
            assert info("peercert")["subject"] == ((("commonName", "A client"),),)
            assert info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await protocols[0].lost
        listener.close()

    run(main)
    assert not run.reports


def test_s_client_without_our_certificate_authority(run, tls):
    """It goes in the middle of the handshake, with an alert."""
    async def main():
        listener, protocols = await tls.serve(context=tls.server_context("stray"))
        async with s_client(tls, listener) as client:
            assert b"verify error" in await client.rest()
        assert protocols[0].events in ([], ["made"]) or protocols[0].events[0] == "made"
        after = await tls.connect(listener, context=tls.client_context(authority="stray"))
        await tls.finish(after)
        listener.close()

    run(main)
    assert not run.reports


# ---- openssl s_server

def test_s_server(run, tls, version):
    async def main():
        async with s_server(tls, "-rev", version=version) as (_, address):
            protocol = await client_of(tls, address)
            for line in (b"hello\n", b"0123456789" * 1000 + b"\n"):
                protocol.transport.write(line)
                assert await protocol.received(len(line)) == line[-2::-1] + b"\n"
            await tls.finish(protocol)

    run(main)
    assert not run.reports


@pytest.mark.parametrize("how, version", [(b"r\n", "1.2"), (b"R\n", "1.2"), (b"k\n", "1.3"), (b"K\n", "1.3")],
                         ids=["renegotiation", "renegotiation with certificate", "key update", "both keys updated"])
def test_s_server_changes_keys(same, tls, how, version):
    """Between data of both sides, then twenty times in a row."""
    async def main():
        version_ = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        async with s_server(tls, version=version_) as (server, address):
            protocol = await client_of(tls, address)
            await server.hear(b"-----BEGIN SSL SESSION PARAMETERS-----")
            for number in range(5):
                await server.say(how)
                await server.say(b"line %d\n" % number)
                await protocol.until(lambda: protocol.data.endswith(b"line %d\n" % number)  # noqa: B023
                                     or protocol.lost.done())
                if protocol.lost.done():
                    break
                protocol.transport.write(b"answer %d\n" % number)
                await server.hear(b"answer %d\n" % number)
            else:
                for _ in range(20):
                    await server.say(how)
                await server.say(b"last\n")
                await protocol.until(lambda: protocol.data.endswith(b"last\n") or protocol.lost.done())
                protocol.transport.close()
            exc = await protocol.lost
            # A close() in the middle of a renegotiation is no clean one.
            assert exc is None or version == "1.2" and exc.reason == "SHUTDOWN_WHILE_IN_INIT"
        return [event for event in protocol.events[:-1] if event != "eof"], bytes(protocol.data)

    (events, data), reports = same(main)
    assert not reports and events == ["made", "data"] and data.endswith(b"last\n")


def test_s_server_asks_for_a_certificate_later(run, tls):
    """TLS 1.3: post-handshake authentication."""
    async def main():
        async with s_server(tls, "-Verify", "1", "-CAfile", tls.folder / "ca.pem",
                            version=ssl.TLSVersion.TLSv1_3) as (server, address):
            context = tls.client_context(certificate="client")
            context.post_handshake_auth = True
            _, protocol = await asyncio.get_running_loop().create_connection(
                tls.Recorder, *address, ssl=context, server_hostname="localhost")
            await server.hear(b"A client")
            await server.say(b"c\n")
            await server.say(b"line\n")
            assert await protocol.received(5) == b"line\n"
            protocol.transport.write(b"answer\n")
            await server.hear(b"answer\n")
            await tls.finish(protocol)

    run(main)
    assert not run.reports


def test_s_server_sends_plain_text(same, tls, version):
    """P: a few bytes past TLS. Ours ends as asyncio's."""
    async def main():
        async with s_server(tls, version=version) as (server, address):
            protocol = await client_of(tls, address)
            await server.hear(b"-----BEGIN SSL SESSION PARAMETERS-----")
            await server.say(b"line\n")
            assert await protocol.received(5) == b"line\n"
            await server.say(b"P\n")
            await protocol.lost
        return protocol.events

    events, reports = same(main)
    assert not reports and events[-1][1][0] == "SSLError"


@pytest.mark.parametrize("how", [b"q\n", b"Q\n"])
def test_s_server_ends(run, tls, version, how):
    async def main():
        async with s_server(tls, version=version) as (server, address):
            protocol = await client_of(tls, address)
            await server.hear(b"-----BEGIN SSL SESSION PARAMETERS-----")
            await server.say(b"line\n")
            assert await protocol.received(5) == b"line\n"
            await server.say(how)
            assert await protocol.lost is None
            assert protocol.events == ["made", "data", "eof", ("lost", None)]

    run(main)
    assert not run.reports


def test_s_server_is_killed(run, tls):
    async def main():
        async with s_server(tls) as (server, address):
            protocol = await client_of(tls, address)
            server.process.kill()
            exc = await protocol.lost
            assert exc is None or isinstance(exc, ConnectionResetError)

    run(main)
    assert not run.reports


def test_s_server_serves_a_file(run, tls, tmp_path, version):
    content = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(content)

    async def main():
        async with s_server(tls, "-WWW", "-http_server_binmode", version=version, cwd=tmp_path) as (_, address):
            reader, writer = await asyncio.open_connection(*address, ssl=tls.client_context(),
                                                           server_hostname="localhost")
            writer.write(b"GET /file HTTP/1.0\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert b"200 ok" in head and body == content
            writer.close()
            await writer.wait_closed()

    run(main)
    assert not run.reports


# ---- HTTP

class Http:
    """A little HTTP/1.1: GET /N has N bytes, what is posted comes back."""

    def __init__(self, tls):
        self.tls, self.connections = tls, []

    async def handle(self, reader, writer):
        self.connections.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split()
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                if headers.get("expect"):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                answer = body if method in ("POST", "PUT") else b"x" * int(path.strip("/"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.handle, self.tls.HOST, 0, ssl=self.tls.server_context())
        self.url = f"https://localhost:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info):
        self.server.close()
        await asyncio.gather(*self.connections)
        await self.server.wait_closed()


async def curl(tls, *arguments):
    """(exit status, what it wrote)"""
    async with Program("curl", "-sS", "--noproxy", "*", "--max-time", "50", "--cacert", tls.folder / "ca.pem",
                       "--connect-to", f"::{tls.HOST}:", *arguments) as program:
        output = await program.rest()
        return await asyncio.get_running_loop().run_in_executor(None, program.process.wait), output


@needs_curl
@pytest.mark.parametrize("option", ["--tls-max 1.2", "--tlsv1.3"])
def test_curl(run, tls, tmp_path, option):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 4000)

    async def main():
        async with Http(tls) as http:
            version = option.split()
            assert await curl(tls, *version, http.url + "/1000") == (0, b"x" * 1000)
            assert len(http.connections) == 1
            # One connection for all of them.
            urls = [f"{http.url}/{size}" for size in (1, 20, 300_000)]
            assert await curl(tls, *version, *urls) == (0, b"x" * 300_021)
            assert len(http.connections) == 2
            assert await curl(tls, *version, "-T", tmp_path / "file", http.url + "/") \
                == (0, bytes(range(256)) * 4000)

    run(main)
    assert not run.reports


@needs_curl
def test_curl_refuses(run, tls):
    """Another name than the certificate has: status 60, and the server goes on."""
    async def main():
        async with Http(tls) as http:
            port = http.url.rpartition(":")[2]
            status, _ = await curl(tls, f"https://wrong.example:{port}/5")
            assert status == 60
            status, output = await curl(tls, f"http://localhost:{port}/5")      # plain HTTP
            assert status in (52, 56)
            assert await curl(tls, http.url + "/5") == (0, b"x" * 5)

    run(main)
    assert not run.reports


@needs_curl
@needs_aiohttp
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curl_and_aiohttp(run, tls, tmp_path):
    """aiohttp's server, with curl and with its own client."""
    import aiohttp
    from aiohttp import web

    (tmp_path / "file").write_bytes(bytes(range(256)) * 4000)

    async def echo(request):
        return web.Response(body=await request.read())

    async def numbered(request):
        return web.Response(body=b"x" * int(request.match_info["size"]))

    async def main():
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.get("/{size}", numbered), web.put("/{name}", echo), web.static("/static", tmp_path)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, tls.HOST, 0, ssl_context=tls.server_context())
        await site.start()
        url = f"https://localhost:{runner.addresses[0][1]}"
        content = (tmp_path / "file").read_bytes()
        assert await curl(tls, url + "/1000", url + "/500000") == (0, b"x" * 501_000)
        assert await curl(tls, "-T", tmp_path / "file", url + "/") == (0, content)
        assert await curl(tls, url + "/static/file") == (0, content)        # sendfile over TLS
        connector = aiohttp.TCPConnector(ssl=tls.client_context(), family=socket.AF_INET)
        async with aiohttp.ClientSession(connector=connector) as session:
            async def get(size):
                async with session.get(f"{url}/{size}") as response:
                    return await response.read()

            assert await asyncio.gather(*[get(size) for size in range(1, 40_000, 1000)]) \
                == [b"x" * size for size in range(1, 40_000, 1000)]
            async with session.put(url + "/file", data=content) as response:
                assert await response.read() == content
        await runner.cleanup()

    run(main)
    assert not run.reports


# ---- nginx

CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 100; }}
http {{
    access_log off;
    client_max_body_size 100m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""


@contextlib.asynccontextmanager
async def nginx(folder, servers):
    """nginx, once it listens on the socket {folder}/socket. The folder's path has to fit into a socket's address."""
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, servers=servers))
    async with Program(NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr") as program:
        with socket.socket(socket.AF_UNIX) as sock:
            while sock.connect_ex(f"{folder}/socket"):
                assert program.process.poll() is None, await program.rest()
                await asyncio.sleep(0.01)
        yield program


async def request(reader, writer, method, path, body=b""):
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(int(length.partition(b":")[2]))


@needs_nginx
@pytest.mark.parametrize("protocols", ["TLSv1.2", "TLSv1.3"])
def test_nginx_is_the_client(run, tls, tmp_path, protocols):
    """proxy_pass to a server of ours, whose certificate nginx checks; connections kept and sessions resumed."""
    async def main():
        async with Http(tls) as http:
            address = http.url.replace("https://localhost", tls.HOST)
            servers = f"""
                upstream ours {{ server {address}; keepalive 4; }}
                server {{
                    listen unix:{tmp_path}/socket;
                    location / {{
                        proxy_pass https://ours;
                        proxy_http_version 1.1;
                        proxy_set_header Connection "";
                        proxy_ssl_protocols {protocols};
                        proxy_ssl_verify on;
                        proxy_ssl_trusted_certificate {tls.folder}/ca.pem;
                        proxy_ssl_server_name on;
                        proxy_ssl_name localhost;
                        proxy_ssl_session_reuse on;
                    }}
                }}"""
            async with nginx(tmp_path, servers):
                reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/socket")
                for size in (1, 1000, 3_000_000):
                    assert await request(reader, writer, "GET", f"/{size}") == b"x" * size
                body = bytes(range(256)) * 8000
                assert await request(reader, writer, "POST", "/", body) == body

                async def other(number):
                    reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/socket")
                    assert await request(reader, writer, "GET", f"/{number}") == b"x" * number
                    writer.close()
                    await writer.wait_closed()

                await asyncio.gather(*[other(number) for number in range(1, 40)])
                writer.close()
                await writer.wait_closed()

    run(main)
    assert not run.reports


@needs_nginx
@pytest.mark.parametrize("protocols", ["TLSv1.2", "TLSv1.3"])
def test_nginx_is_the_server(run, tls, tmp_path, protocols):
    """Files from nginx, many over one connection, and nginx's own end of it."""
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "small").write_bytes(b"small")
    servers = f"""
        server {{
            listen unix:{tmp_path}/socket ssl;
            ssl_certificate {tls.folder}/localhost.pem;
            ssl_certificate_key {tls.folder}/localhost.key;
            ssl_protocols {protocols};
            keepalive_requests 50;
            root {tmp_path};
        }}"""

    async def main():
        async with nginx(tmp_path, servers):
            async def download():
                reader, writer = await asyncio.open_unix_connection(
                    f"{tmp_path}/socket", ssl=tls.client_context(), server_hostname="localhost")
                assert await request(reader, writer, "GET", "/file") == content
                for _ in range(49):
                    assert await request(reader, writer, "GET", "/small") == b"small"
                assert await reader.read() == b""       # after keepalive_requests
                writer.close()
                with contextlib.suppress(ConnectionError):      # nginx has closed its socket, too
                    await writer.wait_closed()

            await download()
            await asyncio.gather(*[download() for _ in range(3)])

    run(main)
    assert not run.reports
