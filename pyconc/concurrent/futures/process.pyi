import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool as BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, Literal, ParamSpec, TypeVar

from pyconc.concurrent.futures._base import TaskFuture
from pyconc.workers.failure import WorkerDied as WorkerDied
from pyconc.workers.stats import PoolStats

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor", "WorkerDied"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

class _WithOptions(concurrent.futures.Executor):
    def __init__(self, executor: ProcessPoolExecutor, options: Any) -> None: ...
    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> TaskFuture[_T]: ...
    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[_T]: ...
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...

class ProcessPoolExecutor(concurrent.futures.ProcessPoolExecutor):
    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        on_worker_death: Literal["break", "replace"] = "break",
        retry: int = 0,
        finalizer: Callable[[], object] | None = None,
        idle_timeout: float | None = None,
        timeout: float | None = None,
        grace: float = 3.0,
        max_memory_per_worker: int | None = None,
        cpus: bool | Iterable[int | Iterable[int]] | None = None,
    ) -> None: ...
    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> TaskFuture[_T]: ...
    def stats(self) -> PoolStats: ...
    def options(
        self,
        *,
        priority: float = 0,
        retry: int | None = None,
        timeout: float | None = None,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> _WithOptions: ...
    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[_T]: ...
    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None: ...
    def terminate_workers(self) -> None: ...
    def kill_workers(self) -> None: ...
