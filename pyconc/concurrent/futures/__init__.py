# SPDX-License-Identifier: MIT
"""concurrent.futures with pyconc's pools and Future."""
import concurrent.futures as _standard
from importlib import import_module

from pyconc.concurrent.futures._base import Future, as_completed, wait
from pyconc.concurrent.futures.thread import BrokenThreadPool, ThreadPoolExecutor

__all__ = [*{*_standard.__all__, "BrokenProcessPool", "BrokenThreadPool", "InvalidStateError", "WorkerDied"}]

_OF_PROCESSES = {"BrokenProcessPool", "ProcessPoolExecutor", "WorkerDied"}


def __getattr__(name):
    if name == "process" or name in _OF_PROCESSES:     # multiprocessing is not imported for nobody
        process = import_module(f"{__name__}.process")
        return process if name == "process" else getattr(process, name)
    if name == "InterpreterPoolExecutor" and name in _standard.__all__:
        from pyconc.concurrent.futures.interpreter import InterpreterPoolExecutor
        return InterpreterPoolExecutor
    # All else is the standard package's.
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard), *_OF_PROCESSES})
