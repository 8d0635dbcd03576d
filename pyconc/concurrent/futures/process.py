# SPDX-License-Identifier: MIT
"""The pool of processes; what it does is in pyconc.workers."""
import concurrent.futures
import multiprocessing
import threading
import weakref
from concurrent.futures.process import BrokenProcessPool

from pyconc.concurrent.futures._base import check_buffersize
from pyconc.multiprocessing import get_context
from pyconc.workers.failure import WorkerDied
from pyconc.workers.limits import available_cpus
from pyconc.workers.pool import OPEN, Options, WorkerPool
from pyconc.workers.supervisor import Collector, Supervisor

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor", "WorkerDied"]

_DEATHS = ("break", "replace")


def _has_threads():
    return sum(not isinstance(thread, Supervisor | Collector) for thread in threading.enumerate()) > 1


def _default_context(max_tasks):
    """A program that has chosen no start method gets none that copies its threads' locks."""
    if max_tasks is not None:
        return get_context("spawn")
    methods = multiprocessing.get_all_start_methods()
    if (multiprocessing.get_start_method(allow_none=True) is None and methods[0] == "fork"
            and "forkserver" in methods and _has_threads()):
        return get_context("forkserver")
    return get_context()


def _positive(name, value):
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be >= 1, not {value!r}")


def _retries(value):
    if not isinstance(value, int):
        raise TypeError(f"retry must be an integer, not {value!r}")
    if value < 0:
        raise ValueError(f"retry must be 0 or more, not {value!r}")


def _seconds(name, value):
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if value is not None and not value >= 0:
        raise ValueError(f"{name} must be 0 or more seconds, not {value!r}")


class _WithOptions(concurrent.futures.Executor):
    """An executor whose calls have options of their own."""

    def __init__(self, executor, options):
        self._executor = executor
        self._options = options

    def submit(self, fn, /, *args, **kwargs):
        """As the executor's."""
        return self._executor._pool.submit(fn, args, kwargs, self._options)

    def map(self, fn, *iterables, timeout=None, chunksize="auto", buffersize=None, ordered=True):
        """As the executor's."""
        return self._executor._map(fn, iterables, timeout, chunksize, buffersize, ordered, self._options)

    def shutdown(self, wait=True, *, cancel_futures=False):
        """The executor's."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


class ProcessPoolExecutor(concurrent.futures.ProcessPoolExecutor):
    """Runs calls in processes.

    max_workers: the most processes, by default the number of CPUs. They start when they are needed; under 'fork', all
    of them with the first call.
    mp_context: of multiprocessing, or pyconc's. By default the one that the program has set; a program that has set
    none and has threads gets 'forkserver' where the default would be 'fork'.
    initializer, initargs: called in each process before its first call; if it raises, the pool is broken.
    finalizer: called without arguments in each process that ends after its last call.
    max_tasks_per_child: after so many calls a process is replaced, under every start method; without mp_context,
    that is 'spawn' then.
    on_worker_death: "break": when a process dies, its call raises WorkerDied and so do all others that are not done, as
    every submit() from then on raises BrokenProcessPool; "replace": only that call fails.
    retry: how often a call is run again whose process died, before that counts.
    idle_timeout: seconds after which a process without work ends; None: never.
    timeout: seconds that a call may run, from when a process has begun it. Then its Future raises TimeoutError, and the
    process gets SIGINT, as from Ctrl-C; if the call has not ended `grace` seconds later, SIGTERM, and as much later
    SIGKILL. A process that ends so is replaced. Future.cancel(running=True) does the same.
    max_memory_per_worker: bytes that a process may have for itself. One that has more after a call is replaced; one
    that has more while a call runs is killed, and that call's Future raises MemoryError.
    cpus: True: each process is bound to a CPU of its own; or a list with a CPU, or a set of them, for each process.

    The Futures are awaitable in any asyncio loop. Source: concurrent.futures.ProcessPoolExecutor.
    """

    def __init__(self, max_workers=None, mp_context=None, initializer=None, initargs=(), *, max_tasks_per_child=None,
                 on_worker_death="break", retry=0, finalizer=None, idle_timeout=None, timeout=None,
                 grace=3.0, max_memory_per_worker=None, cpus=None):
        if max_workers is None:
            max_workers = available_cpus()
        if max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers!r}")
        for name, function in (("initializer", initializer), ("finalizer", finalizer)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a callable, not {function!r}")
        if max_tasks_per_child is not None:
            _positive("max_tasks_per_child", max_tasks_per_child)
        if on_worker_death not in _DEATHS:
            raise ValueError(f"on_worker_death must be one of {_DEATHS}, not {on_worker_death!r}")
        _retries(retry)
        if idle_timeout is not None and idle_timeout < 0:
            raise ValueError(f"idle_timeout must be None or 0 or more seconds, not {idle_timeout!r}")
        _seconds("timeout", timeout)
        _seconds("grace", grace)
        if max_memory_per_worker is not None:
            _positive("max_memory_per_worker", max_memory_per_worker)
        self._max_workers = max_workers
        self._mp_context = mp_context or _default_context(max_tasks_per_child)
        self._initializer = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._pool = WorkerPool(max_workers, self._mp_context, initializer=initializer, initargs=initargs,
                                finalizer=finalizer, max_tasks=max_tasks_per_child, retry=retry,
                                replaces=on_worker_death == "replace", idle_timeout=idle_timeout,
                                timeout=timeout, grace=grace, max_memory=max_memory_per_worker, cpus=cpus)
        self._abandon = weakref.finalize(self, self._pool.abandon)
        self._abandon.atexit = False

    # What programs look at that know the standard library's executor from inside.
    _processes = property(lambda self: self._pool.processes if self._pool.state is OPEN else None)
    _executor_manager_thread = property(lambda self: self._pool.supervisor)
    _broken = property(lambda self: self._pool.broken or False)
    _shutdown_thread = property(lambda self: self._pool.state is not OPEN)

    def __getstate__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object: it stays in its process. A method takes its "
                        "object along: leave the pool out in __getstate__().")

    def submit(self, fn, /, *args, **kwargs):
        """Runs fn(*args, **kwargs) in a process; a Future.

        RuntimeError after shutdown(), BrokenProcessPool once the pool is broken. Arguments and results that cannot be
        pickled or unpickled are told by the Future. Source: concurrent.futures.Executor.submit.
        """
        return self._pool.submit(fn, args, kwargs)

    _own_submit = submit        # map() goes by another one, of a subclass or put in its place

    def stats(self):
        """What it has done and is doing: tasks, busy (seconds), bytes_in, bytes_out, waiting, running, deaths.

        workers: for each process its pid, tasks, busy, wait (seconds), running, bytes_in, bytes_out, memory (bytes).
        """
        return self._pool.stats()

    def options(self, *, priority=0, retry=None, timeout=None, progress=None):
        """This executor with options for the calls that are made by what this returns.

        priority: of those that wait, the highest is run first. retry, timeout: as the executor's; in map(), each task
        has so long, and "auto" makes each call one. progress: map() calls it with (calls done, calls in all or None)
        whenever a task has ended, as pyconc.workers.progress.bar() can be.
        """
        if not isinstance(priority, int | float):
            raise TypeError(f"priority must be a number, not {priority!r}")
        if retry is not None:
            _retries(retry)
        _seconds("timeout", timeout)
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be a callable, not {progress!r}")
        return _WithOptions(self, Options(priority, retry, timeout, progress))

    def map(self, fn, *iterables, timeout=None, chunksize="auto", buffersize=None, ordered=True):
        """An iterator over the results of fn(*items) for the items of the iterables.

        timeout: seconds, counted from this call, after which next() raises TimeoutError.
        chunksize: how many calls make one task; "auto": as many as take some ms, fewer towards the end. When a process
        dies, all calls of its task are lost.
        buffersize: at most so many calls (tasks, where chunksize is a number) are under way whose results have not been
        taken, and items are asked for as late as that; None: all items are asked for now and all calls are made,
        whether results are taken or not.
        ordered: else each result comes as soon as it is there.

        What a call raises, next() raises, and ends. Source: concurrent.futures.Executor.map.
        """
        return self._map(fn, iterables, timeout, chunksize, buffersize, ordered, None)

    def _map(self, fn, iterables, timeout, chunksize, buffersize, ordered, options):
        if chunksize != "auto":
            _positive("chunksize", chunksize)
        check_buffersize(buffersize)
        from pyconc.workers import chunks
        pool = self._pool
        if options is None and self.submit != self._own_submit:
            pool, chunksize = chunks.BySubmit(self), 1 if chunksize == "auto" else chunksize
        return chunks.start(pool, fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize,
                            ordered=ordered, options=options)

    def shutdown(self, wait=True, *, cancel_futures=False, timeout=None):
        """Takes no more calls.

        wait: returns when all calls are done and all processes have ended. cancel_futures: cancels the calls that no
        process has begun. timeout: seconds to wait at most; then TimeoutError: what runs goes on, and ends with its
        calls. Source: concurrent.futures.Executor.shutdown.
        """
        self._pool.close(cancel_futures)
        if wait and not self._pool.join(timeout):
            raise TimeoutError(f"{len(self._pool.processes)} of {self._max_workers} processes still run after "
                               f"{timeout} seconds")

    def __exit__(self, kind, value, traceback):
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._pool.close(cancel=True, interrupted=True)     # Ctrl-C is for the whole program
        self.shutdown(wait=True)
        return False

    def _force_shutdown(self, operation):
        if operation not in ("terminate", "kill"):
            raise ValueError(f"Unsupported operation: {operation!r}")
        self._pool.kill(operation == "kill")

    def terminate_workers(self):
        """Ends all processes by SIGTERM. Their calls raise BrokenProcessPool, others are cancelled."""
        return self._force_shutdown(operation="terminate")

    def kill_workers(self):
        """Ends all processes by SIGKILL. Their calls raise BrokenProcessPool, others are cancelled."""
        return self._force_shutdown(operation="kill")
