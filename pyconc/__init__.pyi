import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pyconc import hashing as hashing
from pyconc import native as native
from pyconc import parallel as parallel
from pyconc.concurrent.futures import Future as Future
from pyconc.concurrent.futures import ThreadPoolExecutor as ThreadPoolExecutor
from pyconc.loop import Loop as Loop
from pyconc.loop import new_event_loop as new_event_loop

if sys.version_info < (3, 16):
    from pyconc.loop.policy import EventLoopPolicy as EventLoopPolicy

_T = TypeVar("_T")

__version__: str
__all__ = ["Future", "Loop", "ThreadPoolExecutor", "hashing", "install", "native", "new_event_loop", "parallel", "run"]

def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None,
        loop_factory: Callable[[], AbstractEventLoop] | None = None, watchdog: float | None = None) -> _T: ...
def install() -> None: ...
def __dir__() -> list[str]: ...
