"""TaskGroup and timeout in all their corners: what happens, in which order, is the same on both loops."""
import asyncio
import sys

import pytest

import pyconc


class Trace(list):
    """What happened, in order."""

    async def child(self, name, seconds=0.0, result=None, error=None, at_cancel=None):
        try:
            await asyncio.sleep(seconds)
            self.append((name, "done"))
            if error is not None:
                raise error
            return result
        except asyncio.CancelledError:
            self.append((name, "cancelled", asyncio.current_task().cancelling()))
            if at_cancel is not None:
                raise at_cancel from None
            raise


def described(error):
    if isinstance(error, BaseExceptionGroup):
        return type(error).__name__, sorted(map(described, error.exceptions), key=str)
    return type(error).__name__, error.args


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
async def all_well(trace):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(trace.child(number, result=number)) for number in range(3)]
        trace.append("body done")
    return [task.result() for task in tasks]


@case
async def empty(trace):
    async with asyncio.TaskGroup():
        pass
    async with asyncio.TaskGroup():
        await asyncio.sleep(0)


@case
async def child_fails(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("other", 60))
        group.create_task(trace.child("bad", error=ValueError(1)))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            trace.append(("body", asyncio.current_task().cancelling()))
            raise


@case
async def child_fails_after_the_body(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("other", 60))
        group.create_task(trace.child("bad", 0.001, error=ValueError(1)))
        trace.append("body done")


@case
async def several_fail(trace):
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(trace.child(number, error=ValueError(number)))


@case
async def fails_while_cancelled(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("late", 60, at_cancel=KeyError("late")))
        group.create_task(trace.child("bad", error=ValueError(1)))


@case
async def body_fails(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("one", 60))
        await asyncio.sleep(0)
        raise OSError("body")


@case
async def body_fails_before_children_start(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("one"))
        raise OSError("body")


@case
async def body_and_child_fail(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("bad", error=ValueError(1)))
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("body")


@case
async def child_is_cancelled_alone(trace):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(trace.child("one", 60))
        group.create_task(trace.child("two", 0.001))
        await asyncio.sleep(0)
        task.cancel()
    return task.cancelled()


@case
async def child_raises_cancelled_error(trace):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(trace.child("one", error=asyncio.CancelledError()))
    return task.cancelled()


@case
async def nested(trace):
    async with asyncio.TaskGroup() as outer:
        outer.create_task(trace.child("outer", 60))
        async with asyncio.TaskGroup() as inner:
            inner.create_task(trace.child("inner", 60))
            inner.create_task(trace.child("bad", error=ValueError(1)))


@case
async def nested_caught(trace):
    caught = asyncio.Event()

    async def child():
        await caught.wait()
        trace.append("outer done")

    async with asyncio.TaskGroup() as outer:
        outer.create_task(child())
        try:
            async with asyncio.TaskGroup() as inner:
                inner.create_task(trace.child("bad", error=ValueError(1)))
        except* ValueError as errors:
            trace.append(described(errors))
        trace.append(asyncio.current_task().cancelling())
        caught.set()
        await asyncio.sleep(0.001)


@case
async def both_of_nested_fail(trace):
    async with asyncio.TaskGroup() as outer:
        outer.create_task(trace.child("outer", error=KeyError(1)))
        async with asyncio.TaskGroup() as inner:
            inner.create_task(trace.child("inner", error=ValueError(1)))


@case
async def group_in_a_child(trace):
    async def branch(depth):
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child(depth))
            if depth:
                group.create_task(branch(depth - 1))

    async with asyncio.TaskGroup() as group:
        group.create_task(branch(4))


@case
async def cancelled_from_outside(trace):
    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child("one", 60))
            await asyncio.sleep(60)

    task = asyncio.create_task(main())
    await asyncio.sleep(0.001)
    task.cancel("please")
    try:
        await task
    finally:
        trace.append((task.cancelled(), task.cancelling()))


@case
async def cancelled_while_it_waits_for_children(trace):
    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child("one", 60))
        trace.append("not reached")

    task = asyncio.create_task(main())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@case
async def cancelled_while_it_waits_and_a_child_fails(trace):
    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child("one", 60, at_cancel=ValueError("one")))

    task = asyncio.create_task(main())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    trace.append(task.cancelling())
    await task


@case
async def cancelled_twice(trace):
    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            trace.append("not yet")     # the group cancels once

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(stubborn())

    task = asyncio.create_task(main())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@case
async def cancelled_before_it_starts(trace):
    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child("one"))

    task = asyncio.create_task(main())
    task.cancel()
    await task


@case
async def cancels_itself(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("one", 60))
        await asyncio.sleep(0)
        asyncio.current_task().cancel()
        await asyncio.sleep(60)


@case
async def child_cancels_the_parent(trace):
    parent = asyncio.current_task()

    async def child():
        parent.cancel()

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        group.create_task(trace.child("other", 60))
        await asyncio.sleep(60)


@case
async def child_makes_tasks(trace):
    async with asyncio.TaskGroup() as group:
        async def child(depth):
            trace.append(depth)
            if depth:
                group.create_task(child(depth - 1))

        group.create_task(child(3))


@case
async def create_task_after_the_end(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("one"))
    coroutine = trace.child("late")
    try:
        group.create_task(coroutine)
    finally:
        coroutine.close()


@case
async def create_task_while_shutting_down(trace):
    async with asyncio.TaskGroup() as group:
        async def late():
            try:
                await asyncio.sleep(60)
            finally:
                coroutine = trace.child("late")
                try:
                    group.create_task(coroutine)
                finally:
                    coroutine.close()

        group.create_task(late())
        group.create_task(trace.child("bad", error=ValueError(1)))


@case
async def create_task_before_the_start(trace):
    coroutine = trace.child("early")
    try:
        asyncio.TaskGroup().create_task(coroutine)
    finally:
        coroutine.close()


@case
async def entered_twice(trace):
    group = asyncio.TaskGroup()
    async with group:
        async with group:
            pass


@case
async def names_and_contexts(trace):
    import contextvars
    context = contextvars.copy_context()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(trace.child("one"), name="a name", context=context)
    return task.get_name(), task.get_context() is context if sys.version_info >= (3, 12) else True


@case
async def timeout_around_a_group(trace):
    async with asyncio.timeout(0.01):
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child("one", 60))
            await asyncio.sleep(60)


@case
async def timeout_around_a_group_that_waits(trace):
    try:
        async with asyncio.timeout(0.01):
            async with asyncio.TaskGroup() as group:
                group.create_task(trace.child("one", 60))
    except TimeoutError:
        trace.append(asyncio.current_task().cancelling())
    await asyncio.sleep(0)
    return "goes on"


@case
async def timeout_in_a_group(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("one", 60))
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)


@case
async def timeout_in_a_child(trace):
    async def child():
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        group.create_task(trace.child("other", 60))


@case
async def timeout_caught_in_a_group(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("one", 0.02))
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            trace.append("timeout")
    return asyncio.current_task().cancelling()


@case
async def timeouts_nested(trace):
    try:
        async with asyncio.timeout(0.005) as outer:
            async with asyncio.timeout(60) as inner:
                await asyncio.sleep(60)
    finally:
        trace.append((outer.expired(), inner.expired()))


@case
async def timeout_of_zero(trace):
    async with asyncio.timeout(0):
        trace.append("begun")
        await asyncio.sleep(0)
        trace.append("not reached")


@case
async def timeout_moved(trace):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(0.001) as limit:
        limit.reschedule(loop.time() + 60)
        await asyncio.sleep(0.01)
        limit.reschedule(None)
    async with asyncio.timeout(None) as limit:
        limit.reschedule(loop.time() - 1)
        await asyncio.sleep(60)


@case
async def timeout_and_cancel_at_once(trace):
    async def main():
        async with asyncio.timeout(0.001):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                asyncio.current_task().cancel()
                raise

    task = asyncio.create_task(main())
    await asyncio.wait([task])
    return task.cancelled()


@case
async def wait_for_in_a_group(trace):
    async with asyncio.TaskGroup() as group:
        group.create_task(trace.child("one", 60))
        await asyncio.wait_for(trace.child("slow", 60), 0.001)


@case
async def gather_of_groups(trace):
    async def one(error):
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child(str(error), error=error))

    results = await asyncio.gather(one(None), one(ValueError(1)), return_exceptions=True)
    return [described(result) if result is not None else None for result in results]


@case
async def threads_in_a_group(trace):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.to_thread(pow, 2, number)) for number in range(5)]
    return [task.result() for task in tasks]


FATAL = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}


def play(name, eager, debug, new_loop):
    """What came out of it, what happened, and what was reported."""
    trace, contexts = Trace(), []
    with asyncio.Runner(loop_factory=new_loop, debug=debug) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda loop, context: contexts.append(context["message"]))
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        try:
            return runner.run(CASES[name](trace)), trace, contexts
        except BaseException as error:
            return described(error), trace, contexts


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("debug", [False, True])
def test_same_on_both_loops(name, eager, debug):
    if eager and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    ours = play(name, eager, debug, pyconc.new_event_loop)
    assert ours == play(name, eager, debug, asyncio.SelectorEventLoop)
    assert ours[2] == []


@pytest.mark.parametrize("error", FATAL)
@pytest.mark.parametrize("where", ["in a child", "in the body", "in a callback"])
def test_what_ends_the_program(new_loop, error, where):
    """It comes out of run() as what it is; the tasks left are cancelled, and the loop closes."""
    trace = Trace()

    def fail():
        raise FATAL[error](7)

    async def bad():
        fail()

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(trace.child("other", 60))
            await asyncio.sleep(0)
            if where == "in the body":
                fail()
            elif where == "in a callback":
                asyncio.get_running_loop().call_soon(fail)
            else:
                group.create_task(bad())
            await asyncio.sleep(60)

    with pytest.raises(FATAL[error]) as caught:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            loop = runner.get_loop()
            runner.run(main())
    assert loop.is_closed()
    assert described(caught.value) == (error, (7,))
    # How often depends on the order in which the runner finds the tasks in a set.
    assert [entry[:2] for entry in trace] == [("other", "cancelled")]
