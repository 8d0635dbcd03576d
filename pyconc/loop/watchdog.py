# SPDX-License-Identifier: MIT
"""The watchdog: says which callback holds the loop, and where, while it does.

The thread that notices is C (csrc/loop/watchdog.c) and comes here when there is something to say.
"""
import atexit
import logging
import math
import os
import sys
import threading
import traceback
import weakref
from asyncio import current_task
from asyncio.log import logger

VARIABLE = "PYCONC_WATCHDOG"
HOLDS, HELD_UNSEEN, HELD_NO_MORE = range(3)     # as in C

chosen = None       # the limit of new loops, where the command line has set one: in seconds, 0 for none
_watching = weakref.WeakSet()


def checked(value, name="watchdog"):
    """The limit `value` in seconds, 0.0 for None; TypeError or ValueError for what is none."""
    if value is None:
        return 0.0
    try:
        good = math.isfinite(value) and value >= 0
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}") from None
    except OverflowError:
        good = False
    if not good:
        raise ValueError(f"{name} must be a number of seconds, 0 (off) or more, not {value!r}")
    return float(value)


def parsed(text, name):
    """The limit that a user has written."""
    try:
        return checked(float(text))
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, 0 (off) or more, not {text!r}") from None


def limit_of_new_loops():
    """What the command line says, or else the environment: seconds, 0 for none."""
    if chosen is not None:
        return chosen
    text = None if sys.flags.ignore_environment else os.environ.get(VARIABLE)
    return parsed(text, f"the environment variable {VARIABLE}") if text else 0.0


@atexit.register
def _end_threads():
    for loop in list(_watching):
        loop._end_watch()


class Watched:
    """The part of a loop that sets the watchdog and speaks for it."""

    __slots__ = ()

    @property
    def watchdog(self):
        """Seconds that a callback may hold the loop until the place is logged, or None.

        May be set in the loop's own thread, or while the loop does not run; None and 0 turn it off. TypeError or
        ValueError for what is no such number, RuntimeError in another thread than that of the running loop.
        """
        return self._watched() or None

    @watchdog.setter
    def watchdog(self, seconds):
        seconds = checked(seconds)
        if seconds:
            self._watchdog_logger = None
            _watching.add(self)
        self._watch(seconds)

    def _watchdog_tells(self, what, seconds, waited):
        """Called in the watchdog's thread; `waited` of the `seconds` went by until this one had the GIL."""
        if what == HELD_UNSEEN:
            return self._watchdog_logs(
                logging.WARNING, "A callback held the event loop, and the GIL with it, for %.3f to %.3f seconds: it "
                "ended before its stack could be seen", (seconds - waited, seconds))
        if what == HELD_NO_MORE:
            if logger.isEnabledFor(logging.INFO):
                self._watchdog_logs(logging.INFO, "The event loop is free again after %.3f seconds", (seconds,))
            return
        frames = _frames_of(self._thread_id)    # before anything that lets the loop go on
        task = current_task(self)
        inside = _inside_of_run(frames)
        text = "%s has held the event loop for %.3f seconds"
        if waited > seconds / 2:
            text += ", and kept the GIL until now, so that it may be past the slow line"
        text += "; its thread is at%s\n%s"
        if not frames:
            where = " a line that it has left by now"
        else:
            where = "" if _gil_enabled() else " (the innermost line: more cannot be read safely without a GIL)"
        lines = [(frame, frame.f_lineno) for frame in reversed(inside or frames)]
        stack = traceback.StackSummary.extract(lines, lookup_lines=False)
        self._watchdog_logs(logging.WARNING, text, (_name(task, inside), seconds, where), stack)

    def _watchdog_logs(self, level, text, args, stack=None):
        """Logs from a thread that Python knows (the watchdog's own would leave a dummy behind), in order."""
        before = self._watchdog_logger

        def log():
            if before is not None:
                before.join()
            logger.log(level, text, *args, *(() if stack is None else ["".join(stack.format()).rstrip()]))

        thread = threading.Thread(target=log, name="pyconc-watchdog", daemon=False)
        try:
            thread.start()
        except RuntimeError:    # the interpreter is about to end
            log()
        else:
            self._watchdog_logger = thread


def _gil_enabled():
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _frames_of(thread):
    """Innermost first; without a GIL only that one, since the thread may be leaving the others just now."""
    frame, frames = sys._current_frames().get(thread), []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back if _gil_enabled() else None
    return frames


def _inside_of_run(frames):
    """Those of the callback; none when it is a function in C."""
    from pyconc.loop import Loop
    ends = [at for at, frame in enumerate(frames) if frame.f_code is Loop.run_forever.__code__]
    return frames[:ends[-1]] if ends else []


def _name(task, frames):
    if task is not None:
        coroutine = task.get_coro()
        return f"Task {task.get_name()!r} ({getattr(coroutine, '__qualname__', coroutine)})"
    return f"Callback {frames[-1].f_code.co_qualname}()" if frames and _gil_enabled() else "A callback in C"
