"""run_forever, run_until_complete, stop, close, and the order in which callbacks run."""
import asyncio
import socket
import threading
import weakref

import pytest

import pyconc


def test_callbacks_run_in_order(either, turn):
    seen = []
    for number in range(1000):
        either.call_soon(seen.append, number)
    turn(either)
    assert seen == list(range(1000))


@pytest.mark.parametrize("count", range(6))
def test_arguments(either, turn, count):
    seen = []
    either.call_soon(lambda *args: seen.append(args), *range(count))
    turn(either)
    assert seen == [tuple(range(count))]


def test_arguments_by_name(either, turn):
    seen = []
    context = asyncio.Handle(print, (), either)._context
    either.call_soon(callback=lambda: seen.append("soon"))
    either.call_soon_threadsafe(callback=lambda: seen.append("threadsafe"), context=context)
    either.call_at(when=either.time() - 2, callback=lambda: seen.append("at"))
    either.call_at(either.time() - 3, callback=lambda: seen.append("earlier"))
    either.call_later(delay=-1, callback=lambda: seen.append("later"), context=context)
    turn(either)
    assert seen == ["soon", "threadsafe", "earlier", "at", "later"]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
@pytest.mark.parametrize("kwargs", [{}, {"unknown": 1}, {"context": None}, {"callback": print, "contex": None}])
def test_wrong_arguments(either, method, kwargs):
    with pytest.raises(TypeError):
        getattr(either, method)(**kwargs)


def test_names_that_are_not_interned(loop, monkeypatch):
    """CPython's Task passes such a name each time it wakes up: no way round by Python."""
    monkeypatch.delattr(pyconc.Loop, "_call_soon_by_name")
    handle = loop.call_soon(print, **{"".join(["con", "text"]): None})
    handle.cancel()


def test_unknown_keyword(either):
    with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
        either.call_soon(print, name="x")


def test_what_a_callback_adds_runs_in_the_next_turn(either, turn):
    seen = []

    def first():
        seen.append("first")
        either.call_soon(seen.append, "added")

    either.call_soon(first)
    either.call_soon(seen.append, "second")
    turn(either)
    assert seen == ["first", "second"]
    turn(either)
    assert seen == ["first", "second", "added"]


def test_stop_ends_after_the_batch(either):
    seen = []

    def stop():
        either.stop()
        either.call_soon(seen.append, "next run")

    either.call_soon(stop)
    either.call_soon(seen.append, "same batch")
    either.run_forever()
    assert seen == ["same batch"]
    either.call_soon(either.stop)
    either.run_forever()
    assert seen == ["same batch", "next run"]


def test_stop_from_a_reader(either):
    """What a reader adds after stop() waits for the next run, as with any other callback."""
    seen = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")

        def readable():
            either.remove_reader(ours)
            either.stop()
            either.call_soon(seen.append, "next run")

        either.add_reader(ours, readable)
        either.run_forever()
        assert seen == []
        either.call_soon(either.stop)
        either.run_forever()
        assert seen == ["next run"]


def test_stop_before_run_runs_one_turn(either):
    seen = []
    either.call_soon(seen.append, 1)
    either.call_later(-1, seen.append, 2)
    either.call_soon_threadsafe(seen.append, 3)
    either.stop()
    either.run_forever()
    assert sorted(seen) == [1, 2, 3]


def test_stop_in_run_until_complete(either):
    async def main():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(10)

    task = either.create_task(main())
    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        either.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        either.run_until_complete(task)


def test_a_chain_of_callbacks_does_not_starve_readers(loop):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        def again():
            loop.call_soon(again)

        loop.add_reader(ours, loop.stop)
        again()
        loop.call_later(0.01, theirs.send, b"x")
        loop.run_forever()
        loop.remove_reader(ours)


def test_a_chain_of_callbacks_does_not_starve_timers_and_threads(loop):
    seen = []

    def again():
        if len(seen) == 2:
            loop.stop()
        loop.call_soon(again)

    loop.call_later(0.01, seen.append, "timer")
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, "thread"))
    thread.start()
    again()
    loop.run_forever()
    thread.join()
    assert sorted(seen) == ["thread", "timer"]


def test_is_running_and_is_closed(either):
    async def main():
        return either.is_running(), either.is_closed()

    assert (either.is_running(), either.is_closed()) == (False, False)
    assert either.run_until_complete(main()) == (True, False)
    assert (either.is_running(), either.is_closed()) == (False, False)
    either.close()
    assert (either.is_running(), either.is_closed()) == (False, True)


def test_run_while_running(loop):
    """asyncio's own loop of 3.13.0 hangs here."""
    async def main():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(coroutine)
        coroutine.close()
        return "went on"

    assert loop.run_until_complete(main()) == "went on"


def test_run_another_loop_while_running(either, new_loop):
    async def main():
        other = new_loop()
        with pytest.raises(RuntimeError, match="while another loop is running"):
            other.run_forever()
        other.close()

    either.run_until_complete(main())


def test_run_in_two_threads(loop):
    running, raised = threading.Event(), []

    def second():
        running.wait()
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        raised.append(True)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=second)
    thread.start()
    loop.call_soon(running.set)
    loop.run_forever()
    thread.join()
    assert raised


def test_inner_cycle_cannot_be_entered_twice(loop, errors, turn):
    loop.call_soon(loop._run)
    turn(loop)
    assert "already running" in str(errors[0]["exception"])


def test_run_after_failure(either):
    def fail():
        raise SystemExit(3)

    seen = []
    either.call_soon(fail)
    either.call_soon(seen.append, "kept for the next run")
    with pytest.raises(SystemExit):
        either.run_forever()
    assert seen == []
    either.call_soon(either.stop)
    either.run_forever()
    assert seen == ["kept for the next run"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("debug", [False, True])
def test_ends_of_the_program_leave_the_loop(either, errors, error, debug):
    def fail():
        raise error("now")

    either.set_debug(debug)
    either.call_soon(fail)
    with pytest.raises(error, match="now"):
        either.run_forever()
    assert not errors
    assert not either.is_running()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ends_of_the_program_from_a_task(either, error):
    async def main():
        raise error("now")

    with pytest.raises(error, match="now"):
        either.run_until_complete(main())


def test_ends_of_the_program_from_a_reader_and_a_timer(either):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        def fail():
            raise SystemExit("now")

        theirs.send(b"x")
        either.add_reader(ours, fail)
        with pytest.raises(SystemExit):
            either.run_forever()
        either.remove_reader(ours)
        either.call_later(0.001, fail)
        with pytest.raises(SystemExit):
            either.run_forever()


def test_close_twice(either):
    either.close()
    either.close()


def test_close_while_running(either):
    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            either.close()

    either.run_until_complete(main())
    assert not either.is_closed()


def test_closed_loop_refuses(either):
    either.close()
    future = asyncio.Future(loop=either)
    for method, *args in (("call_soon", print), ("call_soon_threadsafe", print), ("call_later", 1, print),
                          ("call_at", 1, print), ("run_forever",), ("run_until_complete", future),
                          ("run_in_executor", None, print)):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            getattr(either, method)(*args)
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        either.create_task(coroutine)
    coroutine.close()
    either.stop()
    assert either.time() > 0
    assert "closed=True" in repr(either)


def test_close_frees_arguments():
    class Argument:
        pass

    loop = pyconc.new_event_loop()
    kept = []
    for schedule in (loop.call_soon, loop.call_soon_threadsafe, lambda *args: loop.call_later(100, *args),
                     lambda *args: loop.call_later(0, *args)):
        argument = Argument()
        kept.append(weakref.ref(argument))
        schedule(print, argument)
        del argument
    loop.close()
    assert [ref() for ref in kept] == [None] * 4


def test_destructors_that_use_the_loop_at_close():
    """What close() drops may call the loop in its destructor: it is told that the loop is closed."""
    told = []

    class Nosy:
        def __init__(self, loop):
            self.loop = loop

        def __del__(self):
            for call in (self.loop.call_soon, self.loop.call_soon_threadsafe):
                try:
                    call(print)
                except RuntimeError as error:
                    told.append(str(error))
            self.loop.close()

    loop = pyconc.new_event_loop()
    loop.call_soon(print, Nosy(loop))
    loop.call_later(10, print, Nosy(loop))
    loop.call_soon_threadsafe(print, Nosy(loop))
    loop.close()
    assert told == ["Event loop is closed"] * 6


def test_subclass_without_init():
    class Careless(pyconc.Loop):
        def __init__(self):
            pass

    loop = Careless()
    with pytest.raises(RuntimeError, match="__init__"):
        loop.call_soon(print)
    with pytest.raises(RuntimeError, match="__init__"):
        loop.call_soon_threadsafe(print)
    loop._close()


def test_settable_attributes(either, turn):
    either.mine = 1
    assert either.mine == 1
    seen = []
    either.call_soon = lambda *args, **kwargs: seen.append(args)
    either.create_future().add_done_callback(print)
    future = either.create_future()
    future.set_result(1)
    future.add_done_callback(print)
    assert len(seen) == 1
    del either.call_soon


def test_is_an_asyncio_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert type(loop) is pyconc.Loop
    assert f"running=False closed=False debug={loop.get_debug()}" in repr(loop)


def test_running_loop_is_set_and_reset(either):
    async def main():
        assert asyncio.get_running_loop() is either

    either.run_until_complete(main())
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_many_turns_with_many_callbacks(loop):
    """The queue grows and wraps at any place without losing order."""
    seen, left = [], iter(range(20_000))

    def add(width):
        for number in left:
            loop.call_soon(seen.append, number)
            width -= 1
            if width == 0:
                loop.call_soon(add, len(seen) % 300 + 1)
                return
        loop.call_soon(loop.stop)

    loop.call_soon(add, 1)
    loop.run_forever()
    assert seen == list(range(20_000))
