# SPDX-License-Identifier: MIT
"""multiprocessing.connection, whose connections coroutines of any asyncio loop can use.

A Connection is the standard library's, its other end may be, too. An end whose message is half read or half written by
a coroutine that was cancelled goes on with that message, whoever uses it next.
"""
import copyreg
import errno
import io
import os
import select
import socket
import struct
from collections import ChainMap, deque
from math import ceil
from multiprocessing import connection as _standard
from multiprocessing import reduction
from multiprocessing.connection import *  # noqa: F403
from pickle import loads
from time import monotonic

__all__ = ["Client", "Listener", "Pipe", "wait"]

_READ_MOST = 262144     # about what a socket holds
_GATHER_ABOVE = 16384
_HEADER, _LONG_HEADER, _BODY = range(3)


class _Pickler(reduction.ForkingPickler):
    """One that is used again: to make one takes longer than to pickle a small object."""

    def __init__(self):
        self.file = io.BytesIO()
        super().__init__(self.file)
        # What is registered later counts, too.
        self.dispatch_table = ChainMap(self._extra_reducers, copyreg.dispatch_table)


_picklers = []      # that nobody uses


def _dumps(obj):
    """What ForkingPickler.dumps() returns, as bytes."""
    try:
        pickler = _picklers.pop()
    except IndexError:
        pickler = _Pickler()
    pickler.dump(obj)
    pickled = pickler.file.getvalue()
    if len(pickled) <= _READ_MOST:      # it keeps what it once took
        pickler.file.seek(0)
        pickler.file.truncate()
        pickler.clear_memo()
        _picklers.append(pickler)
    return pickled


class Connection(_standard.Connection):
    """An end of a pipe or socket: a multiprocessing.connection.Connection with awaitable methods."""

    # Reading: of which part of a message, how many bytes of it have not come yet, and those that have.
    _part = _HEADER
    _lacks = 4
    _pieces = ()
    _readers = ()       # futures of coroutines that wait for something to read
    _unsent = ()        # what coroutines send, in order, from a _Message on that did not go at once

    def _close(self):
        if self._readers or self._unsent:
            self._forget_coroutines(OSError(errno.EBADF, "handle is closed"))
        super()._close()

    def _forget_coroutines(self, error):
        for waiter in [*self._readers, *(message.sent for message in self._unsent)]:
            loop = waiter.get_loop()
            if not loop.is_closed():
                loop.remove_reader(self._handle)
                loop.remove_writer(self._handle)
                if not waiter.done():
                    waiter.set_exception(error)
        self._readers = self._unsent = ()

    # What the standard library's methods use.

    def _send_bytes(self, buf):
        while self._unsent:
            self._send_on(blocking=True)
        header = _header(len(buf))
        if len(buf) > _GATHER_ABOVE:
            sent = os.writev(self._handle, [header, buf])
            rest = memoryview(buf)[sent - len(header):] if sent >= len(header) else header[sent:] + bytes(buf)
            if rest:
                self._send(rest)
        else:
            self._send(header + buf)

    def _recv_bytes(self, maxsize=None):
        buffer = io.BytesIO(self._receive(maxsize))
        buffer.seek(0, io.SEEK_END)
        return buffer

    def _poll(self, timeout):
        return self._has_begun() or _is_ready(self._handle, select.POLLIN, timeout)

    def send(self, obj):
        """Sends an object."""
        self._check_closed()
        self._check_writable()
        self._send_bytes(_dumps(obj))

    def recv(self):
        """Receives an object; waits for it. EOFError when there will be none."""
        self._check_closed()
        self._check_readable()
        return loads(self._receive())

    # Reading, in pieces.

    def _has_begun(self):
        return self._part != _HEADER or bool(self._pieces)

    def _receive(self, maxsize=None):
        while (message := self._receive_on(maxsize)) is None:
            pass
        return message

    def _receive_on(self, maxsize=None):
        """Reads once. The next message if it is complete, else None."""
        piece = os.read(self._handle, min(self._lacks, _READ_MOST))
        if len(piece) < self._lacks:
            if piece:
                self._pieces = self._pieces or []
                self._pieces.append(piece)
                self._lacks -= len(piece)
                return None
            if self._has_begun():
                raise OSError("got end of file during message")
            raise EOFError
        if self._pieces:
            piece = b"".join([*self._pieces, piece])
            self._pieces = ()
        if self._part != _BODY:
            if self._read_header(piece, maxsize):
                return None
            piece = b""
        self._part, self._lacks = _HEADER, 4
        return piece

    def _read_header(self, header, maxsize):
        """How many bytes are to follow."""
        size, = struct.unpack("!Q" if self._part == _LONG_HEADER else "!i", header)
        if size == -1:
            self._part, self._lacks = _LONG_HEADER, 8
            return 8
        if size < 0 or maxsize is not None and size > maxsize:
            self._bad_message_length()
        self._part, self._lacks = _BODY, size
        return size

    async def _receive_async(self):
        self._check_closed()
        self._check_readable()
        while True:
            while _is_ready(self._handle, select.POLLIN, 0):
                if (message := self._receive_on()) is not None:
                    return message
            await self._wait_for_more()

    async def _wait_for_more(self):
        from asyncio import get_running_loop  # not imported for nobody
        loop = get_running_loop()
        waiter = loop.create_future()
        self._readers = [*self._readers, waiter]
        loop.add_reader(self._handle, self._let_readers_go, loop)
        try:
            await waiter
        finally:
            if waiter in self._readers:     # cancelled
                self._readers.remove(waiter)
                if all(other.get_loop() is not loop for other in self._readers):
                    loop.remove_reader(self._handle)

    def _let_readers_go(self, loop):
        loop.remove_reader(self._handle)
        for waiter in self._readers:
            if waiter.get_loop() is loop and not waiter.done():
                waiter.set_result(None)
        self._readers = [waiter for waiter in self._readers if waiter.get_loop() is not loop]

    async def recv_async(self):
        """recv() as a coroutine. Cancelling it loses nothing."""
        return loads(await self._receive_async())

    async def recv_bytes_async(self):
        """recv_bytes() as a coroutine. Cancelling it loses nothing."""
        return await self._receive_async()

    async def poll_async(self, timeout=None):
        """Waits up to `timeout` seconds (None: for ever) for input: whether there is any."""
        if self.poll():
            return True
        from asyncio import timeout as within
        try:
            async with within(timeout):
                await self._wait_for_more()
        except TimeoutError:
            return False
        return True

    # Writing, in pieces.

    async def send_async(self, obj):
        """send() as a coroutine.

        Cancelling it withdraws the message unless a part of it has gone; then the loop sends the rest.
        """
        self._check_closed()
        self._check_writable()
        await self._send_message_async(_message(_dumps(obj)))

    async def send_bytes_async(self, buf, offset=0, size=None):
        """send_bytes() as a coroutine, cancelled as send_async() is."""
        self._check_closed()
        self._check_writable()
        await self._send_message_async(_message(_octets(buf, offset, size)))

    async def _send_message_async(self, message):
        from asyncio import CancelledError, get_running_loop
        loop = get_running_loop()
        message = _Message(memoryview(message), loop)
        self._unsent = self._unsent or deque()
        self._unsent.append(message)
        if self._unsent[0] is message:
            self._send_on()
        if not message.sent.done():
            loop.add_writer(self._handle, self._send_on, loop)
        try:
            await message.sent
        except CancelledError:
            if message in self._unsent and not message.has_begun:
                self._unsent.remove(message)
                self._stop_writing(loop)
            raise

    def _send_on(self, loop=None, blocking=False):
        """Sends what can be sent of the messages that coroutines send."""
        try:
            while self._unsent:
                message = self._unsent[0]
                sent = os.write(self._handle, message.rest) if blocking else _write_now(self._handle, message.rest)
                if not sent:
                    return
                message.has_begun = True
                message.rest = message.rest[sent:]
                if not message.rest:
                    self._unsent.popleft()
                    _settle(message.sent, None)
        except OSError as error:
            for message in self._unsent:
                _settle(message.sent, error)
            self._unsent = ()
        if loop is not None:
            self._stop_writing(loop)

    def _stop_writing(self, loop):
        if not self._unsent:
            loop.remove_writer(self._handle)


class _Message:
    """One that a coroutine sends."""

    def __init__(self, rest, loop):
        self.rest = rest
        self.has_begun = False
        self.sent = loop.create_future()


def _settle(future, error):
    """Ends the wait of a coroutine, unless it waits no longer."""
    loop = future.get_loop()
    if loop.is_closed() or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _octets(buf, offset, size):
    """A copy of a part of a buffer."""
    with memoryview(buf) as view, view.cast("B") as octets:
        end = len(octets) if size is None else offset + size
        if offset < 0 or not offset <= end <= len(octets):
            raise ValueError("offset or size is beyond the buffer")
        return octets[offset:end].tobytes()


def _header(size):
    return struct.pack("!i", size) if size <= 0x7FFFFFFF else struct.pack("!iQ", -1, size)


def _message(buf):
    return b"".join([_header(len(buf)), buf])


def _is_ready(fd, event, timeout):
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(None if timeout is None else ceil(max(timeout, 0) * 1000)))


def _write_now(fd, data):
    """Writes what fits; the number of bytes, 0 when nothing does."""
    try:
        return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    # Linux before 6.4. What is ready takes that much without waiting.
    return os.write(fd, data[:select.PIPE_BUF]) if _is_ready(fd, select.POLLOUT, 0) else 0


def _reduce(connection):
    rest = connection._part, connection._lacks, list(connection._pieces)
    return _rebuild, (reduction.DupFd(connection.fileno()), connection.readable, connection.writable, rest)


def _rebuild(descriptor, readable, writable, rest):
    connection = Connection(descriptor.detach(), readable, writable)
    connection._part, connection._lacks, connection._pieces = rest
    return connection


reduction.register(Connection, _reduce)


def Pipe(duplex=True):
    """Two Connections to each other. If not duplex, the first one receives and the second sends."""
    if duplex:
        one, other = socket.socketpair()
        one.setblocking(True)
        other.setblocking(True)
        return Connection(one.detach()), Connection(other.detach())
    reading, writing = os.pipe()
    return Connection(reading, writable=False), Connection(writing, readable=False)


def _ours(connection):
    """A Connection that the standard library made, as one of ours."""
    connection.__class__ = Connection
    return connection


class Listener(_standard.Listener):
    """A socket that connections come to. Source: multiprocessing.connection.Listener."""

    def accept(self):
        """The next Connection; waits for it."""
        return _ours(super().accept())


def Client(address, family=None, authkey=None):
    """A Connection to the Listener at an address."""
    return _ours(_standard.Client(address, family, authkey))


def wait(object_list, timeout=None):
    """Those of the objects that are ready, waiting up to `timeout` seconds for the first.

    They are Connections, sockets, what has a fileno(), descriptors, and ends of a SharedPipe().
    """
    objects = list(object_list)
    shared = [one for one in objects if hasattr(one, "_arm")]
    if shared:
        return _wait_with_bell(objects, shared, timeout)
    begun = {id(one) for one in objects if isinstance(one, Connection) and not one.closed and one._has_begun()}
    if not begun:
        return _standard.wait(objects, timeout)
    begun.update(map(id, _standard.wait(objects, 0)))
    return [one for one in objects if id(one) in begun]


def _wait_with_bell(objects, shared, timeout):
    from pyconc import _ipc
    from pyconc.multiprocessing import awaiting
    others = [one for one in objects if not hasattr(one, "_arm")]
    bell = _ipc.bell()
    end = None if timeout is None else monotonic() + timeout
    while True:
        for one in shared:
            one._arm()
        ready = {id(one) for one in shared if one.poll()}
        pause = awaiting.SLICE if end is None else max(min(end - monotonic(), awaiting.SLICE), 0)
        woken = wait(others + [bell], 0 if ready else pause)
        if bell in woken:
            awaiting._waiters.answer()      # it rang for coroutines, too
        ready.update(map(id, woken))
        result = [one for one in objects if id(one) in ready]
        if result or pause == 0:
            return result


def __getattr__(name):
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
