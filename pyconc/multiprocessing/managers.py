# SPDX-License-Identifier: MIT
"""The standard library's managers; their pools and the memory of SharedMemoryManager are pyconc's."""
from multiprocessing import managers as _standard

from pyconc.multiprocessing.pool import Pool
from pyconc.multiprocessing.shared_memory import ShareableList, SharedMemory

__all__ = [*_standard.__all__]


class _Starts:
    """Of a manager: what start() has begun when Ctrl-C interrupts it does not stay, which the exit would wait for."""

    def start(self, initializer=None, initargs=()):
        """Starts its process, which calls initializer(*initargs) first."""
        try:
            super().start(initializer, initargs)
        except BaseException:
            process = self.__dict__.get("_process")
            if process is not None and "shutdown" not in self.__dict__ and process.is_alive():
                process.kill()
                process.join()
            raise


class SyncManager(_Starts, _standard.SyncManager):
    """Objects that live in a process of its own. Source: multiprocessing.managers."""


SyncManager.register("Pool", Pool, _standard.PoolProxy)


class SharedMemoryManager(_Starts, _standard.SharedMemoryManager):
    """Unlinks the memory that was made by it when it shuts down. Source: multiprocessing.managers."""

    def SharedMemory(self, size):
        """A new SharedMemory of `size` bytes."""
        memory = SharedMemory(None, create=True, size=size)
        self._track(memory)
        return memory

    def ShareableList(self, sequence):
        """A new ShareableList of the items."""
        items = ShareableList(sequence)
        self._track(items.shm)
        return items

    def _track(self, memory):
        with self._Client(self._address, authkey=self._authkey) as connection:
            try:
                _standard.dispatch(connection, None, "track_segment", (memory.name,))
            except BaseException:
                memory.unlink()
                raise


def __getattr__(name):
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
