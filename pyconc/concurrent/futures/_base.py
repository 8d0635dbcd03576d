# SPDX-License-Identifier: MIT
"""The Future of pyconc's executors."""
import concurrent.futures
import os
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures._base import DoneAndNotDoneFutures
from concurrent.futures._base import as_completed as standard_as_completed  # also where ours has taken its place
from concurrent.futures._base import wait as standard_wait

from pyconc import _core

_HELP_AFTER = 0.005     # seconds; as PYC_HELP_AFTER in csrc/pool/queue.h


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


class TaskFuture(_core.TaskFutureBase, Future):
    """The Future of a call that another process runs. Who waits for it collects results meanwhile.

    channel: whose `source` brings the outcome. pool: its cancel(future, running) is asked to cancel it.
    """

    __slots__ = ()

    def cancel(self, *, running=False):
        """Cancels the call: True if nobody will run it; False if it runs or has run.

        running: also a call that runs: its worker is interrupted, then terminated, then killed, and replaced. True if
        it was cancelled so, False if it had ended. Source: concurrent.futures.Future.cancel.
        """
        pool = self._pool
        return super().cancel() if pool is None else pool.cancel(self, running)


def check_buffersize(buffersize):
    """TypeError or ValueError for what map() cannot take. Source: concurrent.futures.Executor.map."""
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError(f"buffersize must be an integer or None, not {buffersize!r}")
    if buffersize is not None and buffersize < 1:
        raise ValueError(f"buffersize must be None or > 0, not {buffersize!r}")


def _watched(fs):
    """A dict of the futures, in their order. One that is not told when it is over (pyconc.native's) asks to be."""
    fs = dict.fromkeys(fs)
    for future in fs:
        if type(future) is not Future and (watch := getattr(future, "_watch", None)) is not None:
            watch()
    return fs


def _help_first(ahead):
    """Runs the first that waits in this worker's pool, unless another thread is about to end one.

    ahead: an OrderedDict of futures. Those that this worker will never run are taken out. Returns the seconds after
    which to ask again, None when one will end without that.
    """
    while ahead:
        future = next(iter(ahead))
        if future.running():
            return None
        if (helped := _core.help(future)) != 0:
            return None if helped > 0 else _HELP_AFTER
        del ahead[future]
    return None


def as_completed(fs, timeout=None):
    """Yields each future of `fs` once, when it is done; those first that are done already.

    Raises TimeoutError when not all are done `timeout` seconds after the first was asked for; None: no limit. Futures
    of other libraries may be among them. In a worker of a pool and without a timeout, those that wait in that pool are
    run here, since nobody else might. Source: concurrent.futures.as_completed.
    """
    process = os.getpid()
    end = None if timeout is None else timeout + time.monotonic()
    pending = _watched(fs)
    if not all(isinstance(future, _core.FutureBase) for future in pending):
        yield from standard_as_completed(pending, timeout)
        return
    total, done, arrived = len(pending), _core.Arrivals(), ()
    tasks = deque(future for future in pending if isinstance(future, TaskFuture))
    ahead = OrderedDict.fromkeys(pending if end is None and _core.in_worker() else ())
    try:
        for future in pending:
            future.add_done_callback(done.put)
        future = None   # keeps nothing
        while pending:
            left = None if end is None else max(0, end - time.monotonic())
            if ahead and not arrived and done.empty():
                left = _help_first(ahead)
            while tasks and tasks[0].done():
                tasks.popleft()
            arrived = arrived or done.take(left, tasks[0] if tasks else None)[::-1]
            if not arrived:
                if end is None:
                    continue
                raise TimeoutError(f"{len(pending)} (of {total}) futures unfinished") from None
            del pending[arrived[-1]]
            ahead.pop(arrived[-1], None)
            yield arrived.pop()
            if os.getpid() != process:  # a child's, where the jobs that the fork lost have ended without a callback
                yield from as_completed(pending, None if end is None else end - time.monotonic())
                return
    finally:
        for future in pending:
            try:
                future._done_callbacks.remove(done.put)
            except ValueError:
                pass    # it has been called


def wait(fs, timeout=None, return_when=concurrent.futures.ALL_COMPLETED):
    """Waits up to `timeout` seconds for the futures of `fs`: (the set of those that are done, the set of the others).

    return_when: ALL_COMPLETED; FIRST_COMPLETED; FIRST_EXCEPTION, as soon as one has raised or all are done.

    Futures of other libraries may be among them. In a worker of a pool and without a timeout, those that wait in that
    pool are run here, since nobody else might. Source: concurrent.futures.wait.
    """
    fs = _watched(fs)
    first = return_when == concurrent.futures.FIRST_COMPLETED, return_when == concurrent.futures.FIRST_EXCEPTION
    if any(first) or return_when == concurrent.futures.ALL_COMPLETED:
        done = _core.wait(list(fs), timeout, *first)
        if done is not None:
            return DoneAndNotDoneFutures(done, fs.keys() - done)
    return standard_wait(fs, timeout, return_when)
