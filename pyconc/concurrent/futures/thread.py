# SPDX-License-Identifier: MIT
"""What a thread pool does once in its life; what it does for each job is in csrc/pool."""
import concurrent.futures
import functools
import itertools
import os
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures._base import LOGGER
from concurrent.futures.thread import BrokenThreadPool

from pyconc import _core
from pyconc.concurrent.futures._base import Future, check_buffersize

_cpu_count = getattr(os, "process_cpu_count", os.cpu_count)
_counter = itertools.count()
_executors = weakref.WeakSet()
_queues = weakref.WeakKeyDictionary()  # thread: (what it works on, whether the exit does not wait for it)
_exiting = False
# Whose items are read without running anybody's Python code.
_AT_HAND = frozenset({list, tuple, range, str, bytes, bytearray, set, frozenset, deque, dict,
                      *(type(view) for view in ({}.keys(), {}.values(), {}.items()))})
# Held while a thread is started, so that the interpreter's exit misses none.
_lock = threading.Lock()


def _at_exit():
    """Lets the workers finish what is queued, before threading waits for all threads; daemons only what they do."""
    global _exiting
    with _lock:
        _exiting = True
    workers = dict(_queues)
    # Those of all executors: a thread whose start() was interrupted, by a Ctrl-C, is in no list.
    queues = {executor._work_queue: executor._daemon for executor in list(_executors)} | dict(workers.values())
    for queue, daemon in queues.items():
        queue.close(True)
        if daemon:
            queue.cancel()
    for thread, (_, daemon) in workers.items():
        if not daemon:
            thread.join()


def _after_fork_in_child():
    _lock._at_fork_reinit()
    if _queues or _executors:   # a child has a copy of every page that it writes to: what for, when there is no pool?
        _lose_threads()


def _lose_threads():
    lost = BrokenThreadPool("the process was forked: the thread that ran this job is in the parent")
    queues = {queue for queue, _ in _queues.values()}
    _queues.clear()
    for executor in list(_executors):
        executor._reset()
        queues.add(executor._work_queue)
    for queue in queues:
        queue.after_fork(lost)


threading._register_atexit(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)


def _breathe():
    """Between jobs: here the interpreter lets another thread have the GIL."""


def _worker(queue, begin, end, broken):
    try:
        begin()
    except BaseException:
        LOGGER.critical("Exception in initializer:", exc_info=True)
        queue.break_(broken("A thread initializer failed, the thread pool is not usable anymore"))
        return
    try:
        queue.work(_breathe)
    finally:
        end()


def _nothing():
    pass


def _place(thread):
    """Where it is now, for people."""
    frame = sys._current_frames().get(thread.ident)
    if frame is None:
        return thread.name
    return f"{thread.name} at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _take_result(future, end):
    """The result, waited for until `end`; whatever happens, the future is not left to run for nobody."""
    try:
        return future.result(None if end is None else end - time.monotonic())
    finally:
        future.cancel()
        del future  # the exception's traceback holds this frame


def _results(calls):
    try:
        yield from calls
    finally:
        calls.cancel()


def _results_of_futures(futures, pool, fn, items, end):
    try:
        while futures:
            if (executor := pool()) is not None and (args := next(items, None)) is not None:
                futures.append(executor.submit(fn, *args))
            del executor
            yield _take_result(futures.popleft(), end)
    finally:
        for future in futures:
            future.cancel()


def _interrupts(function):
    """Whether this thread is in the middle of a call of it."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


class ThreadPoolExecutor(_core.ThreadPoolBase, concurrent.futures.ThreadPoolExecutor):
    """Runs calls in threads.

    max_workers: the most threads, by default the number of CPUs plus 4 and at most 32. They start when they are needed.
    thread_name_prefix: the threads are called PREFIX_0, PREFIX_1, ...
    initializer, initargs: called in each thread before its first job; if it raises, the pool is broken and every job
    that waits, as every submit() from then on, raises BrokenThreadPool.
    daemon: the interpreter's exit waits for no job: those that run are cut off, those that wait are cancelled.

    Every job runs in a copy of the context variables of the one who submitted it. A job that waits without a timeout
    for a job of its own pool, by result(), exception(), wait(), as_completed() or map(), runs it itself where no worker
    has begun it: all of them may be waiting so. Source: concurrent.futures.ThreadPoolExecutor.
    """

    _broken_type = BrokenThreadPool

    def __init__(self, max_workers=None, thread_name_prefix="", initializer=None, initargs=(), *, daemon=False):
        if max_workers is None:
            max_workers = min(32, (_cpu_count() or 1) + 4)
        if max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        self._max_workers = max_workers
        self._thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(_counter)}"
        self._initializer = initializer
        self._initargs = initargs
        self._daemon = bool(daemon)
        self._reset()
        self._open(_core.JobQueue(max_workers), Future)
        _executors.add(self)

    def _reset(self):
        self._threads = set()
        self._shutdown_lock = threading.Lock()

    _shutdown = property(lambda self: self._work_queue.closed)
    _broken = property(lambda self: self._work_queue.broken)

    def _hooks(self):
        """What a new thread calls before its first job and after its last."""
        if self._initializer is None:
            return _nothing, _nothing
        return functools.partial(self._initializer, *self._initargs), _nothing

    def _start_worker(self, number):
        """Called by submit() when nobody is idle."""
        with self._shutdown_lock, _lock:
            if _exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            thread = threading.Thread(name=f"{self._thread_name_prefix}_{number}", target=_worker,
                                      args=(self._work_queue, *self._hooks(), self._broken_type),
                                      daemon=self._daemon or None)
            thread.start()
            self._threads.add(thread)
            _queues[thread] = self._work_queue, self._daemon

    def _started_threads(self):
        """All, also the one that a submit() in another thread is just about to start.

        Not one that this thread is: a signal's handler shuts the pool down there.
        """
        while True:
            with self._shutdown_lock:
                if self._work_queue.workers() <= len(self._threads) or _interrupts(ThreadPoolExecutor._start_worker):
                    return list(self._threads)
            time.sleep(0.001)

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """The results of fn(*items) for the items of the iterables, in order.

        timeout: seconds, counted from this call, in which all results must have been taken, else TimeoutError.
        chunksize: accepted for the sake of other executors.
        buffersize: at most so many calls are submitted whose results have not been taken; None submits all at once.

        The first calls are made while an iterator still yields items for the others. Items that are there already, in
        lists, tuples, ranges, strings, sets, dicts and their views or deques, take less: no Future a call.

        Source: concurrent.futures.Executor.map.
        """
        check_buffersize(buffersize)
        end = None if timeout is None else timeout + time.monotonic()
        if buffersize is None and self.submit == super().submit and _AT_HAND.issuperset(map(type, iterables)):
            items = list(iterables[0]) if len(iterables) == 1 else list(zip(*iterables))
            return _results(self._map(fn, items, len(iterables) != 1, None if end is None else end - time.monotonic()))
        items = zip(*iterables)
        futures = deque(self.submit(fn, *args) for args in itertools.islice(items, buffersize))
        # The generator must not keep the pool alive.
        pool = weakref.ref(self) if buffersize is not None else lambda: None
        return _results_of_futures(futures, pool, fn, items, end)

    def shutdown(self, wait=True, *, cancel_futures=False, timeout=None):
        """Takes no more jobs.

        wait: returns when all threads have ended, which they do when no job is left.
        cancel_futures: cancels the jobs that wait.
        timeout: seconds to wait at most; then TimeoutError, which names the threads that still run and where they are.
        They go on, and end with their jobs.

        Source: concurrent.futures.Executor.shutdown.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._shutdown_lock:
            self._work_queue.close(False)
        if cancel_futures:
            self._work_queue.cancel()
        if not wait:
            return
        threads = self._started_threads()
        for thread in threads:
            thread.join(None if end is None else max(0, end - time.monotonic()))
        if end is not None and (running := [thread for thread in threads if thread.is_alive()]):
            raise TimeoutError(f"{len(running)} of {len(threads)} threads still run after {timeout} seconds: "
                               + "; ".join(map(_place, running)))
