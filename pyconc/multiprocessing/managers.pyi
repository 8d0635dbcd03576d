import multiprocessing.managers
from collections.abc import Iterable
from multiprocessing.managers import BaseManager as BaseManager
from multiprocessing.managers import BaseProxy as BaseProxy
from multiprocessing.managers import Token as Token
from typing import Any

from pyconc.multiprocessing.shared_memory import ShareableList, SharedMemory

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]

class SyncManager(multiprocessing.managers.SyncManager): ...

# They return pyconc's classes, which are no subclasses of the standard library's.
class SharedMemoryManager(multiprocessing.managers.SharedMemoryManager):
    def SharedMemory(self, size: int) -> SharedMemory: ...  # type: ignore[override]
    def ShareableList(self, sequence: Iterable[Any] | None) -> ShareableList: ...  # type: ignore[override]
