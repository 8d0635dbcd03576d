# SPDX-License-Identifier: MIT
"""multiprocessing, with locks, queues, values and arrays that survive a kill.

A lock whose owner was killed goes to the next who waits, queues have no feeder thread, all of them can be handed over
at any time and awaited in any asyncio loop, and none leaves anything behind. Processes are the standard library's, and
so is all else.
"""
import multiprocessing as _standard
from importlib import import_module as _import
from types import ModuleType as _Module

from pyconc.multiprocessing import context

# Beyond the standard library: imported when they are asked for.
_OURS = {"AtomicInt": "atomic", "OwnerDied": "synchronize", "ReadWriteLock": "synchronize", "SharedPipe": "shared_pipe",
         "Snapshot": "snapshot"}

__all__ = [*_standard.__all__, *_OURS]

globals().update((name, getattr(context._default_context, name)) for name in _standard.__all__)


def __getattr__(name):
    if name in _OURS:
        return getattr(_import(f"{__name__}.{_OURS[name]}"), name)
    found = getattr(_standard, name)
    if isinstance(found, _Module) and found.__name__.startswith("multiprocessing."):
        return _import(f"{__name__}.{name}")    # ours, if there is one
    return found


def __dir__():
    return sorted({*globals(), *dir(_standard), *_OURS})
