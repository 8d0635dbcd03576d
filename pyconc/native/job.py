# SPDX-License-Identifier: MIT
"""The Future of native work: who looks at it finds out itself that it is over, since the threads can't tell Python."""
import errno
import functools
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any

from pyconc import _native
from pyconc._bells import bell_of
from pyconc.concurrent.futures._base import Future


class NativeError(RuntimeError):
    """A C function returned an error code that is not the negative of an errno.

    code: what it returned.
    item: the first item of the call that did.
    """

    def __init__(self, code: int, item: int) -> None:
        super().__init__(f"the function returned {code} for the items from {item} on")
        self.code = code
        self.item = item

    def __reduce__(self) -> Any:
        return NativeError, (self.code, self.item)


def _error_of(code: int, item: int) -> Exception:
    if -code in errno.errorcode:
        return OSError(-code, os.strerror(-code))
    return NativeError(code, item)


class Job(Future):
    """A Future of C calls in threads.

    Awaiting it, in any asyncio loop, wakes the loop once; result() sleeps until the last call is over. Source:
    concurrent.futures.Future.
    """

    def __init__(self, work: _native.Work, result: Any) -> None:
        super().__init__()
        self._work = work
        self._returned = result

    # Whoever finds that it is over says so to all that Future knows of.

    def _settle(self) -> None:
        work = self._work
        if not work.due:
            return
        finish: tuple[Callable[[], object], ...]
        if work.cut:
            finish = super().cancel, super().set_running_or_notify_cancel
        elif work.fault is not None:
            finish = functools.partial(super().set_exception, _error_of(*work.fault)),
        else:
            finish = functools.partial(super().set_result, work.value if self._returned is _VALUE else self._returned),
        if work.claim(finish):
            self._returned = None
            _running.discard(self)

    def _lose(self) -> None:
        """In a child process: it is over, since its threads are the parent's. So are those who wait to be called."""
        if not self._work.over:
            self._exception = RuntimeError("the work belongs to the parent process")
            self._state = "FINISHED"

    def begin(self, width: int, threads: int, grain: int) -> None:
        """For pyconc.native: begins, as Work.start() says."""
        global _swept
        self._work.start(width, threads, grain)
        if len(_running) > 2 * _swept + 16:
            for job in list(_running):
                if job._work.over:
                    _running.discard(job)
            _swept = len(_running)
        _running.add(self)

    def _watch(self) -> None:
        """From now on it is told when it is over, also if nobody looks."""
        self._settle()
        if not super().done():
            _collector.watch(self)

    def done(self) -> bool:
        """Whether it is over: no thread touches its buffers any more."""
        self._settle()
        return super().done()

    def running(self) -> bool:
        """Whether threads may work on it."""
        return not self.done()

    def cancelled(self) -> bool:
        """Whether it was cancelled and is over."""
        self._settle()
        return super().cancelled()

    def cancel(self) -> bool:
        """Begins no further call: True unless it is over already.

        It ends once the calls that are running have returned, with CancelledError; done() says when.
        """
        cut = self._work.cancel()
        return self.cancelled() or cut

    def _wait(self, timeout: float | None) -> None:
        if timeout is None:
            milliseconds = -1
        else:
            milliseconds = min(max(0, -int(-timeout * 1000 // 1)), 2**62)
        if not super().done() and self._work.wait(milliseconds):
            self._settle()

    def result(self, timeout: float | None = None) -> Any:
        """What the call returned, or raises the error it returned. Waits up to timeout seconds, then TimeoutError.

        OSError for a negative errno, NativeError for other codes, CancelledError after cancel().
        """
        self._wait(timeout)
        return super().result(None if self._work.over else 0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that the call returned, or None. Waits as result() does."""
        self._wait(timeout)
        return super().exception(None if self._work.over else 0)

    def add_done_callback(self, fn: Any) -> None:
        """Calls fn(self) when it is over, in the thread that is the first to see it, or now if it is over."""
        super().add_done_callback(fn)
        self._watch()

    @property
    def _condition(self) -> Any:  # type: ignore[override]
        # concurrent.futures.wait and as_completed begin with that.
        self._watch()
        return super()._condition

    def __await__(self) -> Any:
        if not self.done():
            yield from _wait_in_loop(self).__await__()
        return self.result()

    def __repr__(self) -> str:
        self._settle()
        done = "" if super().done() else f" {self._work.done} of {self._work.total} items"
        return super().__repr__()[:-1] + done + ">"


# Nobody may hold a Job, and still its work must not be thrown away.
_running: set[Job] = set()
_swept = 0
_VALUE = object()  # the result is what the only call returned


async def _wait_in_loop(job: Job) -> None:
    """Until it is over. Cancellation cuts it short, and is raised when no call is running any more."""
    import asyncio  # who has no loop does not pay for it
    cancelled = None
    with bell_of(asyncio.get_running_loop(), _native.Bell) as bell:
        while True:
            try:
                await bell.watch(job._work)
                break
            except asyncio.CancelledError as error:
                job.cancel()
                cancelled = cancelled or error
    if cancelled is not None:
        raise cancelled


class _Collector:
    """A thread that settles the jobs that somebody wants to be told about; there while there are some."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.bell: _native.Bell | None = None
        self.jobs: set[Job] = set()

    def watch(self, job: Job) -> None:
        with self.lock:
            if job in self.jobs:
                return
            bell = self.bell or _native.Bell()
            told = bell.watch(job._work, job)
            if told and self.bell is None:
                threading.Thread(target=self.collect, args=(bell,), name="pyconc-native", daemon=True).start()
                self.bell = bell
            if told:
                self.jobs.add(job)
        if not told:
            job._settle()

    def collect(self, bell: _native.Bell) -> None:
        poll = select.poll()
        poll.register(bell, select.POLLIN)
        while True:
            poll.poll()
            try:
                over = bell.answer()
            except MemoryError:
                continue    # the bell keeps it, and is readable still
            for job in over:
                try:
                    job._settle()
                except BaseException:
                    # A callback's SystemExit, say. As in any thread it ends, but for the others this one goes on.
                    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            with self.lock:
                self.jobs.difference_update(over)
                if not self.jobs:
                    self.bell = None
                    return
            del over


def _after_fork_in_child() -> None:
    _collector.reset()
    for job in _running:
        job._lose()
    _running.clear()


_collector = _Collector()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
