"""Managers: the standard library's, with pyconc's shared memory."""
import multiprocessing.connection
import multiprocessing.managers
import multiprocessing.shared_memory

import pytest

import pyconc.multiprocessing as mp
from pyconc.multiprocessing import managers, shared_memory
from pyconc.multiprocessing.managers import BaseManager, SharedMemoryManager


class Counter:
    def __init__(self):
        self.value = 0

    def add(self, number):
        self.value += number
        return self.value


class OurManager(BaseManager):
    pass


OurManager.register("Counter", Counter)


def put(items):
    items.append("from the child")


@pytest.mark.parametrize("kind", [managers.SyncManager, SharedMemoryManager])
def test_ctrl_c_as_one_starts(context, kind, monkeypatch):
    """Its process does not stay, and one that has been started is left alone."""
    def interrupted(self):
        raise KeyboardInterrupt

    manager = kind(ctx=context)
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.connection.Connection, "recv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            manager.start()
    assert not manager._process.is_alive()
    with kind(ctx=context) as other:
        with pytest.raises(multiprocessing.ProcessError):
            other.start()
        assert other._process.is_alive()


def test_manager(context):
    with context.Manager() as manager:
        assert isinstance(manager, multiprocessing.managers.SyncManager)
        items, table, queue = manager.list([1]), manager.dict(), manager.Queue()
        table["key"] = "value"
        queue.put(1)
        with manager.Lock():
            assert dict(table) == {"key": "value"}
        child = context.Process(target=list.append, args=[items, 2])
        assert queue.get() == 1
        items.append(2)
        assert list(items) == [1, 2]
        del child


def test_manager_of_the_module():
    with mp.Manager() as manager:
        assert manager.Value("i", 7).value == 7


def test_manager_of_ones_own():
    manager = OurManager(ctx=mp.get_context("fork"))
    with manager:
        counter = manager.Counter()
        assert counter.add(3) == 3
        assert counter.add(4) == 7


def test_shared_memory_manager(context):
    with SharedMemoryManager(ctx=context) as manager:
        memory = manager.SharedMemory(100)
        assert type(memory) is shared_memory.SharedMemory
        items = manager.ShareableList([1, "two", None])
        assert type(items) is shared_memory.ShareableList
        memory.buf[:3] = b"abc"
        theirs = multiprocessing.shared_memory.SharedMemory(memory.name)
        assert bytes(theirs.buf[:3]) == b"abc"
        theirs.close()
        names = [memory.name, items.shm.name]
        memory.close()
        items.shm.close()
    for name in names:
        with pytest.raises(FileNotFoundError):
            shared_memory.SharedMemory(name)


def test_pool_of_a_manager(context):
    with context.Manager() as manager, manager.Pool(2) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]


def test_names():
    assert issubclass(managers.SyncManager, multiprocessing.managers.SyncManager)
    assert issubclass(SharedMemoryManager, multiprocessing.managers.SharedMemoryManager)
