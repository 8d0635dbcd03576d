# SPDX-License-Identifier: MIT
"""The contexts of multiprocessing with pyconc's locks, queues, values and pipes.

Processes are started by the standard library's contexts, and which start method is the default is theirs to know: a
program that sets it, here or there, has set it in both.
"""
import sys
from multiprocessing import context as _standard

__all__ = ()

_shared = _standard._default_context

# Classes of the standard library that reach into the pipe which a SimpleQueue of theirs is.
_NEEDS_A_PIPE = {"concurrent.futures.process", "multiprocessing.pool"}


class BaseContext(_standard.BaseContext):
    """What contexts of every start method have. Source: multiprocessing.context.BaseContext."""

    def get_context(self, method=None):
        """This context, or the one of a start method. ValueError when there is none."""
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context

    def Manager(self):
        """A manager, its process running."""
        from pyconc.multiprocessing.managers import SyncManager
        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex=True):
        """Two Connections to each other. If not duplex, the first one receives and the second sends."""
        from pyconc.multiprocessing.connection import Pipe
        return Pipe(duplex)

    def Lock(self, *, recover=None):
        """A lock that the next one gets when its owner dies, with an OwnerDied unless recover(error) is given."""
        from pyconc.multiprocessing.synchronize import Lock
        return Lock(recover=recover, ctx=self.get_context())

    def RLock(self, *, recover=None):
        """A lock that its owner may acquire again."""
        from pyconc.multiprocessing.synchronize import RLock
        return RLock(recover=recover, ctx=self.get_context())

    def Condition(self, lock=None):
        """A condition, of a lock if one is given."""
        from pyconc.multiprocessing.synchronize import Condition
        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value=1, *, recover=None):
        """A semaphore."""
        from pyconc.multiprocessing.synchronize import Semaphore
        return Semaphore(value, recover=recover, ctx=self.get_context())

    def BoundedSemaphore(self, value=1, *, recover=None):
        """A semaphore that can't be released more often than it was acquired."""
        from pyconc.multiprocessing.synchronize import BoundedSemaphore
        return BoundedSemaphore(value, recover=recover, ctx=self.get_context())

    def Event(self):
        """An event."""
        from pyconc.multiprocessing.synchronize import Event
        return Event(ctx=self.get_context())

    def Barrier(self, parties, action=None, timeout=None):
        """A barrier."""
        from pyconc.multiprocessing.synchronize import Barrier
        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize=0, *, max_bytes=None):
        """A queue of so many items and bytes at most."""
        from pyconc.multiprocessing.queues import Queue
        return Queue(maxsize, max_bytes=max_bytes, ctx=self.get_context())

    def JoinableQueue(self, maxsize=0, *, max_bytes=None):
        """A queue with task_done() and join()."""
        from pyconc.multiprocessing.queues import JoinableQueue
        return JoinableQueue(maxsize, max_bytes=max_bytes, ctx=self.get_context())

    def SimpleQueue(self):
        """A queue with put(), get() and empty()."""
        if sys._getframe(1).f_globals.get("__name__") in _NEEDS_A_PIPE:
            from pyconc.multiprocessing.pool import PipeQueue
            return PipeQueue(ctx=self.get_context())
        from pyconc.multiprocessing.queues import SimpleQueue
        return SimpleQueue(ctx=self.get_context())

    def Pool(self, processes=None, initializer=None, initargs=(), maxtasksperchild=None):
        """A pool of processes."""
        from pyconc.multiprocessing.pool import Pool
        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())

    def RawValue(self, typecode_or_type, *args):
        """A value in shared memory."""
        from pyconc.multiprocessing.sharedctypes import RawValue
        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type, size_or_initializer):
        """An array in shared memory."""
        from pyconc.multiprocessing.sharedctypes import RawArray
        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type, *args, lock=True):
        """A value in shared memory with a lock."""
        from pyconc.multiprocessing.sharedctypes import Value
        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type, size_or_initializer, *, lock=True):
        """An array in shared memory with a lock."""
        from pyconc.multiprocessing.sharedctypes import Array
        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())


class DefaultContext(BaseContext, _standard.DefaultContext):
    """The context of whatever start method is set."""

    def __init__(self):
        pass

    def get_context(self, method=None):
        """The context of a start method: that which is set, by default."""
        return super().get_context(_shared.get_context()._name if method is None else method)

    def set_start_method(self, method, force=False):
        """Sets the start method; RuntimeError if it has been set or used before, unless forced."""
        _shared.set_start_method(method, force)

    def get_start_method(self, allow_none=False):
        """The start method that is set; None if none is and `allow_none`."""
        return _shared.get_start_method(allow_none)

    def get_all_start_methods(self):
        """The start methods there are, the default one first."""
        return _shared.get_all_start_methods()


class ForkContext(BaseContext, _standard.ForkContext):
    """Children are copies of the process."""


class SpawnContext(BaseContext, _standard.SpawnContext):
    """Children are new interpreters."""


class ForkServerContext(BaseContext, _standard.ForkServerContext):
    """Children are copies of a process that was started for that."""


_concrete_contexts = {"fork": ForkContext(), "spawn": SpawnContext(), "forkserver": ForkServerContext()}
_default_context = DefaultContext()


def __getattr__(name):
    return getattr(_standard, name)


def __dir__():
    return sorted({*globals(), *dir(_standard)})
