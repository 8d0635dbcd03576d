# SPDX-License-Identifier: MIT
"""C functions in threads that never take the GIL.

    job = native.map_ranges(lib.work_through, 1_000_000, data=array)
    job.result()        # or: await job

Threads call the function again and again, each with the next part of the work, and take over parts from one another
when they have none left. Neither they nor the Python code that goes on meanwhile slow each other down. Each function
here returns a Job at once: a Future that can be waited for, awaited in any asyncio loop and given to
concurrent.futures.wait.

Functions are those that pyconc.native.Function takes: capsules, scipy.LowLevelCallable, and functions of ctypes, cffi
and numba. One that returns an int or an int64_t says with it what became of the call: 0 is success; a negative errno
(-EIO) is raised as OSError; any other number as NativeError. After an error no further call begins, and of several
errors that of the first items is raised. An int64_t from 0 on is a result, such as the number of bytes written.

Buffers are held, and can't be resized, until the Job is over. What the function does with its arguments is its own
business: it is called by several threads at once, and its mistakes end the process.
"""
import atexit
import operator
from typing import TYPE_CHECKING, Any

from pyconc import _native
from pyconc._limits import available_cores
from pyconc.native import function as _function
from pyconc.native.function import SIGNATURES, Function
from pyconc.native.job import _VALUE, Job, NativeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ("SIGNATURES", "Function", "Job", "NativeError", "map_arrays", "map_ranges", "run")

# What a call is given of arrays if nobody says how much: it should fit into the caches and be over soon.
_GRAIN_BYTES = 1 << 18
# Calls a thread has at least, so that the last one to finish is not late.
_TURNS = 8

# A thread inside a function would go on while the interpreter is taken down.
atexit.register(_native.stop)


def run(fn: Any, input: "Buffer | None" = None, output: "Buffer | None" = None, *, data: Any = None,
        signature: str | None = None) -> Job:
    """One call of fn in another thread.

    fn: declared as `int64_t (const void *in, size_t in_len, void *out, size_t out_len, void *data)`, which is called
    with the whole of both buffers (NULL and 0 for None), or `void (void *data)` or `int (void *data)`, without buffers.
    input, output: contiguous buffers, output writable.
    data, signature: as in Function; not for a Function, which has its own.

    A call may wait, as for a lock or for what another one does: up to min(32, CPUs + 4) of them run at once, as many as
    concurrent.futures.ThreadPoolExecutor has threads, beside those that map_ranges() and map_arrays() have.

    The Job's result is the int64_t that fn returned, else None. Raises what Function raises, TypeError for buffers that
    fn does not take and for what is no buffer, BufferError for what is not contiguous or not writable.
    """
    fn = _take(fn, signature, data, "run", (_function.CALL, _function.CALL_INT, _function.BLOCK))
    if fn.kind != _function.BLOCK and (input is not None or output is not None):
        raise TypeError(f"a function declared as {SIGNATURES[fn.kind]!r} takes no buffers")
    work = _native.once(fn.kind, fn.address, fn, fn.data, input, output)
    job = Job(work, _VALUE if fn.kind == _function.BLOCK else None)
    job.begin(1, min(32, available_cores() + 4), 1)
    return job


def map_ranges(fn: Any, n: int, grain: int | None = None, *, data: Any = None, signature: str | None = None,
               threads: int | None = None) -> Job:
    """Calls of fn with ranges that together are the numbers from 0 to n, end excluded.

    fn: declared as `void (size_t begin, size_t end, void *data)` or the same with an int as the result.
    grain: numbers a call, except for the last one that may have fewer; by default n in eight parts for each thread.
    data, signature: as in Function; not for a Function, which has its own.
    threads: how many at most; by default as many as there are CPUs for this process.

    The Job's result is None. Raises what Function raises and ValueError for numbers that are out of range.
    """
    fn = _take(fn, signature, data, "map_ranges", (_function.RANGE, _function.RANGE_INT))
    n, threads = _number(n, "n", 0), _threads(threads)
    grain = max(1, n // (threads * _TURNS)) if grain is None else _number(grain, "grain", 1)
    return _start(_native.ranges(fn.kind, fn.address, fn, fn.data, n, grain), None, threads, grain)


def map_arrays(fn: Any, input: "Buffer", output: "Buffer", grain: int | None = None, *, data: Any = None,
               signature: str | None = None, threads: int | None = None) -> Job:
    """Calls of fn with the items of input and output.

    fn: declared as `double (double)` or `double (double, void *data)`: called for each double of input, its result
    put into output; or as `int64_t (const void *in, size_t in_len, void *out, size_t out_len, void *data)`: called with
    some rows of both (along their first axis), whatever they consist of, lengths in bytes.
    input, output: contiguous buffers with as many items, output writable. They may be the same.
    grain: items between two looks at whether the Job was cancelled, and most rows a call; by default 256 KiB of them,
    and fewer if there would not be eight parts for each thread.
    data, signature, threads: as in map_ranges.

    The Job's result is output. Raises what Function raises, TypeError for what is no buffer or not of doubles where
    they are needed, BufferError for what is not contiguous, aligned or writable, and ValueError when there are not as
    many items.
    """
    fn = _take(fn, signature, data, "map_arrays", (_function.UNARY, _function.UNARY_DATA, _function.BLOCK))
    threads = _threads(threads)
    if grain is not None:
        grain = _number(grain, "grain", 1)
    work = _native.arrays(fn.kind, fn.address, fn, fn.data, input, output)
    if grain is None:
        grain = max(1, min(work.total // (threads * _TURNS), _GRAIN_BYTES // max(1, work.item_size)))
    return _start(work, output, threads, grain)


def _take(fn: Any, signature: str | None, data: Any, caller: str, kinds: tuple[int, ...]) -> Function:
    if not isinstance(fn, Function):
        fn = Function(fn, signature, data)
    elif signature is not None or data is not None:
        raise TypeError("a Function has its signature and its data already")
    if fn.kind not in kinds:
        wanted = "; ".join(SIGNATURES[kind] for kind in kinds)
        raise ValueError(f"{caller}() calls functions declared as one of: {wanted}; not as {SIGNATURES[fn.kind]!r}")
    return fn


def _number(value: int, name: str, least: int) -> int:
    number = operator.index(value)
    if not least <= number < 2**63:
        raise ValueError(f"{name} must be at least {least} and fit into a size_t, not {number}")
    return number


def _threads(asked: int | None) -> int:
    return available_cores() if asked is None else _number(asked, "threads", 1)


def _start(work: _native.Work, result: Any, threads: int, grain: int) -> Job:
    job = Job(work, result)
    job.begin(threads, max(threads, available_cores()), grain)
    return job
