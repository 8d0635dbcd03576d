# SPDX-License-Identifier: MIT
"""queue, with its queues in C, for threads and coroutines alike.

Queue, LifoQueue and PriorityQueue also have put_async(), get_async() and join_async(), which work in any asyncio loop,
put_many(), get_many(), and shutdown() on every Python. Empty and Full are the standard library's, as is ShutDown where
it has one.
"""
import queue as _standard
from collections import deque
from heapq import heappop, heappush
from queue import Empty as Empty
from queue import Full as Full
from time import monotonic

from pyconc import _core

SimpleQueue = _core.SimpleQueue
ShutDown = _core.ShutDown

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue"]

_PARTS = {"mutex", "not_empty", "not_full", "all_tasks_done", "queue"}
_HOOKS = ("_init", "_qsize", "_put", "_get")
_opening = _core.ThreadRLock()


class Queue(_core.QueueBase):
    """A queue.Queue, first in, first out, for threads and coroutines.

    maxsize: how many items it holds before put() waits; 0 or less: any number.

    It is in C until a part of it is asked for (mutex, not_empty, not_full, all_tasks_done or queue); a subclass that
    overrides _init, _qsize, _put or _get is in Python from the beginning. Source: queue.Queue.
    """

    _order = 0

    def __init__(self, maxsize=0):
        self._start(self._order, maxsize)
        kind = type(self)
        if kind not in _KINDS and any(getattr(kind, hook) is not getattr(_base_of(kind), hook) for hook in _HOOKS):
            self._open()

    def __getattr__(self, name):
        if name in _PARTS:
            self._open()  # or waits for a thread that does
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _open(self):
        """Puts the parts into Python's hands."""
        from pyconc.threading import Condition, Lock
        with _opening:
            if "mutex" in self.__dict__:
                return
            mutex = Lock()
            with mutex:
                self.not_empty = Condition(mutex)
                self.not_full = Condition(mutex)
                self.all_tasks_done = Condition(mutex)
                self.mutex = mutex
                items = self._detach()
                self._init(self.maxsize)
                for item in items:
                    self._put(item)

    # How items are kept, for subclasses to override. Called with the mutex held.

    def _init(self, maxsize):
        self.queue = deque()

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        self.queue.append(item)

    def _get(self):
        return self.queue.popleft()

    # What the methods do once the queue is open.

    def _open_qsize(self):
        with self.mutex:
            return self._qsize()

    def _wait(self, condition, ready, error, block, timeout):
        """Waits until ready() is true, else raises the error. The mutex is held."""
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if not block:
            timeout = 0
        if not condition.wait_for(ready, timeout):
            raise error

    def _has_room(self):
        if self.is_shutdown:
            raise ShutDown
        return not 0 < self.maxsize <= self._qsize()

    def _has_item(self):
        if self._qsize():
            return True
        if self.is_shutdown:
            raise ShutDown
        return False

    def _put_locked(self, item):
        self._put(item)
        self.unfinished_tasks += 1
        self.not_empty.notify()

    def _get_locked(self):
        item = self._get()
        self.not_full.notify()
        return item

    def _open_put(self, item, block=True, timeout=None):
        with self.mutex:
            if self.maxsize > 0 or not self._has_room():
                self._wait(self.not_full, self._has_room, Full, block, timeout)
            self._put_locked(item)

    def _open_get(self, block=True, timeout=None):
        with self.mutex:
            self._wait(self.not_empty, self._has_item, Empty, block, timeout)
            return self._get_locked()

    def _open_put_many(self, items, block=True, timeout=None):
        end = None if timeout is None else monotonic() + timeout
        count = 0
        try:
            for item in tuple(items):   # which nobody changes
                self._open_put(item, block, end and max(0, end - monotonic()))
                count += 1
        except (Full, ShutDown) as error:
            raise type(error)(count) from None

    def _open_get_many(self, n=None, block=True, timeout=None):
        with self.mutex:
            self._wait(self.not_empty, self._has_item, Empty, block, timeout)
            items = []
            while self._qsize() and (n is None or len(items) < n):
                items.append(self._get_locked())
            return items

    async def _open_put_async(self, item):
        async with self.mutex:
            await self.not_full.wait_for_async(self._has_room)
            self._put_locked(item)

    async def _open_get_async(self):
        async with self.mutex:
            await self.not_empty.wait_for_async(self._has_item)
            return self._get_locked()

    def _open_task_done(self):
        with self.mutex:
            if self.unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self.unfinished_tasks -= 1
            if not self.unfinished_tasks:
                self.all_tasks_done.notify_all()

    def _open_join(self):
        with self.mutex:
            self.all_tasks_done.wait_for(lambda: not self.unfinished_tasks)

    async def _open_join_async(self):
        async with self.mutex:
            await self.all_tasks_done.wait_for_async(lambda: not self.unfinished_tasks)

    def _open_shutdown(self, immediate=False):
        with self.mutex:
            self.is_shutdown = True
            if immediate:
                while self._qsize():
                    self._get()
                    if self.unfinished_tasks > 0:
                        self.unfinished_tasks -= 1
                self.all_tasks_done.notify_all()
            self.not_empty.notify_all()
            self.not_full.notify_all()


class LifoQueue(Queue):
    """A queue.LifoQueue, last in, first out, for threads and coroutines. Source: queue.LifoQueue."""

    _order = 1

    def _init(self, maxsize):
        self.queue = []

    def _get(self):
        return self.queue.pop()


class PriorityQueue(Queue):
    """A queue.PriorityQueue, the least item first, for threads and coroutines.

    An item whose comparison raises is not put, and none is lost when one raises in get(). Source: queue.PriorityQueue.
    """

    _order = 2

    def _init(self, maxsize):
        self.queue = []

    def _put(self, item):
        heappush(self.queue, item)

    def _get(self):
        return heappop(self.queue)


_KINDS = (Queue, LifoQueue, PriorityQueue)


def _base_of(kind):
    return next(base for base in kind.__mro__ if base in _KINDS)


def __getattr__(name):
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
