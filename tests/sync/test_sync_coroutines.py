"""The awaitable forms of pyconc.threading's primitives: in any loop, and between threads and loops."""
import asyncio
import gc
import threading as standard
import time
import weakref

import pytest

import pyconc
from pyconc import threading

GATES = [threading.Lock, threading.RLock, threading.Semaphore, threading.BoundedSemaphore, threading.Condition]
gates = pytest.mark.parametrize("make", GATES)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@gates
def test_async_with(make, run):
    gate = make()

    async def main():
        async with gate as entered:
            assert entered is True
            assert gate.locked()
        assert not gate.locked()
        assert await gate.acquire_async() is True
        gate.release()
        with pytest.raises(ZeroDivisionError):
            async with gate:
                raise ZeroDivisionError
        assert not gate.locked()

    run(main())


@gates
def test_tasks_take_turns(make, run):
    gate, order, inside = make(), [], [0]

    async def enter(number):
        async with gate:
            inside[0] += 1
            assert inside == [1]
            order.append(number)
            await asyncio.sleep(0)
            inside[0] -= 1

    async def main():
        await asyncio.gather(*map(enter, range(20)))

    run(main())
    assert order == list(range(20))


@gates
def test_threads_and_tasks_exclude_each_other(make, run, thread):
    gate, counter = make(), [0]

    def count():
        for _ in range(300):
            with gate:
                value = counter[0]
                time.sleep(0)
                counter[0] = value + 1

    async def count_too():
        for _ in range(300):
            async with gate:
                value = counter[0]
                await asyncio.sleep(0)
                counter[0] = value + 1

    async def main():
        for _ in range(2):
            thread(count)
        await asyncio.gather(count_too(), count_too())

    run(main())
    for one in standard.enumerate():
        if one is not standard.current_thread() and one.name.endswith("(count)"):
            one.join(30)
    assert counter == [1200]


def test_two_loops(thread):
    """Tasks of two loops in two threads."""
    lock, counter = threading.Lock(), [0]

    async def count():
        for _ in range(500):
            async with lock:
                value = counter[0]
                await asyncio.sleep(0)
                counter[0] = value + 1

    one = thread(lambda: asyncio.run(count()))
    asyncio.run(count())
    one.join()
    assert counter == [1000]


@gates
def test_cancelled_while_it_waits(make, run):
    gate = make()

    async def main():
        await gate.acquire_async()
        first, second = asyncio.create_task(hold()), asyncio.create_task(hold())
        await turns()
        first.cancel()
        await turns()
        assert first.cancelled()
        gate.release()
        await second

    async def hold():
        async with gate:
            pass

    run(main())
    assert not gate.locked()


@gates
def test_cancelled_after_it_was_woken(make, run):
    """The wake goes to the next one."""
    gate = make()

    async def hold():
        async with gate:
            pass

    async def main():
        await gate.acquire_async()
        first, second = asyncio.create_task(hold()), asyncio.create_task(hold())
        await turns()
        gate.release()  # wakes the first
        first.cancel()
        await second

    run(main())
    assert not gate.locked()


@gates
def test_timeout(make, run):
    gate = make()

    async def main():
        async with gate:
            await asyncio.create_task(fail())

    async def fail():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(gate.acquire_async(), 0.01)

    run(main())
    assert not gate.locked()


def test_lost_to_a_thread_then_granted(run):
    """A task that was woken in vain gets the lock from the next one who frees it."""
    lock = threading.Lock()

    async def main():
        lock.acquire()
        task = asyncio.create_task(lock.acquire_async())
        await turns()
        lock.release()
        assert lock.acquire(False)  # before the task runs
        await turns()
        assert not task.done()
        lock.release()
        assert not lock.acquire(False)  # it is the task's
        assert await task

    run(main())


def test_rlock_belongs_to_the_task(run):
    lock = threading.RLock()

    async def main():
        async with lock:
            async with lock:
                assert lock._is_owned() and lock._recursion_count() == 2
            with lock:  # as the thread, but in the task that has it
                assert lock._recursion_count() == 2
            other = asyncio.create_task(take())
            await turns()
            assert not other.done()
            release = asyncio.create_task(fail())
            await release
        await other

    async def take():
        async with lock:
            return True

    async def fail():
        assert not lock._is_owned()
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()

    run(main())
    assert not lock.locked()


def test_event(run, thread):
    event = threading.Event()

    async def main():
        assert not event.is_set()
        waiters = [asyncio.create_task(event.wait_async()) for _ in range(3)]
        await turns()
        waiters[0].cancel()
        thread(event.set)
        assert await asyncio.gather(*waiters[1:]) == [True, True]
        assert await event.wait_async()
        event.clear()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait_async(), 0.01)

    run(main())


def test_event_set_by_a_task_wakes_a_thread(run, thread, asleep):
    event, woken = threading.Event(), threading.Event()

    async def main():
        asleep(thread(lambda: event.wait(30) and woken.set()))
        event.set()
        assert await woken.wait_async()

    run(main())


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_condition(make, run, thread):
    condition, items = threading.Condition(make()), []

    async def consume():
        async with condition:
            await condition.wait_for_async(lambda: items)
            return items.pop()

    def produce():
        for item in range(3):
            with condition:
                items.append(item)
                condition.notify()

    async def main():
        tasks = [asyncio.create_task(consume()) for _ in range(3)]
        await turns()
        thread(produce)
        assert sorted(await asyncio.gather(*tasks)) == [0, 1, 2]
        with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
            await condition.wait_async()

    run(main())
    assert not condition.locked()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_condition_cancelled_takes_the_lock_back(make, run):
    condition = threading.Condition(make())
    ends = []

    async def wait():
        async with condition:
            try:
                await condition.wait_async()
            finally:
                ends.append(condition._is_owned())

    async def main():
        task = asyncio.create_task(wait())
        await turns()
        async with condition:
            task.cancel()
            await turns()
            assert not task.done()  # cancelled, but without the lock
            task.cancel()
            await turns()
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert ends == [True] and not condition.locked()


def test_condition_notified_then_cancelled(run):
    """The notification goes to the next one."""
    condition = threading.Condition()

    async def wait():
        async with condition:
            return await condition.wait_async()

    async def main():
        first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
        await turns()
        async with condition:
            condition.notify()
            first.cancel()
        assert (await asyncio.gather(first, second, return_exceptions=True))[1] is True

    run(main())


def test_condition_over_a_foreign_lock_is_not_awaitable(run):
    condition = threading.Condition(standard.Lock())

    async def main():
        with pytest.raises(TypeError, match="Lock or RLock of pyconc"):
            async with condition:
                pass

    run(main())


def test_barrier(run, thread):
    barrier = threading.Barrier(3)

    async def main():
        thread(barrier.wait)
        return await asyncio.gather(barrier.wait_async(), barrier.wait_async())

    for _ in range(5):
        assert len(set(run(main()))) == 2
    assert barrier.n_waiting == 0


def test_barrier_cancelled_and_aborted(run):
    barrier = threading.Barrier(2)

    async def main():
        task = asyncio.create_task(barrier.wait_async())
        await turns()
        assert barrier.n_waiting == 1
        task.cancel()
        await turns()
        assert barrier.n_waiting == 0
        task = asyncio.create_task(barrier.wait_async())
        await turns()
        barrier.abort()
        with pytest.raises(standard.BrokenBarrierError):
            await task
        with pytest.raises(standard.BrokenBarrierError):
            await barrier.wait_async()

    run(main())


class Hooked(asyncio.SelectorEventLoop):
    """A loop that calls `hook` when another thread has told it of something."""

    def call_soon_threadsafe(self, *args, **kwargs):
        handle = super().call_soon_threadsafe(*args, **kwargs)
        self.hook()
        return handle


def test_barrier_entered_while_the_others_are_woken(thread, until):
    """Who came during an action stands behind those whose round is complete by then."""
    def action():
        if not late:
            late.append(loop.create_task(barrier.wait_async()))
            loop.run_until_complete(turns())

    late, loop, hooked = [], asyncio.new_event_loop(), Hooked()
    hooked.hook = int
    barrier = threading.Barrier(3, action)
    first = [hooked.create_task(barrier.wait_async()) for _ in range(2)]
    hooked.run_until_complete(turns())
    barrier.wait()      # and the latecomer is woken, but its loop does not run
    hooked.run_until_complete(asyncio.gather(*first))
    second = hooked.create_task(barrier.wait_async())
    hooked.run_until_complete(turns())
    asleep = thread(barrier.wait)
    until(lambda: barrier.n_waiting == 2)
    hooked.hook = lambda: loop.run_until_complete(turns())
    barrier.wait()
    hooked.run_until_complete(second)
    asleep.join(30)
    assert not asleep.is_alive() and barrier.n_waiting == 1
    thread(barrier.wait)
    until(lambda: barrier.n_waiting == 2)
    barrier.wait()
    loop.run_until_complete(late[0])
    hooked.close()
    loop.close()


def test_awaited_twice():
    lock = threading.Lock()
    wait = lock.acquire_async()

    async def main():
        assert await wait
        with pytest.raises(RuntimeError, match="already awaited"):
            await wait

    asyncio.run(main())


def test_awaited_without_a_loop():
    lock = threading.Lock()
    assert lock.acquire()
    with pytest.raises(RuntimeError, match="running event loop"):
        lock.acquire_async().send(None)
    lock.release()
    assert lock.acquire(False)  # nobody stands in the queue


def test_loop_that_is_closed_while_a_task_waits():
    """What the task was woken for goes to the next one, once the task is gone."""
    lock = threading.Lock()
    lock.acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(lock.acquire_async())
    loop.run_until_complete(turns())
    task._log_destroy_pending = False
    loop.close()
    lock.release()
    gone = weakref.ref(task)
    del task, loop
    gc.collect()
    assert gone() is None
    assert lock.acquire(timeout=30)


def test_close_gives_up():
    lock = threading.Lock()
    lock.acquire()

    async def main():
        wait = lock.acquire_async()
        wait.send(None)
        wait.close()
        lock.release()
        assert lock.acquire(False)

    asyncio.run(main())


def test_leaks(no_leaked_objects):
    lock, condition = threading.Lock(), threading.Condition()

    async def wait():
        async with condition:
            await condition.wait_async()

    async def main():
        async with lock:
            task = asyncio.create_task(lock.acquire_async())
            waits = asyncio.create_task(wait())
            await turns()
            task.cancel()
            await turns()
        async with condition:
            condition.notify_all()
        await waits

    loop = asyncio.new_event_loop()
    no_leaked_objects(lambda: loop.run_until_complete(main()))
    loop.close()


class Interrupted(asyncio.SelectorEventLoop):
    """A loop in whose call_soon_threadsafe() an exception comes once, as from a signal handler."""

    error = before = None

    def call_soon_threadsafe(self, *args, **kwargs):
        error, self.error = self.error, None
        if error and self.before:
            raise error
        handle = super().call_soon_threadsafe(*args, **kwargs)
        if error:
            raise error
        return handle


@pytest.fixture
def in_thread(thread, asleep):
    """in_thread(loop, coroutine): the task of the coroutine, asleep in the loop that a thread runs."""
    def in_thread(loop, coroutine):
        task = loop.create_task(coroutine)
        asleep(thread(loop.run_until_complete, task))
        assert task.get_coro().cr_await is not None
        return task

    return in_thread


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_the_loop_is_told(error, before, in_thread, until):
    """Neither the wake nor the interrupt is lost."""
    lock, loop = threading.Lock(), Interrupted()
    lock.acquire()

    async def main():
        async with lock:
            return True

    task = in_thread(loop, main())
    loop.before, loop.error = before, error
    with pytest.raises(error):
        lock.release()
        until(lambda: False)
    until(task.done)
    until(lambda: not loop.is_running())
    loop.close()
    assert task.result() is True


@pytest.mark.parametrize("before", [True, False])
def test_an_exception_for_a_thread_that_tells_the_loop(before, thread, in_thread, until):
    """As by PyThreadState_SetAsyncExc(): it is raised in that thread, not in the main one."""
    lock, loop, raised = threading.Lock(), Interrupted(), []
    lock.acquire()

    async def main():
        async with lock:
            return True

    def release():
        try:
            lock.release()
            until(lambda: False)
        except SystemExit:
            raised.append(standard.current_thread())

    task = in_thread(loop, main())
    loop.before, loop.error = before, SystemExit
    releases = thread(release)
    until(task.done)
    releases.join(30)
    until(lambda: not loop.is_running())
    loop.close()
    assert task.result() is True and raised == [releases]


def test_a_loop_that_fails_once(in_thread, until, monkeypatch):
    reported, lock, loop = [], threading.Lock(), Interrupted()
    monkeypatch.setattr("sys.unraisablehook", lambda report: reported.append(report.exc_type))
    lock.acquire()

    async def main():
        async with lock:
            pass

    task = in_thread(loop, main())
    loop.error = OSError
    lock.release()
    until(task.done)
    until(lambda: not loop.is_running())
    loop.close()
    assert reported == [OSError]


def left_asleep(wait, before=None):
    """A task that waits for wait() in a loop that is closed; before() is called while it waits and the loop runs."""
    loop = asyncio.new_event_loop()

    async def main():
        task = loop.create_task(wait())
        await turns()
        if before:
            before()
            await turns()
        return task

    task = loop.run_until_complete(main())
    loop.close()
    task._log_destroy_pending = False
    return task


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Semaphore])
def test_a_wake_for_a_closed_loop_goes_to_the_next(make, thread, until, held, asleep):
    gate, got = make(), []
    with held(gate):
        tasks = [left_asleep(gate.acquire_async) for _ in range(3)]
        asleep(thread(lambda: got.append(gate.acquire())))
    until(lambda: got)
    assert not any(task.done() for task in tasks)


@pytest.mark.parametrize("make", [threading.Lock, lambda: threading.Semaphore(1)])
def test_a_grant_for_a_closed_loop_is_given_back(make):
    gate = make()
    gate.acquire()

    def wake_in_vain():
        gate.release()
        assert gate.acquire(False)

    task = left_asleep(gate.acquire_async, wake_in_vain)
    gate.release()
    assert gate.acquire(False)
    assert not gate.acquire(False)
    del task
    gc.collect()
    assert not gate.acquire(False)  # given back once
    gate.release()
    assert gate.acquire(False)


def test_a_wake_that_follows_one_that_a_closed_loop_took(thread, until, asleep):
    """The first wake was on its way when the loop was closed."""
    first, second, got = threading.Lock(), threading.Lock(), []
    first.acquire()
    second.acquire()
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(lock.acquire_async()) for lock in (first, second)]
    loop.run_until_complete(turns())
    first.release()
    loop.close()
    asleep(thread(lambda: got.append(second.acquire())))
    second.release()
    until(lambda: got)
    for task in tasks:
        task._log_destroy_pending = False


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, pyconc.new_event_loop])
@pytest.mark.parametrize("make", [threading.Lock, lambda: threading.Semaphore(1)])
def test_a_wake_on_its_way_when_its_loop_is_closed(new_loop, make, thread, until, asleep):
    """It goes to the next one once the task is gone, and the loop is gone then, too."""
    gate, got = make(), []
    gate.acquire()
    loop = new_loop()
    task = loop.create_task(gate.acquire_async())
    loop.run_until_complete(turns())
    asleep(thread(lambda: got.append(gate.acquire())))
    gate.release()
    loop.close()
    task._log_destroy_pending = False
    gone = weakref.ref(loop)
    del loop, task
    gc.collect()
    until(lambda: got)
    assert gone() is None


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_notification_for_a_closed_loop_goes_to_the_next(make, thread, until):
    condition, got = threading.Condition(make()), []

    async def wait():
        await condition.acquire_async()
        await condition.wait_async()

    def wait_too():
        with condition:
            got.append(condition.wait(30))

    task = left_asleep(wait)
    thread(wait_too)
    until(lambda: "2)" in repr(condition))
    with condition:
        condition.notify()
    until(lambda: got)
    assert got == [True] and not task.done()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_condition_cancelled_while_it_takes_the_lock_back(make, run):
    """The notification goes to the next one."""
    condition, items = threading.Condition(make()), []

    async def take():
        async with condition:
            await condition.wait_for_async(lambda: items)
            return items.pop()

    async def main():
        first, second = asyncio.create_task(take()), asyncio.create_task(take())
        await turns()
        async with condition:
            items.append("item")
            condition.notify()
        async with condition:
            await turns()  # the first is woken, and waits for the lock
            first.cancel()
        assert await second == "item"
        assert (await asyncio.gather(first, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    run(main())


def test_condition_shares_its_lock_with_nobody(run):
    """A coroutine that takes the lock back waits for another of the same thread that holds it by `with`."""
    condition, inside = threading.Condition(), []

    async def wait():
        with condition:
            try:
                await condition.wait_async()
            finally:
                inside.append(("wait", condition._lock._recursion_count()))

    async def hold():
        with condition:
            condition.notify()
            await turns(20)
            inside.append(("hold", condition._lock._recursion_count()))

    async def main():
        waits = asyncio.create_task(wait())
        await turns()
        holds = asyncio.create_task(hold())
        await turns(2)
        waits.cancel()
        await holds
        with pytest.raises(asyncio.CancelledError):
            await waits

    run(main())
    assert inside == [("hold", 1), ("wait", 1)] and not condition._lock.locked()


def test_condition_that_is_collected_while_a_task_waits():
    """With its lock, in whichever order."""
    async def main():
        condition = threading.Condition(threading.Lock())
        condition.acquire()
        tasks = [asyncio.create_task(condition.wait_async())]
        await turns()
        condition.acquire(False)
        tasks.append(asyncio.create_task(condition.wait_async()))
        await turns()
        condition.acquire(False)
        condition.notify()
        for task in tasks:
            task._log_destroy_pending = False
        return weakref.ref(condition)

    for _ in range(5):
        loop = asyncio.new_event_loop()
        gone = loop.run_until_complete(main())
        loop.close()
        del loop
        gc.collect()
        assert gone() is None


def test_wait_for_is_asked_by_the_task(run):
    """Up to Python 3.11, asyncio's wait_for() makes a task of what it waits for."""
    condition, lock = threading.Condition(), threading.RLock()

    async def main():
        async with condition:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(condition.wait_async(), 0.01)
            assert condition._is_owned()
        assert await asyncio.wait_for(lock.acquire_async(), 30)
        assert await asyncio.wait_for(lock.acquire_async(), 30)
        assert lock._recursion_count() == 2
        lock.release()
        lock.release()
        assert not lock.locked()

    run(main())


def test_a_task_does_not_wait_for_its_own_thread(run):
    lock = threading.RLock()

    async def main():
        with lock:
            with pytest.raises(RuntimeError, match="holds the RLock by `with`"):
                async with lock:
                    pass
        async with lock:
            pass

    run(main())
    assert not lock.locked()
