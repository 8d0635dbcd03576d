# SPDX-License-Identifier: MIT
"""Pools with the interface of multiprocessing.pool on the engine of pyconc's process pools."""
import functools
import itertools
import threading
import time
import warnings
from concurrent.futures import CancelledError
from concurrent.futures._base import LOGGER
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from multiprocessing import TimeoutError as _TimeoutError
from multiprocessing import pool as _standard
from multiprocessing import queues as _queues
from multiprocessing import util as _util
from multiprocessing.pool import CLOSE, INIT, RUN, TERMINATE, MaybeEncodingError, RemoteTraceback

from pyconc.concurrent.futures._base import Future
from pyconc.multiprocessing.context import _default_context
from pyconc.workers.limits import available_cpus
from pyconc.workers.pool import Options, WorkerPool
from pyconc.workers.remote import Rows

__all__ = ["Pool", "ThreadPool"]

_AHEAD = 512        # jobs of an imap() that no worker has finished: what it takes of an iterable before they are done
_SLICED = frozenset({list, tuple, range})
_GRACE = 5.0            # seconds from SIGTERM to SIGKILL


def _go_on(died):
    """The lock of a pipe: a worker that is killed while it waits for a job has the one to read."""


class PipeQueue(_queues.SimpleQueue):
    """A queue over a pipe: the standard library's pools use both ends of it by themselves."""

    def __init__(self, *, ctx):
        super().__init__(ctx=ctx)
        self._rlock = ctx.Lock(recover=_go_on)
        self._wlock = ctx.Lock(recover=_go_on)


def _as_told_here(error):
    """An exception of the engine's as this module's users know it."""
    cause = error.__cause__
    remote = RemoteTraceback(cause.tb) if type(cause) is _RemoteTraceback else cause
    unsent = getattr(cause, "unsent", None)
    if unsent is not None:
        error = MaybeEncodingError(error, None)
        error.value = unsent
        error.args = error.exc, unsent
    error.__cause__ = remote
    return error


def _outcome_of(future):
    """(True, value) or (False, exception) of a Future that is done."""
    try:
        return True, future.result()
    except BaseException as error:
        if future.cancelled():      # which is not known by the error: a job may raise the same
            return False, BrokenProcessPool("the pool was terminated before this call was done")
        return False, _as_told_here(error)


def _outcome_of_rows(future):
    """The same of one whose call was that of Rows: (True, values) or (False, exception)."""
    good, outcome = _outcome_of(future)
    if not good:
        return False, outcome
    values, error, *_ = outcome
    return (True, values) if error is None else (False, _as_told_here(error))


def _chunks(iterable, size):
    if type(iterable) in _SLICED:
        yield from (iterable[start:start + size] for start in range(0, len(iterable), size))
        return
    items = iter(iterable)
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


class ApplyResult(_standard.ApplyResult):
    """What Pool.apply_async() returns; it can be awaited, too. Source: multiprocessing.pool.AsyncResult."""

    def __init__(self, pool, futures, callback=None, error_callback=None):
        self._pool = pool       # which lives as long as somebody has a result that is not there
        self._futures = futures
        self._outcome = None
        self._callback = callback
        self._error_callback = error_callback
        if futures and (callback or error_callback):
            self._as_future()

    def _collect(self, futures):
        return _outcome_of(*futures)

    def _settle(self):
        """(True, value) or (False, exception), once all Futures are done."""
        futures = self._futures     # before it is seen whether another thread has settled it and let go of them
        if self._outcome is None:
            self._outcome = self._collect(futures)
            self._pool = None
            self._futures = ()
        return self._outcome

    def _as_future(self):
        """A Future of the whole, done when the callbacks have been called."""
        mine = Future()
        whole = self.__dict__.setdefault("_whole", mine)
        if whole is mine:
            futures, lock = self._futures, threading.Lock()     # another thread may let go of them
            left = len(futures)

            def told(_):
                nonlocal left
                with lock:
                    left -= 1
                if left == 0:
                    self._end_in_pool(whole)

            for future in futures:
                future.add_done_callback(told)
            if not futures:
                self._end(whole)
        return whole

    def _end_in_pool(self, whole):
        """Callbacks are not for the thread that asks for the call, which may hold locks that they want."""
        pool = self._pool
        if pool is not None and (self._callback or self._error_callback):
            pool._engine.call(functools.partial(self._end, whole))
        else:
            self._end(whole)

    def _end(self, whole):
        pool = self._pool
        good, value = self._settle()
        try:
            callback = self._callback if good else self._error_callback
            if callback and (pool is None or pool._state != TERMINATE):
                callback(value)
        except Exception:   # is logged, as that of a Future's callback is: the result is there all the same
            LOGGER.exception("exception calling callback for %r", self)
        finally:
            self._callback = self._error_callback = None
            whole.set_result(value) if good else whole.set_exception(value)

    def _watched(self):
        whole = self.__dict__.get("_whole")
        return self._futures if whole is None else (whole,)

    def ready(self):
        """Whether the call is done."""
        return all(future.done() for future in self._watched())

    def successful(self):
        """Whether it returned; ValueError when it is not done."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._settle()[0]

    def _wait(self, timeout):
        end = None if timeout is None else time.monotonic() + timeout
        for future in self._watched():
            try:
                future.exception(None if end is None else max(0.0, end - time.monotonic()))
            except CancelledError:
                pass
            except TimeoutError:
                return False
        return True

    def wait(self, timeout=None):
        """Waits until it is done, so many seconds at most."""
        self._wait(timeout)

    def get(self, timeout=None):
        """What the call returned, or raises what it raised; multiprocessing.TimeoutError after so many seconds."""
        if not self._wait(timeout):
            raise _TimeoutError
        good, value = self._settle()
        if good:
            return value
        try:
            raise value
        finally:
            del self, value     # the exception's traceback holds this frame

    def __await__(self):
        return self._as_future().__await__()


AsyncResult = ApplyResult


class MapResult(ApplyResult):
    """What Pool.map_async() returns. Source: multiprocessing.pool.MapResult."""

    def _collect(self, futures):
        values = []
        for future in futures:
            good, found = _outcome_of_rows(future)
            if not good:
                return False, found
            values += found
        return True, values


class _Context:
    """A context for the engine, whose processes are made as the pool makes them."""

    def __init__(self, context, make):
        self._context = context
        self._make = make

    def get_start_method(self, allow_none=False):
        return self._context.get_start_method(allow_none=allow_none)

    def Process(self, *args, **kwargs):
        process = self._make(self._context, *args, **kwargs)
        process.name = process.name.replace("Process", "PoolWorker")
        return process


def _terminate(engine):
    engine.kill(False, grace=_GRACE)
    if not engine.is_mine():    # a callback terminates the pool
        engine.join()


class Pool(_standard.Pool):
    """A pool of worker processes, all of which start at once.

    processes: how many, by default as many as there are CPUs. initializer, initargs: called in each process first; if
    it raises, every call raises BrokenProcessPool. maxtasksperchild: after so many calls (chunks, for the maps) a
    process is replaced. context: of multiprocessing, or pyconc's.

    A process that dies is replaced; the call that it ran raises WorkerDied and no other is lost. After terminate(),
    also by the end of a with block, calls that were not done raise BrokenProcessPool.

    Source: multiprocessing.pool.Pool.
    """

    def __init__(self, processes=None, initializer=None, initargs=(), maxtasksperchild=None, context=None):
        self._state = INIT      # for __del__()
        self._ctx = context or _default_context.get_context()
        if processes is None:
            processes = available_cpus()
        if processes < 1:
            raise ValueError(f"Number of processes must be at least 1, not {processes!r}")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError(f"maxtasksperchild must be a positive int or None, not {maxtasksperchild!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        self._processes = processes
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs
        self._cache = {}
        self._engine = engine = WorkerPool(processes, _Context(self._ctx, self.Process), initializer=initializer,
                                           initargs=initargs, max_tasks=maxtasksperchild, replaces=True, daemon=True)
        try:
            engine.start()
        except BaseException:
            engine.kill(False)
            for process in list(engine.processes.values()):
                process.join()
            raise
        self._terminate = _util.Finalize(self, _terminate, args=[engine], exitpriority=15)
        self._state = RUN

    def __del__(self, _warn=warnings.warn, RUN=RUN):
        if self._state == RUN and not self._engine.is_forked():
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    @property
    def _pool(self):
        """The processes that there are; programs count them."""
        return list(self._engine.processes.values())

    def _repopulate_pool(self):
        self._engine.start()

    def __repr__(self):
        kind = type(self)
        return f"<{kind.__module__}.{kind.__qualname__} state={self._state} pool_size={len(self._pool)}>"

    # Calls.

    def apply_async(self, func, args=(), kwds={}, callback=None, error_callback=None, *, timeout=None):  # noqa: B006
        """Calls func(*args, **kwds) in a worker: an AsyncResult.

        callback(value), or error_callback(exception): called in a thread of the pool before the result is there.
        timeout: seconds that the call may take, from its beginning; then it raises TimeoutError, and its worker is
        interrupted, then terminated, then killed, and replaced. Source: multiprocessing.pool.Pool.apply_async.
        """
        self._check_running()
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be None or more than 0 seconds, not {timeout!r}")
        options = None if timeout is None else Options(timeout=timeout)
        future = self._engine.submit(func, tuple(args), dict(kwds), options)
        return ApplyResult(self, (future,), callback, error_callback)

    def apply(self, func, args=(), kwds={}):    # noqa: B006
        """What func(*args, **kwds), called in a worker, returns. Source: multiprocessing.pool.Pool.apply."""
        return self.apply_async(func, args, kwds).get()

    def _map_async(self, func, iterable, star, chunksize, callback=None, error_callback=None):
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        count = len(iterable)
        if chunksize is None or count == 0:     # of none a program may make chunks of 0
            chunksize = max(1, -(-count // (self._processes * 4)))
        _check_chunksize(chunksize)
        function, futures = Rows(func, star), []
        try:
            for chunk in _chunks(iterable, chunksize):
                futures.append(self._engine.submit(function, (chunk,), {}))
        except Exception as error:      # of the iterable: told as the call's
            future = Future()
            future.set_exception(error)
            futures.append(future)
        return MapResult(self, tuple(futures), callback, error_callback)

    def map(self, func, iterable, chunksize=None):
        """[func(item) for item in iterable], in the workers. Source: multiprocessing.pool.Pool.map."""
        return self._map_async(func, iterable, False, chunksize).get()

    def map_async(self, func, iterable, chunksize=None, callback=None, error_callback=None):
        """The list of map() as an AsyncResult; callbacks as those of apply_async().

        chunksize: how many calls make one job; by default there are four jobs for each worker. All calls are made, also
        when some raise: the first of those, in the items' order, is what get() raises.
        Source: multiprocessing.pool.Pool.map_async.
        """
        return self._map_async(func, iterable, False, chunksize, callback, error_callback)

    def starmap(self, func, iterable, chunksize=None):
        """[func(*items) for items in iterable], in the workers. Source: multiprocessing.pool.Pool.starmap."""
        return self._map_async(func, iterable, True, chunksize).get()

    def starmap_async(self, func, iterable, chunksize=None, callback=None, error_callback=None):
        """The list of starmap() as map_async() has that of map(). Source: multiprocessing.pool.Pool.starmap_async."""
        return self._map_async(func, iterable, True, chunksize, callback, error_callback)

    def imap(self, func, iterable, chunksize=1):
        """An iterator over func(item) of all items, in order.

        A thread takes the items, some hundred jobs ahead of the workers at most, whether anybody takes results or not.
        With a chunksize of 1 there is next(timeout), which raises multiprocessing.TimeoutError after so many seconds.
        Source: multiprocessing.pool.Pool.imap.
        """
        return self._imap(_standard.IMapIterator, func, iterable, chunksize)

    def imap_unordered(self, func, iterable, chunksize=1):
        """As imap(), in the order in which they are done. Source: multiprocessing.pool.Pool.imap_unordered."""
        return self._imap(_standard.IMapUnorderedIterator, func, iterable, chunksize)

    def _imap(self, kind, func, iterable, chunksize):
        self._check_running()
        _check_chunksize(chunksize)
        results = kind(self)

        def feed():
            _feed(self, results, func, iterable, chunksize, release)

        release = self._engine.hold(feed)
        feeder = threading.Thread(target=feed, daemon=True, name="pyconc-imap")
        try:
            feeder.start()
        except BaseException:   # also Ctrl-C, when it has begun already
            release()
            raise
        return results if chunksize == 1 else (item for chunk in results for item in chunk)

    # The end.

    def close(self):
        """Takes no more calls; the workers end when those that were made are done."""
        if self._state == RUN:
            self._state = CLOSE
            self._engine.close()

    def terminate(self):
        """Ends the workers at once; calls that are not done raise BrokenProcessPool."""
        self._state = TERMINATE
        self._terminate()

    def join(self):
        """Waits until all workers have ended. ValueError before close() or terminate()."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._engine.join()


def _check_chunksize(chunksize):
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")


def _feed(pool, results, func, iterable, chunksize, release):
    """Submits the jobs of an imap(). release: what ends its hold on the pool."""
    if chunksize == 1:
        function, outcome_of, jobs = func, _outcome_of, iterable
    else:
        function, outcome_of, jobs = Rows(func, False), _outcome_of_rows, _chunks(iterable, chunksize)
    from pyconc.threading import Semaphore
    room, count = Semaphore(_AHEAD), 0

    def told(index, future):
        room.release()
        results._set(index, outcome_of(future))

    try:
        for job in jobs:
            room.acquire()
            future = pool._engine.submit(function, (job,), {}, held=True)
            future.add_done_callback(functools.partial(told, count))
            count += 1
    except Exception as error:
        results._set(count, (False, error))
        count += 1
    finally:
        results._set_length(count)
        release()


class ThreadPool(_standard.ThreadPool):
    """A pool of threads. Source: multiprocessing.pool.ThreadPool."""

    def __init__(self, processes=None, initializer=None, initargs=()):
        _standard.Pool.__init__(self, processes, initializer, initargs, context=_default_context.get_context())


def __getattr__(name):
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
