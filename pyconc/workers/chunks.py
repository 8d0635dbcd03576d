# SPDX-License-Identifier: MIT
"""map(): many calls in few tasks, whose sizes follow from how long the calls take."""
import math
import sys
import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import nullcontext
from itertools import islice

from pyconc import _core
from pyconc.workers.remote import Rows

_TARGET = 0.01      # seconds that a task shall take: many times what sending it costs
_LEAST = 0.0005     # as long must one take that is small only because few calls are left
_GROWTH = 16        # so many times the size of one that came back may the next have
_BYTES = 1 << 22    # of a task's arguments or results
_AHEAD = 2          # tasks for each worker: one that it runs and one that waits
_MOST = 512         # tasks in flight, where the program has chosen their size


def _weight(value):
    """About how many bytes it is."""
    size = getattr(value, "nbytes", None)
    return size if type(size) is int else sys.getsizeof(value)


class FixedSize:
    """As many calls a task as the program says."""

    def __init__(self, size):
        self._size = size

    def told(self, count, seconds, weight):
        """That a task of `count` calls has taken so long, and how many bytes a result has."""

    def next(self, left, row):
        """For the task that begins with `row`; left: how many calls there are, None: nobody knows."""
        return self._size


class AutoSize(FixedSize):
    """Grows until a task takes some ms; the last ones are smaller, so that no worker waits for another for long.

    workers: how many there are. most: calls a task, None: any number.
    """

    def __init__(self, workers, most=None):
        super().__init__(1)
        self._share = _AHEAD * workers
        self._most = most
        self._cost = None       # seconds a call
        self._weight = 1        # bytes a result

    def told(self, count, seconds, weight):
        cost = max(seconds / count, 1e-9)
        self._cost = cost if self._cost is None else (self._cost + cost) / 2
        self._weight = max(weight, self._weight // 2)
        self._size = max(self._size, count * _GROWTH)

    def next(self, left, row):
        if self._cost is None:
            return 1
        size = min(self._size, int(_TARGET / self._cost), _BYTES // max(_weight(row), self._weight))
        if left is not None:
            size = min(size, max(left // self._share, int(_LEAST / self._cost)))
        return max(1, size if self._most is None else min(size, self._most))


class Listed:
    """The arguments of calls that are all at hand."""

    def __init__(self, rows):
        self._rows = rows
        self._at = 0

    def left(self):
        """How many."""
        return len(self._rows) - self._at

    def first(self):
        """The next, which stays. StopIteration when none is left."""
        if self._at >= len(self._rows):
            raise StopIteration
        return self._rows[self._at]

    def take(self, count):
        """The next ones."""
        rows = self._rows[self._at:self._at + count]
        self._at += len(rows)
        return rows


class Iterated:
    """The arguments of calls that come one after the other."""

    def __init__(self, rows):
        self._rows = rows
        self._next = []

    def left(self):
        return None

    def first(self):
        if not self._next:
            self._next.append(next(self._rows))
        return self._next[0]

    def take(self, count):
        rows = [*self._next, *islice(self._rows, count - len(self._next))]
        self._next.clear()
        return rows


class Map:
    """The calls of one map(), and those of its tasks that have no taker yet, in their order.

    most: tasks in flight. room: calls in flight whose results have not been taken; None: any number, and what is left
    is sent as results arrive, whether somebody takes them or not.
    """

    def __init__(self, pool, function, rows, size, most, room, options, arrivals):
        self.queue = deque()        # Futures
        self._pool = pool
        self._function = function
        self._rows = rows
        self._size = size
        self._most = most
        self._room = room
        self._options = options
        self._progress = None if options is None else options.progress
        self._done, self._total = 0, rows.left()
        self._arrivals = arrivals
        self._counts = {}           # {Future: calls}, of those whose results have not been taken
        self._has_begun = False
        self._flying = set()
        self._asked = deque()
        self._lock = threading.Lock()
        self._telling = nullcontext() if self._progress is None else threading.RLock()
        self._is_cancelled = False
        self._holds = room is None
        self._release = pool.hold(self) if self._holds else None

    def fill(self, *, wait=False):
        """Sends as much as there is room for, unless another thread is at it; wait: until it is not."""
        self._asked.append(None)
        while self._asked and self._lock.acquire(wait):
            try:
                self._asked.clear()
                self._fill()
            finally:
                self._lock.release()

    def _fill(self):
        # Another thread may stop it at any moment.
        while (source := self._rows) is not None and len(self._flying) < self._most and self._room != 0:
            try:
                row = source.first()
            except StopIteration:
                self.stop()
                return
            size = self._size.next(source.left(), row)
            rows = source.take(size if self._room is None else min(size, self._room))
            try:
                future = self._pool.submit(self._function, (rows,), {}, self._options,
                                           held=self._holds and self._has_begun)
            except BaseException as error:
                if not self._has_begun:
                    self.stop()
                    raise
                self._add(self._failed(error), len(rows))
                if isinstance(error, KeyboardInterrupt):    # that is for who sends, now
                    raise
            else:
                self._add(future, len(rows))

    def _add(self, future, count):
        self._has_begun = True
        if self._room is not None:
            self._room -= count
        self._counts[future] = count
        self._flying.add(future)
        self.queue.append(future)
        future.add_done_callback(self._told)
        if self._arrivals is not None:
            future.add_done_callback(self._arrivals.put)
        if self._is_cancelled:
            future.cancel()

    def _failed(self, error):
        """What is to be told in its turn: nothing comes after it."""
        from pyconc.concurrent.futures._base import Future
        self.stop()
        future = Future()
        if isinstance(error, CancelledError):
            future.cancel()
            future.set_running_or_notify_cancel()
        else:
            future.set_exception(error)
        return future

    def _told(self, future):
        """Once for each, by who takes its results or, before that, by who ends it; the second waits for that."""
        has_results = not future.cancelled() and future.exception() is None
        results, _, seconds, weight = future.result() if has_results else ((), None, 0, 0)
        count = len(results)        # before another thread, which is not told, gives them out
        with self._telling:
            try:
                self._flying.remove(future)
            except KeyError:
                return
            if count:
                self._size.told(count, seconds, weight)
            if has_results and self._progress is not None:
                self._done += count
                self._progress(self._done, self._total)
        if self._room is None:
            self.fill()

    def take(self, future):
        """Its results, which are about to be given out."""
        outcome = future.result()
        self._told(future)
        count = self._counts.pop(future)
        if self._room is not None:
            self._room += count
            self.fill()
        return outcome

    def stop(self):
        """Sends nothing more."""
        self._rows = None
        if self._holds:
            self._release()

    def cancel(self):
        """Nobody wants what is left."""
        self._is_cancelled = True
        self.stop()
        for future in list(self.queue):
            future.cancel()


def _has_more(calls):
    if not calls.queue:
        calls.fill(wait=True)
    return bool(calls.queue)


def _in_order(calls, end):
    queue = calls.queue
    while _has_more(calls):
        queue[0].exception(None if end is None else end - time.monotonic())
        yield calls.take(queue.popleft())


def _as_they_come(calls, arrivals, end):
    queue = calls.queue
    while _has_more(calls):
        arrived = arrivals.take(None if end is None else max(0, end - time.monotonic()), queue[0])
        if not arrived and end is not None and time.monotonic() >= end:
            raise TimeoutError
        for future in arrived:
            queue.remove(future)
            yield calls.take(future)


def _results(calls, outcomes):
    try:
        for results, error, _, _ in outcomes:
            results.reverse()
            while results:      # keeps nothing of what it has given out
                yield results.pop()
            if error is not None:
                raise error
    finally:
        calls.cancel()
        results = error = outcomes = None


class BySubmit:
    """What start() needs of a pool, over the submit() of an executor that has one of its own.

    It is called for all tasks at once, in the thread that called map(), as by the standard library's map().
    """

    def __init__(self, executor):
        self._submit = executor.submit

    def submit(self, fn, args, kwargs, options, *, held):
        return self._submit(fn, *args, **kwargs)

    def hold(self, who):
        return bool


def start(pool, fn, iterables, *, timeout=None, chunksize="auto", buffersize=None, ordered=True, options=None):
    """Has the pool call fn for the items of the iterables: an iterator over the results.

    timeout: seconds from now after which next() raises TimeoutError. chunksize: how many calls make a task, or "auto".
    buffersize: at most so many calls (tasks, where chunksize is a number) are under way whose results have not been
    taken; None: all are made, whether results are taken or not. ordered: else results come as they are there.
    Source: concurrent.futures.Executor.map.
    """
    end = None if timeout is None else timeout + time.monotonic()
    star = len(iterables) != 1
    items = zip(*iterables) if star else iter(iterables[0])
    if chunksize == "auto" and options is not None and options.timeout is not None:
        chunksize = 1
    if chunksize == "auto":
        most = _AHEAD * pool.size if buffersize is None else max(_AHEAD * pool.size, 32)
        size = AutoSize(pool.size, None if buffersize is None else max(1, buffersize // (_AHEAD * pool.size)))
        room = buffersize
    else:
        most, size = math.inf if isinstance(pool, BySubmit) else _MOST, FixedSize(chunksize)
        room = None if buffersize is None else buffersize * chunksize
    rows = Listed(list(items)) if buffersize is None else Iterated(items)
    arrivals = None if ordered else _core.Arrivals()
    calls = Map(pool, Rows(fn, star), rows, size, most, room, options, arrivals)
    try:
        calls.fill(wait=True)
    except BaseException:
        calls.cancel()
        raise
    return _results(calls, _in_order(calls, end) if ordered else _as_they_come(calls, arrivals, end))
