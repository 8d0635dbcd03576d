# SPDX-License-Identifier: MIT
"""C functions and numpy's loops on all cores: one thread, the standard library's threads, and pyconc.

    pytest benchmarks/bench_native.py -o python_files='bench_*.py' --benchmark-group-by=group

In the groups "busy: ..." a thread of the same process runs Python code all the while, on the other of two cores; the
idle group of the same name is what to compare with.
"""
import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyconc import native, parallel

numpy = pytest.importorskip("numpy")

LIBM = ctypes.CDLL("libm.so.6")
LIBM.cbrt.restype, LIBM.cbrt.argtypes = ctypes.c_double, [ctypes.c_double]
VALUES = numpy.random.default_rng(1).random(1_000_000)
OUT = numpy.empty_like(VALUES)
MATRIX = numpy.empty((4000, 5000))
MATRIX[:] = numpy.arange(5000)
POOL = ThreadPoolExecutor(2)
CBRT = native.Function(LIBM.cbrt)


def halves(func, array):
    middle = len(array) // 2
    return numpy.concatenate(list(POOL.map(func, (array[:middle], array[middle:]))))


JOBS = {
    "cbrt of 1 000 000 doubles": {
        "numpy": lambda: numpy.cbrt(VALUES),
        "numpy, threads": lambda: halves(numpy.cbrt, VALUES),
        "pyconc, 1 thread": lambda: native.map_arrays(CBRT, VALUES, OUT, threads=1).result(),
        "pyconc": lambda: native.map_arrays(CBRT, VALUES, OUT).result(),
    },
    "row means, 4000 x 5000": {
        "numpy": lambda: numpy.mean(MATRIX, axis=1),
        "numpy, threads": lambda: halves(lambda rows: numpy.mean(rows, axis=1), MATRIX),
        "pyconc": lambda: parallel.apply_rows(numpy.mean, MATRIX, axis=1),
    },
    "rows sorted, 4000 x 5000": {
        "numpy": lambda: numpy.sort(MATRIX),
        "numpy, threads": lambda: halves(numpy.sort, MATRIX),
        "pyconc": lambda: parallel.apply_rows(numpy.sort, MATRIX),
    },
}


@pytest.mark.parametrize("job, way", [(job, way) for job, ways in JOBS.items() for way in ways])
def bench_idle(benchmark, job, way):
    benchmark.group = job
    benchmark.extra_info["way"] = way
    assert numpy.allclose(benchmark.pedantic(JOBS[job][way], rounds=7, warmup_rounds=1), JOBS[job]["numpy"]())


@pytest.mark.parametrize("way", ["standard", "pyconc"])
def bench_empty(benchmark, way):
    """What a job costs besides the function: to start or wake a thread for it, and to wake the one that waits."""
    benchmark.group = "a job that does nothing"
    benchmark.extra_info["way"] = way
    nothing = native.Function(LIBM.free, "void (void *)")  # of a null pointer
    ways = {"standard": lambda: POOL.submit(int).result(), "pyconc": lambda: native.run(nothing).result()}
    benchmark.pedantic(ways[way], rounds=5, iterations=200)


@pytest.mark.parametrize("way", ["standard", "pyconc"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def bench_beside_python(benchmark, request, way, busy):
    """200 calls for 5000 numbers each, one thread: the pool's takes the GIL for every one of them."""
    parts = numpy.split(VALUES, 200)
    benchmark.group = ("busy: " if busy else "") + "cbrt of 200 x 5 000 doubles"
    benchmark.extra_info["way"] = way
    ways = {
        "standard": lambda: list(ThreadPoolExecutor(1).map(numpy.cbrt, parts)),
        "pyconc": lambda: native.map_arrays(CBRT, VALUES, OUT, 5000, threads=1).result(),
    }
    if busy:
        request.getfixturevalue("busy_thread")
    benchmark.pedantic(ways[way], rounds=3, warmup_rounds=1)
