# SPDX-License-Identifier: MIT
"""multiprocessing.queues, in shared memory and without a thread.

put() pickles at once and writes into memory that all users of the queue have mapped; get() reads from there. An item
is in the queue or it is not: a process that is killed loses at most the one it was just putting or getting.
"""
from queue import Empty, Full

from pyconc import _ipc
from pyconc.multiprocessing.awaiting import NOT_YET, until

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class _Turn:
    """What a coroutine waits for: that another process puts, gets, or has done the last task."""

    __slots__ = ("arm",)

    def __init__(self, arm):
        self.arm = arm


class Queue(_ipc.Queue):
    """A queue for processes, threads and coroutines, first in, first out. Source: multiprocessing.Queue.

    maxsize, max_bytes: how many items, and how many bytes of items, it holds before put() waits; 0 or None: any number.

    The queue can be an argument of a process and an item of another queue. A numpy array of 64 KiB or more arrives as
    an array in shared memory, which is copied once, by put().
    """

    def __init__(self, maxsize=0, *, max_bytes=None, ctx=None):
        super().__init__(maxsize, max_bytes=max_bytes)

    # For derived classes, which find here what they find in the standard library's.

    def __init_subclass__(cls, **kwargs):
        """A put() or get() of its own is called by put_nowait() and get_nowait(), too."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "put" in own and "put_nowait" not in own:
            cls.put_nowait = _put_nowait
        if "get" in own and "get_nowait" not in own:
            cls.get_nowait = _get_nowait

    def __reduce__(self):
        reduced = super().__reduce__()
        if type(self).__setstate__ is Queue.__setstate__:
            return reduced
        return *reduced, self.__getstate__()

    def __getstate__(self):
        """Nothing: a class that has more adds it."""
        return ()

    def __setstate__(self, state):
        """Nothing."""

    async def put_async(self, obj, timeout=None):
        """put() for a coroutine."""
        def attempt():
            try:
                return self.put_nowait(obj)
            except Full:
                return NOT_YET
        if await until(attempt, _Turn(self._arm_put), timeout) is NOT_YET:
            raise Full

    async def get_async(self, timeout=None):
        """get() for a coroutine."""
        def attempt():
            try:
                return self.get_nowait()
            except Empty:
                return NOT_YET
        item = await until(attempt, _Turn(self._arm_get), timeout)
        if item is NOT_YET:
            raise Empty
        return item

    async def get_many_async(self, n=None, timeout=None):
        """get_many() for a coroutine."""
        def attempt():
            try:
                return self.get_many(n, False)
            except Empty:
                return NOT_YET
        items = await until(attempt, _Turn(self._arm_get), timeout)
        if items is NOT_YET:
            raise Empty
        return items

    def join_thread(self):
        """Nothing: there is no thread, and what was put is in the queue."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self):
        """Nothing: there is no thread."""


def _put_nowait(self, obj):
    """put(obj, False)."""
    return self.put(obj, False)


def _get_nowait(self):
    """get(False)."""
    return self.get(False)


class JoinableQueue(Queue):
    """A Queue that knows which of its items have been worked on. Source: multiprocessing.JoinableQueue."""

    task_done = _ipc.Queue._task_done

    def join(self, timeout=None):
        """Wait until task_done() was called for each item; whether that was so in time."""
        return self._join(timeout)

    async def join_async(self, timeout=None):
        """join() for a coroutine."""
        done = await until(lambda: self._join(0) or NOT_YET, _Turn(self._arm_join), timeout)
        return done is not NOT_YET


class SimpleQueue(Queue):
    """A Queue without limits. Source: multiprocessing.SimpleQueue."""

    def __init__(self, *, ctx=None):
        _ipc.Queue.__init__(self, simple=True)


def __getattr__(name):
    if name.startswith("__"):       # asked by `from ... import`: no reason to import the standard module
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multiprocessing import queues
    return getattr(queues, name)


def __dir__():
    from multiprocessing import queues
    return sorted({*globals(), *dir(queues)})
