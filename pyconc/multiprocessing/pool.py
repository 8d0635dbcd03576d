# SPDX-License-Identifier: MIT
"""The standard library's pools on pyconc's contexts."""
from multiprocessing import pool as _standard
from multiprocessing import queues as _queues

from pyconc.multiprocessing.context import _default_context

__all__ = ["Pool", "ThreadPool"]


def _go_on(died):
    """The lock of a pipe: a worker that is killed while it waits for a job has the one to read."""


class PipeQueue(_queues.SimpleQueue):
    """A queue over a pipe: the standard library's pools use both ends of it by themselves."""

    def __init__(self, *, ctx):
        super().__init__(ctx=ctx)
        self._rlock = ctx.Lock(recover=_go_on)
        self._wlock = ctx.Lock(recover=_go_on)


class Pool(_standard.Pool):
    """A pool of processes. Source: multiprocessing.pool.Pool."""

    def __init__(self, processes=None, initializer=None, initargs=(), maxtasksperchild=None, context=None):
        context = context or _default_context.get_context()
        super().__init__(processes, initializer, initargs, maxtasksperchild, context)


class ThreadPool(_standard.ThreadPool):
    """A pool of threads. Source: multiprocessing.pool.ThreadPool."""

    def __init__(self, processes=None, initializer=None, initargs=()):
        _standard.Pool.__init__(self, processes, initializer, initargs, context=_default_context.get_context())


def __getattr__(name):
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
