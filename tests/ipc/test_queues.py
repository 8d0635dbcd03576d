"""Queues between processes: what is put arrives, once, in its order, whatever it is."""
import collections
import enum
import multiprocessing
import os
import pickle
import queue as standard
import socket
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from pyconc.multiprocessing.queues import JoinableQueue, Queue, SimpleQueue
from pyconc.multiprocessing.sharedctypes import Value
from pyconc.queue import ShutDown

STARTS = ["fork", "spawn", "forkserver"]
KINDS = [Queue, JoinableQueue, SimpleQueue]
Pair = collections.namedtuple("Pair", "left right")


class Colour(enum.Enum):
    RED = 1


class Text(str):
    pass


class Unpicklable:
    def __reduce__(self):
        raise ZeroDivisionError("not this one")


def fail(*args):
    raise LookupError("not here")


class Poison:
    """Pickles; does not unpickle."""

    def __reduce__(self):
        return fail, ()


SMALL = [None, True, False, 0, -1, 2**63 - 1, -2**63, 2**63, 2**200, 0.0, -1.5, float("inf"), b"", b"abc", "", "abc",
         "häß", "\ud800", "\0", bytearray(), bytearray(b"abc"), (), (1, 2), [None], {"a": {1, 2}}, Pair(1, [2]),
         Colour.RED, Text("abc"), range(3), slice(1, 2), int, len, ValueError]
SIZES = [10_000, 13_000, 16_000, 17_000, 65_000, 66_000, 1_000_000]


@pytest.mark.parametrize("item", SMALL, ids=repr)
def test_small_items_arrive_as_they_are(item):
    queue = Queue()
    queue.put(item)
    got = queue.get()
    assert got == item
    assert type(got) is type(item)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, str, list])
def test_large_items_arrive_as_they_are(kind, size):
    item = {bytes: lambda: os.urandom(size), bytearray: lambda: bytearray(os.urandom(size)),
            str: lambda: "ab" * (size // 2), list: lambda: list(range(size // 3))}[kind]()
    queue = Queue()
    for _ in range(3):
        queue.put(item)
    queue.put("between")
    queue.put([item, item])
    assert [queue.get() for _ in range(3)] == [item] * 3
    assert queue.get() == "between"
    assert queue.get() == [item, item]


def test_nan_is_nan():
    queue = Queue()
    queue.put(float("nan"))
    assert str(queue.get()) == "nan"


def test_many_chunks_keep_their_order():
    queue = Queue()
    items = [os.urandom(i * 37 % 9000) if i % 3 else i for i in range(3000)]
    for item in items:
        queue.put(item)
    assert queue.qsize() == len(items)
    assert [queue.get() for _ in items] == items
    assert queue.empty()


def test_many_at_once():
    queue = Queue()
    items = [i if i % 5 else (i, "pickled") for i in range(5000)]
    queue.put_many(items)
    assert queue.get_many(10) == items[:10]
    assert queue.get_many() == items[10:]
    queue.put_many(iter(items[:7]))
    assert queue.get_many(max_messages_to_get=3) == items[:3]
    assert queue.get_many(n=100) == items[3:7]
    queue.put_many([])
    with pytest.raises(standard.Empty):
        queue.get_many(block=False)
    with pytest.raises(ValueError):
        queue.get_many(0)


def test_many_at_once_with_large_ones_between():
    queue = Queue()
    items = [1, b"x" * 200_000, 2, 3, [b"y" * 100_000], np.arange(20_000), 4]
    queue.put_many(items)
    got = queue.get_many()
    assert len(got) == len(items)
    assert got[:5] == items[:5]
    assert (got[5] == items[5]).all()
    assert got[6] == 4


def test_an_unpicklable_item_raises_in_put_and_is_not_in_the_queue():
    queue = Queue(maxsize=1)
    with pytest.raises(ZeroDivisionError):
        queue.put(Unpicklable())
    with pytest.raises(ZeroDivisionError):
        queue.put_many([1, Unpicklable(), 2])
    assert queue.empty()
    queue.put("another")
    assert queue.get() == "another"


def test_an_item_that_cannot_be_unpickled_fails_only_its_own_get():
    queue = Queue()
    for item in (1, Poison(), 2):
        queue.put(item)
    assert queue.get() == 1
    with pytest.raises(LookupError):
        queue.get()
    assert queue.get() == 2
    assert queue.empty()


def test_get_many_returns_the_others_and_raises_next_time():
    queue = Queue()
    queue.put_many([1, Poison(), 2, Poison(), 3])
    assert queue.get_many() == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(LookupError):
            queue.get_many(block=False)
    with pytest.raises(standard.Empty):
        queue.get_many(block=False)
    queue.put_many([Poison()])
    with pytest.raises(LookupError):
        queue.get_many()


class PutsItself:
    """Its pickling uses the queue."""

    def __init__(self, queue):
        self.queue = queue

    def __reduce__(self):
        self.queue.put(["inner", "item"])
        return str, ("outer",)


def test_a_reduce_may_use_the_queue():
    queue = Queue()
    queue.put(PutsItself(queue))
    assert queue.get() == ["inner", "item"]
    assert queue.get() == "outer"


def test_what_multiprocessing_pickles_arrives():
    queue = Queue()
    here, there = multiprocessing.Pipe()
    left, right = socket.socketpair()
    with here, there, left, right:
        queue.put([there, right])
        connection, other = queue.get()
        with connection, other:
            connection.send("hello")
            assert here.recv() == "hello"
            other.sendall(b"socket")
            assert left.recv(10) == b"socket"


def test_the_limit_of_items_is_real():
    queue = Queue(maxsize=3)
    for i in range(3):
        assert not queue.full()
        queue.put(i)
    assert queue.full()
    for put in (lambda: queue.put(3, False), lambda: queue.put_nowait(3), lambda: queue.put(3, True, 0.01),
                lambda: queue.put(3, timeout=-1), lambda: queue.put(3, block=False, timeout=5)):
        with pytest.raises(standard.Full):
            put()
    assert queue.qsize() == 3
    with pytest.raises(standard.Full) as caught:
        queue.get()
        queue.put_many([3, 4, 5], timeout=0.01)
    assert caught.value.args == (1,)
    assert queue.get_many() == [1, 2, 3]


def test_the_limit_of_bytes_is_real():
    queue = Queue(max_bytes=1000)
    queue.put(b"x" * 600)
    with pytest.raises(standard.Full):
        queue.put_nowait(b"x" * 500)
    queue.put_nowait(b"x" * 400)
    assert queue.full()
    with pytest.raises(standard.Full):
        queue.put("a", timeout=0.01)
    queue.get()
    queue.put_nowait(b"x" * 600)
    with pytest.raises(ValueError, match=r"1001 bytes.*1000 bytes"):
        queue.put(b"x" * 1001)
    with pytest.raises(ValueError, match=r"1000 bytes"):
        queue.put_many([1, [b"x" * 100_000]])
    assert queue.qsize() == 2


def test_arguments_are_checked():
    with pytest.raises(TypeError):
        Queue("many")
    queue = Queue(-1)
    assert queue.maxsize == 0
    with pytest.raises(TypeError):
        queue.put()
    with pytest.raises(TypeError):
        queue.put(1, 2, 3, 4)
    with pytest.raises(TypeError):
        queue.get(nonsense=1)
    with pytest.raises(TypeError):
        queue.get(timeout="long")
    with pytest.raises(ValueError):
        queue.get(timeout=float("nan"))


def test_get_waits_as_long_as_it_was_told():
    queue = Queue()
    for get in (lambda: queue.get(False), queue.get_nowait, lambda: queue.get(timeout=0),
                lambda: queue.get_many(block=False)):
        with pytest.raises(standard.Empty):
            get()
    start = time.monotonic()
    with pytest.raises(standard.Empty):
        queue.get(timeout=0.2)
    assert time.monotonic() - start >= 0.2


def test_closed():
    for kind in (Queue, JoinableQueue):
        queue = kind()
        queue.close()
        queue.join_thread()
        assert queue.empty()
        for name, args in (("put", [1]), ("get", []), ("put_many", [[1]]), ("get_many", []), ("put_nowait", [1]),
                           ("get_nowait", [])):
            with pytest.raises(ValueError, match="is closed"):
                getattr(queue, name)(*args)
        queue = kind()
        with pytest.raises(AssertionError):
            queue.join_thread()
        queue.put(1)
        queue.cancel_join_thread()
        queue.close()
        queue.join_thread()
        with pytest.raises(OSError, match="is closed"):
            queue.empty()


def test_closed_simple_queue():
    queue = SimpleQueue()
    queue.close()
    queue.close()
    for use in (queue.empty, queue.get, lambda: queue.put(1)):
        with pytest.raises(OSError, match="is closed"):
            use()


def test_shutdown_lets_what_is_there_out():
    queue = Queue()
    queue.put_many([1, 2])
    queue.shutdown()
    assert queue.is_shutdown
    with pytest.raises(ShutDown):
        queue.put(3)
    with pytest.raises(ShutDown):
        queue.put_nowait(3)
    assert queue.get() == 1
    assert queue.get_many() == [2]
    for get in (queue.get, queue.get_nowait, queue.get_many):
        with pytest.raises(ShutDown):
            get()


def test_immediate_shutdown_empties_the_queue():
    queue = JoinableQueue()
    queue.put_many([1, b"x" * 100_000, [2]])
    queue.get()
    queue.shutdown(immediate=True)
    assert queue.empty()
    with pytest.raises(ShutDown):
        queue.get()
    assert not queue.join(0)
    queue.task_done()
    assert queue.join(0)
    with pytest.raises(ValueError):
        queue.task_done()


def wait_for_shutdown(queue, full, ready):
    ready.set()
    try:
        queue.get()
    except ShutDown:
        try:
            full.put(1)
        except ShutDown:
            os._exit(7)


def test_shutdown_wakes_who_waits_in_another_process():
    context = multiprocessing.get_context("fork")
    queue, full, ready = Queue(), Queue(1), context.Event()
    full.put(0)
    child = context.Process(target=wait_for_shutdown, args=(queue, full, ready))
    child.start()
    ready.wait()
    time.sleep(0.1)
    queue.shutdown()
    time.sleep(0.1)
    full.shutdown()
    child.join(20)
    assert child.exitcode == 7


def test_tasks():
    queue = JoinableQueue()
    assert queue.join()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    queue.put_many("ab")
    queue.get()
    queue.task_done()
    assert not queue.join(0.01)
    queue.get()
    queue.task_done()
    assert queue.join()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def work(queue):
    for item in iter(queue.get, None):
        time.sleep(0.01)
        queue.task_done()
    queue.task_done()


@pytest.mark.parametrize("start", STARTS)
def test_join_waits_for_other_processes(start):
    context = multiprocessing.get_context(start)
    queue = JoinableQueue()
    children = [context.Process(target=work, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    queue.put_many(range(20))
    queue.join()
    assert queue.empty()
    queue.put_many([None, None])
    queue.join()
    for child in children:
        child.join()
        assert child.exitcode == 0


def echo(there, back):
    for item in iter(there.get, None):
        back.put(item[0])
    back.put("ended")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_between_processes(start, kind):
    context = multiprocessing.get_context(start)
    there, back = kind(), kind()
    child = context.Process(target=echo, args=(there, back))
    child.start()
    for item in (*SMALL, b"x" * 1_000_000, ["y" * 300_000] * 2):
        there.put([item])
        assert back.get(timeout=60) == item
    array = np.arange(50_000, dtype="f4").reshape(5, -1)
    there.put([array])
    got = back.get(timeout=60)
    assert got.dtype == array.dtype
    assert (got == array).all()
    there.put(None)
    assert back.get(timeout=60) == "ended"
    child.join()
    assert child.exitcode == 0


def put_large(queue):
    queue.put(b"z" * (1 << 20))


@pytest.mark.parametrize("start", STARTS)
def test_a_producer_may_end_at_once(start):
    context = multiprocessing.get_context(start)
    queue = Queue()
    child = context.Process(target=put_large, args=(queue,))
    child.start()
    child.join()    # nothing has to be taken out first
    assert child.exitcode == 0
    assert queue.get(timeout=10) == b"z" * (1 << 20)


def answer(outer):
    inner = outer.get()
    inner.put("through the inner one")


@pytest.mark.parametrize("start", STARTS)
def test_a_queue_travels_through_a_queue(start):
    context = multiprocessing.get_context(start)
    outer, inner = Queue(), Queue(maxsize=5)
    child = context.Process(target=answer, args=(outer,))
    child.start()
    outer.put(inner)
    assert inner.get(timeout=20) == "through the inner one"
    child.join()


def test_a_queue_on_its_way_outlives_its_object():
    outer, inner = Queue(), Queue()
    inner.put("still there")
    outer.put(inner)
    del inner
    assert outer.get().get_nowait() == "still there"


def test_a_pickle_is_the_same_queue():
    queue = JoinableQueue(7, max_bytes=1000)
    other = pickle.loads(pickle.dumps(queue))
    queue.put(1)
    assert (type(other), other.maxsize, other.max_bytes) == (JoinableQueue, 7, 1000)
    assert other is queue
    assert other.qsize() == 1
    assert other.get() == 1
    other.task_done()
    assert queue.join(0)


def test_a_queue_that_was_closed_here_arrives_open():
    queue = Queue()
    queue.put(1)
    pickled = pickle.dumps(queue)
    queue.close()
    again = pickle.loads(pickled)
    assert again is not queue
    assert again.get() == 1
    assert pickle.loads(pickle.dumps(again)) is again


def feed(queue, which, count):
    for i in range(count):
        queue.put((which, i))


def test_each_producers_items_keep_their_order():
    context = multiprocessing.get_context("fork")
    queue = Queue(maxsize=10)
    children = [context.Process(target=feed, args=(queue, i, 2000)) for i in range(3)]
    for child in children:
        child.start()
    seen = {0: [], 1: [], 2: []}
    for _ in range(6000):
        which, i = queue.get(timeout=30)
        seen[which].append(i)
    assert all(numbers == list(range(2000)) for numbers in seen.values())
    for child in children:
        child.join()


def collect(queue, results):
    got = []
    for item in iter(queue.get, None):
        got.append(item)
    results.put(got)


def test_each_item_goes_to_one_consumer():
    context = multiprocessing.get_context("fork")
    queue, results = Queue(), Queue()
    children = [context.Process(target=collect, args=(queue, results)) for _ in range(3)]
    for child in children:
        child.start()
    for i in range(5000):
        queue.put(i)
    queue.put_many([None] * 3)
    got = [results.get(timeout=30) for _ in children]
    assert sorted(sum(got, [])) == list(range(5000))
    assert all(numbers == sorted(numbers) for numbers in got)
    for child in children:
        child.join()


def test_threads_of_one_process():
    queue, got = Queue(maxsize=50), []

    def consume():
        for item in iter(queue.get, None):
            got.append(item)

    def produce(which):
        for i in range(1000):
            queue.put([which, i])

    consumers = [threading.Thread(target=consume) for _ in range(2)]
    producers = [threading.Thread(target=produce, args=(i,)) for i in range(2)]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join()
    queue.put_many([None, None])
    for thread in consumers:
        thread.join()
    assert sorted(got) == [[which, i] for which in range(2) for i in range(1000)]


def test_a_waiting_thread_lets_others_run():
    queue = Queue()
    threading.Timer(0.1, queue.put, ["late"]).start()
    assert queue.get(timeout=20) == "late"


def test_subclasses_keep_their_type_and_generic_aliases_work():
    assert Queue[int].__origin__ is Queue
    assert isinstance(JoinableQueue(), Queue)
    assert not hasattr(Queue(), "task_done")
    assert "Queue" in repr(Queue())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_nothing_stays_open(no_leaked_fds):
    for _ in range(20):
        queue = Queue()
        queue.put(b"x" * 100_000)
        other = pickle.loads(pickle.dumps(queue))
        other.get()
        del queue, other


def test_a_signal_interrupts_a_wait():
    import signal

    def handler(*args):
        raise InterruptedError

    queue = Queue()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError):
            queue.get()
    finally:
        signal.signal(signal.SIGALRM, before)


HOOKS = """
    import os

    kept = {}
    # Registered first: the one before runs last, the one in the child first.
    os.register_at_fork(before=lambda: kept.pop("before", None), after_in_child=lambda: kept.pop("in child", None),
                        after_in_parent=lambda: kept.pop("in parent", None))
    import numpy as np
    from pyconc.multiprocessing.queues import Queue

    queue = Queue()
    for key in ("before", "in child", "in parent"):
        queue.put(np.ones(100_000))
        kept[key] = [Queue(), queue.get()]
    mine = kept["in child"]
    pid = os.fork()
    if pid == 0:
        mine[0].put("in the child")
        mine.clear()
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    for _ in range(20):
        queue.put(np.zeros(100_000))
    assert mine[0].get(timeout=10) == "in the child"
    assert mine[1].all()
"""


def test_what_runs_around_a_fork_may_let_go_of_objects():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(HOOKS)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Classes of one's own, as programs derive them from the standard library's.

class Counted(Queue):
    """As one does where qsize() is not to be had."""

    def __init__(self, name, *args, **kwargs):
        super().__init__(*args, ctx=multiprocessing.get_context(), **kwargs)
        self.name = name
        self.size = Value("i", 0)

    def __getstate__(self):
        return (*super().__getstate__(), self.name, self.size)

    def __setstate__(self, state):
        *rest, self.name, self.size = state
        super().__setstate__(tuple(rest))

    def put(self, *args, **kwargs):
        super().put(*args, **kwargs)
        with self.size.get_lock():
            self.size.value += 1

    def get(self, *args, **kwargs):
        item = super().get(*args, **kwargs)
        with self.size.get_lock():
            self.size.value -= 1
        return item

    def qsize(self):
        return self.size.value


def put_two(queue):
    queue.put(queue.name)
    queue.put_nowait(2)


@pytest.mark.parametrize("start", STARTS)
def test_a_class_with_a_constructor_and_a_state_of_its_own(start):
    queue = Counted("numbers", 2)
    child = multiprocessing.get_context(start).Process(target=put_two, args=(queue,))
    child.start()
    child.join()
    assert queue.qsize() == 2
    assert queue.full()
    assert queue.get() == "numbers"
    assert queue.get_nowait() == 2
    assert queue.qsize() == 0


def test_a_state_that_is_a_dict_with_the_class_s():
    class Named(JoinableQueue):
        def __getstate__(self):
            return {"parent": super().__getstate__(), "name": self.name}

        def __setstate__(self, state):
            super().__setstate__(state["parent"])
            self.arrived = state["name"]

    queue = Named()
    queue.name = "a name"
    rebuild, args, state = queue.__reduce__()
    same = rebuild(*args)
    same.__setstate__(state)
    assert same is queue
    assert same.arrived == "a name"


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_passes_nothing_on(kind):
    class Silent(kind):
        def __init__(self, anything, *, at_all):
            pass

    queue = Silent(1, at_all=2)
    queue.put(3)
    assert queue.get() == 3
    assert (queue.maxsize, queue.max_bytes) == (0, 0)


def test_a_subclass_of_simple_queue_is_a_simple_queue():
    class Mine(SimpleQueue):
        def __init__(self):
            super().__init__(ctx=None)

    queue = Mine()
    queue.close()
    with pytest.raises(OSError, match="handle is closed"):
        queue.put(1)


def test_methods_without_waiting_that_a_class_has_itself_stay():
    class Mine(Queue):
        def put(self, obj, block=True, timeout=None):
            super().put(("put", obj), block, timeout)

        def put_nowait(self, obj):
            super().put_nowait(("put_nowait", obj))

    queue = Mine()
    queue.put_nowait(1)
    assert queue.get() == ("put_nowait", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_put_nowait_takes_its_item_by_name(kind):
    queue = kind()
    queue.put_nowait(obj=1)
    assert queue.get_nowait() == 1
    for args, kwargs in [((), {}), ((1, 2), {}), ((), {"item": 1}), ((1,), {"obj": 1})]:
        with pytest.raises(TypeError):
            queue.put_nowait(*args, **kwargs)
