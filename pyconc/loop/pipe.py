# SPDX-License-Identifier: MIT
"""Pipes: connect_read_pipe(), connect_write_pipe() and what asyncio's subprocesses ask the loop for."""
from asyncio.log import logger

from pyconc import _core


class Pipes:
    """The part of pyconc.Loop that makes the transports of pipes."""

    def _make_read_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _core.ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _core.WritePipeTransport(self, pipe, protocol, waiter, extra)

    async def connect_read_pipe(self, protocol_factory, pipe):
        """Reads a pipe; gives (transport, protocol).

        `protocol_factory` makes the asyncio.Protocol, whose data_received() gets what comes. `pipe` is the file object
        of a pipe, FIFO, terminal, other character device or socket; it is closed with the transport.
        Raises ValueError for any other file, OSError for a descriptor that is not open; then it stays open.
        Source: asyncio.loop.connect_read_pipe
        """
        return await self._connect_pipe(self._make_read_pipe_transport, protocol_factory, pipe, "Read")

    async def connect_write_pipe(self, protocol_factory, pipe):
        """Writes to a pipe; gives (transport, protocol).

        As connect_read_pipe(), but the protocol is an asyncio.BaseProtocol and the transport has write().
        Source: asyncio.loop.connect_write_pipe
        """
        return await self._connect_pipe(self._make_write_pipe_transport, protocol_factory, pipe, "Write")

    async def _connect_pipe(self, make, protocol_factory, pipe, direction):
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = make(pipe, protocol, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        if self._debug:
            logger.debug("%s pipe %r connected: (%r, %r)", direction, transport._fileno, transport, protocol)
        return transport, protocol
