import sys
from concurrent.futures import ALL_COMPLETED as ALL_COMPLETED
from concurrent.futures import FIRST_COMPLETED as FIRST_COMPLETED
from concurrent.futures import FIRST_EXCEPTION as FIRST_EXCEPTION
from concurrent.futures import BrokenExecutor as BrokenExecutor
from concurrent.futures import CancelledError as CancelledError
from concurrent.futures import Executor as Executor
from concurrent.futures import InvalidStateError as InvalidStateError
from concurrent.futures import TimeoutError as TimeoutError
from typing import Any

from pyconc.concurrent.futures._base import Future as Future
from pyconc.concurrent.futures._base import as_completed as as_completed
from pyconc.concurrent.futures._base import wait as wait
from pyconc.concurrent.futures.process import BrokenProcessPool as BrokenProcessPool
from pyconc.concurrent.futures.process import ProcessPoolExecutor as ProcessPoolExecutor
from pyconc.concurrent.futures.process import WorkerDied as WorkerDied
from pyconc.concurrent.futures.thread import BrokenThreadPool as BrokenThreadPool
from pyconc.concurrent.futures.thread import ThreadPoolExecutor as ThreadPoolExecutor

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "BrokenProcessPool",
    "BrokenThreadPool",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "WorkerDied",
    "as_completed",
    "wait",
]

if sys.version_info >= (3, 14):
    from pyconc.concurrent.futures.interpreter import InterpreterPoolExecutor as InterpreterPoolExecutor

    __all__ += ["InterpreterPoolExecutor"]

def __getattr__(name: str) -> Any: ...
def __dir__() -> list[str]: ...
