# SPDX-License-Identifier: MIT
"""Tells of threads that wait for each other's locks."""
import logging
import os
import sys
import threading
import traceback
from typing import NamedTuple

from pyconc import _core

logger = logging.getLogger("pyconc")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.forget_watched)


class Waiting(NamedTuple):
    """A thread of a deadlock, the lock it waits for, which the next thread holds, and where it waits."""

    thread: threading.Thread
    lock: object
    stack: traceback.StackSummary


def _describe(cycle, here):
    frames = {**sys._current_frames(), threading.get_ident(): here}
    threads = {thread.ident: thread for thread in threading.enumerate()}
    return [Waiting(threads.get(ident, ident), lock, traceback.extract_stack(frames.get(ident)))
            for ident, lock in cycle]


def _text(cycle):
    lines = [f"deadlock of {len(cycle)} thread{'s' * (len(cycle) > 1)}:\n"]
    for waiting, holder in zip(cycle, [*cycle[1:], cycle[0]]):
        name = getattr(waiting.thread, "name", waiting.thread)
        held_by = "it holds itself" if waiting is holder else f"{getattr(holder.thread, 'name', holder.thread)!r} holds"
        lines += [f"thread {name!r} waits for {waiting.lock!r}, which {held_by}:\n", *waiting.stack.format()]
    return "".join(lines)


def watch_deadlocks(on=True, *, callback=None):
    """Has every cycle of threads that wait for each other's locks reported when it comes about.

    on: False ends the watch.
    callback: called with a list of (thread, lock, stack), each thread waiting for the lock that the next one holds;
    without one, the cycle and the stacks are logged as an error to the logger "pyconc". What it raises is printed.

    Looks at the Locks and RLocks of pyconc that threads take while it is on, and at waits without a timeout. A Lock
    that one thread takes and another releases looks like a deadlock when it is taken twice.
    """
    if not on:
        _core.watch_locks(None)
        return
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a callable, not {callback!r}")

    def report(cycle):
        described = _describe(cycle, sys._getframe().f_back)
        if callback is not None:
            callback(described)
        else:
            logger.error("%s", _text(described))

    _core.watch_locks(report)
