"""Futures, tasks, task factories, contexts, exception handlers and async generators on the loop."""
import asyncio
import contextvars
import gc
import inspect
import sys
import weakref

import pytest

import pyconc

variable = contextvars.ContextVar("variable", default="default")
eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")


async def answer(value=42):
    await asyncio.sleep(0)
    return value


def test_create_future(either):
    future = either.create_future()
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is either
    either.call_soon(future.set_result, 5)
    assert either.run_until_complete(future) == 5


def test_create_task(either):
    task = either.create_task(answer())
    assert isinstance(task, asyncio.Task)
    assert task.get_loop() is either
    assert either.run_until_complete(task) == 42


def test_create_task_by_name(either):
    task = either.create_task(coro=answer(), name="mine")
    assert task.get_name() == "mine"
    assert either.run_until_complete(task) == 42


def test_names(either):
    async def main():
        return [either.create_task(answer(), name=name).get_name() for name in ("mine", None, 3)]

    first, second, third = either.run_until_complete(main())
    assert first == "mine" and second.startswith("Task-") and third == "3"


def test_context(either):
    context = contextvars.copy_context()
    context.run(variable.set, "given")

    async def main():
        before = variable.get()
        variable.set("changed")
        return before

    assert either.run_until_complete(either.create_task(main(), context=context)) == "given"
    assert context[variable] == "changed"
    variable.set("current")
    assert either.run_until_complete(either.create_task(main(), context=None)) == "current"
    assert variable.get() == "current"


def test_wrong_arguments(either):
    coroutine = answer()
    for args, kwargs in (((), {}), ((coroutine, 1), {}), ((coroutine,), {"unknown": 1}),
                         ((coroutine,), dict.fromkeys("abcdefgh"))):
        with pytest.raises(TypeError):
            either.create_task(*args, **kwargs)
    with pytest.raises(TypeError, match="a coroutine was expected"):
        either.create_task(3)
    coroutine.close()


def test_run_until_complete(either):
    assert either.run_until_complete(answer(7)) == 7
    assert either.run_until_complete(either.create_task(answer(8))) == 8

    async def fail():
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        either.run_until_complete(fail())
    with pytest.raises(TypeError):
        either.run_until_complete(3)


def test_future_of_another_loop(either, new_loop):
    other = new_loop()
    future = other.create_future()
    with pytest.raises(ValueError, match="loop"):
        either.run_until_complete(future)
    other.close()


def factory(loop, coro):
    return asyncio.Task(coro, loop=loop)


def test_task_factory(either):
    made = []

    def record(loop, coro):
        made.append((loop, coro.__name__))
        return asyncio.Task(coro, loop=loop)

    assert either.get_task_factory() is None
    either.set_task_factory(record)
    assert either.get_task_factory() is record
    assert either.run_until_complete(answer()) == 42
    either.set_task_factory(None)
    assert either.get_task_factory() is None
    assert either.run_until_complete(answer()) == 42
    assert made == [(either, "answer")]
    for wrong in (3, "x"):
        with pytest.raises(TypeError, match="task factory must be a callable or None"):
            either.set_task_factory(wrong)


@pytest.mark.parametrize("kwargs", [{}, {"name": "mine"}, {"context": contextvars.Context()},
                                    {"name": "mine", "context": contextvars.Context()},
                                    {"name": None, "context": None}])
@pytest.mark.parametrize("make", ["plain", "keywords", "context", "any"])
def test_what_a_factory_is_given(kwargs, make):
    """Exactly what the running Python's own loop gives, which has changed with nearly every release."""
    def run(new_loop):
        given = []
        factories = {
            "plain": lambda loop, coro: given.append({}) or factory(loop, coro),
            "keywords": lambda loop, coro, **kw: given.append(kw) or asyncio.Task(coro, loop=loop, **kw),
            "context": lambda loop, coro, context=None: given.append({"context": context}) or factory(loop, coro),
            "any": lambda *args, **kw: given.append((len(args), kw)) or factory(*args),
        }
        loop = new_loop()
        loop.set_task_factory(factories[make])
        coroutine = answer()
        try:
            task = loop.create_task(coroutine, **kwargs)
            named = task.get_name() == "mine"
            result = loop.run_until_complete(task), given, named
        except TypeError as error:
            result = str(error).partition(" ")[2]
            coroutine.close()
        loop.close()
        return result

    assert run(pyconc.new_event_loop) == run(asyncio.SelectorEventLoop)


def test_factory_of_two_arguments_works_in_a_task_group(either):
    """uvloop gives each factory keywords that it does not know."""
    async def main():
        first = asyncio.create_task(answer(1))
        second = asyncio.ensure_future(answer(2))
        return await asyncio.gather(first, second, answer(3))

    either.set_task_factory(factory)
    assert either.run_until_complete(main()) == [1, 2, 3]


@eager
def test_eager_task_factory(either):
    seen = []

    async def child(name):
        seen.append(name)
        await asyncio.sleep(0)
        seen.append(name + " later")

    async def main():
        first = asyncio.create_task(child("first"))
        assert seen == ["first"]
        second = asyncio.create_task(child("second"), name="named")
        assert seen == ["first", "second"]
        assert second.get_name() == "named"
        done = asyncio.create_task(no_wait())
        assert done.done() and done.result() == "at once"
        await asyncio.gather(first, second)

    async def no_wait():
        assert asyncio.current_task().get_name()
        return "at once"

    either.set_task_factory(asyncio.eager_task_factory)
    either.run_until_complete(main())
    assert seen == ["first", "second", "first later", "second later"]


@eager
def test_eager_in_task_group_and_context(either):
    context = contextvars.Context()
    context.run(variable.set, "given")

    async def child():
        return variable.get()

    async def main():
        async with asyncio.TaskGroup() as group:
            first = group.create_task(child())
            second = group.create_task(child(), context=context)
        return first.result(), second.result()

    variable.set("current")
    either.set_task_factory(asyncio.eager_task_factory)
    assert either.run_until_complete(main()) == ("current", "given")


@eager
def test_eager_start_keyword(loop):
    async def main():
        seen = []

        async def child():
            seen.append(1)

        task = loop.create_task(child(), eager_start=True)
        assert seen == [1] and task.done()
        task = loop.create_task(child(), eager_start=False)
        assert seen == [1]
        await task

    loop.run_until_complete(main())


def test_every_keyword_of_the_running_pythons_loop(loop):
    for name in inspect.signature(asyncio.SelectorEventLoop.create_task).parameters:
        if name in ("name", "context", "eager_start"):
            loop.run_until_complete(loop.create_task(answer(), **{name: None}))


def test_failing_factory(either):
    def fail(loop, coro, **kwargs):
        coro.close()
        raise ZeroDivisionError

    either.set_task_factory(fail)
    with pytest.raises(ZeroDivisionError):
        either.create_task(answer())


def test_factory_and_loop_in_a_cycle():
    def run():
        loop = pyconc.new_event_loop()
        loop.set_task_factory(lambda _, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
        assert loop.run_until_complete(answer()) == 42
        loop.close()
        return weakref.ref(loop)

    ref = run()
    gc.collect()
    assert ref() is None


def test_all_tasks_and_current_task(either):
    async def main():
        task = asyncio.create_task(asyncio.sleep(10))
        assert asyncio.all_tasks() == {task, asyncio.current_task()}
        task.cancel()
        await asyncio.wait([task])

    either.run_until_complete(main())
    assert asyncio.all_tasks(either) == set()


def test_sleep_zero_takes_turns(either):
    order = []

    async def one(name):
        for number in range(3):
            order.append((number, name))
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(one("a"), one("b"))

    either.run_until_complete(main())
    assert order == sorted(order)


def test_cancel_and_shield_and_timeout(either):
    async def main():
        inner = asyncio.ensure_future(asyncio.sleep(0.01, "done"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.001)
        assert await inner == "done"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)

    either.run_until_complete(main())


# ---- exception handlers


def test_default_exception_handler(either, turn, caplog):
    either.call_soon(int, "x")
    turn(either)
    assert "Exception in callback int(" in caplog.text
    assert "ValueError" in caplog.text


def test_exception_handler(either, errors, turn):
    assert either.get_exception_handler() is not None
    either.call_exception_handler({"message": "mine"})
    assert errors == [{"message": "mine"}]
    either.set_exception_handler(None)
    assert either.get_exception_handler() is None
    with pytest.raises(TypeError):
        either.set_exception_handler(3)


def test_failing_exception_handler_is_told(either, turn, caplog):
    def fail(loop, context):
        raise ZeroDivisionError

    either.set_exception_handler(fail)
    either.call_soon(int, "x")
    seen = []
    either.call_soon(seen.append, 1)
    turn(either)
    assert "Unhandled error in exception handler" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert seen == [1]


def test_handler_that_stops_and_schedules(either):
    def handler(loop, context):
        loop.call_soon(loop.stop)

    either.set_exception_handler(handler)
    either.call_soon(int, "x")
    either.run_forever()


def test_exception_of_a_callback_does_not_hold_others(either, errors, turn):
    seen = []
    for number in range(10):
        either.call_soon(seen.append, number)
        either.call_soon(int, "x")
    turn(either)
    assert seen == list(range(10)) and len(errors) == 10


def test_task_whose_exception_nobody_asks_for(either, errors):
    async def fail():
        raise ValueError

    async def main():
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    either.run_until_complete(main())
    assert errors[0]["message"] == "Task exception was never retrieved"


def test_base_exceptions_other_than_the_two_are_reported(either, errors, turn):
    class Odd(BaseException):
        pass

    def fail():
        raise Odd

    either.call_soon(fail)
    turn(either)
    assert isinstance(errors[0]["exception"], Odd)


def test_generator_exit_and_cancelled_error(either, errors, turn):
    for error in (GeneratorExit, asyncio.CancelledError, StopIteration):
        def fail(error=error):
            raise error

        either.call_soon(fail)
    turn(either)
    assert [type(context["exception"]) for context in errors] == [GeneratorExit, asyncio.CancelledError, StopIteration]


# ---- async generators


async def generate(log):
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)
        log.append("closed")


def test_shutdown_asyncgens(either):
    log, kept = [], []

    async def main():
        kept.append(generate(log))
        assert await anext(kept[0]) == 1

    either.run_until_complete(main())
    assert log == []
    either.run_until_complete(either.shutdown_asyncgens())
    assert log == ["closed"]


def test_dropped_asyncgen_is_closed(either):
    log = []

    async def main():
        async for _ in generate(log):
            break
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    either.run_until_complete(main())
    assert log == ["closed"]


def test_asyncgen_after_shutdown_is_told(either):
    async def main():
        await asyncio.get_running_loop().shutdown_asyncgens()
        with pytest.warns(ResourceWarning, match="asynchronous generator"):
            async for _ in generate([]):
                pass

    either.run_until_complete(main())


def test_asyncgen_hooks_are_given_back(either):
    before = sys.get_asyncgen_hooks()

    def fail():
        assert sys.get_asyncgen_hooks() != before
        raise SystemExit

    either.call_soon(fail)
    with pytest.raises(SystemExit):
        either.run_forever()
    assert sys.get_asyncgen_hooks() == before


def test_failing_asyncgen_is_reported(either, errors):
    async def fail():
        try:
            yield 1
        finally:
            raise ValueError("closing")

    async def main():
        kept = fail()
        await anext(kept)
        await either.shutdown_asyncgens()

    either.run_until_complete(main())
    assert repr(errors[0]["exception"]) == "ValueError('closing')"


# ---- leaks


def test_no_leak(loop, no_leaked_objects):
    loop.set_debug(False)

    async def main():
        future = loop.create_future()
        loop.call_soon(future.set_result, 1)
        await future
        await asyncio.gather(answer(), answer())
        await loop.create_task(answer(), name="x")
        task = asyncio.ensure_future(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    no_leaked_objects(lambda: loop.run_until_complete(main()))


def test_no_leak_by_errors(loop, no_leaked_objects):
    loop.set_debug(False)
    loop.set_exception_handler(lambda *args: None)

    def fail(error):
        raise error

    def use():
        for error in (ValueError, KeyboardInterrupt, SystemExit):
            loop.call_soon(fail, error)
            loop.call_soon(loop.stop)
            try:
                loop.run_forever()
            except BaseException as caught:
                assert type(caught) is error
                loop.run_forever()
        coroutine = answer()
        for kwargs in ({"x": 1}, dict.fromkeys("abcdefg")):
            with pytest.raises(TypeError):
                loop.create_task(coroutine, **kwargs)
        coroutine.close()

    no_leaked_objects(use)
