"""Datagram endpoints: what happens once for each of them."""
import socket
import sys
from asyncio import trsock

from pyconc import _core


def _name_of(get_name):
    try:
        return get_name()
    except OSError:
        return None


class Datagrams:
    """The part of pyconc.Loop that makes datagram transports."""

    def _make_datagram_transport(self, sock, protocol, address=None, waiter=None, extra=None, *,
                                 context=None):
        self._ensure_fd_no_transport(sock)
        extra = {} if extra is None else extra
        extra["socket"] = trsock.TransportSocket(sock)
        extra["sockname"] = _name_of(sock.getsockname)
        if "peername" not in extra:
            extra["peername"] = _name_of(sock.getpeername)
        return _core.DatagramTransport(self, sock, protocol, address, waiter, extra, context)

    if sys.version_info < (3, 13):
        async def create_datagram_endpoint(self, protocol_factory, local_addr=None, remote_addr=None, *,
                                           family=0, proto=0, flags=0, reuse_port=None,
                                           allow_broadcast=None, sock=None):
            """Open a datagram endpoint: its transport and the protocol that protocol_factory() made.

            local_addr is bound to and remote_addr connected to: (host, port), or a path with family=AF_UNIX. proto
            and flags are getaddrinfo()'s; reuse_port and allow_broadcast set the socket options. sock is a socket to
            use instead of all these, of any type but SOCK_STREAM (before Python 3.13 asyncio takes SOCK_DGRAM alone).
            Raises OSError when the socket can't be made, ValueError for arguments that don't go together.
            Source: asyncio.loop.create_datagram_endpoint
            """
            if sock is None or sock.type in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                return await super().create_datagram_endpoint(
                    protocol_factory, local_addr, remote_addr, family=family, proto=proto, flags=flags,
                    reuse_port=reuse_port, allow_broadcast=allow_broadcast, sock=sock)
            given = {"local_addr": local_addr, "remote_addr": remote_addr, "family": family, "proto": proto,
                     "flags": flags, "reuse_port": reuse_port, "allow_broadcast": allow_broadcast}
            if any(given.values()):
                problems = ", ".join(f"{name}={value}" for name, value in given.items() if value)
                raise ValueError("socket modifier keyword arguments can not be used when sock is specified. "
                                 f"({problems})")
            sock.setblocking(False)
            return await self._open_datagram_endpoint(protocol_factory(), sock)

        async def _open_datagram_endpoint(self, protocol, sock):
            waiter = self.create_future()
            transport = self._make_datagram_transport(sock, protocol, None, waiter)
            try:
                await waiter
            except BaseException:
                transport.close()
                raise
            return transport, protocol
