# SPDX-License-Identifier: MIT
"""Names to addresses and back: the loop's getaddrinfo() and getnameinfo().

Numeric addresses are answered in place. Names go to threads that do nothing else, so that a lookup never
waits for work given to the default executor, and such work never for a slow name server.
"""
import socket

from pyconc.concurrent.futures import ThreadPoolExecutor

THREADS = 4
NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
NUMERIC_NAMES = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def looks_numeric(host):
    """Whether it is worth asking libc if `host` (str, bytes or None) is a number: it decides, this only guesses."""
    if host is None:
        return True
    if isinstance(host, str):
        return ":" in host or host[:1].isdecimal()
    if isinstance(host, (bytes, bytearray)):
        return b":" in host or host[:1].isdigit()
    return True     # of a wrong type: socket.getaddrinfo() says so


class Resolving:
    """The part of the loop that asks for names; mixed into pyconc.Loop."""

    _resolver = None    # the threads, made when the first name is looked up

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        """Addresses of a host and service, as socket.getaddrinfo() gives them.

        `host` is a name, a numeric address (an IPv6 one may end in %zone) or None; `port` a number, a service
        name or None; the others are what they are there. Only names use a thread. Raises socket.gaierror and
        whatever else socket.getaddrinfo() raises. Like asyncio's loop.getaddrinfo().
        """
        lookup = self._getaddrinfo_debug if self.get_debug() else socket.getaddrinfo
        if looks_numeric(host):
            try:
                found = socket.getaddrinfo(host, port, family, type, proto, flags | NUMERIC)
            except socket.gaierror as error:
                if error.errno != socket.EAI_NONAME:
                    raise
            else:
                # With nothing to look up, the answer to the question as it was asked is there at once, too.
                return lookup(host, port, family, type, proto, flags) if self.get_debug() else found
        return await self.run_in_executor(self._resolver_threads(), lookup, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr, flags=0):
        """(host, service) of a socket address, as socket.getnameinfo() gives them.

        No thread is used when `flags` has NI_NUMERICHOST and NI_NUMERICSERV. Raises socket.gaierror and whatever
        else socket.getnameinfo() raises. Like asyncio's loop.getnameinfo().
        """
        if flags & NUMERIC_NAMES == NUMERIC_NAMES:
            return socket.getnameinfo(sockaddr, flags)
        return await self.run_in_executor(self._resolver_threads(), socket.getnameinfo, sockaddr, flags)

    def _resolver_threads(self):
        if self._resolver is None:
            self._resolver = ThreadPoolExecutor(THREADS, thread_name_prefix="pyconc-dns")
        return self._resolver

    def close(self):
        """Let the threads end; one that still waits for a name server is not waited for."""
        resolver, self._resolver = self._resolver, None
        if resolver is not None:
            resolver.shutdown(wait=False, cancel_futures=True)
        super().close()
