# SPDX-License-Identifier: MIT
"""threading.Timer without a thread that sleeps: one waits for all timers, and each becomes a thread when it fires.

No lock is taken to cancel a timer, or to start one while that thread runs, as both happen in signal handlers and in
__del__, which may interrupt them in the same thread: what threads share changes by single operations of dicts, and who
takes a timer's number out of `waiting` decides what becomes of the timer. To start that thread, as the first timer
does, has Thread.start()'s own limits: on 3.11 and 3.12 it waits for a lock that Thread.join() holds for a moment.
"""
import os
import threading
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from sys import flags
from threading import Thread, current_thread
from time import monotonic

from pyconc import _core

LINGER = 0.1  # seconds that the one thread stays when no timer is left: to start one costs a thousandth of that
NEVER = float("inf")
# What Thread.__init__() sets: a Timer has it from the first use on, as most timers are cancelled before.
OF_THREAD = frozenset(vars(Thread(name="none", daemon=False)))


class _Event(_core.EventBase):
    """What pyconc.threading.Event adds nobody asks of `finished`, but its repr."""

    def __repr__(self):
        return f"<{type(self).__name__} at {id(self):#x}: {'set' if self.is_set() else 'unset'}>"


class _TimerThread(Thread):
    """The one that waits; a daemon once the interpreter exits, for then only daemons may still be started."""

    def __init__(self):
        super().__init__(name="pyconc-timer", daemon=_schedule.exiting)

    def run(self):
        # Two may be started at a time; and who starts a timer while this one ends relies on it.
        while _schedule.running.acquire(False):
            try:
                _schedule.work(self)
            finally:
                _schedule.running.release()
            if not _schedule.arrived or _schedule.lets_exit(self):
                return


class _Schedule:
    """The timers that have been started, and what the thread that waits for them has to know."""

    def __init__(self):
        self.numbers = count()
        self.exiting = False
        self.reset()
        try:
            threading._register_atexit(self.at_exit)
        except RuntimeError:    # imported while the interpreter exits
            self.exiting = True

    def reset(self):
        self.waiting = {}       # number: timer
        self.arrived = {}       # number: when it is due, of those that the thread has not seen
        self.heap = []          # (when, number), those cancelled among them; the thread's own
        self.launching = None   # the timer that is neither waiting nor a thread yet
        self.running = _core.ThreadLock()   # the thread holds it
        self.woken = _core.EventBase()
        self.wakes = NEVER      # when the thread looks again: before, it has to be woken

    def add(self, timer, when):
        timer._number = number = next(self.numbers)
        self.waiting[number] = timer
        self.arrived[number] = when
        if self.running.locked():
            if when < self.wakes:
                self.woken.set()
            return
        try:
            _TimerThread().start()
        except BaseException:
            if self.drop(number):
                timer._number = None
            raise

    def drop(self, number):
        """Whether the timer was still waiting."""
        timer = self.waiting.pop(number, None)
        self.arrived.pop(number, None)
        if self.is_mostly_cancelled():
            self.woken.set()
        return timer is not None

    def is_mostly_cancelled(self):
        return len(self.heap) > 2 * len(self.waiting)

    def sort_in(self):
        for number, when in self.arrived.copy().items():
            if self.arrived.pop(number, None) is not None:
                heappush(self.heap, (when, number))
        if self.is_mostly_cancelled():
            self.heap = [entry for entry in self.heap if entry[1] in self.waiting]
            heapify(self.heap)

    def fire_due(self):
        now = monotonic()
        while self.heap and self.heap[0][0] <= now:
            timer = self.waiting.get(heappop(self.heap)[1])
            if timer is not None:
                self.launching = timer
                timer._fire()
                self.launching = timer = None

    def work(self, thread):
        """Fires timers until there is nothing to wait for."""
        while True:
            self.woken.clear()
            self.wakes = NEVER  # who starts a timer from here on wakes this thread
            self.sort_in()
            self.fire_due()
            if self.lets_exit(thread):
                return
            now = monotonic()
            self.wakes = self.heap[0][0] if self.heap else now + LINGER
            if self.exiting:
                self.wakes = min(self.wakes, now + LINGER)
            woken = self.woken.wait(max(0, min(self.wakes - now, threading.TIMEOUT_MAX)))
            if not (woken or self.heap or self.arrived):
                return

    def pending(self):
        return [*self.waiting.copy().values(), *filter(None, [self.launching])]

    def lets_exit(self, thread):
        """Whether nothing but `thread`, which waits for timers, still keeps the interpreter from its exit."""
        return self.exiting and not thread.daemon and not self.keeps_interpreter() and all(
            other.daemon or other in (thread, threading.main_thread()) for other in threading.enumerate())

    def keeps_interpreter(self):
        """Whether the interpreter's exit has to wait, as it would for threads that are not daemons."""
        return any(not timer.daemon and not timer.finished.is_set() for timer in self.pending())

    def at_exit(self):
        self.exiting = True
        self.woken.set()

    def after_fork_in_child(self):
        if not self.heap and not self.arrived and not self.pending() and not self.running.locked():
            return      # a child has a copy of every page that it writes to
        for timer in self.pending():
            timer.finished.set()
            if timer._settled is not None:
                timer._settled.set()
        self.reset()


_schedule = _Schedule()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_schedule.after_fork_in_child)


class Timer(Thread):
    """Calls function(*args, **kwargs) in a thread of its own, `interval` seconds after start().

    A threading.Timer whose thread starts only when it fires: until then `ident` is None. A subclass with its own
    run() has its thread from start() on. Source: threading.Timer.
    """

    _initialized = True     # as far as Thread's methods ask
    _ident = None
    _number = None          # in the schedule; None: it is a thread from start() on, as threading.Timer
    _settled = None         # from the time it fires: set when it is known whether it has become a thread

    def __init__(self, interval, function, args=None, kwargs=None):
        self.interval = interval
        self.function = function
        self.args = args if args is not None else []
        self.kwargs = kwargs if kwargs is not None else {}
        self.finished = _Event()
        self._daemonic = current_thread().daemon

    def __getattr__(self, name):
        if name not in OF_THREAD:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # Thread.__init__(self) would replace what another thread has seen already.
        own = vars(self)
        for key, value in vars(Thread(daemon=False)).items():
            own.setdefault(key, value)
        return own[name]

    @property
    def daemon(self):
        return self._daemonic

    @daemon.setter
    def daemon(self, value):
        if self._has_started():
            raise RuntimeError("cannot set daemon status of active thread")
        self._daemonic = value

    def _has_started(self):
        return self._number is not None or self._ident is not None

    def start(self):
        """Has the function called in `interval` seconds. RuntimeError when it was started before."""
        if self._has_started():
            raise RuntimeError("threads can only be started once")
        interval = self.interval
        if (getattr(self.run, "__func__", None) is not Timer.run or type(interval) not in (int, float)
                or not interval < threading.TIMEOUT_MAX or (_schedule.exiting and not self._daemonic)):
            super().start()
            return
        if getattr(flags, "thread_inherit_context", False):
            self._context = copy_context()
        _schedule.add(self, monotonic() + interval)

    def _fire(self):
        """Becomes a thread, unless it was cancelled. Called in the thread that waits."""
        self._settled = settled = _core.EventBase()     # before drop(): join() reads it after
        try:
            if _schedule.drop(self._number) and not self.finished.is_set():
                super().start()
        except BaseException as error:
            self._fire_without_thread(error)
        finally:
            settled.set()

    def _fire_without_thread(self, error):
        try:
            if not (_schedule.exiting and isinstance(error, RuntimeError)):
                raise error
            self.run()  # Python 3.12 starts no thread while it exits
        except BaseException:
            self._invoke_excepthook(self)
        finally:
            self.finished.set()

    def run(self):
        if self._number is None:
            self.finished.wait(self.interval)
        try:
            if not self.finished.is_set():
                self.function(*self.args, **self.kwargs)
        finally:
            self.finished.set()

    def cancel(self):
        """Keeps the function from being called, if it has not been."""
        self.finished.set()
        _schedule.drop(self._number)

    def is_alive(self):
        settled = self._settled
        if self._number in _schedule.waiting or (settled is not None and not settled.is_set()):
            return not self.finished.is_set()
        return self._ident is not None and super().is_alive()

    def join(self, timeout=None):
        """Waits up to `timeout` seconds (None: for ever) until the timer was cancelled or its function has ended."""
        if self._number is None:
            super().join(timeout)
            return
        end = None if timeout is None else monotonic() + timeout
        if self._settled is None:
            if not self.finished.wait(timeout):
                return
            _schedule.drop(self._number)    # `finished` may have been set without cancel()
        if self._settled is not None and self._settled.wait(_left(end)) and self._ident is not None:
            super().join(_left(end))


def _left(end):
    return None if end is None else max(0, end - monotonic())


def enumerate():
    """All threads that are alive, timers that have not fired among them; not the one that waits for the timers.

    Source: threading.enumerate.
    """
    timers = _schedule.pending()
    threads = [thread for thread in threading.enumerate() if not isinstance(thread, _TimerThread)]
    known = {id(thread) for thread in threads}
    return threads + [timer for timer in timers if id(timer) not in known and timer.is_alive()]


def active_count():
    """How many threads are alive. Source: threading.active_count."""
    return len(enumerate())
