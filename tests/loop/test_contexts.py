# SPDX-License-Identifier: MIT
"""Each callback runs in a copy of the context it was scheduled in, whatever others do to theirs."""
import contextvars
import gc
import socket
import threading
import weakref

import pytest

var = contextvars.ContextVar("var", default="unset")




@pytest.fixture
def loop(either):
    """pyconc's loop, and asyncio's: all of this is asyncio's behaviour."""
    return either


@pytest.fixture(params=["call_soon", "call_soon_threadsafe", "call_later"])
def schedule(loop, request):
    if request.param == "call_later":
        return lambda callback, *args: loop.call_later(0.001, callback, *args)
    return getattr(loop, request.param)


def test_what_one_callback_sets_no_other_sees(loop, schedule):
    seen = []

    def callback(i):
        seen.append(var.get())
        var.set(i)

    for i in range(5):
        schedule(callback, i)
    schedule(loop.stop)
    loop.run_forever()
    assert seen == ["unset"] * 5
    assert var.get() == "unset"


def test_what_was_set_before_scheduling_is_seen_and_nothing_later(loop, schedule):
    seen = []

    def main():
        for i in range(3):
            var.set(i)
            schedule(lambda: seen.append(var.get()))
            schedule(lambda: seen.append(var.get()))
        var.set("later")
        schedule(loop.stop)

    loop.call_soon(main)
    loop.run_forever()
    assert seen == [0, 0, 1, 1, 2, 2]


def test_a_chain_of_callbacks_inherits_what_each_link_sets(loop):
    seen = []

    def link(i):
        seen.append(var.get())
        var.set(i)
        if i < 3:
            loop.call_soon(link, i + 1)
        else:
            loop.stop()

    loop.call_soon(link, 0)
    loop.run_forever()
    assert seen == ["unset", 0, 1, 2]


def test_a_token_is_of_no_use_to_another_callback(loop):
    tokens, errors = [], []

    def reset():
        try:
            var.reset(tokens[0])
        except ValueError as exc:
            errors.append(exc)

    loop.call_soon(lambda: tokens.append(var.set(1)))
    loop.call_soon(reset)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(errors) == 1


def test_a_token_used_up_leaves_no_trace(loop):
    seen = []

    def callback():
        token = var.set("inner")
        var.reset(token)
        seen.append(var.get())

    for _ in range(3):
        loop.call_soon(callback)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["unset"] * 3


def test_every_handle_has_a_context_of_its_own(loop, schedule):
    seen = []
    handles = [schedule(lambda: seen.append(var.get())) for _ in range(3)]
    contexts = [handle._context for handle in handles]
    assert len({id(context) for context in contexts}) == 3
    assert all(handle._context is context for handle, context in zip(handles, contexts))
    contexts[1].run(var.set, "from outside")
    schedule(loop.stop)
    loop.run_forever()
    assert seen == ["unset", "from outside", "unset"]


def test_a_handle_kept_keeps_the_context_it_ran_in(loop):
    handles = [loop.call_soon(var.set, i) for i in range(3)]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [handle._context[var] for handle in handles] == [0, 1, 2]


def test_a_handle_run_inside_of_a_callback(loop):
    seen = []

    def outer():
        var.set("outer")
        inner._run()
        seen.append(var.get())

    loop.call_soon(outer)
    inner = loop.call_soon(lambda: seen.append(var.get()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen[:2] == ["unset", "outer"]


def test_a_reader_keeps_its_context_from_call_to_call(loop):
    a, b = socket.socketpair()
    seen = []

    def readable():
        b.recv(1)
        seen.append(var.get())
        var.set(len(seen))
        if len(seen) == 3:
            loop.stop()
        else:
            loop.call_soon(a.send, b"x")

    with a, b:
        loop.add_reader(b, readable)
        a.send(b"x")
        loop.run_forever()
        loop.remove_reader(b)
    assert seen == ["unset", 1, 2]


def test_values_live_no_longer_than_the_callbacks(loop):
    class Value:
        pass

    alive = []

    def main():
        value = Value()
        alive.append(weakref.ref(value))
        context = contextvars.copy_context()
        context.run(lambda: (var.set(value), loop.call_soon(lambda: None), loop.call_soon(lambda: None)))
        loop.call_soon(loop.call_later, 0.01, check)

    def check():
        gc.collect()
        alive.append(alive[0]() is not None)
        loop.stop()

    loop.call_soon(main)
    loop.run_forever()
    assert alive[1] is False


def test_threads_with_variables_of_their_own(loop):
    seen = []

    def thread(i):
        var.set(i)
        for _ in range(100):
            loop.call_soon_threadsafe(lambda: seen.append((i, var.get(), var.set("mine"))[:2]))

    threads = [threading.Thread(target=thread, args=(i,)) for i in range(4)]
    for each in threads:
        each.start()

    def end():
        if len(seen) < 400:
            loop.call_later(0.001, end)
        else:
            loop.stop()

    end()
    loop.run_forever()
    for each in threads:
        each.join()
    assert all(i == value for i, value in seen)


def test_a_destructor_that_asks_for_the_context_of_the_next_callback(either):
    """It runs when the loop lets go of one context to run in the next."""
    contexts = []

    class Asks:
        def __del__(self):
            contexts.append(handles[0]._context)

    def main():
        either.call_soon(var.set, Asks())
        handles.append(either.call_soon(var.set, 1))
        handles.append(either.call_soon(var.set, 2))
        handles.append(either.call_soon(var.set, 3))
        either.call_soon(either.stop)

    handles = []
    either.call_soon(main)
    either.run_forever()
    assert [handle._context[var] for handle in handles] == [1, 2, 3]
    assert all(context is handles[0]._context for context in contexts)


def test_the_collector_runs_code_that_asks_for_a_context(either):
    """Up to Python 3.11 that happens inside of copying it."""
    inside = []

    def ask(phase, info):
        if phase == "start" and not inside:
            inside.append(handles[-1]._context)

    def main():
        for _ in range(300):
            handles.append(either.call_soon(int))
            either.call_soon(int)
            gc.callbacks.append(ask)
            gc.set_threshold(1)
            try:
                contexts.append(handles[-1]._context)
            finally:
                gc.callbacks.remove(ask)
                gc.set_threshold(*threshold)
            inside.clear()

    handles, contexts, threshold = [], [], gc.get_threshold()
    taken = [contextvars.copy_context() for _ in range(300)]     # the interpreter keeps as many for reuse
    either.call_soon(main)
    either.call_soon(either.stop)
    either.run_forever()
    either.call_soon(either.stop)
    either.run_forever()
    assert len(taken) == 300
    assert all(handle._context is context for handle, context in zip(handles, contexts))
