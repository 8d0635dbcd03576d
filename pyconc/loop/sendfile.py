"""Files sent over sockets and transports: by the kernel where it can, else read in the default executor."""
import io
import os
import socket
import types
from asyncio import constants, exceptions, futures, protocols, tasks

from pyconc import _core

__all__ = ["SendingFiles"]

_AT_ONCE = 1 << 30      # bytes that one os.sendfile() is asked for: the kernel takes less than 2 GiB
_STREAM = types.SimpleNamespace(type=socket.SOCK_STREAM)    # what is known of a transport's socket


def _may_seek(file):
    return hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable())


def _seek(file, position):
    """Has whoever reads the file next go on at `position`, which os.sendfile() does not do."""
    if _may_seek(file):
        file.seek(position)
    elif not hasattr(file, "seek") and hasattr(file, "fileno"):
        os.lseek(file.fileno(), position, os.SEEK_SET)


class _Writer(protocols.Protocol):
    """The protocol of a transport while a file is written to it, in the place of its own."""

    def __init__(self, loop, transport):
        self._loop = loop
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._reading = transport.is_reading()
        self._paused = self._was_paused = getattr(transport, "_protocol_paused", False)
        self._lost = False
        self._waiter = None
        transport.pause_reading()
        transport.set_protocol(self)

    async def write(self, data):
        """Write once the transport takes more; ConnectionError when it is closed."""
        if self._paused and not self._lost:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        self._transport.write(data)

    def restore(self):
        """Give the transport back, and tell its protocol what has changed meanwhile."""
        self._transport.set_protocol(self._protocol)
        if self._reading:
            self._transport.resume_reading()
        if self._paused != self._was_paused and not self._lost:
            if self._paused:
                self._protocol.pause_writing()
            else:
                self._protocol.resume_writing()

    def pause_writing(self):
        self._paused = True

    def resume_writing(self):
        self._paused = False
        if self._waiter is not None:
            futures._set_result_unless_cancelled(self._waiter, None)
            self._waiter = None

    def connection_lost(self, exc):
        self._lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def data_received(self, data):      # somebody has resumed reading
        if isinstance(self._protocol, protocols.BufferedProtocol):
            protocols._feed_data_to_buffered_proto(self._protocol, data)
        else:
            self._protocol.data_received(data)

    def eof_received(self):
        return self._protocol.eof_received()


class SendingFiles:
    """The loop's methods behind sendfile() and sock_sendfile(), which are asyncio's."""

    # ---- by the kernel

    async def _sock_sendfile_native(self, sock, file, offset, count):
        async def room():
            fd, future = sock.fileno(), self.create_future()
            self.add_writer(fd, futures._set_result_unless_cancelled, future, None)
            try:
                await future
            finally:
                if sock.fileno() == fd:
                    self.remove_writer(fd)
        return await self._send_by_kernel(sock, file, offset, count, room)

    async def _sendfile_native(self, transp, file, offset, count):
        if not isinstance(transp, _core.StreamTransport):
            return await super()._sendfile_native(transp, file, offset, count)
        self._check_sendfile_params(_STREAM, file, offset, count)
        sent_before = transp._make_empty_waiter()
        reading = transp.is_reading()
        transp.pause_reading()
        try:
            await sent_before
            if transp.is_closing():
                raise ConnectionError("Connection is closed by peer")
            return await self._send_by_kernel(transp._sock, file, offset, count, transp._make_room_waiter)
        finally:
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()

    async def _send_by_kernel(self, sock, file, offset, count, room):
        """How many bytes os.sendfile() has sent; room() is awaited while the socket takes no more."""
        try:
            source = file.fileno()
        except (AttributeError, io.UnsupportedOperation):
            raise exceptions.SendfileNotAvailableError("not a regular file") from None
        total, fit = 0, False
        try:
            while True:
                try:
                    sent = os.sendfile(sock.fileno(), source, offset + total,
                                       _AT_ONCE if count is None else min(count - total, _AT_ONCE))
                except (BlockingIOError, InterruptedError):
                    fit = True
                except OSError as error:
                    if total:
                        raise
                    # Perhaps it is the kind of file that the kernel cannot send.
                    raise exceptions.SendfileNotAvailableError("os.sendfile call failed") from error
                else:
                    fit = True
                    total += sent
                    if not sent or total == count:
                        return total
                await room()
        finally:
            if fit:
                _seek(file, offset + total)

    # ---- by reading

    async def _sock_sendfile_fallback(self, sock, file, offset, count):
        return await self._send_by_reading(file, offset, count, lambda data: self.sock_sendall(sock, data))

    async def _sendfile_fallback(self, transp, file, offset, count):
        self._check_sendfile_params(_STREAM, file, offset, count)
        writer = _Writer(self, transp)
        try:
            return await self._send_by_reading(file, offset, count, writer.write)
        finally:
            writer.restore()

    async def _send_by_reading(self, file, offset, count, send):
        """How many bytes were read, in the default executor, and sent."""
        if offset or _may_seek(file):
            file.seek(offset)
        size = constants.SENDFILE_FALLBACK_READBUFFER_SIZE
        buffer = memoryview(bytearray(size if count is None else min(count, size)))
        total = 0
        try:
            while count is None or total < count:
                piece = buffer if count is None else buffer[:count - total]
                read = await self._read_elsewhere(file, piece)
                if not read:
                    break
                await send(piece[:read])
                total += read
            return total
        finally:
            _seek(file, offset + total)

    async def _read_elsewhere(self, file, buffer):
        """file.readinto(buffer) in the default executor.

        When this is cancelled, a read that has begun is waited for: the file is the caller's again afterwards.
        """
        ticket = [file.readinto]

        def read():
            try:
                readinto = ticket.pop()
            except IndexError:
                return 0
            return readinto(buffer)

        reading = self.run_in_executor(None, read)
        try:
            return await tasks.shield(reading)
        except exceptions.CancelledError:
            try:
                ticket.pop()
            except IndexError:
                if _may_seek(file):     # else it may wait for ever, as a FIFO's
                    await tasks.wait([reading])
            raise
