# SPDX-License-Identifier: MIT
"""Names to addresses and back: the loop's getaddrinfo() and getnameinfo().

Numeric addresses are answered in place. Names go to threads that do nothing else, so that a lookup never
waits for work given to the default executor, and such work never for a slow name server. The name "localhost",
which by RFC 6761 means this machine, is looked up once and then known until the system's files change.
"""
import _socket
import os
import socket

from pyconc.concurrent.futures import ThreadPoolExecutor

THREADS = 4
SYSTEM_FILES = "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf"
NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
NUMERIC_NAMES = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
# What socket.getaddrinfo() makes of the numbers, one by one and three times as slowly.
FAMILIES = {family.value: family for family in socket.AddressFamily}
KINDS = {kind.value: kind for kind in socket.SocketKind}
getaddrinfo_of_socket = socket.getaddrinfo


def lookup(host, port, family, type, proto, flags):
    """socket.getaddrinfo(), or what somebody has put in its place."""
    if socket.getaddrinfo is not getaddrinfo_of_socket:
        return socket.getaddrinfo(host, port, family, type, proto, flags)
    return [(FAMILIES.get(family, family), KINDS.get(type, type), proto, name, address)
            for family, type, proto, name, address in _socket.getaddrinfo(host, port, family, type, proto, flags)]


def looks_numeric(host):
    """Whether it is worth asking libc if `host` (str, bytes or None) is a number: it decides, this only guesses."""
    if host is None:
        return True
    if isinstance(host, str):
        return ":" in host or host[:1].isdecimal()
    if isinstance(host, (bytes, bytearray)):
        return b":" in host or host[:1].isdigit()
    return True     # of a wrong type: socket.getaddrinfo() says so


def system_files():
    """Changes when somebody changes what libc answers names of this machine from."""
    stamps: list[tuple | None] = []
    for name in SYSTEM_FILES:
        try:
            stat = os.stat(name)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
    return stamps


class Resolving:
    """The part of the loop that asks for names; mixed into pyconc.Loop."""

    def __init__(self):
        self._resolver = None           # the threads, made when the first name is looked up
        self._localhost = None, None    # what system_files() was, and the answers from then

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        """Addresses of a host and service, as socket.getaddrinfo() gives them.

        `host` is a name, a numeric address (an IPv6 one may end in %zone) or None; `port` a number, a service
        name or None; the others are what they are there. Only names use a thread. Raises socket.gaierror and
        whatever else socket.getaddrinfo() raises. Like asyncio's loop.getaddrinfo().
        """
        debug = self.get_debug()
        if looks_numeric(host):
            try:
                found = lookup(host, port, family, type, proto, flags | NUMERIC)
            except socket.gaierror as error:
                if error.errno != socket.EAI_NONAME:
                    raise
            else:
                # With nothing to look up, the answer to the question as it was asked is there at once, too.
                return self._getaddrinfo_debug(host, port, family, type, proto, flags) if debug else found
        query = host, port, family, type, proto, flags
        known = {} if debug or host != "localhost" else self._known_of_localhost(port, flags)
        if query in known:
            return known[query].copy()
        found = await self.run_in_executor(self._resolver or self._make_resolver(),
                                           self._getaddrinfo_debug if debug else lookup, *query)
        if len(known) < 100:
            known[query] = found.copy()
        return found

    def _known_of_localhost(self, port, flags):
        if (not isinstance(port, int) or flags & socket.AI_ADDRCONFIG   # depend on more than those files
                or socket.getaddrinfo is not getaddrinfo_of_socket):
            return {}
        now = system_files()
        if self._localhost[0] != now:
            self._localhost = now, {}
        return self._localhost[1]

    async def getnameinfo(self, sockaddr, flags=0):
        """(host, service) of a socket address, as socket.getnameinfo() gives them.

        No thread is used when `flags` has NI_NUMERICHOST and NI_NUMERICSERV. Raises socket.gaierror and whatever
        else socket.getnameinfo() raises. Like asyncio's loop.getnameinfo().
        """
        if flags & NUMERIC_NAMES == NUMERIC_NAMES:
            return socket.getnameinfo(sockaddr, flags)
        return await self.run_in_executor(self._resolver or self._make_resolver(), socket.getnameinfo, sockaddr, flags)

    def _make_resolver(self):
        self._resolver = ThreadPoolExecutor(THREADS, thread_name_prefix="pyconc-dns")
        return self._resolver

    def close(self):
        """Let the threads end; one that still waits for a name server is not waited for."""
        resolver, self._resolver = self._resolver, None
        if resolver is not None:
            resolver.shutdown(wait=False, cancel_futures=True)
        super().close()
