"""`with` on locks, however it is spelt."""
import contextlib
import gc
import sys
import threading
import weakref

import pytest

from pyconc.multiprocessing.synchronize import Lock, RLock

both = pytest.mark.parametrize("kind", [Lock, RLock])


@both
def test_every_way_in_and_out(kind):
    lock = kind()
    with lock as taken:
        assert taken is True and lock.locked()
    assert lock.__enter__() is True
    assert lock.locked()
    assert lock.__exit__(None, None, None) is None
    assert lock.__enter__()
    lock.__exit__()
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock)
        assert lock.locked()
    enter, leave = kind.__enter__, kind.__exit__
    assert enter(lock) is True
    leave(lock, None, None, None)
    assert not lock.locked()
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert not lock.locked()


@both
def test_bound_methods_can_be_kept(kind):
    locks = [kind() for _ in range(5)]
    enters = [lock.__enter__ for lock in locks]
    leaves = [lock.__exit__ for lock in locks]
    for enter, lock in zip(enters, locks, strict=True):
        enter()
        assert lock.locked()
    for leave, lock in zip(leaves, locks, strict=True):
        leave()
        assert not lock.locked()
    lock = locks.pop()
    reference = weakref.ref(lock)
    del lock, enters, leaves, enter, leave
    gc.collect()
    assert reference() is None


@both
def test_the_wrong_object_is_refused(kind):
    for bad in ((), (5,), (threading.Lock(),)):
        with pytest.raises(TypeError, match="needs an object of"):
            kind.__enter__(*bad)


@both
def test_a_subclass_may_override_it(kind):
    class Counting(kind):
        entered = 0

        def __enter__(self):
            Counting.entered += 1
            return super().__enter__()

    lock = Counting()
    with lock:
        assert lock.locked()
    assert Counting.entered == 1 and not lock.locked()


@both
def test_nothing_leaks(kind):
    lock = kind()
    before = sys.getrefcount(lock), sys.getrefcount(kind), sys.getrefcount(kind.__mro__[-2])
    for _ in range(1000):
        with lock:
            pass
        enters = [lock.__enter__ for _ in range(3)]
    del enters
    assert (sys.getrefcount(lock), sys.getrefcount(kind), sys.getrefcount(kind.__mro__[-2])) == before
