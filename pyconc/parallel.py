# SPDX-License-Identifier: MIT
"""numpy functions that let go of the GIL, on all cores.

    means = parallel.apply_rows(numpy.mean, matrix, axis=1)
    print(parallel.probe(numpy.sort, column))

numpy's loops over large arrays (ufuncs, reductions, sorting) run without the GIL, so that threads can share the rows of
an array among them. Small arrays, arrays of objects and functions written in Python hold it and gain nothing: probe()
measures what a call gains.
"""
import math
import operator
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyconc._limits import available_cores
from pyconc.concurrent.futures import ThreadPoolExecutor

if TYPE_CHECKING:
    import numpy

__all__ = ("Probe", "apply_rows", "probe")

# Work below this is over before it would have been shared out.
_SPLIT_SECONDS = 500e-6
# What a call is given at least: enough to take that long and that large, so that it is not the calling that takes the
# time.
_PART_SECONDS, _PART_BYTES = 0.5e-3, 1 << 19
# What tells how long it takes and of which type the results are.
_FIRST_BYTES = 1 << 16
_pools: dict[int, ThreadPoolExecutor] = {}


def apply_rows(func: Callable[..., Any], array: "numpy.ndarray", /, *args: Any, threads: int | None = None,
               out: "numpy.ndarray | None" = None, **kwargs: Any) -> "numpy.ndarray":
    """``func(array, *args, **kwargs)`` in threads, each of which calls it with some of the rows.

    func: takes an array of some rows (along the first axis) as its first argument and returns an array with a row for
    each of them, or as many numbers, that depends on nothing but the row: ``numpy.sqrt``, ``numpy.sort``, or
    ``numpy.mean`` with ``axis=1``. It is called by several threads at once.
    array: an array of one dimension or more; what is none is made one by numpy.asarray.
    threads: how many at most, the calling one being one of them; by default as many as there are CPUs.
    out: where the results go, of the right shape; by default a new array of the type that func returns for the first
    rows.

    Work that is too short to gain from it stays in the calling thread. Sums over arrays that are not contiguous may
    differ in the last digits, since numpy adds in another order. Raises what func raises, of several errors that of the
    first rows, and ValueError when it does not return a row for each one it was given or when there is no first axis.
    """
    import numpy
    array = numpy.asarray(array)
    if array.ndim == 0:
        raise ValueError("an array without dimensions has no rows")
    most = available_cores() if threads is None else operator.index(threads)
    if most < 1:
        raise ValueError(f"threads must be at least 1, not {most}")
    rows = len(array)
    row_bytes = max(1, array.nbytes // max(1, rows))
    done = min(rows, 1 + _FIRST_BYTES // row_bytes)
    if most == 1 or done == rows:
        return _store(numpy, func(array, *args, **kwargs), out, rows)
    begun = time.perf_counter()
    first = _checked(numpy, func(array[:done], *args, **kwargs), done)
    row_seconds = (time.perf_counter() - begun) / done
    if out is None:
        out = numpy.empty((rows, *first.shape[1:]), first.dtype)
    elif out.shape != (rows, *first.shape[1:]):
        raise ValueError(f"out has the shape {out.shape} where the results have {(rows, *first.shape[1:])}")
    out[:done] = first
    least = left = rows - done
    if row_seconds * left > _SPLIT_SECONDS:
        # Costly rows are shared however few bytes they have.
        least = math.ceil(min(max(_PART_SECONDS / row_seconds, _PART_BYTES / row_bytes), left / (4 * most)))
    spans = _spans(done, rows, least, most)

    # A ufunc spares the copy, and the memory that would have to be found for it each time.
    direct = isinstance(func, numpy.ufunc) and func.nout == 1 and not args

    def work_on(begin: int, end: int) -> None:
        if direct:
            func(array[begin:end], out=out[begin:end], **kwargs)
        else:
            out[begin:end] = _checked(numpy, func(array[begin:end], *args, **kwargs), end - begin)

    _share(work_on, spans, most)
    return out


def _spans(begin: int, rows: int, least: int, threads: int) -> list[tuple[int, int]]:
    """What is left of the rows, in parts of half of a thread's share of what is left then: the first ones are large,
    and the last are small, lest the last thread to finish be late."""
    spans = []
    while begin < rows:
        end = min(begin + max(least, (rows - begin) // (2 * threads)), rows)
        spans.append((begin, end))
        begin = end
    return spans


def _checked(numpy: Any, result: Any, rows: int) -> Any:
    result = numpy.asarray(result)
    if result.ndim == 0 or len(result) != rows:
        raise ValueError(f"the function returned the shape {result.shape} for {rows} rows: it must return one for each")
    return result


def _store(numpy: Any, result: Any, out: Any, rows: int) -> Any:
    result = _checked(numpy, result, rows)
    if out is None:
        return result
    if out.shape != result.shape:
        raise ValueError(f"out has the shape {out.shape} where the results have {result.shape}")
    out[...] = result
    return out


def _pool(size: int) -> ThreadPoolExecutor:
    """Threads that stay, since starting them takes longer than waking them."""
    return _pools.get(size) or _pools.setdefault(size, ThreadPoolExecutor(size, "pyconc-parallel"))


def _share(work_on: Callable[[int, int], None], spans: list[tuple[int, int]], threads: int) -> None:
    """Calls work_on with all spans, in this thread and in others, each of which takes the next one when it has time."""
    left = iter(list(enumerate(spans)))
    failed: dict[int, BaseException] = {}
    lock = threading.Lock()

    def turn() -> None:
        while True:
            with lock:
                number, span = next(left, (0, None))
                if span is None or failed:
                    return
            try:
                work_on(*span)
            except BaseException as error:
                failed[number] = error

    others = []
    if len(spans) > 1:
        pool = _pool(threads - 1)
        others = [pool.submit(turn) for _ in range(min(threads, len(spans)) - 1)]
    turn()
    for other in others:
        # One that has not begun is not waited for: who would have to begin it may be waiting itself.
        if not other.cancel():
            other.result()
    if failed:
        raise failed[min(failed)]


@dataclass(frozen=True)
class Probe:
    """What probe() measured."""

    threads: int
    """Threads that called the function at once."""
    cpu: float
    """CPU seconds that a call takes, made in one thread alone."""
    alone: float
    """Seconds that a call takes."""
    together: float
    """Seconds that a call takes beside those of the other threads."""

    @property
    def speedup(self) -> float:
        """How many times as many calls the threads made in the same time as one alone."""
        return self.threads * self.alone / self.together

    @property
    def helps(self) -> bool:
        """Whether threads are worth it: they come at least half of the way from 1 to as many as they are."""
        return self.threads > 1 and self.speedup >= (1 + self.threads) / 2

    @property
    def advice(self) -> str:
        """What to do, in a sentence."""
        if self.threads == 1:
            return "this process has one CPU: threads can't make it faster"
        found = f"{self.threads} threads do {self.speedup:.2f} times the work of one"
        if not self.helps and self.cpu < 0.8 * self.alone:
            return f"{found}, but this says little: alone, a call got {self.cpu / self.alone:.0%} of a CPU, since it " \
                   "waits for something or other programs keep the CPUs busy"
        if self.helps:
            if self.alone < 100e-6:
                return f"{found}, but a call of {self.alone * 1e6:.0f} us is short: give each one more to do"
            return f"{found}: use them"
        if self.speedup > 1.15:
            return f"{found}: they share a resource, such as the GIL for a part of the call or the memory's bandwidth"
        return f"{found}: it holds the GIL; use processes, or a function that lets go of it"

    def __str__(self) -> str:
        return self.advice


def probe(func: Callable[..., Any], /, *args: Any, threads: int | None = None, seconds: float = 0.2,
          **kwargs: Any) -> Probe:
    """Measures whether threads help: calls ``func(*args, **kwargs)`` in one thread and then in several at once.

    func is called again and again, with the same arguments, by all of them: it should neither change these nor write to
    the same place.
    threads: how many; by default as many as there are CPUs for this process.
    seconds: about how long each half of the measurement takes; a call that takes longer is made once by each thread.

    Other programs that keep the CPUs busy make threads look worse than they are. Raises what func raises and ValueError
    for numbers that are out of range.
    """
    most = available_cores() if threads is None else operator.index(threads)
    if most < 1:
        raise ValueError(f"threads must be at least 1, not {most}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be positive, not {seconds!r}")

    def call(times: int) -> tuple[float, float]:
        begin, cpu = time.perf_counter(), time.thread_time()
        for _ in range(times):
            func(*args, **kwargs)
        return (time.perf_counter() - begin) / times, (time.thread_time() - cpu) / times

    once, _ = call(1)  # the first call may have to load what the others find
    times = max(1, int(seconds / 4 / max(once, 1e-7)))
    with ThreadPoolExecutor(most, "pyconc-probe") as pool:
        # Alternately, since the machine's speed changes; the best of each, since it is disturbed.
        alone, together = (math.inf, 0.0), math.inf
        for _ in range(3 if times > 1 else 1):
            alone = min(alone, call(times))
            together = min(together, _at_once(pool, call, times, most) / times)
    return Probe(most, alone[1], alone[0], together)


def _at_once(pool: ThreadPoolExecutor, call: Callable[[int], object], times: int, threads: int) -> float:
    """Seconds from when all threads begin until the last one has ended."""
    barrier = threading.Barrier(threads)

    def one() -> tuple[float, float]:
        barrier.wait()
        begin = time.perf_counter()
        call(times)
        return begin, time.perf_counter()

    try:
        futures = [pool.submit(one) for _ in range(threads)]
    except BaseException:
        barrier.abort()     # there is no thread for one of them: the others would wait for it
        raise
    ends = [future.result() for future in futures]
    return max(end for _, end in ends) - min(begin for begin, _ in ends)
