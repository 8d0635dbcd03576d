"""Array and RawArray: a ctypes array's items behind a lock, and its memory as a buffer."""
import array
import ctypes
import multiprocessing
import os
import pickle
import signal
import threading
import time
from multiprocessing import sharedctypes as standard

import pytest

from pyconc.multiprocessing import sharedctypes
from pyconc.multiprocessing.sharedctypes import Array, RawArray, Value
from pyconc.multiprocessing.synchronize import Lock, OwnerDied, RLock

STARTS = ["fork", "spawn", "forkserver"]
starts = pytest.mark.parametrize("start", STARTS)
NUMBERS = "bBhHiIlLqQfd"


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


def same(do, *arrays):
    """What `do` gives for each array: a result of the same type, or the same error."""
    outcomes = []
    for one in arrays:
        try:
            result = do(one)
        except Exception as error:
            outcomes.append((type(error), str(error)))
        else:
            outcomes.append((type(result), result))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def pair(code, content):
    return Array(code, content), standard.Array(code, content)


@pytest.mark.parametrize("code", NUMBERS)
def test_items_and_slices_are_those_of_ctypes(code):
    both = pair(code, [3, 1, 4, 1, 5, 9, 2, 6])
    for key in (0, 3, -1, -8, 8, -9, slice(2, 5), slice(None), slice(5, 2), slice(None, None, 2), slice(None, None, -1),
                slice(-3, None), slice(2, 100), True, "x", 1.0, None):
        same(lambda one, key=key: one[key], *both)
    for one in both:
        one[2] = 7
        one[-1] = 8
        one[3:6] = [10, 11, 12]
        one[:2] = (20, 21)
        one[6:7] = range(3, 4)
    same(list, *both)
    same(len, *both)
    same(lambda one: repr(one)[:40], *both)
    same(lambda one: 7 in one, *both)
    same(lambda one: sum(one), *both)


@pytest.mark.parametrize("code", NUMBERS)
def test_bad_items_are_refused_as_ctypes_refuses_them(code):
    both = pair(code, [3, 1, 4, 1])
    for key, value in ((0, "x"), (0, None), (4, 1), (-5, 1), (slice(0, 2), [1]), (slice(0, 2), [1, 2, 3]), (1.5, 1),
                       (slice(0, 2), 5), (slice(0, 3, 2), [1, 2]), (slice(0, 2), ["a", "b"]), (slice(0, 2), b"123"),
                       (0, 2**70), (slice(0, 2), [2**70, 1]), ("x", 1)):
        same(lambda one, key=key, value=value: one.__setitem__(key, value), *both)
    same(list, *both)
    with pytest.raises(TypeError):
        del both[0][0]
    assert both[0].get_lock().acquire(timeout=0)


def test_items_that_do_not_fit_are_cut_as_ctypes_cuts_them():
    both = pair("b", 4)
    for one in both:
        one[0] = 300
        one[1:3] = [-200, 128]
        one[3] = True
    assert same(list, *both)[1] == [44, 56, -128, 1]


def test_bytes():
    both = pair("c", b"hello\0there")
    for do in (lambda one: one.value, lambda one: one.raw, lambda one: one[1], lambda one: one[1:4],
               lambda one: one[::2], lambda one: one[:], list, len):
        same(do, *both)
    for value in (b"ab", b"", b"x" * 11, b"x" * 12, "text", 5, None):
        same(lambda one, value=value: setattr(one, "value", value), *both)
        same(lambda one, value=value: setattr(one, "raw", value), *both)
        same(lambda one: one.raw, *both)
    for key, value in ((0, b"q"), (1, 65), (2, b"xy"), (3, "z"), (slice(4, 7), b"abc"), (slice(4, 7), [1, b"2", 3])):
        same(lambda one, key=key, value=value: one.__setitem__(key, value), *both)
    same(lambda one: one.raw, *both)
    assert isinstance(both[0], sharedctypes.SynchronizedString)
    assert RawArray("c", 5).raw == b"\0" * 5


def test_characters():
    both = pair("u", "grüße")
    for do in (lambda one: one[2], lambda one: one[1:3], lambda one: one[::2], list, len):
        same(do, *both)
    for one in both:
        one[0] = "G"
        one[1:3] = "RÜ"
    assert same(lambda one: one[:], *both)[1] == "GRÜße"
    ours = both[0]
    assert ours.value == "GRÜße"
    ours.value = "ab"
    assert ours.value == "ab" and ours[2] == "\0"
    assert not hasattr(ours, "raw")


def test_its_length_or_its_content():
    assert list(Array("i", 5)) == [0] * 5
    assert list(Array("i", range(5))) == list(RawArray("i", [0, 1, 2, 3, 4])) == [0, 1, 2, 3, 4]
    assert list(Array(ctypes.c_short, (1, 2))) == [1, 2]
    assert len(Array("d", 0)) == len(RawArray("d", [])) == 0
    assert Array("d", 0)[:] == []
    for bad in (-1, None, 2.5, object()):
        with pytest.raises((ValueError, TypeError)) as theirs:
            standard.RawArray("i", bad)
        with pytest.raises(type(theirs.value)):
            Array("i", bad)
    for _ in range(3):      # memory that was used before is zero again
        used = Array("i", 10)
        assert list(used) == [0] * 10
        used[:] = range(10)
        assert list(used) == list(range(10))
        del used


def test_its_lock():
    assert isinstance(Array("i", 3).get_lock(), RLock)
    lock = Lock()
    locked = Array("i", 3, lock=lock)
    assert locked.get_lock() is lock
    locked[0] = 1
    assert locked[0] == 1 and locked[:] == [1, 0, 0]
    locked[:] = [1, 2, 3]
    with locked:
        assert not lock.acquire(False)
    assert isinstance(Array("i", 3, lock=False), ctypes.Array)
    with pytest.raises(AttributeError, match="'notalock'"):
        Array("i", 3, lock="notalock")


def test_structures_and_arrays_of_arrays():
    points = Array(Point, [(1, 2.0), (3, 4.0)])
    points[0].x = 5
    assert points.get_obj()[0].x == 5
    assert [point.x for point in points] == [5, 3]
    points[1] = Point(7, 8.0)
    assert points[1].y == 8.0
    rows = Array(ctypes.c_int * 3, 2)
    rows[1][2] = 9
    assert list(rows.get_obj()[1]) == [0, 0, 9]
    assert len(rows) == 2
    raw = RawArray(ctypes.c_int * 3, 2)
    other = pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(raw))
    other[1][0] = 4
    assert raw[1][0] == 4


@pytest.mark.parametrize("code", NUMBERS)
def test_numpy_shares_its_memory(code):
    numpy = pytest.importorskip("numpy")
    ours = Array(code, [1, 2, 3])
    view = numpy.asarray(ours)
    assert view.dtype == numpy.dtype(array.array(code).typecode) and view.shape == (3,)
    view[1] = 7
    assert ours[1] == 7
    ours[2] = 8
    assert view[2] == 8
    assert numpy.shares_memory(view, numpy.frombuffer(ours.get_obj(), view.dtype))


def test_its_buffer():
    ours = Array("h", [1, 2, 3])
    with memoryview(ours) as view:
        assert (view.format, view.itemsize, view.shape, view.readonly) == ("h", 2, (3,), False)
        view[0] = -5
    assert ours[0] == -5
    assert bytes(Array("c", b"abc")) == b"abc"
    assert memoryview(Array("u", "ab")).format == "w"
    with memoryview(Array(Point, 2)) as view:
        assert view.shape == (2,)
    ours[:] = array.array("h", [4, 5, 6])
    assert list(ours) == [4, 5, 6]
    ours[1:] = memoryview(ours)[:2]     # its own memory, overlapping
    assert list(ours) == [4, 4, 5]
    ours[:] = array.array("i", [7, 8, 9])
    assert list(ours) == [7, 8, 9]
    ours[:] = Array("h", [1, 2, 3])
    assert list(ours) == [1, 2, 3]
    with pytest.raises(TypeError):
        ours[:] = array.array("d", [1.0, 2.0, 3.0])


def test_one_larger_than_the_stack():
    ours = Array("q", range(5000))
    assert ours[:] == list(range(5000))
    assert ours[::-1] == list(range(4999, -1, -1))
    ours[10:4000] = range(3990)
    assert ours[4000] == 4000 and ours[3999] == 3989
    ours[:] = list(range(5000, 10_000))
    assert ours[4999] == 9999


def test_a_list_may_look_at_the_array_it_is_stored_in():
    ours = Array("i", [1, 2])

    class Nosy:
        def __index__(self):
            return ours[1] + 1

    ours[:] = [Nosy(), 5]
    assert list(ours) == [3, 5]


def accumulate(numbers):
    for i in range(1, len(numbers)):
        numbers[i] += numbers[i - 1]


@starts
@pytest.mark.parametrize("make", [Array, RawArray])
@pytest.mark.parametrize("length", [10, 3000])
def test_a_child_gets_one_as_an_argument(start, make, length):
    ours, expected = make("q", range(length)), list(range(length))
    accumulate(expected)
    child = multiprocessing.get_context(start).Process(target=accumulate, args=(ours,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert ours[:] == expected


def fill(pipe):
    arrays = pipe.recv()
    for one in arrays:
        one[:] = range(len(one))
    pipe.send([len(one) for one in arrays])


@starts
def test_they_travel_at_any_time(start):
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=fill, args=(there,))
    child.start()
    arrays = [Array("i", 10), RawArray("d", 10), Array("d", 3000), RawArray("h", 3000),
              Array(ctypes.c_int, 3, lock=Lock())]
    here.send(arrays)
    assert here.recv() == [10, 10, 3000, 3000, 3]
    child.join()
    for one in arrays:
        assert list(one) == list(range(len(one)))


def test_pickles_share():
    ours = Array("i", 3)
    other = pickle.loads(pickle.dumps(ours))
    other[1] = 4
    assert ours[1] == 4
    assert type(other) is type(ours)


def swap(numbers, times):
    for _ in range(times):
        with numbers.get_lock():
            numbers[0], numbers[1] = numbers[1], numbers[0]


@starts
def test_a_slice_is_of_one_moment(start):
    context = multiprocessing.get_context(start)
    numbers = Array("q", [1, 2])
    child = context.Process(target=swap, args=(numbers, 20_000))
    thread = threading.Thread(target=swap, args=(numbers, 2000))
    child.start()
    thread.start()
    while child.is_alive():
        assert sorted(numbers[:]) == [1, 2]
    child.join()
    thread.join()


def hold(numbers, begun):
    with numbers.get_lock():
        numbers[0] = 1
        begun.set()
        time.sleep(60)


@starts
def test_a_lock_that_died_with_its_owner_is_free_again(start):
    context = multiprocessing.get_context(start)
    numbers, begun = Array("i", 3), context.Event()
    child = context.Process(target=hold, args=(numbers, begun))
    child.start()
    begun.wait()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(OwnerDied):
        numbers[0]
    assert numbers[:] == [1, 0, 0]
    child.join()


def store_for_ever(numbers, begun):
    begun.set()
    n = 0
    while True:
        n += 1
        numbers[:] = [n] * len(numbers)


def test_who_dies_at_random_blocks_nobody():
    context = multiprocessing.get_context("fork")
    numbers = Array("q", 500)
    for turn in range(20):
        begun = context.Event()
        child = context.Process(target=store_for_ever, args=(numbers, begun))
        child.start()
        begun.wait()
        time.sleep(0.001 * (turn % 5))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert len(numbers[:]) == 500


def test_an_array_is_no_value():
    assert not hasattr(Array("i", 3), "value")
    assert isinstance(Array("i", 3), sharedctypes.SynchronizedArray)
    assert not isinstance(Value("i"), sharedctypes.SynchronizedArray)
