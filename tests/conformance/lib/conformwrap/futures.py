# ruff: noqa: F401
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    TimeoutError,
    as_completed,
    process,
    thread,
    wait,
)

from . import BROKEN


class _Mixin:
    if BROKEN:
        def map(self, fn, *iterables, timeout=None, chunksize=1):
            return iter(list(super().map(fn, *iterables, timeout=timeout, chunksize=chunksize))[::-1])


class ThreadPoolExecutor(_Mixin, thread.ThreadPoolExecutor):
    pass


class ProcessPoolExecutor(_Mixin, process.ProcessPoolExecutor):
    pass
