import multiprocessing.context
import multiprocessing.pool
import multiprocessing.queues
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar

_S = TypeVar("_S")
_T = TypeVar("_T")

__all__ = ["Pool", "ThreadPool"]

class PipeQueue(multiprocessing.queues.SimpleQueue[Any]):
    def __init__(self, *, ctx: Any) -> None: ...

class ApplyResult(multiprocessing.pool.ApplyResult[_T]):
    def __init__(
        self,
        pool: multiprocessing.pool.Pool,
        futures: tuple[Any, ...],
        callback: Callable[[_T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None: ...
    def __await__(self) -> Generator[Any, Any, _T]: ...

AsyncResult = ApplyResult

class MapResult(ApplyResult[list[_T]]): ...

class Pool(multiprocessing.pool.Pool):
    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any | None = None,
    ) -> None: ...
    def apply_async(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[_T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
    ) -> ApplyResult[_T]: ...
    def map_async(  # type: ignore[override]
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[_T]: ...
    def starmap_async(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[_T]: ...

class ThreadPool(multiprocessing.pool.ThreadPool): ...
