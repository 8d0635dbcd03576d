# SPDX-License-Identifier: MIT
"""threading, with its locks in C, for threads and coroutines alike.

Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event and Barrier have awaitable forms that work in any asyncio
loop: `async with lock`, `await event.wait_async()`. Timer needs a thread only when it fires. watch_deadlocks() tells of
threads that wait for each other. All else is the standard library's.
"""
import sys
import threading as _standard
import types
import warnings
from threading import *  # noqa: F403
from threading import BrokenBarrierError as BrokenBarrierError
from time import monotonic

from pyconc import _core
from pyconc._deadlocks import watch_deadlocks as watch_deadlocks
from pyconc._timer import Timer as Timer
from pyconc._timer import active_count as active_count
from pyconc._timer import enumerate as enumerate

__all__ = [*_standard.__all__, "watch_deadlocks"]

Lock = _core.ThreadLock
RLock = _core.ThreadRLock


class Condition(_core.ConditionBase):
    """A threading.Condition for threads and coroutines: `with condition`, `async with condition`.

    lock: what it is about, a new RLock by default. Another library's lock will do, but is not awaitable. A task that
    holds it by `async with` waits with `await condition.wait_async()`.
    """

    def wait_for(self, predicate, timeout=None):
        """Waits until predicate() is true, up to `timeout` seconds (None: for ever): what it returned last.

        Source: threading.Condition.wait_for.
        """
        end = None
        result = predicate()
        while not result:
            if timeout is not None:
                now = monotonic()
                if end is None:
                    end = now + timeout
                elif now >= end:
                    break
                self.wait(end - now)
            else:
                self.wait()
            result = predicate()
        return result

    async def wait_for_async(self, predicate):
        """wait_for() as a coroutine of any asyncio loop."""
        while not (result := predicate()):
            await self.wait_async()
        return result

    def notifyAll(self):
        """notify_all(), as it was called before Python 2.6. Deprecated."""
        warnings.warn("notifyAll() is deprecated, use notify_all() instead", DeprecationWarning, stacklevel=2)
        self.notify_all()


def _place(self):
    """The beginning of a repr, as threading's: for ours, too."""
    return f"<{type(self).__module__.removeprefix('pyconc.')}.{type(self).__qualname__} at {id(self):#x}: "


class Semaphore(_core.SemaphoreBase):
    """A threading.Semaphore for threads and coroutines: `with semaphore`, `async with semaphore`.

    value: how many may hold it at a time. ValueError when it is less than 0.
    """

    def __repr__(self):
        return f"{_place(self)}value={self._value}>"


class BoundedSemaphore(Semaphore):
    """A Semaphore that raises ValueError when it is released more often than it was acquired."""

    def __init__(self, value=1):
        super().__init__(value)
        self._bind()

    def __repr__(self):
        return f"{_place(self)}value={self._value}/{self._initial_value}>"


class Event(_core.EventBase):
    """A threading.Event for threads and coroutines: `event.wait()`, `await event.wait_async()`."""

    def isSet(self):
        """is_set(), as it was called before Python 2.6. Deprecated."""
        warnings.warn("isSet() is deprecated, use is_set() instead", DeprecationWarning, stacklevel=2)
        return self.is_set()

    def __repr__(self):
        return f"{_place(self)}{'set' if self.is_set() else 'unset'}>"


class Barrier(_core.BarrierBase):
    """A threading.Barrier for threads and coroutines: `barrier.wait()`, `await barrier.wait_async()`.

    parties: how many must come. ValueError when it is less than 1.
    action: called by the last to come before all are let go; if it raises, the barrier is broken.
    timeout: seconds, for every wait() that is given none.
    """

    def __repr__(self):
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"{_place(self)}{state}>"


class _Module(types.ModuleType):
    """Who sets threading.excepthook here has set it there."""

    @property
    def excepthook(self):
        return _standard.excepthook

    @excepthook.setter
    def excepthook(self, hook):
        _standard.excepthook = hook


sys.modules[__name__].__class__ = _Module
Timer.__module__ = __name__


def __getattr__(name):
    if name == "Queue":
        from pyconc import queue
        return queue
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard), "Queue"})
