# SPDX-License-Identifier: MIT
"""The Future of pyconc's executors."""
import concurrent.futures
import threading
from concurrent.futures._base import DoneAndNotDoneFutures

from pyconc import _core


class _Condition(type(threading.RLock())):
    """A Condition that is only its lock until somebody waits on it.

    concurrent.futures.wait and as_completed, which take the condition of every Future, never do.
    """

    _real = None

    def _condition(self):
        if self._real is None:
            self._real = threading.Condition(self)
        return self._real

    def notify_all(self):
        if self._real is not None:
            self._real.notify_all()

    def __getattr__(self, name):
        return getattr(self._condition(), name)


class Future(_core.FutureBase, concurrent.futures.Future):
    """A concurrent.futures.Future that is awaitable in any asyncio loop.

    It has no lock: threads that wait in result() sleep until the one that ends it wakes them, and loops that await many
    Futures are woken once for all that end meanwhile. Source: concurrent.futures.Future.
    """

    __slots__ = ()
    _new_condition = staticmethod(_Condition)


def wait(fs, timeout=None, return_when=concurrent.futures.ALL_COMPLETED):
    """Waits up to `timeout` seconds for the futures of `fs`: (the set of those that are done, the set of the others).

    return_when: ALL_COMPLETED; FIRST_COMPLETED; FIRST_EXCEPTION, as soon as one has raised or all are done.

    Futures of other libraries may be among them. Source: concurrent.futures.wait.
    """
    fs = set(fs)
    for future in fs:
        # One that is not told when it is over asks to be (pyconc.native's).
        if type(future) is not Future and (watch := getattr(future, "_watch", None)) is not None:
            watch()
    first = return_when == concurrent.futures.FIRST_COMPLETED, return_when == concurrent.futures.FIRST_EXCEPTION
    if any(first) or return_when == concurrent.futures.ALL_COMPLETED:
        done = _core.wait(list(fs), timeout, *first)
        if done is not None:
            return DoneAndNotDoneFutures(done, fs - done)
    return concurrent.futures.wait(fs, timeout, return_when)
