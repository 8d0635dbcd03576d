# SPDX-License-Identifier: MIT
"""A pipe in shared memory: two queues, with the methods of Connections.

Each end also has one end of a socket, through which nothing is sent: the kernel tells by it when nobody has the other
end any longer, be it closed, dropped or killed.
"""
import io
import select
from queue import Empty, Full
from time import monotonic

from pyconc.multiprocessing import BufferTooShort
from pyconc.multiprocessing.awaiting import NOT_YET, SLICE, until
from pyconc.multiprocessing.connection import Pipe, _dumps, _is_ready, _octets
from pyconc.multiprocessing.queues import Queue, _Turn

__all__ = ["SharedConnection", "SharedPipe"]


class _Look:
    """What close() puts, so that the other end looks at once whether it is alone."""


class SharedConnection:
    """An end of a SharedPipe(). What send() sends is for recv(), what send_bytes() sends for recv_bytes()."""

    def __init__(self, incoming, outgoing, life, held=()):
        self._incoming = incoming       # None: it only sends
        self._outgoing = outgoing       # None: it only receives
        self._life = life
        self._held = list(held)         # what poll() took
        self._next_look = 0

    def __reduce__(self):
        self._check_closed()
        return SharedConnection, (self._incoming, self._outgoing, self._life, self._held)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    @property
    def closed(self):
        """Whether this end was closed in this process."""
        return self._life.closed

    @property
    def readable(self):
        """Whether it can receive."""
        return self._incoming is not None

    @property
    def writable(self):
        """Whether it can send."""
        return self._outgoing is not None

    def fileno(self):
        """There is none: wait with poll(), poll_async() or pyconc.multiprocessing.connection.wait()."""
        raise io.UnsupportedOperation("a shared pipe has no descriptor that could be waited for")

    def close(self):
        """Closes this end, in this process. The other end gets EOFError once no process has this one."""
        if self._life.closed:
            return
        self._life.close()
        if self._outgoing is not None:
            try:
                self._outgoing.put_nowait(_Look())
            except Full:    # it has something to receive first
                pass

    def _check_closed(self):
        if self._life.closed:
            raise OSError("handle is closed")

    def _check_readable(self):
        self._check_closed()
        if self._incoming is None:
            raise OSError("connection is write-only")

    def _check_writable(self):
        self._check_closed()
        if self._outgoing is None:
            raise OSError("connection is read-only")

    def _arm(self):
        """For wait(): the bell rings when there is something to receive."""
        self._check_readable()
        return self._incoming._arm_get()

    def _is_alone(self):
        return _is_ready(self._life.fileno(), select.POLLIN, 0)

    # Receiving.

    def _attempt(self):
        """The next item, if there is one; EOFError if there will be none."""
        self._check_readable()
        if self._held:
            return self._held.pop(0)
        alone = False
        while True:
            try:
                item = self._incoming.get_nowait()
            except Empty:
                if alone:
                    raise EOFError from None
                alone = self._is_alone()
                if not alone:
                    return NOT_YET
            else:
                if type(item) is not _Look:
                    return item

    def _receive(self, timeout=None):
        """The next item, or NOT_YET."""
        self._check_readable()
        end = None if timeout is None else monotonic() + timeout
        while (item := self._attempt()) is NOT_YET:
            pause = SLICE if end is None else min(end - monotonic(), SLICE)
            if pause <= 0:
                return NOT_YET
            try:
                item = self._incoming.get(True, pause)
            except Empty:
                continue
            if type(item) is not _Look:
                return item
        return item

    def recv(self):
        """Receives an object; waits for it. EOFError when there will be none."""
        return self._receive()

    def recv_bytes(self, maxlength=None):
        """Receives bytes; waits for them."""
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        message = _as_bytes(self._receive())
        if maxlength is not None and len(message) > maxlength:
            self._incoming = None
            if self._outgoing is None:
                self.close()
            raise OSError("bad message length")
        return message

    def recv_bytes_into(self, buf, offset=0):
        """Receives bytes into a buffer, from an offset on: how many."""
        with memoryview(buf) as view, view.cast("B") as octets:
            if offset < 0:
                raise ValueError("negative offset")
            if offset > len(octets):
                raise ValueError("offset too large")
            message = self.recv_bytes()
            if offset + len(message) > len(octets):
                raise BufferTooShort(message)
            octets[offset:offset + len(message)] = message
        return len(message)

    def poll(self, timeout=0.0):
        """Waits up to `timeout` seconds (None: for ever) for something to receive: whether there is, or an end."""
        try:
            item = self._receive(timeout)
        except EOFError:
            return True
        return self._hold(item)

    def _hold(self, item):
        if item is NOT_YET:
            return False
        self._held.append(item)
        return True

    async def recv_async(self):
        """recv() as a coroutine of any asyncio loop. Cancelling it loses nothing."""
        self._check_readable()
        return await until(self._attempt, _Turn(self._incoming._arm_get))

    async def recv_bytes_async(self):
        """recv_bytes() as a coroutine."""
        return _as_bytes(await self.recv_async())

    async def poll_async(self, timeout=None):
        """poll() as a coroutine."""
        self._check_readable()
        try:
            item = await until(self._attempt, _Turn(self._incoming._arm_get), timeout)
        except EOFError:
            return True
        return self._hold(item)

    # Sending.

    def _look(self):
        """BrokenPipeError if nobody has the other end; looked at from time to time."""
        self._check_writable()
        now = monotonic()
        if now >= self._next_look:
            if self._is_alone():
                raise BrokenPipeError("nobody has the other end of the pipe")
            self._next_look = now + SLICE

    def send(self, obj):
        """Sends an object; waits for room. BrokenPipeError when nobody has the other end."""
        while True:
            self._look()
            try:
                return self._outgoing.put(obj, True, SLICE)
            except Full:
                pass

    def send_bytes(self, buf, offset=0, size=None):
        """Sends bytes; waits for room."""
        self.send(_octets(buf, offset, size))

    async def send_async(self, obj):
        """send() as a coroutine of any asyncio loop. Cancelled, it has sent nothing."""
        def attempt():
            self._look()
            try:
                return self._outgoing.put_nowait(obj)
            except Full:
                return NOT_YET
        self._check_writable()
        await until(attempt, _Turn(self._outgoing._arm_put))

    async def send_bytes_async(self, buf, offset=0, size=None):
        """send_bytes() as a coroutine."""
        await self.send_async(_octets(buf, offset, size))


def _as_bytes(item):
    return item if isinstance(item, bytes) else _dumps(item)


def SharedPipe(duplex=True, maxsize=1024):
    """Two SharedConnections to each other, in shared memory. If not duplex, the first one receives, the second sends.

    maxsize: how many messages may be on their way in each direction before send() waits.
    """
    one, other = Pipe()
    there = Queue(maxsize)
    back = Queue(maxsize) if duplex else None
    return SharedConnection(there, back, one), SharedConnection(back, there, other)
