"""pyconc's Future: concurrent.futures.Future in every respect, and without its lock."""
import asyncio
import concurrent.futures
import gc
import logging
import signal
import sys
import sysconfig
import threading
import time
import traceback
import weakref

import pytest

from pyconc.concurrent.futures import Future, as_completed, wait

pytestmark = pytest.mark.usefixtures("no_leaked_threads")
STATES = ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"]


def future_in(state, cls=Future):
    future = cls()
    if state.startswith("CANCELLED"):
        future.cancel()
    if state in ("RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED"):
        future.set_running_or_notify_cancel()
    if state == "FINISHED":
        future.set_result("spam")
    assert future._state == state
    return future


def outcome(call, *args):
    """What a call returns, or the type and text of what it raises."""
    try:
        return call(*args)
    except BaseException as error:
        return type(error), str(error)


def test_is_a_standard_future():
    future = Future()
    assert isinstance(future, concurrent.futures.Future)
    assert isinstance(Future[int], type(concurrent.futures.Future[int]))
    weakref.ref(future)
    future.attribute = 1
    assert future.__dict__ == {"attribute": 1}


@pytest.mark.parametrize("cls", [Future, concurrent.futures.Future])
def test_arguments_by_name(cls):
    seen, done, failed = [], cls(), cls()
    done.add_done_callback(fn=seen.append)
    done.set_result(result=5)
    assert (done.result(timeout=0), seen) == (5, [done])
    failed.set_exception(exception=KeyError("spam"))
    assert type(failed.exception(timeout=0)) is KeyError


@pytest.mark.parametrize("method", ["set_result", "set_exception", "add_done_callback"])
@pytest.mark.parametrize("args, kwargs", [((), {}), ((1, 2), {}), ((), {"spam": 1}), ((1,), {"spam": 1})])
def test_wrong_arguments(method, args, kwargs):
    future = Future()
    with pytest.raises(TypeError, match=rf"{method}\(\)"):
        getattr(future, method)(*args, **kwargs)
    assert not future.done()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("method, args", [
    ("cancel", ()), ("cancelled", ()), ("running", ()), ("done", ()), ("result", (0,)), ("exception", (0,)),
    ("set_result", (1,)), ("set_exception", (ValueError(),)), ("set_running_or_notify_cancel", ()),
])
def test_every_method_in_every_state(state, method, args, caplog):
    said, records = [], []
    for cls in (Future, concurrent.futures.Future):
        caplog.clear()
        future = future_in(state, cls)
        said.append(str((outcome(getattr(future, method), *args), future._state)).replace(hex(id(future)), "ID"))
        records.append([record.getMessage().replace(str(id(future)), "ID") for record in caplog.records])
    assert said[0] == said[1]
    assert records[0] == records[1]


@pytest.mark.parametrize("state", STATES)
def test_repr(state):
    ours, theirs = future_in(state), future_in(state, concurrent.futures.Future)
    assert repr(ours).replace(hex(id(ours)), "ID") == repr(theirs).replace(hex(id(theirs)), "ID")


def test_repr_of_a_failure():
    future = Future()
    future.set_exception(OSError("x"))
    assert "state=finished raised OSError>" in repr(future)


def test_no_condition_until_asked_for():
    future = Future()
    threading.Thread(target=future.set_result, args=(1,)).start()
    assert future.result(10) == 1
    assert not [found for found in gc.get_referents(future) if hasattr(found, "acquire")]
    assert future._condition is future._condition


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -1e300, 1e-9, 0.01, False])
def test_timeout(timeout):
    with pytest.raises(concurrent.futures.TimeoutError):
        Future().result(timeout)
    with pytest.raises(TimeoutError):
        Future().exception(timeout=timeout)


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), 1e30, 1e10, "1", object(), 1j])
def test_strange_timeouts_are_as_in_the_standard_library(timeout):
    def kind(cls):
        try:
            cls().result(timeout)
        except Exception as error:
            return type(error)

    assert kind(Future) is kind(concurrent.futures.Future)


def test_a_done_future_does_not_look_at_the_timeout():
    assert future_in("FINISHED").result(timeout="later") == "spam"


def test_result_takes_one_argument():
    for args, kwargs in [((1, 2), {}), ((), {"deadline": 1}), ((1,), {"timeout": 1})]:
        with pytest.raises(TypeError):
            Future().result(*args, **kwargs)


def test_waits_for_the_time_asked():
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        Future().result(0.2)
    assert time.monotonic() - start >= 0.2


def test_many_threads_wait_for_one_future():
    future, got = Future(), []
    threads = [threading.Thread(target=lambda: got.append(future.result(30))) for _ in range(20)]
    for thread in threads:
        thread.start()
    future.set_result("x")
    for thread in threads:
        thread.join()
    assert got == ["x"] * 20


def test_running_does_not_end_the_wait(meanwhile):
    future = Future()

    def run():
        future.set_running_or_notify_cancel()
        future.set_result(3)

    with meanwhile(run):
        assert future.result(30) == 3


def test_cancel_wakes_who_waits(meanwhile):
    future = Future()
    with meanwhile(future.cancel), pytest.raises(concurrent.futures.CancelledError):
        future.result(30)


def test_the_exception_keeps_its_traceback_and_makes_no_cycle():
    def fail():
        raise ValueError("deep")

    future = Future()
    try:
        fail()
    except ValueError as error:
        future.set_exception(error)
    assert future.exception().args == ("deep",)
    try:
        future.result()
    except ValueError as error:
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "fail"
    ref = weakref.ref(future)
    gc.disable()
    try:
        del future
        assert ref() is None
    finally:
        gc.enable()


def test_set_exception_of_something_else():
    future = Future()
    future.set_exception(KeyError)
    with pytest.raises(KeyError):
        future.result()
    future = Future()
    future.set_exception("no exception")
    with pytest.raises(TypeError, match="no exception"):
        future.result()


def test_callbacks_in_order_and_at_once_when_done():
    future, seen = Future(), []
    for number in range(3):
        future.add_done_callback(lambda got, number=number: seen.append((number, got)))
    future.set_result(None)
    future.add_done_callback(lambda got: seen.append((3, got)))
    assert seen == [(number, future) for number in range(4)]


def test_a_callback_that_raises_is_logged_and_the_rest_are_called(caplog):
    future, seen = Future(), []
    future.add_done_callback(lambda got: 1 / 0)
    future.add_done_callback(seen.append)
    with caplog.at_level(logging.ERROR):
        future.set_result(1)
        future.add_done_callback(lambda got: got.missing)
    assert seen == [future]
    assert [record.name for record in caplog.records] == ["concurrent.futures"] * 2
    assert caplog.records[0].getMessage() == f"exception calling callback for {future!r}"
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


def test_a_callback_may_raise_system_exit():
    future = Future()
    future.add_done_callback(lambda got: sys.exit(3))
    with pytest.raises(SystemExit):
        future.set_result(1)
    assert future.result() == 1


def test_the_callbacks_after_one_that_exits_are_called(capsys):
    future, called = Future(), []
    future.add_done_callback(lambda got: sys.exit(3))
    future.add_done_callback(called.append)
    with pytest.raises(SystemExit):
        future.set_result(1)
    assert called == [future]


def test_callbacks_that_are_taken_off_while_they_are_called():
    """As as_completed() does when it is closed: nobody else misses his call, and nobody gets a second one."""
    future, called = Future(), []
    callbacks = future._done_callbacks

    def leave(got):
        callbacks.remove(leave)
        called.append("leave")

    future.add_done_callback(leave)
    for name in "abc":
        future.add_done_callback(lambda got, name=name: called.append(name))
    future.set_result(1)
    assert called == ["leave", "a", "b", "c"]


def test_as_completed_when_a_callback_exits():
    future = Future()
    future.add_done_callback(lambda got: sys.exit(3))
    found = []
    thread = threading.Thread(target=lambda: found.extend(as_completed([future])))
    thread.start()
    while len(future._done_callbacks) < 2:
        time.sleep(0.001)
    with pytest.raises(SystemExit):
        future.set_result(1)
    thread.join(30)
    assert found == [future]


def test_as_completed_leaves_nothing_behind():
    futures = [Future(), Future()]
    futures[0].set_result(1)
    results = as_completed(futures)
    assert next(results) is futures[0]
    results.close()
    assert futures[1]._done_callbacks == []
    assert list(as_completed([])) == []


def test_as_completed_says_how_many_are_missing():
    futures = [Future() for _ in range(3)]
    futures[0].set_result(1)
    with pytest.raises(TimeoutError, match=r"2 \(of 3\) futures unfinished"):
        list(as_completed(futures * 2, timeout=0.01))


def test_as_completed_takes_the_futures_of_others():
    theirs, mine = concurrent.futures.Future(), Future()
    theirs.set_result(1)
    mine.set_result(2)
    assert set(as_completed([theirs, mine], 30)) == {theirs, mine}


def test_in_the_place_of_the_standard_functions(monkeypatch):
    """What is not ours is for the standard functions, not for what stands there now."""
    monkeypatch.setattr(concurrent.futures, "wait", wait)
    monkeypatch.setattr(concurrent.futures, "as_completed", as_completed)
    theirs = concurrent.futures.Future()
    theirs.set_result(1)
    assert concurrent.futures.wait([theirs]).done == {theirs}
    assert list(concurrent.futures.as_completed([theirs])) == [theirs]


def test_a_callback_that_adds_and_waits():
    future, seen = Future(), []

    def callback(got):
        seen.append(got.result())
        got.add_done_callback(lambda again: seen.append(again.result() + 1))

    future.add_done_callback(callback)
    future.set_result(1)
    assert seen == [1, 2]


def test_cancel_against_completion():
    """Exactly one of cancel() and the worker wins, and everybody sees the same."""
    for _ in range(300):
        future, seen, start = Future(), [], threading.Barrier(2)
        future.add_done_callback(seen.append)

        def run(future, start):
            start.wait()
            if future.set_running_or_notify_cancel():
                future.set_result(1)

        thread = threading.Thread(target=run, args=(future, start))
        thread.start()
        start.wait()
        cancelled = future.cancel()
        thread.join()
        assert seen == [future] and future.cancelled() is cancelled
        assert future._state == ("CANCELLED_AND_NOTIFIED" if cancelled else "FINISHED")


# wait and as_completed: the standard library's, and our wait, which takes no Condition of Futures of ours alone.

waits = pytest.mark.parametrize("wait", [wait, concurrent.futures.wait], ids=["ours", "theirs"])
ours, theirs = Future, concurrent.futures.Future


@pytest.mark.parametrize("classes", [(ours, theirs), (ours,)], ids=["mixed", "ours"])
@pytest.mark.parametrize("function", [concurrent.futures.wait, wait, lambda fs, timeout: (set(
    concurrent.futures.as_completed(fs, timeout)), set())], ids=["wait", "our_wait", "as_completed"])
def test_wait_for_ours_and_theirs(function, classes):
    futures = [cls() for _ in range(50) for cls in classes]

    def end(part):
        for place, future in enumerate(part):
            if place % 5 == 0:
                future.cancel()
            if future.set_running_or_notify_cancel():
                future.set_exception(OSError()) if place % 5 == 1 else future.set_result(place)

    threads = [threading.Thread(target=end, args=(futures[part::3],)) for part in range(3)]
    for thread in threads:
        thread.start()
    done, rest = function(futures, 30)
    assert done == set(futures) and not rest
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("when, ended", [("FIRST_COMPLETED", "result"), ("FIRST_EXCEPTION", "exception")])
@pytest.mark.parametrize("other", [ours, theirs])
@waits
def test_wait_for_the_first(when, ended, wait, other, meanwhile):
    futures = [Future(), other(), Future()]
    with meanwhile(getattr(futures[2], f"set_{ended}"), OSError()):
        done, rest = wait(futures, 30, when)
    assert done == {futures[2]} and rest == set(futures[:2])
    assert not futures[0]._waiters
    assert wait(futures, 30, when) == (done, rest)


@waits
def test_wait_times_out(wait):
    futures = [Future(), Future()]
    futures[0].set_result(1)
    for timeout in (0, -1, 0.05):
        done, rest = wait(futures * 2, timeout)
        assert done == {futures[0]} and rest == {futures[1]}
    assert not futures[1]._waiters
    with pytest.raises(TypeError):
        wait(futures, "1")
    assert wait(futures[:1], "1").done == {futures[0]}


@waits
def test_wait_for_the_first_exception_waits_for_all_results(wait):
    futures = [Future(), Future()]
    threads = [threading.Thread(target=future.set_result, args=(1,)) for future in futures]
    for thread in threads:
        thread.start()
    assert wait(futures, 30, "FIRST_EXCEPTION").done == set(futures)
    for thread in threads:
        thread.join()


@waits
def test_wait_until_who_was_cancelled_is_noticed(wait, meanwhile):
    future = Future()
    future.cancel()
    assert wait([future], 0).done == set()
    with meanwhile(future.set_running_or_notify_cancel):
        assert wait([future], 30).done == {future}


@waits
def test_wait_for_nothing_and_for_what_is_no_future(wait):
    assert wait([], 30) == (set(), set())
    with pytest.raises(ValueError, match="SOME"):
        wait([Future()], 0, "SOME")
    with pytest.raises(AttributeError):
        wait([object()], 0)


@waits
def test_ctrl_c_ends_wait(wait, interrupted):
    interrupted(lambda: wait([Future()], 30))


def test_two_waits_for_the_same():
    for _ in range(100):
        futures = [Future() for _ in range(3)]
        seen = []
        threads = [threading.Thread(target=lambda wait, fs, seen: seen.append(wait(fs, 30).not_done),
                                    args=(function, futures, seen))
                   for function in (wait, concurrent.futures.wait, wait)]
        for thread in threads:
            thread.start()
        for future in futures:
            future.set_result(1)
        for thread in threads:
            thread.join()
        assert seen == [set()] * 3


@waits
def test_no_lost_wakeup_between_wait_and_completion(wait):
    """The futures end in other threads while wait() looks at them."""
    for _ in range(200):
        futures = [Future() for _ in range(4)]
        threads = [threading.Thread(target=future.set_result, args=(1,)) for future in futures]
        for thread in threads:
            thread.start()
        assert not wait(futures, 30).not_done
        for thread in threads:
            thread.join()


def test_who_holds_the_condition_delays_the_end():
    future = Future()
    with future._condition:
        thread = threading.Thread(target=future.set_result, args=(1,))
        thread.start()
        assert not future.done()
    assert future.result(30) == 1
    thread.join()


def test_the_condition_is_a_real_one(meanwhile):
    future = Future()

    def end():
        with future._condition:
            future._state = "FINISHED"
            future._result = 7
            future._condition.notify_all()

    with meanwhile(end), future._condition:
        assert future._condition.wait_for(future.done, 30)
    assert future.result() == 7


def test_state_says_what_is_wrong_with_it():
    with pytest.raises(ValueError, match="'DONE'"):
        Future()._state = "DONE"


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_ctrl_c_ends_the_wait(interrupted):
    interrupted(lambda: Future().result(30))


def test_a_signal_handler_that_returns_does_not_end_the_wait(meanwhile):
    future, seen = Future(), []
    old = signal.signal(signal.SIGUSR1, lambda *args: seen.append(1) or future.set_result("handled"))
    try:
        with meanwhile(signal.pthread_kill, threading.main_thread().ident, signal.SIGUSR1):
            assert future.result(30) == "handled" and seen == [1]
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_subclass():
    class Mine(Future):
        def __init__(self):
            self.seen = []

        def set_result(self, result):
            self.seen.append(result)
            super().set_result(result)

    future = Mine()
    future.set_result(1)
    assert future.result() == 1 and future.seen == [1]
    assert repr(future).startswith("<Mine at ")


def test_no_leak(no_leaked_objects):
    async def use():
        futures = [Future() for _ in range(4)]
        tasks = [asyncio.ensure_future(asyncio.wrap_future(future)) for future in futures[:2]]
        futures[0].set_result(1)
        futures[1].set_exception(OSError())
        futures[2].cancel()
        futures[3].add_done_callback(lambda got: None)
        await asyncio.gather(*tasks, return_exceptions=True)

    def once():
        future = Future()
        future.add_done_callback(lambda got: None)
        assert future._waiters == [] and future._condition and future._done_callbacks
        future.me = future
        future.set_result(future)
        repr(future)
        with pytest.raises(concurrent.futures.InvalidStateError):
            future.set_result(1)

    no_leaked_objects(once, 50)
    with asyncio.Runner() as runner:
        no_leaked_objects(lambda: runner.run(use()), 50)


class Ends:
    """Ends a Future when it is collected as garbage."""

    def __init__(self, future):
        self.future = future
        self.cycle = self

    def __del__(self):
        self.future.set_result(1)


@pytest.fixture
def collects_next():
    """collects_next(): the garbage collector runs at the next object that it is told of, where it runs at once."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("without the GIL nothing is collected in the middle of a call")
    spare, thresholds = [], gc.get_threshold()
    gc.disable()

    def start():
        spare.extend([] for _ in range(200))    # or lists come from those that were freed
        gc.set_threshold(1, 1000, 1000)
        gc.enable()

    gc.collect()
    yield start
    gc.set_threshold(*thresholds)
    gc.enable()


def test_a_future_that_ends_while_a_callback_is_added(collects_next):
    called, future = [], Future()
    add, callback = future.add_done_callback, called.append
    Ends(future)
    collects_next()
    add(callback)
    gc.collect()
    assert called == [future]


def test_a_future_that_ends_while_it_is_waited_for(collects_next):
    future = Future()
    Ends(future)
    collects_next()
    assert wait([future], 30).done == {future}
