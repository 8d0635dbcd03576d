"""apply_rows gives what the function gives; probe tells by measuring."""
import itertools
import sys
import threading
import time

import pytest

numpy = pytest.importorskip("numpy", reason="numpy is not installed")

from pyconc import parallel  # noqa: E402

RNG = numpy.random.default_rng(7)
LARGE = RNG.random((3000, 2000))
SHAPES = [(0, 5), (1, 5), (7,), (1000,), (3000, 2), (40, 50, 60), (500_000,), (3000, 2000), (3, 2_000_000)]


@pytest.fixture(autouse=True)
def split_all(monkeypatch):
    """Also what is too short to gain from it, so that small arrays test the splitting."""
    monkeypatch.setattr(parallel, "_SPLIT_SECONDS", 0)
    monkeypatch.setattr(parallel, "_PART_SECONDS", 0)
    monkeypatch.setattr(parallel, "_PART_BYTES", 1 << 12)
    monkeypatch.setattr(parallel, "_FIRST_BYTES", 64)


@pytest.mark.parametrize("threads", [None, 1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_functions_of_rows(shape, threads):
    array = RNG.random(shape)
    # Of one dimension, the rows are numbers.
    of_lists = [] if len(shape) == 1 else [(numpy.mean, {"axis": 1}), (numpy.argmax, {"axis": -1}), (numpy.sort, {})]
    for func, kwargs in [(numpy.sqrt, {}), (numpy.isfinite, {}), *of_lists]:
        wanted = func(array, **kwargs)
        found = parallel.apply_rows(func, array, threads=threads, **kwargs)
        assert found.dtype == wanted.dtype
        assert numpy.array_equal(found, wanted)


def test_costly_rows_of_few_bytes(monkeypatch, reached):
    """They are shared, too: less than half a MiB, which takes long."""
    monkeypatch.undo()
    array = RNG.random((1000, 50))

    def attempt():
        who = set()

        def slow(rows):
            who.add(threading.get_ident())
            time.sleep(len(rows) * 100e-6)
            return rows

        assert numpy.array_equal(parallel.apply_rows(slow, array, threads=2), array)
        return len(who) == 2

    reached(attempt)


def test_arguments_and_views():
    array = LARGE[::3, ::-2]
    assert numpy.array_equal(parallel.apply_rows(numpy.quantile, array, 0.3, axis=1),
                             numpy.quantile(array, 0.3, axis=1))
    assert numpy.array_equal(parallel.apply_rows(numpy.add, array, 2.5), array + 2.5)
    assert numpy.allclose(parallel.apply_rows(numpy.sum, array.T, axis=1, keepdims=True),
                          array.T.sum(axis=1, keepdims=True))
    assert parallel.apply_rows(lambda rows: rows.astype("U5"), array[:50]).dtype == "U5"
    assert numpy.array_equal(parallel.apply_rows(numpy.sqrt, [[1, 4], [9, 16]]), [[1, 2], [3, 4]])


@pytest.mark.parametrize("func", [numpy.sqrt, lambda rows: numpy.sqrt(rows)], ids=["ufunc", "function"])
def test_out(func):
    out = numpy.empty(LARGE.shape, "f4")
    assert parallel.apply_rows(func, LARGE, out=out, **({"casting": "same_kind"} if func is numpy.sqrt else {})) is out
    assert numpy.allclose(out, numpy.sqrt(LARGE))
    with pytest.raises(ValueError, match=r"out has the shape \(3, 2\) where the results have \(3000, 2000\)"):
        parallel.apply_rows(func, LARGE, out=numpy.empty((3, 2)))
    with pytest.raises(ValueError, match=r"out has the shape \(3, 2\)"):
        parallel.apply_rows(func, LARGE, out=numpy.empty((3, 2)), threads=1)


def test_several_threads_take_part():
    seen, calls, deadline = set(), itertools.count(), time.monotonic() + 30

    def func(rows):
        seen.add(threading.get_ident())
        if next(calls):     # the first one tells how long a call takes: nobody else is there yet
            while len(seen) < threads and time.monotonic() < deadline:
                time.sleep(0.001)
        return rows

    threads = 3
    parallel.apply_rows(func, LARGE[:200], threads=threads)
    assert len(seen) == 3
    assert threading.get_ident() in seen
    seen.clear()
    threads = 1
    parallel.apply_rows(func, LARGE[:200], threads=threads)
    assert seen == {threading.get_ident()}


def test_short_work_stays_here(monkeypatch):
    monkeypatch.undo()
    seen = set()

    def func(rows):
        seen.add(threading.get_ident())
        return rows

    parallel.apply_rows(func, numpy.ones((10, 10)), threads=4)
    assert seen == {threading.get_ident()}


def test_each_row_is_computed_once():
    counts = numpy.zeros(3000, "i8")

    def func(rows):
        counts[rows[:, 0].astype("i8")] += 1
        return rows

    numbered = numpy.zeros((3000, 100))
    numbered[:, 0] = numpy.arange(3000)
    parallel.apply_rows(func, numbered, threads=3)
    assert (counts == 1).all()


class Mine(Exception):
    pass


def test_the_first_error_is_raised():
    def func(rows):
        if rows[-1, 0] >= 100:
            raise Mine(int(rows[-1, 0]))
        return rows

    numbered = numpy.repeat(numpy.arange(1000.0), 100).reshape(1000, 100)
    with pytest.raises(Mine) as raised:
        parallel.apply_rows(func, numbered, threads=3)
    assert raised.value.args[0] < 300
    with pytest.raises(Mine):
        parallel.apply_rows(func, numbered, threads=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_refused(threads):
    with pytest.raises(ValueError, match=r"returned the shape \(\) for .* rows: it must return one for each"):
        parallel.apply_rows(numpy.mean, LARGE, threads=threads)
    with pytest.raises(ValueError, match=r"returned the shape \(2000,\) for"):
        parallel.apply_rows(numpy.mean, LARGE, axis=0, threads=threads)
    with pytest.raises(ValueError, match="without dimensions"):
        parallel.apply_rows(numpy.sqrt, 5.0, threads=threads)
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        parallel.apply_rows(numpy.sqrt, LARGE, threads=0)
    with pytest.raises(TypeError):
        parallel.apply_rows(5, LARGE, threads=threads)


def test_inside_itself():
    """Threads that wait for others of the same pool would wait for ever."""
    def outer(rows):
        return numpy.stack([parallel.apply_rows(numpy.sqrt, row, threads=3) for row in rows])

    assert numpy.array_equal(parallel.apply_rows(outer, LARGE[:40], threads=3), numpy.sqrt(LARGE[:40]))


def test_in_a_child(in_child):
    parallel.apply_rows(numpy.sqrt, LARGE)
    assert in_child(lambda: numpy.array_equal(parallel.apply_rows(numpy.sqrt, LARGE), numpy.sqrt(LARGE))) == "True"


# probe.

def test_probe_calls_and_measures():
    calls = []

    def func(*args, **kwargs):
        calls.append((threading.get_ident(), args, kwargs))
        time.sleep(0.002)

    found = parallel.probe(func, 1, two=2, threads=3, seconds=0.05)
    assert {call[1:] == ((1,), {"two": 2}) for call in calls} == {True}
    assert len({thread for thread, _, _ in calls}) == 4
    assert found.threads == 3
    assert 0.002 <= found.alone < 60
    assert 0.002 <= found.together < 60
    assert str(found) == found.advice


@pytest.mark.parametrize("probe, helps, advice", [
    (parallel.Probe(2, 1.0, 1.0, 1.05), True, "2 threads do 1.90 times the work of one: use them"),
    (parallel.Probe(2, 1e-5, 1e-5, 1e-5), True, "but a call of 10 us is short: give each one more to do"),
    (parallel.Probe(2, 1.0, 1.0, 2.0), False, "2 threads do 1.00 times the work of one: it holds the GIL"),
    (parallel.Probe(4, 1.0, 1.0, 2.0), False, "4 threads do 2.00 times the work of one: they share a resource"),
    (parallel.Probe(2, 0.5, 1.0, 2.0), False, "this says little: alone, a call got 50% of a CPU"),
    (parallel.Probe(1, 1.0, 1.0, 1.0), False, "this process has one CPU"),
])
def test_advice(probe, helps, advice):
    assert probe.helps is helps
    assert advice in probe.advice


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL")
def test_probe_tells_the_gil_from_its_absence():
    """Not how much faster, which depends on the machine: which of the two gains more."""
    def held():
        return sum(range(20_000))

    # Who sleeps needs no core, so that other programs do not take from what the threads gain.
    best = max(parallel.probe(time.sleep, 0.01, threads=2, seconds=0.3).speedup for _ in range(3))
    worst = min(parallel.probe(held, threads=2, seconds=0.3).speedup for _ in range(3))
    assert worst < best


def test_probe_where_no_more_threads_can_be_started(monkeypatch):
    """Those that could are not left waiting for the others."""
    start, left = threading.Thread.start, [3]

    def limited(thread):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        parallel.probe(sum, range(1000), threads=8)


def test_probe_refused():
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        parallel.probe(int, threads=0)
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds must be positive"):
            parallel.probe(int, seconds=seconds)
    with pytest.raises(ZeroDivisionError):
        parallel.probe(lambda: 1 / 0)
