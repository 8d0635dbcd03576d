"""The primitives of pyconc.threading as threads use them: what CPython's lock_tests do not ask."""
import inspect
import os
import pickle
import signal
import threading as standard
import time
import warnings
import weakref

import pytest

from pyconc import threading

LOCKS = [threading.Lock, threading.RLock]
locks = pytest.mark.parametrize("make", LOCKS)
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def outcome(call, *args, **kwargs):
    """What a call returns, or the type and the text of what it raises."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", ["Barrier", "BoundedSemaphore", "Condition", "Event", "Semaphore", "Timer"])
def test_inspect_knows_what_it_takes(name):
    assert inspect.signature(getattr(threading, name)) == inspect.signature(getattr(standard, name))


@locks
@pytest.mark.parametrize("args", [
    (True, -1), (False, -1), (True, 0), (False, 1), (False, 0.0), (True, -2), (True, -0.5), (True, float("nan")),
    (True, float("inf")), (True, 1e10), (True, 10**30), (True, "1"), (True, None), (1, 0.001), (True, 2, 3)])
def test_acquire_takes_what_the_standard_lock_takes(make, args):
    theirs, mine = getattr(standard, make.__name__)(), make()
    for lock in theirs, mine:
        holder = standard.Thread(target=lock.acquire)
        holder.start()
        holder.join()
    if args[:2] in ((True, -1),):  # would wait for ever
        mine, theirs = make(), getattr(standard, make.__name__)()
    expected, got = outcome(theirs.acquire, *args), outcome(mine.acquire, *args)
    if len(args) == 3:  # the words differ
        expected, got = expected[0], got[0]
    assert got == expected


@pytest.mark.parametrize("timeout", [0, -1, 0.001, float("nan"), float("-inf"), float("inf"), 1e12, "1"])
@pytest.mark.parametrize("name", ["Event", "Condition", "Semaphore"])
def test_timeouts_are_the_standard_ones(name, timeout):
    if name == "Semaphore" and timeout != timeout:
        # The standard one loops for ever where its Condition, which newer Pythons have refuse it, takes nan.
        condition = standard.Condition()
        with condition:
            refused = isinstance(outcome(condition.wait, timeout), tuple)
        mine = outcome(threading.Semaphore(0).acquire, timeout=timeout)
        assert mine[0] is ValueError if refused else mine is False
        return

    def wait(module):
        if name == "Event":
            return outcome(module.Event().wait, timeout)
        if name == "Semaphore":
            return outcome(module.Semaphore(0).acquire, timeout=timeout)
        with module.Condition() as condition:
            assert condition is True
        condition = module.Condition()
        with condition:
            found = outcome(condition.wait, timeout)
        if module is threading:     # the standard one of 3.11 leaves a waiter behind that nan made
            assert repr(condition).endswith(", 0)>")
        return found

    mine, theirs = wait(threading), wait(standard)
    assert (mine[0] if isinstance(mine, tuple) else mine) == (theirs[0] if isinstance(theirs, tuple) else theirs)


@pytest.mark.parametrize("args, kwargs", [((1,), {}), ((1, 2), {}), ((), {"x": 1})])
def test_arguments_of_an_rlock(args, kwargs):
    """An error from 3.15 on, a warning before that, and nothing before 3.13: as the standard one."""
    said = []
    for module in threading, standard:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = outcome(module.RLock, *args, **kwargs)
        said.append((made if isinstance(made, tuple) else "made", [(w.category, str(w.message)) for w in caught]))
    assert said[0] == said[1]

    class Named(threading.RLock):
        def __init__(self, *args, **kwargs):
            super().__init__()

    assert Named(*args, **kwargs).acquire()


@pytest.mark.parametrize("call", [
    lambda m: m.Semaphore(-1), lambda m: m.BoundedSemaphore(-1), lambda m: m.Semaphore().release(0),
    lambda m: m.BoundedSemaphore(2).release(), lambda m: m.Semaphore().acquire(False, 1),
    lambda m: m.Condition().wait(), lambda m: m.Condition().notify(), lambda m: m.Condition().notify_all(),
    lambda m: m.Lock().release(), lambda m: m.RLock().release(), lambda m: m.Condition().release()])
def test_mistakes_raise_what_the_standard_library_raises(call):
    assert outcome(call, threading) == outcome(call, standard)


def test_barrier_of_nobody():
    with pytest.raises(ValueError, match="parties must be > 0"):
        threading.Barrier(0)


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Condition, threading.Semaphore,
                                  threading.BoundedSemaphore, threading.Event, lambda: threading.Barrier(2)])
def test_weakrefs_and_leaks(make, no_leaked_objects):
    ref = weakref.ref(make())
    assert ref() is None
    no_leaked_objects(lambda: weakref.ref(make()))


@pytest.mark.parametrize("name", ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event"])
def test_subclasses(name):
    base = getattr(threading, name)

    class Mine(base):
        def __init__(self, more):
            super().__init__()
            self.more = more

    one = Mine("more")
    assert one.more == "more" and isinstance(one, base)
    assert "Mine" in repr(one) or name == "Condition"
    with pytest.raises(TypeError):
        pickle.dumps(one)


def test_subclass_that_forgets_init():
    class Mine(threading.Condition):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="__init__"):
        Mine().acquire()
    with pytest.raises(RuntimeError, match="__init__"), Mine():
        pass


def test_condition_over_a_broken_proxy_of_a_lock():
    class Proxy:
        def __init__(self):
            self.lock = standard.Lock()

        def __getattr__(self, name):
            if name == "_release_save":
                raise ZeroDivisionError
            return getattr(self.lock, name)

    for module in standard, threading:
        with pytest.raises(ZeroDivisionError):
            module.Condition(Proxy())


@locks
def test_standard_condition_over_our_lock(make, thread, until):
    lock = make()
    condition, seen = standard.Condition(lock), []

    def wait():
        with condition:
            seen.append("waits")
            condition.wait()
            seen.append("woken")

    thread(wait)
    until(lambda: seen)
    with condition:
        condition.notify()
        assert lock.locked()
    until(lambda: len(seen) == 2)
    assert not lock.locked()


class Plain:
    """A lock with nothing but the two methods."""

    def __init__(self):
        lock = standard.Lock()
        self.acquire, self.release = lock.acquire, lock.release

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *args):
        self.release()


@pytest.mark.parametrize("make", [standard.Lock, standard.RLock, threading.Lock, threading.RLock, Plain])
def test_our_condition_over_any_lock(make, thread, until):
    condition, seen = threading.Condition(make()), []

    def wait():
        with condition:
            seen.append("waits")
            assert condition.wait(30)
            seen.append("woken")

    for _ in range(3):
        thread(wait)
    until(lambda: len(seen) == 3)
    with condition:
        condition.notify(2)
    until(lambda: seen.count("woken") == 2)
    with condition:
        assert not condition.wait(0.01)
        condition.notify_all()
    until(lambda: seen.count("woken") == 3)


def test_condition_keeps_how_often_an_rlock_is_held(thread, until):
    lock = threading.RLock()
    condition, woken = threading.Condition(lock), []

    def wait():
        with condition, condition, condition:
            condition.wait()
            woken.append(lock._recursion_count())

    thread(wait)
    until(lambda: "1)" in repr(condition))
    with condition:
        condition.notify()
    until(lambda: woken)
    assert woken == [3] and not lock.locked()


def test_notified_after_timing_out_counts(thread, until):
    """Who is notified between the end of its timeout and the lock was notified."""
    condition, results, waits = threading.Condition(), [], standard.Event()

    def wait():
        with condition:
            waits.set()
            results.append(condition.wait(0.05))

    one = thread(wait)
    waits.wait()
    with condition:
        time.sleep(0.2)  # the timeout passes while we hold the lock
        condition.notify()
    one.join()
    with condition:
        assert results == [True] or not condition.wait(0)


@locks
def test_interrupt(make, interrupted, held):
    lock = make()
    with held(lock):
        interrupted(lock.acquire)
    with lock:  # the one that gave up stands in nobody's way
        pass


@pytest.mark.parametrize("block", [
    lambda: threading.Event().wait(), lambda: threading.Semaphore(0).acquire(), lambda: threading.Barrier(2).wait()])
def test_interrupt_of_others(block, interrupted):
    interrupted(block)


def test_interrupt_of_a_condition(interrupted):
    condition = threading.Condition()
    with condition:
        interrupted(condition.wait)
        assert condition._is_owned()
    assert not condition._is_owned()
    assert "0)" in repr(condition)


def test_interrupted_barrier_forgets_the_arrival(interrupted, thread):
    barrier = threading.Barrier(2)
    interrupted(barrier.wait)
    assert barrier.n_waiting == 0 and not barrier.broken
    thread(barrier.wait)
    barrier.wait()


def test_a_signal_handler_runs_while_we_wait(meanwhile):
    """And may use the very lock."""
    lock, seen = threading.Semaphore(0), []

    def handler(*_):
        seen.append("handled")
        lock.release()

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with meanwhile(signal.pthread_kill, standard.get_ident(), signal.SIGUSR1):
            assert lock.acquire(timeout=30)
        assert seen
    finally:
        signal.signal(signal.SIGUSR1, old)


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "Condition"])
def test_a_signal_handler_takes_what_we_wait_for(name, thread, asleep, meanwhile):
    """The thread that it interrupted does not stand in its way."""
    gate, order = getattr(threading, name)(), []
    held, handling = standard.Event(), standard.Event()

    def hold():
        with gate:
            held.set()
            assert handling.wait(30)
            asleep(standard.main_thread())  # the handler waits, too

    def handler(*_):
        handling.set()
        with gate:
            order.append("handler")

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        thread(hold)
        assert held.wait(30)
        with meanwhile(signal.pthread_kill, standard.get_ident(), signal.SIGUSR1), gate:
            order.append("main")
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert order == ["handler", "main"]


@locks
def test_waiters_get_their_turn(make, thread):
    """A thread that takes and frees the lock without a pause does not keep others from it for ever."""
    lock, stop, got = make(), standard.Event(), standard.Event()

    def hog():
        while not stop.is_set():
            lock.acquire()
            lock.release()

    def want():
        for _ in range(20):
            with lock:
                pass
        got.set()

    thread(hog)
    thread(want)
    assert got.wait(30)
    stop.set()


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_mutual_exclusion(name, thread):
    lock, counter = getattr(threading, name)(), [0]

    def count():
        for _ in range(2000):
            with lock:
                value = counter[0]
                if value % 64 == 0:
                    time.sleep(0)
                counter[0] = value + 1

    threads = [thread(count) for _ in range(4)]
    for one in threads:
        one.join()
    assert counter == [8000]


def test_semaphore_lets_in_as_many_as_it_says(thread):
    semaphore, inside, most = threading.Semaphore(3), [0], [0]
    guard = standard.Lock()

    def enter():
        for _ in range(50):
            with semaphore:
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0)
                with guard:
                    inside[0] -= 1

    for one in [thread(enter) for _ in range(8)]:
        one.join()
    assert most[0] <= 3 and semaphore._value == 3


def test_semaphore_release_of_many_wakes_many(thread, until, asleep):
    semaphore, got = threading.Semaphore(0), []
    asleep(*[thread(lambda: got.append(semaphore.acquire())) for _ in range(3)])
    semaphore.release(3)
    until(lambda: len(got) == 3)


def test_event_that_is_cleared_at_once_still_wakes(thread, until, asleep):
    event, seen = threading.Event(), []
    asleep(*[thread(lambda: seen.append(event.wait(30))) for _ in range(3)])
    event.set()
    event.clear()
    until(lambda: len(seen) == 3)
    assert seen == [True] * 3


def test_barrier_rounds_and_action(thread):
    rounds = []
    barrier = threading.Barrier(3, lambda: rounds.append(barrier.n_waiting))
    places = []

    def play():
        for _ in range(100):
            places.append(barrier.wait())

    for one in [thread(play) for _ in range(3)]:
        one.join()
    assert len(rounds) == 100
    assert sorted(places) == sorted([0, 1, 2] * 100)


def test_barrier_whose_action_fails(thread):
    barrier = threading.Barrier(2, lambda: 1 / 0)
    raised = []

    def play():
        try:
            barrier.wait()
        except Exception as error:
            raised.append(type(error))

    for one in [thread(play) for _ in range(2)]:
        one.join()
    assert set(raised) == {ZeroDivisionError, standard.BrokenBarrierError}
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


@FORKS
@locks
def test_fork_keeps_a_held_lock_held(make, held, in_child):
    lock = make()

    def check():
        if not lock.locked() or lock.acquire(timeout=0.01):
            return False
        lock._at_fork_reinit()
        return lock.acquire(False)

    with held(lock):
        assert in_child(check) == "True"


@FORKS
def test_fork_forgets_who_waited(thread, until, in_child, asleep):
    """In the child only the thread that forked is there: those that waited in the parent take nothing there."""
    condition, semaphore = threading.Condition(), threading.Semaphore(0)

    def wait():
        with condition:
            condition.wait()

    for _ in range(2):
        asleep(thread(wait), thread(semaphore.acquire))
    until(lambda: "2)" in repr(condition))

    def check():
        got = []

        def take():
            with condition:
                got.append(condition.wait(30))
            got.append(semaphore.acquire(timeout=30))

        one = standard.Thread(target=take)
        one.start()
        while not repr(condition).endswith("3)>") and not repr(condition).endswith("1)>"):
            time.sleep(0.001)
        with condition:
            condition.notify()
        asleep(one)
        semaphore.release()
        one.join()
        return got == [True, True]

    assert in_child(check) == "True"
    with condition:
        condition.notify_all()
    semaphore.release(2)


def test_module_is_a_superset():
    for name in dir(standard):
        if not name.startswith("__"):
            assert hasattr(threading, name), name
    assert threading.Thread is standard.Thread
    assert threading.BrokenBarrierError is standard.BrokenBarrierError
    assert threading.TIMEOUT_MAX == standard.TIMEOUT_MAX


def test_excepthook_is_set_where_threads_look():
    seen, old = [], standard.excepthook
    threading.excepthook = lambda args: seen.append(args.exc_type)
    try:
        one = standard.Thread(target=lambda: 1 / 0)
        one.start()
        one.join()
        assert standard.excepthook is threading.excepthook
    finally:
        threading.excepthook = old
    assert seen == [ZeroDivisionError]


def test_old_names_warn():
    with pytest.warns(DeprecationWarning, match="isSet"):
        assert not threading.Event().isSet()
    condition = threading.Condition()
    with condition, pytest.warns(DeprecationWarning, match="notifyAll"):
        condition.notifyAll()


def barrier_that_acts(module):
    """A Barrier of two whose action lasts until go_on: (it, come(*args), acting, go_on, what those who came got)."""
    def action():
        acting.set()
        assert go_on.wait(30)

    def come(*args):
        try:
            numbers.append(barrier.wait(*args))
        except standard.BrokenBarrierError:
            numbers.append("broken")

    acting, go_on, numbers = standard.Event(), standard.Event(), []
    barrier = module.Barrier(2, action)
    return barrier, come, acting, go_on, numbers


@pytest.mark.parametrize("module", [standard, threading])
def test_a_barrier_s_deadline_that_passes_during_the_action(module, thread, reached):
    """All have come in time: the barrier does not break."""
    def attempt():
        barrier, come, acting, go_on, numbers = barrier_that_acts(module)
        threads = [thread(come, 0.1)]
        while barrier.n_waiting == 0 and not barrier.broken:
            time.sleep(0.001)
        threads.append(thread(come))
        while not acting.wait(0.001):
            if barrier.broken:      # the last one did not come in time
                return False
        time.sleep(0.1)
        go_on.set()
        for one in threads:
            one.join(30)
        assert sorted(numbers) == [0, 1] and not barrier.broken and barrier.n_waiting == 0
        return True

    reached(attempt)


def test_a_barrier_that_is_aborted_during_the_action(thread):
    def action():
        barrier.abort()

    def wait():
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait()
        broken.append(True)

    broken, barrier = [], threading.Barrier(2, action)
    first = thread(wait)
    while barrier.n_waiting == 0:
        time.sleep(0.001)
    barrier.wait()
    first.join(30)
    assert broken and barrier.broken


@pytest.mark.parametrize("module", [standard, threading])
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_barrier_s_latecomer_breaks_no_complete_round(module, timeout, thread, asleep):
    """Its time counts from the end of the action on."""
    barrier, come, acting, go_on, numbers = barrier_that_acts(module)
    for _ in range(2):
        thread(come)
    assert acting.wait(30)
    late = thread(come, timeout)
    time.sleep(timeout)
    asleep(late)
    assert not numbers
    go_on.set()
    late.join(30)
    while len(numbers) < 3:
        time.sleep(0.001)
    assert sorted(map(str, numbers)) == ["0", "1", "broken"] and barrier.broken
