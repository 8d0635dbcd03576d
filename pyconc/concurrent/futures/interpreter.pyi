import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pyconc.concurrent.futures._base import Future
from pyconc.concurrent.futures.thread import ThreadPoolExecutor

_P = ParamSpec("_P")
_T = TypeVar("_T")

if sys.version_info >= (3, 14):
    import concurrent.futures

    class InterpreterPoolExecutor(ThreadPoolExecutor, concurrent.futures.InterpreterPoolExecutor):
        def __init__(
            self,
            max_workers: int | None = None,
            thread_name_prefix: str = "",
            initializer: Callable[..., object] | None = None,
            initargs: tuple[Any, ...] = (),
        ) -> None: ...
        def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]: ...
