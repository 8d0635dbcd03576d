"""Handle and TimerHandle: asyncio's, to the letter."""
import asyncio
import contextvars
import copy
import gc
import signal
import sys
import threading
import weakref

import pytest

variable = contextvars.ContextVar("variable", default="unset")


def callback(*args):
    pass


@pytest.fixture(params=["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def schedule(request, either):
    """schedule(callback, *args, context=None) by each of the methods, on each of the loops."""
    method = getattr(either, request.param)
    if request.param in ("call_soon", "call_soon_threadsafe"):
        return method
    return lambda *args, **kwargs: method(0, *args, **kwargs)


def test_types(either):
    assert isinstance(either.call_soon(callback), asyncio.Handle)
    assert not isinstance(either.call_soon(callback), asyncio.TimerHandle)
    assert isinstance(either.call_soon_threadsafe(callback), asyncio.Handle)
    for delay in (1, 0, -1, 0.5, True):
        handle = either.call_later(delay, callback)
        assert isinstance(handle, asyncio.TimerHandle) and isinstance(handle, asyncio.Handle)
    assert isinstance(either.call_at(0, callback), asyncio.TimerHandle)


def test_cancel(either, schedule, turn):
    seen = []
    handle = schedule(seen.append, 1)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    assert handle.cancel() is None
    turn(either)
    assert seen == []


def test_cancel_after_it_ran(either, schedule, turn):
    seen = []
    handle = schedule(seen.append, 1)
    turn(either)
    assert handle.cancelled() is False
    handle.cancel()
    assert handle.cancelled() is True
    assert seen == [1]


def test_cancel_while_it_runs(either, turn):
    seen = []

    def run(*args):
        handle.cancel()
        gc.collect()
        seen.append(args)

    handle = either.call_soon(run, *(object() for _ in range(3)))
    turn(either)
    assert len(seen[0]) == 3
    assert handle.cancelled()


def test_cancel_by_another_callback(either, turn):
    seen = []
    either.call_soon(lambda: handle.cancel())
    handle = either.call_soon(seen.append, 1)
    turn(either)
    assert seen == []


def test_cancel_frees_callback_and_arguments(either, schedule):
    class Object:
        def method(self, other):
            pass

    first, second = Object(), Object()
    refs = weakref.ref(first), weakref.ref(second)
    handle = schedule(first.method, second)
    del first, second
    handle.cancel()
    gc.collect()
    if not either.get_debug():
        assert [ref() for ref in refs] == [None, None]
    assert handle._callback is None


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_attributes(either, schedule, count):
    args = tuple(range(count))
    handle = schedule(callback, *args)
    assert handle._callback is callback
    assert handle._args == args
    assert handle._loop is either
    assert handle._cancelled is False
    handle.cancel()
    assert handle._cancelled is True
    assert handle._args is None
    with pytest.raises(AttributeError):
        handle.other = 1


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("method,args", [("call_soon", ()), ("call_soon", (1, "two")), ("call_at", (12.5,)),
                                         ("call_at", (12, )), ("call_soon", (1, 2, 3, 4, 5))])
def test_repr_is_asyncios(loop, debug, cancelled, method, args):
    theirs = asyncio.SelectorEventLoop()
    loop.set_debug(debug)
    theirs.set_debug(debug)
    texts = []
    for one in (loop, theirs): handle = (getattr(one, method)(*args[:1], callback, *args[1:]) if method == "call_at" else getattr(one, method)(callback, *args)); cancelled and handle.cancel(); texts.append(repr(handle))  # noqa: E501, E701, E702 - one line, for the line is in the text
    theirs.close()
    assert texts[0] == texts[1]
    assert ("when=12" in texts[0]) == (method == "call_at")
    assert ("cancelled" in texts[0]) == cancelled


def test_repr_of_a_callback_whose_repr_fails(loop):
    class Nameless:
        def __call__(self):
            pass

        def __repr__(self):
            raise ValueError("no name")

    handle = loop.call_soon(Nameless())
    with pytest.raises(ValueError, match="no name"):
        repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_when(either):
    assert either.call_at(12.5, callback).when() == 12.5
    exact = either.call_at(10, callback).when()
    assert exact == 10 and type(exact) is int
    before = either.time()
    when = either.call_later(10, callback).when()
    assert before + 10 <= when <= either.time() + 10
    assert type(when) is float
    assert not hasattr(either.call_soon(callback), "when")


def test_order_of_timers(either):
    first, second, third = (either.call_at(when, callback) for when in (1, 2, 2))
    assert first < second and first <= second and not first > second and not first >= second
    assert second > first and second >= first and second <= third and second >= third
    assert first != second
    assert second == third and hash(second) == hash(third) == hash(2)
    assert sorted([second, first])[0] is first
    assert second != either.call_at(2, callback, "argument")
    assert second != either.call_at(2, print)
    third.cancel()
    assert second != third
    assert second != 2 and not second == 2
    with pytest.raises(TypeError):
        second < 2
    assert {first: 1}[first] == 1


def test_timers_compare_with_asyncios(loop):
    theirs = asyncio.TimerHandle(2, callback, (), loop)
    ours = loop.call_at(2, callback)
    assert ours == theirs and theirs == ours
    assert ours <= theirs <= ours
    assert loop.call_at(1, callback) < theirs < loop.call_at(3, callback)


def test_handles_are_equal_to_themselves_only(either):
    first, second = either.call_soon(callback), either.call_soon(callback)
    assert first == first and first != second
    assert len({first, second, first}) == 2


def test_context(either, schedule, turn):
    seen = []
    variable.set("at scheduling")
    schedule(lambda: seen.append(variable.get()))
    variable.set("later")
    turn(either)
    assert seen == ["at scheduling"]


def test_given_context(either, schedule, turn):
    seen = []
    context = contextvars.copy_context()
    context.run(variable.set, "given")

    def run():
        seen.append(variable.get())
        variable.set("changed")

    handle = schedule(run, context=context)
    turn(either)
    assert seen == ["given"]
    assert context[variable] == "changed"
    if hasattr(handle, "get_context"):
        assert handle.get_context() is context


def test_context_none_is_a_copy(either, schedule, turn):
    variable.set("outer")
    schedule(variable.set, "inner", context=None)
    turn(either)
    assert variable.get() == "outer"


def test_get_context_on_every_python(loop):
    context = contextvars.copy_context()
    assert loop.call_soon(callback, context=context).get_context() is context
    assert loop.call_later(1, callback, context=context).get_context() is context
    handle = loop.call_soon(callback)
    handle.cancel()
    assert isinstance(handle.get_context(), contextvars.Context)


def test_wrong_context(loop):
    for method in (loop.call_soon, loop.call_soon_threadsafe):
        with pytest.raises(TypeError, match="not 3"):
            method(callback, context=3)
    with pytest.raises(TypeError, match="not 3"):
        loop.call_later(1, callback, context=3)


def test_context_that_is_in_use(either, turn, caplog):
    """The context in which the loop itself runs cannot be entered again: reported, like any error."""
    context = contextvars.copy_context()
    seen = []
    either.call_soon(seen.append, 1, context=context)
    either.call_soon(seen.append, 2)
    context.run(turn, either)
    assert seen == [2]
    assert "cannot enter context" in caplog.text


def test_failure_is_reported(either, errors, schedule, turn):
    def fail(first, second):
        raise ValueError(first + second)

    handle = schedule(fail, "a", "b")
    turn(either)
    context, = errors
    assert context["message"].startswith("Exception in callback ") and "fail" in context["message"]
    assert repr(context["exception"]) == "ValueError('ab')"
    assert context["handle"] is handle


def test_failure_message_is_asyncios(loop):
    def fail(first, second):
        raise ValueError(first + second)

    messages = []
    theirs = asyncio.SelectorEventLoop()
    for one in (loop, theirs):
        one.set_debug(False)
        one.set_exception_handler(lambda _, context: messages.append(context["message"]))
        one.call_soon(fail, "a", "b")
        one.stop()
        one.run_forever()
    theirs.close()
    assert messages[0] == messages[1]


def test_a_failing_callback_that_cancels_itself(either, errors, turn):
    def fail():
        handle.cancel()
        raise ValueError

    handle = either.call_soon(fail)
    turn(either)
    assert isinstance(errors[0]["exception"], ValueError)


def test_run_of_a_handle(either):
    """Other libraries run handles themselves."""
    seen = []
    handle = either.call_soon(seen.append, 1)
    handle._run()
    assert seen == [1]
    handle.cancel()


def test_a_handle_run_by_its_own_callback(loop, turn, caplog):
    """Arguments live as long as the outermost call uses them."""
    class Argument:
        pass

    seen = []

    def run(argument, key=None):
        handle._run()
        handle.cancel()
        gc.collect()
        seen.append(argument)

    handle = loop.call_soon(run, Argument())
    turn(loop)
    assert isinstance(seen[0], Argument)
    assert "cannot enter context" in caplog.text
    assert handle._args is None


@pytest.mark.filterwarnings("ignore")
def test_arguments_of_a_c_function_survive_run_and_cancel(loop, turn):
    """A function in C borrows its arguments from the handle."""
    class Key:
        def __init__(self, number):
            self.number = number
            self.text = "x" * 1000

        def __lt__(self, other):
            handle._run()
            handle.cancel()
            gc.collect()
            return len(self.text) + len(other.text) < self.number + other.number

    handle = loop.call_soon(sorted, [Key(1), Key(2), Key(3)])
    turn(loop)
    assert handle.cancelled()


def test_weak_references(either, schedule):
    handle = schedule(callback)
    ref = weakref.ref(handle)
    assert ref() is handle


def test_handles_are_not_made_by_hand(loop):
    for handle in (loop.call_soon(callback), loop.call_later(1, callback)):
        with pytest.raises(TypeError):
            type(handle)()
        with pytest.raises(TypeError):
            copy.copy(handle)


def test_deep_chain_of_handles(loop):
    """Handles that hold handles die without a recursion as deep."""
    loop.set_debug(False)   # or most of the time goes into saying where each was made
    handle = None
    for _ in range(200_000):
        handle = loop.call_soon_threadsafe(callback, handle)
    loop.close()
    del handle


def test_deep_chain_of_timers(loop):
    loop.set_debug(False)
    handle = None
    for _ in range(200_000):
        handle = loop.call_later(100, callback, handle)
    loop.close()
    del handle


def test_handles_die_in_other_threads(loop, turn):
    handles = [loop.call_soon(callback, number) for number in range(5000)]
    turn(loop)
    thread = threading.Thread(target=handles.clear)
    thread.start()
    for number in range(5000):
        loop.call_soon(callback, number)
        if number % 100 == 0:
            turn(loop)
    thread.join()
    turn(loop)


def test_cancel_from_another_thread(loop, errors):
    """Not promised by asyncio, but never a crash: what is cancelled while it runs goes on."""
    seen = []

    def cancel_all(handles):
        for handle in handles:
            handle.cancel()

    for _ in range(50):
        handles = [loop.call_soon(lambda first, second: seen.append(first), object(), object()) for _ in range(200)]
        thread = threading.Thread(target=cancel_all, args=(handles[::-1],))
        thread.start()
        loop.stop()
        loop.run_forever()
        thread.join()
    assert not errors


threadsafe_type = getattr(asyncio.events, "_ThreadSafeHandle", None)
since_314 = pytest.mark.skipif(threadsafe_type is None, reason="other threads do not wait for a callback before 3.14")


@since_314
def test_type_of_call_soon_threadsafe(either):
    assert isinstance(either.call_soon_threadsafe(callback), threadsafe_type)
    for handle in (either.call_soon(callback), either.call_later(1, callback)):
        handle.cancel()
        assert not isinstance(handle, threadsafe_type)
    del handle
    assert not isinstance(either.call_soon(callback), threadsafe_type)
    assert "_ThreadSafeHandle" in repr(either.call_soon_threadsafe(callback))


@since_314
@pytest.mark.parametrize("method, answer, cancelled", [("cancel", None, True), ("cancelled", False, False)])
def test_other_threads_wait_while_the_callback_runs(either, method, answer, cancelled):
    order, started = [], threading.Event()

    def run():
        started.set()
        threads[1].join(0.05)  # as long as it would take if it did not wait
        order.append("ran")

    def ask(number):
        started.wait()
        order.append(getattr(handle, method)())
        if order.count(answer) == len(threads):
            either.call_soon_threadsafe(either.stop)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    handle = either.call_soon_threadsafe(run)
    for thread in threads:
        thread.start()
    either.run_forever()
    for thread in threads:
        thread.join()
    assert order == ["ran", answer, answer, answer]
    assert handle.cancelled() is cancelled


@since_314
def test_the_thread_that_runs_it_does_not_wait(either, turn):
    seen = []

    def run():
        seen.append(handle.cancelled())
        handle.cancel()
        seen.append(handle.cancelled())

    handle = either.call_soon_threadsafe(run)
    turn(either)
    assert seen == [False, True]
    handle = either.call_soon_threadsafe(run)
    thread = threading.Thread(target=handle._run)  # then that thread is the one
    thread.start()
    thread.join()
    turn(either)
    assert seen == [False, True] * 2


@since_314
def test_a_signal_ends_the_wait(either):
    """Ctrl-C in a main thread that waits for a callback that never ends."""
    started, end = threading.Event(), threading.Event()

    def run():
        started.set()
        end.wait()
        either.stop()

    handle = either.call_soon_threadsafe(run)
    thread = threading.Thread(target=either.run_forever)
    thread.start()
    started.wait()
    main = threading.main_thread().ident
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        handle.cancel()
        timer.join()
    end.set()
    thread.join()
    timer.join()
    assert not handle.cancelled()


@since_314
def test_a_callback_does_not_run_once_cancel_has_returned(either):
    """However the two threads meet: it ran before cancel() returned, or never."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    late, cancelled = [], set()

    def run(number):
        for _ in range(20):
            if number in cancelled:
                late.append(number)

    def produce():
        for number in range(2000):
            handle = either.call_soon_threadsafe(run, number)
            handle.cancel()
            cancelled.add(number)
        either.call_soon_threadsafe(either.stop)

    thread = threading.Thread(target=produce)
    thread.start()
    either.run_forever()
    thread.join()
    sys.setswitchinterval(interval)
    assert not late


def test_no_leak(loop, turn, no_leaked_objects):
    loop.set_debug(False)

    def use():
        loop.call_soon(callback, 1, 2, 3, 4).cancel()
        loop.call_soon(callback, object())
        loop.call_soon_threadsafe(callback, object(), context=contextvars.copy_context())
        loop.call_later(0, callback, object())
        timer = loop.call_at(100, callback, object())
        timer == loop.call_at(100, callback, object())
        repr(timer), hash(timer), timer.when(), timer._args
        for wrong in ({"context": 3}, {"contexts": 3}):
            with pytest.raises(TypeError):
                loop.call_soon(callback, **wrong)
        turn(loop)

    no_leaked_objects(use)


def test_no_leak_in_debug_mode(loop, turn, no_leaked_objects):
    loop.set_debug(True)
    loop.set_exception_handler(callback)

    def use():
        loop.call_soon(callback, 1, 2, 3, 4).cancel()
        loop.call_later(0, callback, object()).cancel()
        loop.call_soon(int, "x")
        turn(loop)

    no_leaked_objects(use)


def test_cycles_are_collected(loop, turn):
    """A handle that holds itself by its arguments, by its context and by its callback."""
    class Holder:
        def method(self):
            pass

    refs = []
    for schedule in (loop.call_soon, loop.call_soon_threadsafe, lambda *args, **kw: loop.call_later(0, *args, **kw)):
        holder, context = Holder(), contextvars.copy_context()
        refs.append(weakref.ref(holder))
        context.run(variable.set, holder)
        holder.handle = schedule(holder.method, context=context)
        holder.context = context
        other = Holder()
        refs.append(weakref.ref(other))
        other.handle = schedule(callback, other, 2, 3, 4)
        del holder, context, other
    turn(loop)
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)
