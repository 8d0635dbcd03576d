# SPDX-License-Identifier: MIT
"""Ends calls that have begun: that take too long, that nobody wants any more, or whose process has too much memory."""
import signal
import threading
import time

from pyconc.workers.failure import size
from pyconc.workers.limits import private_memory

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_LEAST = 0.002          # seconds between two looks
_MOST = 0.05            # the same, while a call is being ended
_IDLE = 0.5             # the same at whether calls are under way, whose memory is to be looked at
_MEMORY = 0.1           # the same at what workers have, while calls are under way


class Deadlines:
    """Those of a pool's calls. Its supervisor calls tend(), and next() for when to do so again.

    grace: seconds from one signal to the next, which is harder. memory: bytes that a worker may have, or None.
    describe: gives the call of a Future as text. collect: ends the Futures of all results that are there.
    """

    def __init__(self, channel, bell, grace, memory, describe, collect):
        self._channel = channel
        self._bell = bell
        self._grace = grace
        self._memory = memory
        self._describe = describe
        self._collect = collect
        self._lock = threading.RLock()      # a collected iterator may cancel a call in the middle of anything
        self._seconds = {}      # {Future: how long its call may take}
        self._ending = {}       # {Future: (number of the next signal, when)}
        self._large = {}        # {Future: when its worker was first seen with too much memory}
        self._look_at = 0.0     # when tend() will be called

    def watch(self, future, seconds):
        """Its call, once it has begun, may take so long: then it is ended and the Future raises TimeoutError."""
        with self._lock:
            self._seconds[future] = seconds
        future.add_done_callback(self._forget)
        if time.monotonic() + seconds < self._look_at:
            self._bell.ring()

    def _forget(self, future):
        with self._lock:
            self._seconds.pop(future, None)

    def end(self, future, step=0):
        """Ends the call of a Future that is done already: soon, and first by asking."""
        with self._lock:
            self._ending[future] = step, time.monotonic()
        self._bell.ring()

    def tend(self, workers):
        """Sees to what is due. workers: of the pool."""
        if not self._seconds and not self._ending and self._memory is None:
            return
        self._collect()
        large, self._large = self._large, {}
        for worker in workers:
            future = self._channel.running(worker.number)
            if future is None:
                continue
            if not future.done():
                self._look_at_time(future)
            if self._memory is not None and not future.done():
                self._look_at_memory(future, worker.process.pid, large)
        self._go_on({worker.number: worker for worker in workers})

    def _look_at_time(self, future):
        seconds, ran = self._seconds.get(future), self._channel.ran(future)
        if seconds is not None and ran is not None and ran >= seconds:
            self._fail(future, TimeoutError(f"{self._describe(future)} has not ended within {seconds:g} seconds"), 0)

    def _look_at_memory(self, future, pid, large):
        """A call that has too much for a moment may be about to end."""
        memory = private_memory(pid, above=self._memory)
        if memory <= self._memory:
            return
        now = time.monotonic()
        since = self._large[future] = large.get(future, now)
        if now - since >= _MEMORY:
            self._fail(future, MemoryError(f"{self._describe(future)} was ended: its process had {size(memory)} of "
                                           f"memory, more than the {size(self._memory)} that it may have"), 2)

    def _fail(self, future, error, step):
        try:
            future.set_exception(error)
        except Exception:
            return      # it has just ended
        self.end(future, step)

    def _go_on(self, workers):
        now = time.monotonic()
        for future, (step, when) in list(self._ending.items()):
            if when > now:
                continue
            number = self._is_running(future, step)
            with self._lock:
                if number is None:
                    del self._ending[future]
                else:
                    self._ending[future] = min(step + 1, len(_SIGNALS) - 1), now + self._grace
            worker = workers.get(number)
            if worker is not None and worker.process.is_alive():
                worker.is_doomed = worker.is_doomed or step > 0
                worker.signal(_SIGNALS[step])

    def _is_running(self, future, step):
        """The number of the worker that still runs it, and that runs nothing else from now on if it is to be killed."""
        number = self._channel.interrupt(future)
        if number is None or step == 0:
            return number
        self._channel.retire(number)
        self._collect()
        return self._channel.interrupt(future)

    def next(self, has_work):
        """Seconds until tend() is to be called; None: when something happens."""
        now = time.monotonic()
        with self._lock:
            times = [min(when - now, _MOST) for _, when in self._ending.values()]
            if self._seconds:
                times.append(min(self._seconds.values()))
                times += [seconds - ran for future, seconds in self._running()
                          if (ran := self._channel.ran(future)) is not None]
        if self._memory is not None:
            times.append(_MEMORY if has_work else _IDLE)    # submit() wakes nobody for this
        left = max(_LEAST, min(times)) if times else None
        self._look_at = float("inf") if left is None else now + left
        return left

    def _running(self):
        for number in range(self._channel.workers):
            future = self._channel.running(number)
            if future in self._seconds:
                yield future, self._seconds[future]
