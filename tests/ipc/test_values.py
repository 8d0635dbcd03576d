"""Value and RawValue: what ctypes makes of a value, behind a lock, in every process that gets it."""
import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
import types
from multiprocessing import sharedctypes as standard

import pytest

from pyconc import _ipc
from pyconc.multiprocessing import sharedctypes
from pyconc.multiprocessing.sharedctypes import RawValue, Synchronized, Value, copy, synchronized
from pyconc.multiprocessing.synchronize import Lock, OwnerDied, RLock

STARTS = ["fork", "spawn", "forkserver"]
EXAMPLES = [
    ("c", b"x", b"y"), ("u", "x", "é"), ("b", -5, 100), ("B", 5, 200), ("h", -232, 234), ("H", 1, 60_000),
    ("i", 4343, -24234), ("I", 1, 2**32 - 1), ("l", -1, 2**40), ("L", 1, 2**64 - 1), ("q", 2**33, -2**34),
    ("Q", 2**33, 2**64 - 1), ("f", 0.5, -0.25), ("d", 3.625, -4.25),
]
codes = pytest.mark.parametrize("code, first, second", EXAMPLES)
starts = pytest.mark.parametrize("start", STARTS)


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


class Named(Point):
    _fields_ = [("name", ctypes.c_char * 8), ("corner", Point)]


def run_in(start, target, *args):
    child = multiprocessing.get_context(start).Process(target=target, args=args)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@codes
def test_a_value_of_each_typecode(code, first, second):
    value = Value(code, first)
    assert value.value == first
    value.value = second
    assert value.value == second == value.get_obj().value
    assert type(value.value) is type(second)
    assert repr(value) == repr(standard.Value(code, second))


@codes
def test_a_raw_value_is_a_ctypes_object(code, first, second):
    value = RawValue(code, first)
    assert type(value) is standard.typecode_to_type[code]
    assert value.value == first
    value.value = second
    assert value.value == second
    assert not hasattr(value, "get_lock")
    assert ctypes.addressof(value) % ctypes.alignment(type(value)) == 0


@codes
def test_a_value_begins_with_zero_and_takes_a_type(code, first, second):
    type_ = standard.typecode_to_type[code]
    assert Value(type_).value == Value(code).value == type_().value
    assert Value(type_, second).value == second


@pytest.mark.parametrize("code, value", [
    ("b", 300), ("B", -1), ("h", 70_000), ("H", -1), ("i", 2**40 + 1), ("I", -1), ("l", 2**70), ("L", -1), ("Q", -2),
    ("i", True), ("d", 3), ("f", 2), ("d", True), ("c", 65), ("c", bytearray(b"a"))])
def test_a_value_takes_what_ctypes_takes(code, value):
    ours, other = Value(code), standard.Value(code)
    ours.value = other.value = value
    assert ours.value == other.value


@pytest.mark.parametrize("code, bad", [
    ("i", "x"), ("i", 1.5), ("l", None), ("q", b"1"), ("d", "x"), ("d", None), ("f", []), ("d", 10**400), ("c", b"xy"),
    ("c", "x"), ("c", 256), ("u", b"x"), ("u", "xy"), ("u", 1)])
def test_a_bad_value_is_refused_as_ctypes_refuses_it(code, bad):
    value = Value(code)
    with pytest.raises(Exception) as theirs:
        standard.Value(code).value = bad
    with pytest.raises(type(theirs.value), match="^" + str(theirs.value)[:10]):
        value.value = bad
    assert value.value == Value(code).value
    with pytest.raises(AttributeError):
        del value.value
    assert value.get_lock().acquire(timeout=0)


@pytest.mark.parametrize("bad", ["x", "", "ii", None, int, 3.5])
def test_a_bad_typecode_is_named(bad):
    with pytest.raises(TypeError, match="bad typecode " + repr(bad).replace("(", r"\(")):
        Value(bad)
    with pytest.raises(TypeError, match="typecode"):
        sharedctypes.Array(bad, 3)


def test_other_simple_types_are_ctypes_business():
    class Percent(ctypes.c_int):
        @property
        def value(self):
            return f"{ctypes.c_int.value.__get__(self)}%"

    flag = Value(ctypes.c_bool, True)
    assert flag.value is True
    flag.value = 0
    assert flag.value is False
    assert Value(Percent, 5).value == "5%"
    swapped = Value(ctypes.c_int.__ctype_be__, 1)
    assert swapped.value == 1
    assert bytes(swapped.get_obj()) == b"\0\0\0\1"


def test_its_lock():
    assert isinstance(Value("i").get_lock(), RLock)
    assert isinstance(Value("i", lock=None).get_lock(), RLock)
    for lock in (Lock(), RLock(), threading.RLock(), multiprocessing.Lock()):
        value = Value("i", 5, lock=lock)
        assert value.get_lock() is lock
        assert value.value == 5
        value.value += 1
        with value:
            assert not lock.acquire(False) or isinstance(lock, type(threading.RLock()) | RLock)
        assert value.value == 6
        assert value.acquire()
        value.release()
    unlocked = Value("i", 5, lock=False)
    assert isinstance(unlocked, ctypes.c_int)
    assert not hasattr(unlocked, "get_lock") and not hasattr(unlocked, "get_obj")
    with pytest.raises(AttributeError, match="'navalue' has no method 'acquire'"):
        Value("i", 5, lock="navalue")


@pytest.mark.parametrize("lock", [object(), types.SimpleNamespace(acquire=bool)])
def test_after_a_wrong_lock_it_is_not_there(lock):
    value = Synchronized.__new__(Synchronized)
    with pytest.raises(AttributeError):
        value.__init__(RawValue("i", 5), lock)
    for use in (lambda: value.value, lambda: setattr(value, "value", 1), value.get_lock):
        with pytest.raises(ValueError, match="__init__"):
            use()


def test_a_lock_of_a_class_of_its_own_is_called():
    calls = []

    class Watched(RLock):
        def acquire(self, *args):
            calls.append("acquire")
            return super().acquire(*args)

    value = Value("i", lock=Watched())
    value.value = 1
    assert calls == ["acquire"]
    assert value.value == 1
    assert calls == ["acquire", "acquire"]


def test_the_context_of_the_caller_makes_the_lock():
    class Context:
        def RLock(self):
            return threading.RLock()

    assert isinstance(Value("i", ctx=Context()).get_lock(), type(threading.RLock()))


def test_structures():
    point = Value(Point, 3, 2.5)
    assert (point.x, point.y) == (3, 2.5)
    point.x *= 2
    assert point.get_obj().x == 6
    assert type(point).__name__ == "SynchronizedPoint"
    named = Value(Named, 1, 2.0, b"here", Point(5, 6.0))
    assert (named.x, named.name, named.corner.y) == (1, b"here", 6.0)
    named.corner.x = 7      # in the shared memory itself
    assert named.get_obj().corner.x == 7
    raw = RawValue(Named, 1)
    raw.corner.y = 1.5
    assert ctypes.cast(ctypes.addressof(raw), ctypes.POINTER(Named))[0].corner.y == 1.5


def test_copy_and_synchronized():
    point = Point(2, 5.0)
    copied = copy(point)
    point.x = 0
    assert (copied.x, copied.y) == (2, 5.0)
    assert Value(Point).get_obj()._wrapper is not None
    value = synchronized(copied)
    assert value.get_obj() is copied
    with pytest.raises(AssertionError, match="object already synchronized"):
        synchronized(value)
    number = ctypes.c_int(5)    # not shared, and yet behind a lock
    value = synchronized(number)
    value.value += 1
    assert number.value == value.value == 6


def test_the_classes_have_the_standard_names():
    assert isinstance(Value("i"), sharedctypes.Synchronized)
    assert isinstance(Value("i"), sharedctypes.SynchronizedBase)
    assert isinstance(Value(Point), sharedctypes.SynchronizedBase)
    assert not isinstance(Value("i"), sharedctypes.SynchronizedArray)
    assert not hasattr(Value("i"), "__getitem__")
    direct = sharedctypes.Synchronized(RawValue("i", 4))
    assert direct.value == 4


def test_one_that_is_not_initialised_says_so():
    class Forgetful(sharedctypes.Synchronized):
        def __init__(self):
            pass

    value = Forgetful()
    for use in (lambda: value.value, value.get_lock, value.get_obj, value.__enter__, lambda: value.__exit__(),
                lambda: setattr(value, "value", 1)):
        with pytest.raises(ValueError, match="__init__"):
            use()
    with pytest.raises(TypeError):
        Value("i")._bind(1, 2, 3, "i", 4)


def double(*values):
    for value in values:
        if isinstance(value, ctypes.Structure | sharedctypes.SynchronizedBase) and hasattr(value, "x"):
            value.x *= 2
            value.y *= 2
        else:
            value.value *= 2


@starts
def test_a_child_gets_them_as_arguments(start):
    values = [Value("i", 7), RawValue("d", 1.5), Value(ctypes.c_longlong, 2**33), Value(Point, 3, 2),
              RawValue(Point, 3, 2), Value("i", 7, lock=Lock())]
    run_in(start, double, *values)
    assert [getattr(value, "value", None) for value in values] == [14, 3.0, 2**34, None, None, 14]
    assert [(point.x, point.y) for point in values[3:5]] == [(6, 4.0), (6, 4.0)]


def double_what_arrives(pipe):
    values = pipe.recv()
    double(*values)
    pipe.send(values)


@starts
def test_they_travel_at_any_time(start):
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=double_what_arrives, args=(there,))
    child.start()
    values = [Value("i", 7), RawValue("i", 8), Value(Point, 3, 2), RawValue(ctypes.c_char * 2000)]
    here.send(values[:3])
    back = here.recv()
    child.join()
    assert (values[0].value, values[1].value, values[2].x) == (14, 16, 6)
    back[0].value = back[1].value = back[2].x = 1
    assert (values[0].value, values[1].value, values[2].x) == (1, 1, 1)
    assert back[0].get_obj() is not values[0].get_obj()


def test_pickles_share():
    for value in (Value("i", 5), Value("d", 5)):
        other = pickle.loads(pickle.dumps(value))
        other.value = 6
        assert value.value == 6
        other.get_lock().acquire()
        other.get_lock().release()
    raw = RawValue("i", 5)
    pickler = multiprocessing.reduction.ForkingPickler
    other = pickle.loads(pickler.dumps(raw))
    other.value = 6
    assert raw.value == 6
    again = pickle.loads(pickler.dumps(other))
    again.value = 7
    assert raw.value == 7


def test_a_ctypes_object_that_is_not_shared_is_copied():
    RawValue("i", 5)
    other = pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(ctypes.c_int(5)))
    assert other.value == 5
    value = synchronized(ctypes.c_int(5), RLock())
    assert pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(value)).value == 5


@pytest.mark.parametrize("start", ["spawn"])
def test_the_standard_librarys_are_handed_over_beside(start):
    before = standard.RawValue("i", 7)
    ours = RawValue("i", 7)
    run_in(start, double, before, ours)
    assert (before.value, ours.value) == (14, 14)


def add(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


@starts
def test_no_addition_is_lost(start):
    context = multiprocessing.get_context(start)
    value = Value("l", 0)
    children = [context.Process(target=add, args=(value, 2000)) for _ in range(2)]
    for child in children:
        child.start()
    threads = [threading.Thread(target=add, args=(value, 2000)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for one in [*children, *threads]:
        one.join()
    assert value.value == 8000


def write_twice(value, begun):
    with value.get_lock():
        value.value = 1
        begun.set()
        time.sleep(0.2)
        value.value = 2


@starts
def test_a_read_waits_for_who_has_the_lock(start):
    context = multiprocessing.get_context(start)
    value, begun = Value("i"), context.Event()
    child = context.Process(target=write_twice, args=(value, begun))
    child.start()
    begun.wait()
    assert value.value == 2
    child.join()


def test_a_thread_waits_for_another():
    value, begun = Value("i"), threading.Event()
    thread = threading.Thread(target=write_twice, args=(value, begun))
    thread.start()
    begun.wait()
    value.value += 1
    assert value.value == 3
    thread.join()


def test_a_value_may_look_at_itself_while_it_is_set():
    value = Value("i", 5)

    class Nosy:
        def __index__(self):
            return value.value + 1

    value.value = Nosy()
    assert value.value == 6


def die_with(value, begun):
    with value.get_lock():
        value.value = 1
        begun.set()
        time.sleep(60)


@starts
def test_a_lock_that_died_with_its_owner_is_free_again(start):
    context = multiprocessing.get_context(start)
    value, begun = Value("i"), context.Event()
    child = context.Process(target=die_with, args=(value, begun))
    child.start()
    begun.wait()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(OwnerDied) as told:
        print(value.value)
    assert told.value.pid == child.pid
    assert told.value.lock is value.get_lock()
    assert value.value == 1
    value.value += 1
    assert value.value == 2
    child.join()


def write_for_ever(value, begun):
    begun.set()
    n = 0
    while True:
        n += 1
        value.value = n
        assert value.value == n


def test_who_dies_at_random_leaves_nothing_to_be_told():
    context = multiprocessing.get_context("fork")
    value = Value("q")
    for turn in range(25):
        begun = context.Event()
        child = context.Process(target=write_for_ever, args=(value, begun))
        child.start()
        begun.wait()
        time.sleep(0.001 * (turn % 5))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert value.value >= 0
        value.value = 0
        assert value.value == 0


def test_the_memory_goes_with_the_value():
    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    RawValue(ctypes.c_char * 100_000)
    before = count()
    values = [RawValue(ctypes.c_char * 100_000) for _ in range(5)]
    assert count() >= before + 5
    del values
    assert count() == before


def test_memory_of_others_is_refused():
    with pytest.raises(ValueError, match="bytes"):
        _ipc.Cell(-1)
    with pytest.raises(ValueError, match="bytes"):
        _ipc.Cell(100_000)
    cell = _ipc.Cell(8)
    memoryview(cell)[:] = b"12345678"
    assert bytes(memoryview(pickle.loads(pickle.dumps(cell)))) == b"12345678"
    assert len(cell) == 8
    value = sharedctypes.Synchronized.__new__(sharedctypes.Synchronized)
    with pytest.raises(TypeError, match="no memory"):
        value._bind(ctypes.c_int(), RLock(), b"1234", "i", 1)
    with pytest.raises(ValueError, match="too small"):
        value._bind(ctypes.c_int(), RLock(), cell, "i", 3)
