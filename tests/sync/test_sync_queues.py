"""pyconc.queue beside queue: order, bounds, waiting, shutdown, subclasses and the parts that programs reach for."""
import asyncio
import gc
import os
import queue as standard
import random
import signal
import threading
import time
import weakref
from dataclasses import dataclass

import pytest

from pyconc import queue
from pyconc import threading as ours
from pyconc.queue import Empty, Full, LifoQueue, PriorityQueue, Queue, ShutDown, SimpleQueue

ORDERED = [Queue, LifoQueue, PriorityQueue]
ALL = [*ORDERED, SimpleQueue]


class Counted(Queue):
    """In Python from the beginning, for it overrides how items are kept."""

    def _put(self, item):
        super()._put(item)
        self.puts = getattr(self, "puts", 0) + 1


def opened(maxsize=0):
    """A queue whose parts have been asked for."""
    one = Queue(maxsize)
    assert one.mutex and one._is_open
    return one


bounded = pytest.mark.parametrize("make", [*ORDERED, Counted, opened])
kinds = pytest.mark.parametrize("make", ALL)


def test_names():
    assert queue.Empty is standard.Empty and queue.Full is standard.Full
    assert ShutDown is getattr(standard, "ShutDown", ShutDown)
    assert ours.Queue.Queue is Queue
    for name in standard.__all__:
        assert hasattr(queue, name)
    assert Queue[int]


@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
@pytest.mark.parametrize("seed", range(5))
def test_order_is_the_standard_one(name, seed):
    theirs, mine, chance = getattr(standard, name)(), getattr(queue, name)(), random.Random(seed)
    for _ in range(3000):
        if chance.random() < 0.6:
            item = chance.choice([chance.randrange(100), chance.random(), 10**30 + chance.randrange(9), float("inf")])
            theirs.put(item)
            mine.put(item)
        else:
            assert mine.empty() == theirs.empty() and mine.qsize() == theirs.qsize()
            if not theirs.empty():
                assert mine.get() == theirs.get()
    while not theirs.empty():
        assert mine.get() == theirs.get()
    with pytest.raises(Empty):
        mine.get_nowait()


@dataclass(order=True)
class Job:
    priority: int
    name: str


def test_priority_of_any_items():
    jobs = [Job(random.randrange(5), str(number)) for number in range(200)]
    tuples = [(random.randrange(5), str(number)) for number in range(200)]
    for items in jobs, tuples, [*map(str, range(100))], [float(i % 7) for i in range(50)]:
        mine = PriorityQueue()
        mine.put_many(items)
        assert mine.get_many() == sorted(items)


def test_items_that_cannot_be_compared():
    """Nothing is lost, and nothing half done."""
    mine = PriorityQueue()
    mine.put_many([3, 1, 2])
    with pytest.raises(TypeError, match="not supported"):
        mine.put("x")
    assert mine.qsize() == 3 and mine.unfinished_tasks == 3
    assert mine.get_many() == [1, 2, 3]

    class Grumpy:
        calm = True

        def __lt__(self, other):
            if self.calm:
                return True
            raise ZeroDivisionError

    items = [Grumpy() for _ in range(5)]
    mine.put_many(items)
    Grumpy.calm = False
    with pytest.raises(ZeroDivisionError):
        mine.get()
    Grumpy.calm = True
    assert set(mine.get_many()) == set(items)


def test_comparisons_that_let_other_threads_run(thread):
    class Slow:
        def __init__(self, value):
            self.value = value

        def __lt__(self, other):
            time.sleep(0)
            return self.value < other.value

    mine, got = PriorityQueue(), []

    def put(numbers):
        for number in numbers:
            mine.put(Slow(number))

    def get():
        got.extend(mine.get().value for _ in range(50))

    for start in range(0, 200, 50):
        thread(put, range(start, start + 50))
        thread(get)
    deadline = time.monotonic() + 30
    while len(got) < 200 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(got) == list(range(200)) and mine.empty()


@bounded
def test_bounds(make):
    mine = make(2)
    assert mine.maxsize == 2 and mine.empty() and not mine.full()
    mine.put(1)
    mine.put(2, timeout=1)
    assert mine.full()
    for call in (lambda: mine.put_nowait(3), lambda: mine.put(3, False), lambda: mine.put(3, block=True, timeout=0.01)):
        with pytest.raises(Full):
            call()
    assert mine.qsize() == 2 and mine.unfinished_tasks == 2
    assert sorted([mine.get(), mine.get(timeout=1)]) == [1, 2]
    for call in (mine.get_nowait, lambda: mine.get(False), lambda: mine.get(timeout=0.01)):
        with pytest.raises(Empty):
            call()


@pytest.mark.parametrize("make", [*ALL, Counted, opened])
def test_put_nowait(make):
    mine = make()
    mine.put_nowait(1)
    mine.put_nowait(item=2)
    assert sorted(mine.get_many()) == [1, 2]
    for args, kwargs in ((), {}), ((1, 2), {}), ((1,), {"item": 2}), ((), {"thing": 1}):
        with pytest.raises(TypeError, match="put_nowait"):
            mine.put_nowait(*args, **kwargs)
    assert mine.empty()


@bounded
def test_mistakes(make):
    mine = make(1)
    for call in (lambda: mine.get(timeout=-1), lambda: (mine.put(1), mine.put(2, timeout=-1))):
        with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
            call()
    mine.get()
    with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
        mine.put(2, timeout=-1)     # though there is room
    assert mine.empty()
    mine.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        mine.task_done()
    with pytest.raises(TypeError):
        mine.put()
    with pytest.raises(TypeError):
        mine.get(1, 2, 3)
    with pytest.raises(AttributeError, match="nothing"):
        mine.nothing()


@pytest.mark.parametrize("maxsize", [0, -1, float("inf")])
def test_no_bounds(maxsize):
    mine = Queue(maxsize)
    mine.put_many(range(1000))
    assert not mine.full() and mine.qsize() == 1000


@bounded
def test_many_threads(make, thread):
    mine, got = make(3), []

    def put(start):
        for item in range(start, start + 500):
            mine.put(item)

    def get():
        for _ in range(500):
            got.append(mine.get())
            mine.task_done()

    for start in range(0, 2000, 500):
        thread(put, start)
        thread(get)
    deadline = time.monotonic() + 30
    while len(got) < 2000 and time.monotonic() < deadline:
        time.sleep(0.001)
    mine.join()
    assert sorted(got) == list(range(2000))


@bounded
def test_join(make, thread, until):
    mine, joined = make(), threading.Event()
    mine.join()
    mine.put(1)
    thread(lambda: (mine.join(), joined.set()))
    mine.get()
    assert not joined.wait(0.02)
    mine.task_done()
    assert joined.wait(30)


@bounded
def test_shutdown(make, thread, until):
    mine, ended = make(1), []

    def end(call, *args):
        try:
            call(*args)
        except ShutDown:
            ended.append(call.__name__)

    mine.put(1)
    thread(end, mine.put, 2)
    time.sleep(0.01)
    mine.shutdown()
    until(lambda: ended == ["put"])
    with pytest.raises(ShutDown):
        mine.put_nowait(3)
    assert mine.is_shutdown and mine.get() == 1
    for call in mine.get, mine.get_nowait, mine.get_many:
        with pytest.raises(ShutDown):
            call()
    mine.task_done()
    mine.join()


@bounded
def test_shutdown_at_once(make, thread, until):
    mine, ended = make(), []
    mine.put_many([1, 2, 3])
    assert mine.get() in (1, 3)
    thread(lambda: (mine.join(), ended.append("joined")))
    time.sleep(0.01)
    mine.shutdown(immediate=True)
    assert mine.empty() and mine.unfinished_tasks == 1
    with pytest.raises(ShutDown):
        mine.get()
    assert not ended  # one item has been taken
    mine.task_done()
    until(lambda: ended)


@bounded
def test_shutdown_wakes_getters(make, thread, until):
    mine, ended = make(), []

    def get():
        with pytest.raises(ShutDown):
            mine.get()
        ended.append(1)

    for _ in range(3):
        thread(get)
    time.sleep(0.02)
    mine.shutdown()
    until(lambda: len(ended) == 3)


@pytest.mark.parametrize("make", [*ALL, Counted, opened])
def test_many_at_once(make):
    mine = make()
    mine.put_many(iter(range(10)))
    assert sorted(mine.get_many(4) + mine.get_many(n=100)) == list(range(10))
    with pytest.raises(Empty):
        mine.get_many(block=False)
    with pytest.raises(Empty):
        mine.get_many(timeout=0.01)
    with pytest.raises(TypeError):
        mine.put_many(3)


def test_get_many_of_none():
    for n in 0, -1:
        with pytest.raises(ValueError, match="n must be one or more"):
            Queue().get_many(n)


@bounded
@pytest.mark.parametrize("timeout", [1e10, float("inf")])
def test_a_timeout_too_long_is_one_only_for_who_waits(make, timeout):
    mine = make(1)
    with pytest.raises(OverflowError):
        mine.get(timeout=timeout)
    mine.put(1, timeout=timeout)
    with pytest.raises(OverflowError):
        mine.put(2, timeout=timeout)
    with pytest.raises(ValueError, match="non-negative"):
        mine.get(timeout=-timeout)
    assert mine.get(timeout=timeout) == 1


@bounded
def test_put_many_tells_how_many(make):
    mine = make(3)
    with pytest.raises(Full) as raised:
        mine.put_many(range(5), timeout=0.01)
    assert raised.value.args == (3,) and mine.qsize() == 3
    mine.get_many()
    mine.shutdown()
    with pytest.raises(ShutDown) as raised:
        mine.put_many(range(5))
    assert raised.value.args == (0,)


def test_put_many_waits_for_room(thread):
    mine = Queue(2)
    thread(mine.put_many, range(20))
    assert [mine.get(timeout=30) for _ in range(20)] == list(range(20))


def test_put_many_into_a_queue_that_is_opened_meanwhile(thread, until):
    mine = Queue(2)
    thread(lambda: mine.put_many(iter(range(20)), timeout=30))
    until(mine.full)
    time.sleep(0.01)
    assert list(mine.queue) == [0, 1]
    assert [mine.get(timeout=30) for _ in range(20)] == list(range(20))


def test_subclass_hooks():
    """The recipe of a queue that keeps each item once."""
    class SetQueue(Queue):
        def _init(self, maxsize):
            self.queue = set()

        def _put(self, item):
            self.queue.add(item)

        def _get(self):
            return self.queue.pop()

    mine = SetQueue(2)
    mine.put(1)
    mine.put(1)
    mine.put(2)
    assert mine.qsize() == 2 and mine.full()
    with pytest.raises(Full):
        mine.put_nowait(3)
    assert {mine.get(), mine.get()} == {1, 2}
    assert mine.unfinished_tasks == 3


def test_subclass_without_hooks_stays_in_c():
    class Mine(Queue):
        def __init__(self, more):
            super().__init__(2)
            self.more = more

        def put(self, item, *args):
            super().put(("mine", item), *args)

    mine = Mine("more")
    mine.put(1)
    assert mine.get() == ("mine", 1) and mine.more == "more" and not mine._is_open


@pytest.mark.parametrize("make", ORDERED)
def test_parts(make, thread, until):
    """with q.mutex: q.queue.clear(), and what else programs do."""
    mine, got = make(3), []
    mine.put_many([1, 2, 3])
    with mine.mutex:
        assert list(mine.queue) == [1, 2, 3]
        mine.queue.clear()
        mine.not_full.notify_all()
        thread(lambda: got.append(mine.get()))
        time.sleep(0.02)
        mine.queue.append(4)
        mine.unfinished_tasks = 1
        mine.not_empty.notify()
        assert not got
    until(lambda: got == [4])
    mine.task_done()
    mine.join()


def test_opened_while_threads_wait(thread, until):
    mine, full, got, joined = Queue(), Queue(1), [], []
    full.put(1)
    thread(lambda: got.append(mine.get()))
    thread(lambda: got.append(mine.get(timeout=30)))
    thread(full.put, 2)
    thread(lambda: (full.join(), joined.append(1)))
    time.sleep(0.02)
    assert mine.mutex and full.not_full
    mine.put(1)
    mine.put(2)
    until(lambda: sorted(got) == [1, 2])
    assert full.get() == 1 and full.get() == 2
    full.task_done()
    full.task_done()
    until(lambda: joined)


def test_opened_by_many_threads(thread):
    for _ in range(20):
        mine, mutexes, start = Queue(), [], threading.Barrier(4)

        def reach(mine=mine, mutexes=mutexes, start=start):
            start.wait()
            mutexes.append(mine.mutex)
            mine.put(0)

        mine.put_many(range(100))
        threads = [thread(reach) for _ in range(3)]
        start.wait()
        got = [mine.get(timeout=30) for _ in range(103)]
        assert sorted(got) == sorted([*range(100), 0, 0, 0])
        for one in threads:
            one.join()
        assert len(set(map(id, mutexes))) == 1


@kinds
def test_items_are_let_go(make):
    class Item:
        def __lt__(self, other):
            return id(self) < id(other)

    mine = make()
    refs = []
    for _ in range(20):
        item = Item()
        refs.append(weakref.ref(item))
        mine.put(item)
    del item
    for _ in range(10):
        mine.get()
    assert sum(ref() is not None for ref in refs) == 10
    del mine
    assert not any(ref() for ref in refs)


@kinds
def test_cycles_are_collected(make):
    import gc
    mine = make()

    class Item:
        queue = mine

    item = Item()
    item.me = mine
    ref = weakref.ref(item)
    mine.put(item)
    Item.queue = None
    del mine, item
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("make", [*ALL, opened])
def test_leaks(make, no_leaked_objects):
    def operation():
        mine = make()
        mine.put_many(range(20))
        mine.get_many(15)

    no_leaked_objects(operation)


@pytest.mark.parametrize("make", [*ALL, opened])
def test_interrupt(make, interrupted):
    mine = make()
    interrupted(mine.get)
    mine.put(1)
    assert mine.get() == 1


@kinds
def test_a_signal_handler_gets_while_we_do(make, thread, asleep):
    mine, got, in_time, handling, handled = make(), [], [], threading.Event(), threading.Event()

    def handler(*_):
        handling.set()
        got.append(("handler", mine.get()))
        handled.set()

    def put():
        asleep(threading.main_thread())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        assert handling.wait(30)
        asleep(threading.main_thread())  # the handler waits, too
        mine.put(1)
        in_time.append(handled.wait(30))
        mine.put(2)

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        thread(put)
        got.append(("main", mine.get()))
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert in_time == [True] and got == [("handler", 1), ("main", 2)]


def test_simple_queue_is_put_to_from_a_destructor():
    mine = SimpleQueue()

    class Item:
        def __del__(self):
            mine.put("gone")

    mine.put(Item())
    mine.get()
    assert mine.get() == "gone"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_forgets_who_waited(thread, in_child, asleep):
    """A getter that was left behind takes nothing in the child."""
    mine, got = Queue(), []
    asleep(thread(lambda: got.append(mine.get())))

    def child():
        taken = []
        one = threading.Thread(target=lambda: taken.append(mine.get(timeout=30)))
        one.start()
        asleep(one)
        mine.put(1)
        one.join()
        return taken

    assert in_child(child) == "[1]"
    mine.put(2)


# As coroutines.

every = pytest.mark.parametrize("make", [*ALL, Counted, opened])


@every
def test_async_put_and_get(make, run):
    mine = make()

    async def main():
        await mine.put_async(1)
        assert await mine.get_async() == 1
        getter = asyncio.create_task(mine.get_async())
        await asyncio.sleep(0)
        mine.put((1, 2))
        assert await getter == (1, 2)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(mine.get_async(), 0.01)

    run(main())


@every
def test_thread_to_task_and_back(make, run, thread):
    up, down = make(), make()

    def echo():
        while (item := up.get()) >= 0:
            down.put(item + 1)

    async def main():
        thread(echo)
        for number in range(200):
            await up.put_async(number)
            assert await down.get_async() == number + 1
        up.put(-1)

    run(main())


@every
def test_flow_from_a_thread(make, run, thread):
    mine = make()

    async def main():
        thread(lambda: [mine.put(item) for item in range(3000)])
        return [await mine.get_async() for _ in range(3000)]

    assert sorted(run(main())) == list(range(3000))


@bounded
def test_async_bounds_and_join(make, run):
    mine, got = make(2), []

    async def consume():
        while True:
            got.append(await mine.get_async())
            await asyncio.sleep(0)
            mine.task_done()

    async def main():
        consumer = asyncio.create_task(consume())
        for item in range(20):
            await mine.put_async(item)
        await mine.join_async()
        consumer.cancel()

    run(main())
    assert sorted(got) == list(range(20))


@bounded
def test_async_shutdown(make, run):
    mine = make(1)

    async def main():
        getter = asyncio.create_task(mine.get_async())
        await asyncio.sleep(0)
        mine.shutdown()
        with pytest.raises(ShutDown):
            await getter
        with pytest.raises(ShutDown):
            await mine.put_async(1)

    run(main())


@every
def test_cancelled_getter_loses_nothing(make, run):
    mine = make()

    async def main():
        first, second = asyncio.create_task(mine.get_async()), asyncio.create_task(mine.get_async())
        for _ in range(3):
            await asyncio.sleep(0)
        mine.put(1)  # wakes the first
        first.cancel()
        assert await second == 1
        assert mine.empty()

    run(main())


def test_cancelled_putter_passes_the_room_on(run):
    mine = Queue(1)

    async def main():
        mine.put(1)
        first, second = asyncio.create_task(mine.put_async(2)), asyncio.create_task(mine.put_async(3))
        await asyncio.sleep(0)
        assert mine.get() == 1
        first.cancel()
        await second
        assert mine.get() == 3

    run(main())


def test_opened_while_tasks_wait(run):
    mine = Queue()

    async def main():
        getter = asyncio.create_task(mine.get_async())
        cancelled = asyncio.create_task(mine.get_async())
        await asyncio.sleep(0)
        assert mine.mutex
        await asyncio.sleep(0.01)
        cancelled.cancel()
        mine.put(1)
        assert await getter == 1
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    run(main())
    assert not mine.mutex.locked()


def test_join_while_an_item_that_cannot_be_compared_is_put(thread, asleep):
    class Item:
        def __lt__(self, other):
            its.task_done()         # by anybody
            raise TypeError("not comparable")

    its = PriorityQueue()
    its.put(Item())
    joins = thread(its.join)
    asleep(joins)
    with pytest.raises(TypeError, match="not comparable"):
        its.put(Item())
    joins.join(30)
    assert not joins.is_alive()
    assert its.unfinished_tasks == 0 and its.qsize() == 1


def test_a_signal_while_another_compares(thread, asleep, reached):
    """It ends a get() whose time is over, but who waits for the comparison: nothing of it is left behind."""
    class Item:
        def __lt__(self, other):
            comparing.set()
            assert go_on.wait(30)
            return False

    class Stop(Exception):
        """Of the signal's handler."""

    def stop(*args):
        raise Stop

    def put():
        asleep(threading.main_thread())     # it stands in the queue then, after the first
        its.put_many([Item(), Item()])
        put_all.set()

    def interrupt():
        while not comparing.is_set():
            if put_all.wait(0.001):     # the first was so quick that there was nothing to compare
                return
        time.sleep(TIMEOUT)
        asleep(threading.main_thread())
        if not left.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def attempt():
        nonlocal its, comparing, go_on, put_all, left, got
        its, got = PriorityQueue(), []
        comparing, go_on, put_all, left = (threading.Event() for _ in range(4))
        stopped, first = False, thread(lambda: got.append(its.get()))
        asleep(first)
        interrupts, puts = thread(interrupt), thread(put)
        try:
            its.get(timeout=TIMEOUT)
        except Empty:       # before anything was put
            pass
        except Stop:
            stopped = True
        left.set()
        interrupts.join()
        go_on.set()
        for one in puts, first:
            one.join()
        return stopped

    TIMEOUT = 0.2
    its = comparing = go_on = put_all = left = got = None
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        reached(attempt)
    finally:
        signal.signal(signal.SIGUSR1, before)
    its.get_many(timeout=30)
    last = thread(lambda: got.append(its.get()))
    asleep(last)
    its.put("last")
    last.join(30)
    assert got[1:] == ["last"]


def test_a_coroutine_is_not_closed_while_it_runs(run):
    """Nor sent to: as one of Python's."""
    raised = []

    class Queue(queue.Queue):
        def _get(self):
            for method, *arguments in (waiting.close,), (waiting.send, None), (waiting.throw, KeyError):
                with pytest.raises(ValueError, match="coroutine already executing") as error:
                    method(*arguments)
                raised.append(error.type)
            return super()._get()

    its = Queue()
    its.put("item")
    waiting = its.get_async()

    async def main():
        return await waiting

    assert run(main()) == "item"
    waiting = None
    assert raised == [ValueError] * 3


def test_get_many_keeps_an_interrupt_of_a_comparison():
    class Item:
        comparisons, last = 0, None

        def __lt__(self, other):
            Item.comparisons += 1
            if Item.comparisons == Item.last:
                signal.raise_signal(signal.SIGINT)
            return self.number < other.number

        def __init__(self, number):
            self.number = number

    def filled():
        mine = PriorityQueue()
        mine.put_many(map(Item, range(8)))
        Item.comparisons = 0
        return mine

    filled().get()
    of_first = Item.comparisons
    mine = filled()
    Item.last = of_first + 1  # while the second item is taken
    with pytest.raises(KeyboardInterrupt):
        mine.get_many()
        time.sleep(0.1)


def test_shutdown_of_a_queue_that_is_opened_meanwhile(thread, asleep):
    """It ends the queue that Python has in its hands then."""
    class Item:
        def __lt__(self, other):
            comparing.set()
            assert go_on.wait(30)
            return False

    its, comparing, go_on, ended = PriorityQueue(), threading.Event(), threading.Event(), []

    def get():
        try:
            its.get()
        except ShutDown:
            ended.append("get")

    its.put(Item())
    puts = thread(its.put, Item())
    assert comparing.wait(30)
    opens = thread(lambda: its.mutex)
    asleep(opens)
    shuts = thread(its.shutdown, True)
    asleep(shuts)
    go_on.set()
    for one in puts, opens, shuts:
        one.join(30)
    assert its.is_shutdown and its.qsize() == 0
    get()
    assert ended == ["get"]


def test_a_wake_for_a_closed_loop_goes_to_the_next(thread, asleep):
    its, got = Queue(), []
    loop = asyncio.new_event_loop()
    task = loop.create_task(its.get_async())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    task._log_destroy_pending = False
    gets = thread(lambda: got.append(its.get()))
    asleep(gets)
    its.put("item")
    gets.join(30)
    assert got == ["item"]


def test_a_wake_on_its_way_when_its_loop_is_closed(thread, asleep):
    """The item goes to the next one once the task is gone."""
    its, got = Queue(), []
    loop = asyncio.new_event_loop()
    task = loop.create_task(its.get_async())
    loop.run_until_complete(asyncio.sleep(0.01))
    gets = thread(lambda: got.append(its.get()))
    asleep(gets)
    its.put("item")
    loop.close()
    task._log_destroy_pending = False
    del loop, task
    gc.collect()
    gets.join(30)
    assert got == ["item"]


def test_cancelled_while_it_takes_the_mutex_back(run):
    """Of an open queue: the item goes to the next one."""
    its = opened()

    async def main():
        first, second = asyncio.create_task(its.get_async()), asyncio.create_task(its.get_async())
        await asyncio.sleep(0.01)
        its.put("item")
        async with its.mutex:
            await asyncio.sleep(0.01)
            first.cancel()
        assert await second == "item"

    run(main())


@pytest.mark.parametrize("make", [Queue, Counted, opened])
def test_put_many_of_a_list_that_changes(make, thread):
    """What is put are the items that were in it."""
    its, items = make(2), [1, 2, 3, 4]
    puts = thread(its.put_many, items)
    while its.qsize() < 2:
        time.sleep(0.001)
    items.clear()
    assert [its.get(timeout=30) for _ in range(4)] == [1, 2, 3, 4]
    puts.join(30)


def test_fields_are_the_standard_ones():
    its = Queue(3)
    assert (its.maxsize, its.unfinished_tasks, its.is_shutdown) == (3, 0, False)
    its.maxsize = 1
    its.put(1)
    assert its.full() and its.unfinished_tasks == 1
    its.unfinished_tasks = 0
    its.join()
    for name in "maxsize", "unfinished_tasks", "is_shutdown":
        with pytest.raises(TypeError):
            setattr(its, name, "text")
        with pytest.raises(TypeError):
            delattr(its, name)
