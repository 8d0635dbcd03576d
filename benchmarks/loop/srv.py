# SPDX-License-Identifier: MIT
"""The server under test:  python srv.py LOOP MODE [ARG]   prints "READY <port or path>".

MODE: proto buffered stream read exact line sock chunks lines unix udp tls tls_stream
      httptools empty.   ARG: cert.pem (tls*), a path (unix), bytes (exact).
Runs until killed."""
import asyncio
import contextlib
import socket
import sys

from loopspec import new_loop

BUF = 1 << 18


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport
        self.view = memoryview(bytearray(BUF))

    def get_buffer(self, hint):
        return self.view

    def buffer_updated(self, n):
        self.transport.write(self.view[:n])


class Chunks(Echo):
    """Many small writes for one read: does the loop coalesce them?"""
    def data_received(self, data):
        write = self.transport.write
        for _ in range(64):
            write(data)


class Lines(Echo):
    def data_received(self, data):
        self.transport.writelines([data] * 64)


class Udp(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


def stream_handler(mode, arg):
    async def handler(r, w):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                if mode == "exact":
                    data = await r.readexactly(int(arg))
                elif mode == "line":
                    data = await r.readline()
                else:
                    data = await r.read(BUF)
                if not data:
                    break
                w.write(data)
                await w.drain()
        w.close()
    return handler


class Http(asyncio.Protocol):
    """The smallest keep-alive server on httptools."""
    RESP = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!"

    def connection_made(self, transport):
        import httptools
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_url(self, url):
        pass

    def on_message_complete(self):
        self.transport.write(self.RESP)


def listener():
    # proto given: without it asyncio does not set TCP_NODELAY on what it accepts (uvloop does)
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    s.bind(("127.0.0.1", 0))
    s.listen(4096)
    s.setblocking(False)
    return s


def ready(x):
    print("READY", x, flush=True)


async def sock_server(loop):
    s = listener()
    ready(s.getsockname()[1])

    async def client(c):
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with c:
            while data := await loop.sock_recv(c, BUF):
                await loop.sock_sendall(c, data)
    tasks = set()
    while True:
        c, _ = await loop.sock_accept(s)
        c.setblocking(False)
        t = loop.create_task(client(c))
        tasks.add(t)
        t.add_done_callback(tasks.discard)


def server_tls(certificate):
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate)
    return context


PROTOCOLS = {"proto": Echo, "tls": Echo, "unix": Echo, "buffered": BufferedEcho, "chunks": Chunks, "lines": Lines,
             "httptools": Http}


async def serve(loop, mode, arg):
    tls = server_tls(arg) if mode.startswith("tls") else None
    if mode == "sock":
        await sock_server(loop)
    elif mode == "udp":
        transport, _ = await loop.create_datagram_endpoint(Udp, ("127.0.0.1", 0))
        ready(transport.get_extra_info("sockname")[1])
    elif mode == "empty":
        ready(0)
    elif mode == "unix":
        server = await loop.create_unix_server(Echo, arg, backlog=4096)
        ready(arg)
    else:
        if mode in PROTOCOLS:
            server = await loop.create_server(PROTOCOLS[mode], "127.0.0.1", 0, backlog=4096, ssl=tls)
        else:
            server = await asyncio.start_server(stream_handler(mode, arg), "127.0.0.1", 0, backlog=4096, ssl=tls)
        ready(server.sockets[0].getsockname()[1])
    await loop.create_future()


def main(name, mode, arg=None):
    loop = new_loop(name)
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(loop, mode, arg))


if __name__ == "__main__":
    main(*sys.argv[1:])
