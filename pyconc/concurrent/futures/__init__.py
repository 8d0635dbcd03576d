# SPDX-License-Identifier: MIT
"""concurrent.futures with pyconc's pools and Future."""
import concurrent.futures as _standard
from importlib import import_module

from pyconc.concurrent.futures._base import Future, as_completed, wait

__all__ = [*{*_standard.__all__, "BrokenProcessPool", "BrokenThreadPool", "InvalidStateError", "WorkerDied"}]

# Imported when they are asked for: multiprocessing is not for everybody, and a forked worker pays for each module that
# has something to do after a fork.
_MODULES = {"process": {"BrokenProcessPool", "ProcessPoolExecutor", "WorkerDied"},
            "thread": {"BrokenThreadPool", "ThreadPoolExecutor"}}
_LAZY = {name: module for module, names in _MODULES.items() for name in (module, *names)}


def __getattr__(name):
    if name in _LAZY:
        module = import_module(f"{__name__}.{_LAZY[name]}")
        return module if name == _LAZY[name] else getattr(module, name)
    if name == "InterpreterPoolExecutor" and name in _standard.__all__:
        from pyconc.concurrent.futures.interpreter import InterpreterPoolExecutor
        return InterpreterPoolExecutor
    # All else is the standard package's.
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard), *_LAZY})
