# SPDX-License-Identifier: MIT
"""Connecting: the loop's create_connection() and create_unix_connection()."""
import asyncio
import errno
import os
import socket
from asyncio.base_events import _check_ssl_socket, _interleave_addrinfos
from asyncio.log import logger

UNDERWAY = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR)
NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)


def server_name(name, ssl, host, handshake, shutdown):
    """The host name that the certificate has to be for: None without TLS, '' for no check."""
    if ssl:
        if name is None and not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        return host if name is None else name
    if name is not None:
        raise ValueError(f"server_hostname is only meaningful with ssl, got {name!r}")
    if handshake is not None:
        raise ValueError(f"ssl_handshake_timeout is only meaningful with ssl, got {handshake!r}")
    if shutdown is not None:
        raise ValueError(f"ssl_shutdown_timeout is only meaningful with ssl, got {shutdown!r}")
    return None


def literal(host, port, family, proto):
    """The one stream address behind a plain numeric host and port number, without asking libc; else None."""
    if type(host) is not str or type(port) is not int or proto not in (0, socket.IPPROTO_TCP):
        return None
    wanted = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family not in (wanted, socket.AF_UNSPEC) or not host[:1].isdecimal() and wanted == socket.AF_INET:
        return None
    try:
        socket.inet_pton(wanted, host)
    except (OSError, ValueError):
        return None
    address = (host, port) if wanted == socket.AF_INET else (host, port, 0, 0)
    return wanted, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address


def bind_to_one(sock, infos, errors):
    """Binds to the first local address of the socket's family that can be had; `errors` gets the others'."""
    family = sock.family
    for info in infos:
        if info[0] != family:
            continue
        try:
            return sock.bind(info[4])
        except OSError as error:
            errors.append(OSError(error.errno, "error while attempting to bind on "
                                  f"address {info[4]!r}: {str(error).lower()}"))
    if errors:
        raise errors.pop()
    raise OSError(f"no matching local address with {family=} found")


def failure(errors, all_errors):
    """One exception for all that went wrong with the addresses of a host."""
    if all_errors:
        return ExceptionGroup("create_connection failed", errors)
    if not errors:
        return TimeoutError("create_connection failed")
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    return OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")


class Connections:
    """The part of the loop that connects; mixed into pyconc.Loop."""

    async def create_connection(
            self, protocol_factory, host=None, port=None,
            *, ssl=None, family=0, proto=0, flags=0, sock=None, local_addr=None, server_hostname=None,
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None,
            happy_eyeballs_delay=None, interleave=None, all_errors=False):
        """Connects to a TCP server; gives (transport, protocol).

        `protocol_factory` makes the protocol. Either `host` and `port`, looked up with `family`, `proto` and
        `flags` as in socket.getaddrinfo(), or `sock`, a connected stream socket. `local_addr` is the (host,
        port) to connect from. Of several addresses each is tried after the one before has failed or, with
        `happy_eyeballs_delay` (seconds), has not answered for so long; `interleave` mixes the families, the first
        so many being of the first family. `ssl` is True or an ssl.SSLContext, `server_hostname` whom the
        certificate is for, the two timeouts are in seconds. With `all_errors` what is raised when no
        address answers is an ExceptionGroup of everything that went wrong.

        Raises OSError when it can't connect, ValueError and TypeError for arguments that don't go together.
        Like asyncio's loop.create_connection(), with the newest Python's arguments on every Python.
        """
        self._check_closed()
        server_hostname = server_name(server_hostname, ssl, host, ssl_handshake_timeout, ssl_shutdown_timeout)
        if sock is not None:
            _check_ssl_socket(sock)
        if host is not None or port is not None:
            if sock is not None:
                raise ValueError("host/port and sock can not be specified at the same time, "
                                 f"got {host!r}, {port!r} and {sock!r}")
            info = literal(host, port, family, proto)
            infos = [info] if info is not None else await self._addresses((host, port), family, proto, flags)
            local = None if local_addr is None else await self._addresses(local_addr, family, proto, flags)
            if interleave is None and happy_eyeballs_delay is not None:
                interleave = 1
            if interleave:
                infos = _interleave_addrinfos(infos, interleave)
            if len(infos) == 1 and local is None and not all_errors:
                sock = await self._connect_sock([], infos[0])
            else:
                sock = await self._connect_any(infos, local, happy_eyeballs_delay, all_errors)
        elif sock is None:
            raise ValueError("host and port was not specified and no sock specified")
        elif sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        made = await self._create_connection_transport(
            sock, protocol_factory, ssl, server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)
        if self.get_debug():
            logger.debug("%r connected to %s:%r: %r", made[0].get_extra_info("socket"), host, port, made)
        return made

    async def create_unix_connection(
            self, protocol_factory, path=None, *, ssl=None, sock=None, server_hostname=None,
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None):
        """Connects to a Unix socket; gives (transport, protocol).

        Either `path` (str, bytes or path-like; a leading NUL names an abstract one) or `sock`, a connected Unix
        stream socket. The others are as in create_connection(). Raises OSError when it can't connect,
        ValueError for arguments that don't go together. Like asyncio's loop.create_unix_connection().
        """
        if ssl and server_hostname is None:
            raise ValueError("you have to pass server_hostname when using ssl")
        server_hostname = server_name(server_hostname, ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError(f"path and sock can not be specified at the same time, got {path!r} and {sock!r}")
            info = socket.AF_UNIX, socket.SOCK_STREAM, 0, "", os.fspath(path)
            sock = await self._connect_sock([], info)
        elif sock is None:
            raise ValueError("no path and sock were specified")
        elif sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")
        return await self._create_connection_transport(
            sock, protocol_factory, ssl, server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)

    async def _addresses(self, address, family, proto, flags):
        infos = await self._ensure_resolved(address, family=family, type=socket.SOCK_STREAM, proto=proto,
                                            flags=flags, loop=self)
        if not infos:
            raise OSError(f"getaddrinfo() returned empty list for {address!r}")
        return infos

    async def _connect_any(self, infos, local, delay, all_errors):
        """A socket connected to one of the addresses; tried in turn, or `delay` seconds apart."""
        errors: list[list[OSError]] = []
        try:
            if delay is not None:
                sock = await self._race(infos, local, delay, errors)
                if sock is not None:
                    return sock
            else:
                for info in infos:
                    try:
                        return await self._connect_sock(errors, info, local)
                    except OSError:
                        continue
            raise failure([error for some in errors for error in some], all_errors)
        finally:
            del errors  # their tracebacks hold this frame

    async def _race(self, infos, local, delay, errors):
        """The first socket that connects, or None: an attempt starts when one has failed or after `delay`."""
        todo, running, winner = list(reversed(infos)), set(), None
        try:
            while winner is None and (todo or running):
                if todo:
                    running.add(self.create_task(self._connect_sock(errors, todo.pop(), local)))
                done, running = await asyncio.wait(running, timeout=delay if todo else None,
                                                   return_when=asyncio.FIRST_COMPLETED)
                winner = keep_first(done)
            return winner
        finally:
            try:
                await end_attempts(running)
            except BaseException:
                if winner is not None:
                    winner.close()
                raise

    async def _connect_sock(self, exceptions, addr_info, local_addr_infos=None):
        """A socket connected to the address; OSErrors go, as a list, into `exceptions`, too."""
        family, kind, proto, _, address = addr_info
        sock, errors = None, []
        exceptions.append(errors)
        try:
            sock = socket.socket(family, kind | NONBLOCK, proto)
            if not NONBLOCK:
                sock.setblocking(False)
            if local_addr_infos is not None:
                bind_to_one(sock, local_addr_infos, errors)
            await self._connect(sock, address)
            return sock
        except BaseException as error:
            if isinstance(error, OSError):
                errors.append(error)
            if sock is not None:
                sock.close()
            raise
        finally:
            del exceptions, errors  # their tracebacks hold this frame

    async def _connect(self, sock, address):
        try:
            code = sock.connect_ex(address)
        except OverflowError as error:  # of the port, or of a part that IPv6 has
            said = str(error).replace("connect_ex", "connect").rstrip(".")
            raise OverflowError(f"{said}, not {address!r}") from None
        if code == errno.EINPROGRESS:
            # To an address of this machine it is done by now: asking again saves the watching of the socket.
            code = sock.connect_ex(address)
            if code and code not in UNDERWAY and code != errno.EISCONN:
                raise OSError(code, f"Connect call failed {address}")
        if code in UNDERWAY:
            await self.sock_connect(sock, address)
        elif code and code != errno.EISCONN:
            raise OSError(code, os.strerror(code), *([address] if sock.family == socket.AF_UNIX else []))
        else:
            self._poll_next()   # a server of this loop sees the connection no later than if we had waited for it

    async def _create_connection_transport(
            self, sock, protocol_factory, ssl, server_hostname, server_side=False,
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None, context=None):
        """(transport, protocol) over a connected socket, once connection_made() has been called."""
        try:
            if sock.gettimeout() != 0:
                sock.setblocking(False)
            protocol = protocol_factory()
            waiter = self.create_future()
            more = {} if context is None else {"context": context}
            if ssl:
                transport = self._make_ssl_transport(
                    sock, protocol, None if isinstance(ssl, bool) else ssl, waiter,
                    server_side=server_side, server_hostname=server_hostname,
                    ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout, **more)
            else:
                transport = self._make_socket_transport(sock, protocol, waiter, **more)
        except BaseException:
            sock.close()    # no transport does it
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        finally:
            waiter = None   # its exception's traceback holds this frame
        return transport, protocol


def keep_first(attempts):
    """The socket of one that connected, the others' closed; None when none did."""
    socks, bad = [], None
    for attempt in attempts:
        if not attempt.cancelled():
            error = attempt.exception()
            if error is None:
                socks.append(attempt.result())
            elif not isinstance(error, OSError):
                bad = error
    for sock in socks if bad is not None else socks[1:]:
        sock.close()
    if bad is not None:
        raise bad
    return socks[0] if socks else None


async def end_attempts(attempts):
    """Cancels what still runs and waits until it has closed its sockets."""
    for attempt in attempts:
        attempt.cancel()
    if attempts:
        await asyncio.wait(attempts)
        late = keep_first(attempts)
        if late is not None:
            late.close()
