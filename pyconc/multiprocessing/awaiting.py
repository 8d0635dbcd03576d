# SPDX-License-Identifier: MIT
"""Coroutines of any asyncio loop wait for what other processes do, without a thread.

Whoever changes a shared object rings the bells of the processes in which a coroutine waits for it. The bell of a
process is one descriptor that all its loops watch.

asyncio is imported when somebody awaits: a worker that does not has nothing to do with it.
"""
import os
import threading
from collections import deque
from time import monotonic

from pyconc import _ipc

NOT_YET = object()
# Seconds after which who waits looks by itself: a process may die between a change and its ring. One of many looks for
# all.
SLICE = 0.04
SLICE_OF_OTHERS = 1.0


class _Waiters:
    """Those of this process, each with its future, by the key of what it waits for."""

    def __init__(self):
        self.lock = threading.Lock()
        self.by_key = {}
        self.lookers = {}   # the future, of those with a key, whose coroutine looks for all
        self.loops = {}     # loop: how many of its coroutines wait

    def add(self, key, future, first):
        """Whether it is the one that looks for all. `first`: it has waited longest."""
        loop = future.get_loop()
        with self.lock:
            queue = self.by_key.setdefault(key, deque())
            (queue.appendleft if first else queue.append)(future)
            looks = self.lookers.setdefault(key, future) is future
            count = self.loops[loop] = self.loops.get(loop, 0) + 1
        if count == 1:
            loop.add_reader(_ipc.bell(), self.answer)
        return looks

    def remove(self, key, future):
        """Whether it was the one that had waited longest, and is not there because of a wake()."""
        loop = future.get_loop()
        with self.lock:
            if self.lookers.get(key) is future:
                del self.lookers[key]
            queue = self.by_key.get(key)
            first = False
            if queue is not None:
                if future in queue:
                    first = queue[0] is future
                    queue.remove(future)
                if not queue:
                    del self.by_key[key]
            self.loops[loop] -= 1
            last = self.loops[loop] == 0
            if last:
                del self.loops[loop]
        if last and not loop.is_closed():
            loop.remove_reader(_ipc.bell())
        return first

    def wake(self, key):
        """The one that has waited longest; when it gets what it waits for, it wakes the next."""
        with self.lock:
            queue = self.by_key.get(key)
            future = queue.popleft() if queue else None
        if future is not None:
            self.tell(key, future)

    def tell(self, key, future):
        from asyncio import _get_running_loop
        loop = future.get_loop()
        try:
            if loop is _get_running_loop():
                self.finish(key, future)
            else:
                loop.call_soon_threadsafe(self.finish, key, future)
        except RuntimeError:    # that loop is closed
            self.wake(key)

    def finish(self, key, future):
        if future.done():       # cancelled: somebody else shall have it
            self.wake(key)
        else:
            future.set_result(None)

    def answer(self):
        rung = _ipc.rung()
        with self.lock:
            keys = list(self.by_key) if rung is None else rung
        for key in keys:
            self.wake(key)


_waiters = _Waiters()


def _forget():
    """In a forked child: the coroutines are the parent's."""
    global _waiters
    _waiters = _Waiters()


os.register_at_fork(after_in_child=_forget)


def _over(future):
    if not future.done():
        future.set_result(None)


async def _turn(waiters, key, end, first):
    """Waits until it is this one's turn to look again, or for a slice: whether it is the first one still."""
    from asyncio import get_running_loop
    loop = get_running_loop()
    future = loop.create_future()
    pause = SLICE if waiters.add(key, future, first) else SLICE_OF_OTHERS
    if end is not None:
        pause = max(min(pause, end - monotonic()), 0)
    timer = loop.call_later(pause, _over, future)
    try:
        await future
    except BaseException:
        waiters.remove(key, future)
        waiters.wake(key)       # it may have been this one's turn
        raise
    else:
        return waiters.remove(key, future)
    finally:
        timer.cancel()


async def until(attempt, shared, timeout=None):
    """What attempt() returns once that is not NOT_YET; NOT_YET when it is still that after `timeout` seconds.

    `shared` is what another process changes: its arm() has this process told of the next change. A cancelled wait has
    taken nothing: only attempt() takes.
    """
    result = attempt()
    if result is not NOT_YET:
        return result
    waiters = _waiters
    end = None if timeout is None else monotonic() + timeout
    first = False
    while True:
        key = shared.arm()
        try:
            result = attempt()
        except BaseException:
            waiters.wake(key)       # it may be news for the next one, too
            raise
        if result is not NOT_YET:
            waiters.wake(key)
            return result
        if end is not None and monotonic() >= end:
            waiters.wake(key)       # it may have been the one that looks for all
            return NOT_YET
        first = await _turn(waiters, key, end, first)
