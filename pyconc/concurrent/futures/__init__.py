# SPDX-License-Identifier: MIT
"""concurrent.futures with pyconc's thread pool and Future."""
import concurrent.futures as _standard

from pyconc.concurrent.futures._base import Future, as_completed, wait
from pyconc.concurrent.futures.thread import BrokenThreadPool, ThreadPoolExecutor

__all__ = [*{*_standard.__all__, "BrokenThreadPool", "InvalidStateError"}]


def __getattr__(name):
    if name == "InterpreterPoolExecutor" and name in _standard.__all__:
        from pyconc.concurrent.futures.interpreter import InterpreterPoolExecutor
        return InterpreterPoolExecutor
    # All else is the standard package's. Asked for by name, so that multiprocessing is not imported for nobody.
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
