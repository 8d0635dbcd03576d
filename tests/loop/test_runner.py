"""asyncio.Runner on pyconc's loop, as on asyncio's own, and pyconc.run()."""
import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

import pyconc

WORD = contextvars.ContextVar("WORD", default="none")


async def give(value):
    await asyncio.sleep(0)
    return value


@pytest.fixture
def runner(new_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        yield runner


def test_runs_more_than_once(runner):
    loop = runner.get_loop()
    assert [runner.run(give(number)) for number in range(3)] == [0, 1, 2]
    assert runner.get_loop() is loop
    assert not loop.is_closed()
    runner.close()
    assert loop.is_closed()
    runner.close()
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.get_loop()


def test_which_loop_it_makes():
    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        assert type(runner.get_loop()) is pyconc.Loop
        assert runner.run(running_loop()) is runner.get_loop()


async def running_loop():
    return asyncio.get_running_loop()


def test_run_after_an_error(runner):
    async def fail():
        raise ValueError("x")

    for _ in range(3):
        with pytest.raises(ValueError, match="x"):
            runner.run(fail())
        assert runner.run(give(1)) == 1


def test_context_is_kept_between_runs(runner):
    async def put(value):
        before = WORD.get()
        WORD.set(value)
        return before

    assert runner.run(put("a")) == "none"
    assert runner.run(put("b")) == "a"
    assert WORD.get() == "none"


def test_context_of_one_run(runner):
    async def look():
        await asyncio.sleep(0)
        seen = [WORD.get()]
        asyncio.get_running_loop().call_soon(lambda: seen.append(WORD.get()))
        await asyncio.sleep(0)
        WORD.set("after")
        return seen

    context = contextvars.copy_context()
    context.run(WORD.set, "given")
    assert runner.run(look(), context=context) == ["given", "given"]
    assert context[WORD] == "after"
    assert runner.run(look()) == ["none", "none"]


@pytest.mark.parametrize("debug", [True, False])
def test_debug(new_loop, debug):
    with asyncio.Runner(debug=debug, loop_factory=new_loop) as runner:
        assert runner.get_loop().get_debug() is debug


def test_debug_of_the_environment(program):
    for loop in "pyconc.new_event_loop", "asyncio.SelectorEventLoop":
        done = program(f"""
            import asyncio, pyconc
            with asyncio.Runner(loop_factory={loop}) as runner:
                print(runner.get_loop().get_debug())
        """, PYTHONASYNCIODEBUG="1")
        assert done.stdout_text == "True\n", done.stderr_text


def test_inside_of_a_running_loop(runner, new_loop):
    async def main():
        coroutine = give(1)
        with pytest.raises(RuntimeError, match="running event loop"):
            runner.run(coroutine)
        with pytest.raises(RuntimeError, match="running event loop"):
            pyconc.run(coroutine)
        coroutine.close()
        return "fine"

    assert runner.run(main()) == "fine"


def test_no_coroutine(runner):
    for wrong in (None, 3, give):
        with pytest.raises((TypeError, ValueError)):
            runner.run(wrong)
    assert runner.run(give(2)) == 2


def test_end_cancels_what_is_left(runner):
    told = []

    async def left():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            told.append("cancelled")
            raise

    async def main():
        global task
        task = asyncio.create_task(left())
        await asyncio.sleep(0)

    runner.run(main())
    assert told == []
    runner.close()
    assert told == ["cancelled"]


def test_error_while_cancelled_is_reported(runner):
    contexts = []

    async def left():
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while it was cancelled")

    async def main():
        global task
        task = asyncio.create_task(left())
        await asyncio.sleep(0)

    runner.get_loop().set_exception_handler(lambda loop, context: contexts.append(context))
    runner.run(main())
    runner.close()
    assert [str(context["exception"]) for context in contexts] == ["while it was cancelled"]
    assert contexts[0]["message"].startswith("unhandled exception during asyncio.run() shutdown")


def test_end_closes_async_generators_and_executor(runner, no_leaked_threads):
    closed = []

    async def generate():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        global generator
        generator = generate()
        await anext(generator)
        return await asyncio.to_thread(threading.get_ident)

    assert runner.run(main()) != threading.get_ident()
    runner.close()
    assert closed == [True]


def test_in_a_thread(new_loop, no_leaked_threads, no_leaked_fds):
    results = []

    def run():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            results.extend(runner.run(give(number)) for number in range(2))
            results.append(runner.run(asyncio.to_thread(lambda: 2)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results == [0, 1, 2]


def test_two_at_once(new_loop):
    with asyncio.Runner(loop_factory=new_loop) as one, asyncio.Runner(loop_factory=new_loop) as two:
        for number in range(3):
            assert one.run(give(number)) == number
            assert two.run(give(-number)) == -number


def test_main_task_ends_when_cancelled_from_inside(runner):
    async def main():
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        runner.run(main())
    assert runner.run(give(1)) == 1


def test_stopped_by_the_program(runner):
    """run() ends with an error, and the runner can still be closed."""
    async def main():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(60)

    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        runner.run(main())


def test_failing_factory():
    def fail():
        raise OSError("no loop today")

    coroutine = give(1)
    for run in (lambda: asyncio.Runner(loop_factory=fail).run(coroutine),
                lambda: pyconc.run(coroutine, loop_factory=fail)):
        with pytest.raises(OSError, match="no loop today"):
            run()
    coroutine.close()


def test_everything_goes_with_it(new_loop, no_leaked_fds):
    class Thing:
        pass

    async def main(thing):
        task = asyncio.create_task(asyncio.sleep(60))
        task.thing = thing
        asyncio.get_running_loop().call_later(60, print, thing)
        return weakref.ref(thing)

    class Task(asyncio.Task):
        pass

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_task_factory(lambda loop, coro, **kwargs: Task(coro, loop=loop, **kwargs))
        ref = runner.run(main(Thing()))
    del runner
    gc.collect()
    assert ref() is None


def test_run_leaves_nothing(no_leaked_objects, no_leaked_fds, no_leaked_threads):
    no_leaked_objects(lambda: pyconc.run(give(1)), 200)
