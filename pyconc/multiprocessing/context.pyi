import multiprocessing.context
from collections.abc import Callable
from typing import Any, Literal, overload

from pyconc._ipc import OwnerDied
from pyconc.multiprocessing import queues, synchronize
from pyconc.multiprocessing.connection import Connection
from pyconc.multiprocessing.managers import SyncManager
from pyconc.multiprocessing.pool import Pool as _Pool

_Recover = Callable[[OwnerDied], object] | None

# Where typeshed has the standard library's classes, these return pyconc's, which are none of their subclasses.
class BaseContext(multiprocessing.context.BaseContext):
    @overload  # type: ignore[override]
    def get_context(self, method: None = None) -> BaseContext: ...
    @overload
    def get_context(self, method: Literal["fork"]) -> ForkContext: ...
    @overload
    def get_context(self, method: Literal["spawn"]) -> SpawnContext: ...
    @overload
    def get_context(self, method: Literal["forkserver"]) -> ForkServerContext: ...
    @overload
    def get_context(self, method: str) -> BaseContext: ...
    def Manager(self) -> SyncManager: ...
    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]: ...
    def Lock(self, *, recover: _Recover = None) -> synchronize.Lock: ...  # type: ignore[override]
    def RLock(self, *, recover: _Recover = None) -> synchronize.RLock: ...  # type: ignore[override]
    def Condition(self, lock: synchronize.Lock | synchronize.RLock | None = None) -> synchronize.Condition: ...  # type: ignore[override]
    def Semaphore(self, value: int = 1, *, recover: _Recover = None) -> synchronize.Semaphore: ...  # type: ignore[override]
    def BoundedSemaphore(self, value: int = 1, *, recover: _Recover = None) -> synchronize.BoundedSemaphore: ...  # type: ignore[override]
    def Event(self) -> synchronize.Event: ...  # type: ignore[override]
    def Barrier(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> synchronize.Barrier: ...  # type: ignore[override]
    def Queue(self, maxsize: int = 0, *, max_bytes: int | None = None) -> queues.Queue[Any]: ...  # type: ignore[override]
    def JoinableQueue(self, maxsize: int = 0, *, max_bytes: int | None = None) -> queues.JoinableQueue[Any]: ...  # type: ignore[override]
    def SimpleQueue(self) -> queues.SimpleQueue[Any]: ...  # type: ignore[override]
    def Pool(self, processes: int | None = None, initializer: Callable[..., object] | None = None, initargs: Any = (), maxtasksperchild: int | None = None) -> _Pool: ...

class DefaultContext(BaseContext, multiprocessing.context.DefaultContext):
    def __init__(self) -> None: ...
    def get_start_method(self, allow_none: bool = False) -> str: ...
    def get_all_start_methods(self) -> list[str]: ...

class ForkContext(BaseContext, multiprocessing.context.ForkContext): ...
class SpawnContext(BaseContext, multiprocessing.context.SpawnContext): ...
class ForkServerContext(BaseContext, multiprocessing.context.ForkServerContext): ...

_default_context: DefaultContext
