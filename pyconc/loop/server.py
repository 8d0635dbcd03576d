"""Listening sockets and their servers, TCP and Unix."""
import asyncio
import contextvars
import errno
import itertools
import os
import socket
import stat
import threading
from asyncio import base_events, constants, trsock
from asyncio.log import logger
from collections.abc import Iterable

from pyconc import _core

__all__ = ["Server", "Servers"]


class Server(base_events.Server):
    """What create_server() and create_unix_server() return.

    Source: asyncio.Server
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._clients = _core.Clients()

    # How Python 3.11 and 3.12 count.
    @property
    def _active_count(self):
        return len(self._clients)

    @_active_count.setter
    def _active_count(self, value):
        pass

    def _attach(self, transport):
        self._clients.add(transport)

    def _detach(self, transport):
        self._clients.discard(transport)

    def _wakeup(self):
        if self._waiters is None:
            return
        if self._loop._thread_id in (None, threading.get_ident()):
            super()._wakeup()
        else:   # the last connection was garbage, which ends in any thread
            self._loop.call_soon_threadsafe(self._wakeup)

    def close(self):
        """Stop listening; connections stay open, serve_forever() is cancelled.

        Source: asyncio.Server.close
        """
        self._clients.emptied = self._wakeup
        super().close()

    def close_clients(self):
        """Close all connections once what they have to send is sent.

        Source: asyncio.Server.close_clients
        """
        for transport in self._clients.copy():
            transport.close()

    def abort_clients(self):
        """Close all connections at once.

        Source: asyncio.Server.abort_clients
        """
        for transport in self._clients.copy():
            transport.abort()


def _check_ssl(ssl, handshake_timeout, shutdown_timeout):
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    if not ssl and handshake_timeout is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if not ssl and shutdown_timeout is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


def _remove_stale_socket(path):
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        # The directory may allow to create sockets only.
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, error)


def _is_abstract(path):
    return path[:1] in (b"\0", "\0")


def _unix_socket(path):
    """A socket bound to `path`."""
    path = os.fspath(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not _is_abstract(path):
            _remove_stale_socket(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _inode(sock):
    """The inode of the file that a Unix socket is bound to, or None."""
    path = sock.getsockname()
    try:
        return None if not path or _is_abstract(path) else os.stat(path).st_ino
    except FileNotFoundError:
        return None


class Servers:
    """The loop's methods for servers and accepted connections."""

    def __init__(self):
        self._listeners = {}        # socket: Listener
        self._socket_files = {}     # Unix socket: inode of its file

    # ---- connections

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None, context=None):
        self._ensure_fd_no_transport(sock)
        return _core.StreamTransport(self, sock, protocol, waiter, extra, server, context)

    async def connect_accepted_socket(self, protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None,
                                      ssl_shutdown_timeout=None):
        """Make a transport of a connection that was accepted elsewhere; returns (transport, protocol).

        `sock`: a connected stream socket, which the transport then owns. Timeouts are seconds and need `ssl`.
        Raises ValueError for another kind of socket. Source: asyncio.loop.connect_accepted_socket
        """
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        _check_ssl(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        base_events._check_ssl_socket(sock)
        return await self._create_connection_transport(
            sock, protocol_factory, ssl, "", server_side=True, ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout)

    # ---- servers

    async def create_server(self, protocol_factory, host=None, port=None, *, family=socket.AF_UNSPEC,
                            flags=socket.AI_PASSIVE, sock=None, backlog=100, ssl=None, reuse_address=None,
                            reuse_port=None, keep_alive=None, ssl_handshake_timeout=None,
                            ssl_shutdown_timeout=None, start_serving=True):
        """Listen on TCP addresses and return a Server.

        `host`: a name or address, several of them, or None or '' for all interfaces; `port`: 0 for any free
        one; or `sock`, a bound stream socket. `backlog`: connections the kernel queues. Timeouts are seconds
        and need `ssl`. Raises ValueError for arguments that exclude each other, OSError when no address can
        be bound. Source: asyncio.loop.create_server
        """
        _check_ssl(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if sock is not None:
            base_events._check_ssl_socket(sock)
        if host is not None or port is not None:
            if sock is not None:
                raise ValueError("host/port and sock can not be specified at the same time")
            infos = await self._server_addresses(host, port, family, flags)
            options = [name for name, on in [(socket.SO_REUSEADDR, reuse_address is None or reuse_address),
                                             (socket.SO_KEEPALIVE, keep_alive)] if on]
            sockets = self._bind_all(infos, options, reuse_port)
        elif sock is None:
            raise ValueError("Neither host/port nor sock were specified")
        elif sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        else:
            sockets = [sock]
        return await self._serve(sockets, protocol_factory, ssl, backlog, ssl_handshake_timeout,
                                 ssl_shutdown_timeout, start_serving)

    async def create_unix_server(self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None,
                                 ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True,
                                 cleanup_socket=True):
        """Listen on a Unix socket and return a Server.

        `path`: str, bytes or path-like, abstract with a leading NUL; or `sock`, a bound one. A stale socket
        file is replaced; `cleanup_socket` removes the file when the server closes. Timeouts are seconds and
        need `ssl`. Raises ValueError for arguments that exclude each other, OSError when it cannot be bound.
        Source: asyncio.loop.create_unix_server
        """
        _check_ssl(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = _unix_socket(path)
        elif sock is None:
            raise ValueError("path was not specified, and no sock specified")
        elif sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")
        inode = _inode(sock) if cleanup_socket else None
        if inode is not None:
            self._socket_files[sock] = inode
        return await self._serve([sock], protocol_factory, ssl, backlog, ssl_handshake_timeout,
                                 ssl_shutdown_timeout, start_serving)

    async def _serve(self, sockets, protocol_factory, ssl, backlog, handshake_timeout, shutdown_timeout, start):
        for sock in sockets:
            sock.setblocking(False)
        server = Server(self, sockets, protocol_factory, ssl, backlog, handshake_timeout, shutdown_timeout)
        if start:
            server._start_serving()
            await asyncio.sleep(0)
        if self._debug:
            logger.info("%r is serving", server)
        return server

    async def _server_addresses(self, host, port, family, flags):
        """What getaddrinfo() knows about the hosts, each address once and in order."""
        if host == "":
            hosts = [None]
        elif isinstance(host, str) or not isinstance(host, Iterable):
            hosts = [host]
        else:
            hosts = host
        infos = await asyncio.gather(*[
            self._create_server_getaddrinfo(host, port, family=family, flags=flags) for host in hosts])
        return list(dict.fromkeys(itertools.chain.from_iterable(infos)))

    def _bind_all(self, infos, options, reuse_port):
        """Sockets bound to the addresses that this machine has."""
        sockets = []
        try:
            for family, kind, proto, _, address in infos:
                try:
                    sock = socket.socket(family, kind, proto)
                except OSError:
                    if self._debug:
                        logger.warning("create_server() failed to create socket.socket(%r, %r, %r)",
                                       family, kind, proto, exc_info=True)
                    continue
                sockets.append(sock)
                if not self._bind(sock, address, options, reuse_port):
                    sockets.pop().close()
            if not sockets:
                raise OSError(f"could not bind on any address out of {[info[4] for info in infos]!r}")
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets

    def _bind(self, sock, address, options, reuse_port):
        """Whether `address` is one of this machine's."""
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, True)
        if reuse_port and sock.family in (socket.AF_INET, socket.AF_INET6):
            base_events._set_reuseport(sock)
        if sock.family == socket.AF_INET6:
            # One socket for each family.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
        try:
            sock.bind(address)
        except OSError as error:
            message = f"error while attempting to bind on address {address!r}: {str(error).lower()}"
            if error.errno != errno.EADDRNOTAVAIL:
                raise OSError(error.errno, message) from None
            if self._debug:
                logger.warning(message)
            return False
        return True

    # ---- what Server asks of its loop

    def _start_serving(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100,
                       ssl_handshake_timeout=constants.SSL_HANDSHAKE_TIMEOUT,
                       ssl_shutdown_timeout=constants.SSL_SHUTDOWN_TIMEOUT, context=None):
        slow = tls = None
        # In debug mode asyncio's way, which says what a handshake failed for.
        if not (server is None or isinstance(server, Server)) or sslcontext and self._debug:
            slow = (sslcontext, server, ssl_handshake_timeout, ssl_shutdown_timeout)
        elif sslcontext:
            tls = (sslcontext, ssl_handshake_timeout, ssl_shutdown_timeout)
        self._listeners[sock] = _core.Listener(self, sock, protocol_factory, server, backlog, slow, tls,
                                               context or contextvars.copy_context())

    def _stop_serving(self, sock):
        listener = self._listeners.pop(sock, None)
        if listener is not None:
            listener.close()
        inode = self._socket_files.pop(sock, None)
        path = sock.getsockname() if inode is not None else None
        sock.close()
        if inode is not None:
            try:
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.error("Unable to clean up listening UNIX socket %r: %r", path, error)

    # ---- what a Listener asks of its loop

    def _accept_slowly(self, listener, fd):
        """Connections of a server that is not ours, or with TLS in debug mode."""
        like = listener.sock
        conn = socket.socket(like.family, like.type, like.proto, fileno=fd)
        conn.setblocking(False)
        try:
            extra = {"peername": conn.getpeername()}
        except OSError:
            extra = {"peername": None}
        accept = self._accept_connection2(listener.factory, conn, extra, *listener.slow)
        listener.context.copy().run(self.create_task, accept)

    def _accept_failed(self, listener, error):
        """No descriptor or memory for another connection: none is accepted for a while."""
        self.call_exception_handler({
            "message": "socket.accept() out of system resource",
            "exception": error,
            "socket": trsock.TransportSocket(listener.sock),
        })
        listener.pause()
        self.call_later(constants.ACCEPT_RETRY_DELAY, self._accept_again, listener)

    def _accept_again(self, listener):
        if self._listeners.get(listener.sock) is listener:
            listener.resume()
