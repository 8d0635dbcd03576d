# SPDX-License-Identifier: MIT
"""threading.Timer without a thread that sleeps: one waits for all timers, and each becomes a thread when it fires."""
import os
import threading
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from sys import flags
from threading import Thread, current_thread
from time import monotonic

from pyconc import _core

LINGER = 1.0  # seconds that the one thread stays when no timer is left
NEVER = float("inf")


class _Event(_core.EventBase):
    """What pyconc.threading.Event adds nobody asks of `finished`, but its repr."""

    def __repr__(self):
        return f"<{type(self).__name__} at {id(self):#x}: {'set' if self.is_set() else 'unset'}>"


class _Schedule:
    """The timers that have been started, and the thread that waits for the first."""

    def __init__(self):
        self.numbers = count()
        self.exiting = False
        self.registered = False
        self.reset()

    def reset(self):
        self.lock = _core.ThreadLock()
        self.changed = _core.ConditionBase(self.lock)
        self.heap = []  # [when, number, timer or None]
        self.cancelled = 0
        self.thread = None
        self.wakes = NEVER  # when the thread looks again: before, it has to be woken

    def add(self, timer, when):
        """Whether the timer is waited for: False when the interpreter is about to exit."""
        entry = [when, next(self.numbers), timer]
        with self.lock:
            if self.exiting:
                return False
            timer._entry = entry
            heappush(self.heap, entry)
            if self.thread is None:
                self.run()
            elif when < self.wakes:
                self.wakes = when
                self.changed.notify()
        return True

    def run(self):
        """Starts the thread. The lock is held."""
        if not self.registered:
            threading._register_atexit(self.at_exit)
            self.registered = True
        self.thread = Thread(target=self.work, name="pyconc-timer", daemon=False)
        self.wakes = NEVER
        try:
            self.thread.start()
        except BaseException:
            self.thread = None
            self.heap.pop()
            raise

    def drop(self, entry):
        """The timer of the entry was cancelled."""
        with self.lock:
            if entry[2] is None:
                return
            entry[2] = None
            self.cancelled += 1
            if self.cancelled > 64 and self.cancelled * 2 > len(self.heap):
                self.heap = [kept for kept in self.heap if kept[2] is not None]
                heapify(self.heap)
                self.cancelled = 0

    def next_due(self):
        """Waits for the next timer that is due; None when the thread has to end. The lock is held."""
        idle_since = None
        while True:
            now = monotonic()
            if self.heap:
                idle_since = None
                entry = self.heap[0]
                if entry[2] is None:
                    heappop(self.heap)
                    self.cancelled -= 1
                    continue
                if entry[0] <= now:
                    heappop(self.heap)
                    timer, entry[2] = entry[2], None
                    return timer
                self.wakes = entry[0]
            else:
                idle_since = now if idle_since is None else idle_since
                if self.exiting or now - idle_since >= LINGER:
                    return None
                self.wakes = idle_since + LINGER
            self.changed.wait(min(self.wakes - now, threading.TIMEOUT_MAX))

    def work(self):
        while True:
            with self.lock:
                timer = self.next_due()
                if timer is None:
                    self.thread = None
                    return
            timer._fire()
            del timer

    def pending(self):
        with self.lock:
            return [entry[2] for entry in self.heap if entry[2] is not None and not entry[2].finished.is_set()]

    def at_exit(self):
        """Waits for the timers that are not daemons, as threading would for their threads."""
        with self.lock:
            self.exiting = True
        for timer in self.pending():
            if not timer.daemon:
                timer.join()
        with self.lock:
            thread = self.thread
            self.heap.clear()
            self.changed.notify()
        if thread is not None:
            thread.join()

    def after_fork_in_child(self):
        for entry in self.heap:
            if entry[2] is not None:
                entry[2].finished.set()
                entry[2] = None
        self.reset()


_schedule = _Schedule()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_schedule.after_fork_in_child)


class Timer(Thread):
    """Calls function(*args, **kwargs) in a thread of its own, `interval` seconds after start().

    A threading.Timer whose thread starts only when it fires: until then `ident` is None. A subclass with its own
    run() has its thread from start() on. Source: threading.Timer.
    """

    _entry = None  # of the schedule
    _is_thread = False  # Thread.__init__ has been called
    _runs_here = False  # in the thread of all timers

    def __init__(self, interval, function, args=None, kwargs=None):
        self.interval = interval
        self.function = function
        self.args = args if args is not None else []
        self.kwargs = kwargs if kwargs is not None else {}
        self.finished = _Event()
        self._daemonic = current_thread().daemon

    def _become_thread(self):
        with _schedule_lock:
            if not self._is_thread:
                self._is_thread = True
                Thread.__init__(self, daemon=self._daemonic)

    @property
    def _initialized(self):
        self._become_thread()
        return True

    @_initialized.setter
    def _initialized(self, value):
        pass

    def __getattr__(self, name):
        if not self._is_thread:
            self._become_thread()
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def daemon(self):
        return self._daemonic

    @daemon.setter
    def daemon(self, value):
        if self._has_started():
            raise RuntimeError("cannot set daemon status of active thread")
        self._daemonic = value

    def _has_started(self):
        return self._entry is not None or (self._is_thread and self._started.is_set())

    def start(self):
        """Has the function called in `interval` seconds. RuntimeError when it was started before."""
        if self._has_started():
            raise RuntimeError("threads can only be started once")
        interval = self.interval
        if (type(self).run is Timer.run and "run" not in self.__dict__ and type(interval) in (int, float)
                and interval < threading.TIMEOUT_MAX):
            if getattr(flags, "thread_inherit_context", False):
                self._become_thread()
                if self._context is None:
                    self._context = copy_context()
            if _schedule.add(self, monotonic() + interval):
                return
        super().start()

    def _fire(self):
        """The time has come."""
        if self.finished.is_set():
            return
        try:
            super().start()
        except BaseException as error:
            self._runs_here = True
            try:
                if not (_schedule.exiting and isinstance(error, RuntimeError)):
                    raise
                self.run()      # Python 3.12 starts no thread while it exits
            except BaseException as error:
                threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, self)))
            finally:
                self.finished.set()
                self._started.set()

    def run(self):
        if self._entry is None:
            self.finished.wait(self.interval)
        if not self.finished.is_set():
            self.function(*self.args, **self.kwargs)
        self.finished.set()

    def cancel(self):
        """Keeps the function from being called, if it has not been."""
        self.finished.set()
        entry = self._entry
        if entry is not None and entry[2] is not None:
            _schedule.drop(entry)

    def _is_pending(self):
        return self._entry is not None and self._entry[2] is not None and not self.finished.is_set()

    def is_alive(self):
        if self._runs_here:
            return not self._started.is_set()
        if self._entry is None or (self._is_thread and self._started.is_set()):
            return super().is_alive()
        return not self.finished.is_set()

    def join(self, timeout=None):
        """Waits up to `timeout` seconds (None: for ever) until the timer was cancelled or its function has ended."""
        if self._entry is not None and not (self._is_thread and self._started.is_set()):
            if self._entry[2] is None and self.finished.is_set():
                return
            end = None if timeout is None else monotonic() + timeout
            if not self._join_pending(end):
                return
            timeout = None if end is None else max(0, end - monotonic())
        if not self._runs_here:
            super().join(timeout)

    def _join_pending(self, end):
        """Waits until the thread has started: False when it will not, or the time has passed."""
        while not self.finished.is_set():
            now = monotonic()
            if end is not None and now >= end:
                return False
            when = self._entry[0]
            if now >= when:
                return self._started.wait(None if end is None else end - now)
            self.finished.wait((when if end is None else min(when, end)) - now)
        return self._is_thread and self._started.is_set()


_schedule_lock = _core.ThreadRLock()


def enumerate():
    """All threads that are alive, timers that have not fired among them. Source: threading.enumerate."""
    return [*threading.enumerate(), *_schedule.pending()]


def active_count():
    """How many threads are alive. Source: threading.active_count."""
    return len(enumerate())
