# SPDX-License-Identifier: MIT
"""multiprocessing.synchronize on shared memory: locks that survive the death of who has them.

Each can be used by the processes, threads and coroutines (`async with lock`, `await event.wait_async()`) of a program
at once, and sent to any process at any time. Nothing of them has a name, and nothing is left behind.
"""
import threading
from multiprocessing.process import current_process
from time import monotonic

from pyconc import _ipc
from pyconc._ipc import OwnerDied as OwnerDied
from pyconc.multiprocessing.awaiting import NOT_YET, until

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier", "ReadWriteLock",
           "OwnerDied"]


def _me():
    """The caller, as the standard locks write it."""
    thread = threading.current_thread().name
    name = current_process().name
    return name if thread == "MainThread" else f"{name}|{thread}"


async def _acquired(attempt, shared, timeout):
    """What `async` forms of acquire() do."""
    if attempt():
        return True
    return await until(lambda: attempt() or NOT_YET, shared, timeout) is not NOT_YET


class _Locking:
    """Awaitable forms of Lock and RLock."""
    __slots__ = ()

    async def acquire_async(self, timeout=None):
        """acquire() as a coroutine of any asyncio loop."""
        from asyncio import current_task
        task = current_task()
        return await _acquired(lambda: self._attempt(task), self, timeout)

    async def __aenter__(self):
        try:
            return await self.acquire_async()
        except OwnerDied:
            # With `async with` nobody could let go of a lock that came with an exception.
            if self._holder() == "caller":
                self.release()
            raise

    async def __aexit__(self, *args):
        self.release()


class Lock(_Locking, _ipc.Lock):
    """A lock for processes, threads and coroutines: `with lock`, `async with lock`.

    When the process that has it dies, the next to acquire it gets it with an OwnerDied, and must release it; `with`
    raises after letting go. With recover= that is called instead, as recover(error) with the lock taken, and acquire()
    returns True. Source: multiprocessing.Lock.
    """
    __slots__ = ()

    def __repr__(self):
        owner = {"": "None", "caller": _me(), "thread": "SomeOtherThread", "process": "SomeOtherProcess"}
        return f"<{type(self).__name__}(owner={owner[self._holder()]})>"


class RLock(_Locking, _ipc.RLock):
    """A lock that its owner, a thread or a task, can take again: `with lock`, `async with lock`.

    An owner that dies leaves it to the next as a Lock. Source: multiprocessing.RLock.
    """
    __slots__ = ()

    async def acquire_async(self, timeout=None):
        """acquire() as a coroutine of any asyncio loop. Its task owns the lock, whatever else its thread runs."""
        if self._is_of_thread():
            raise RuntimeError("this thread holds the RLock by `with`: its tasks cannot wait for it")
        return await super().acquire_async(timeout)

    def __repr__(self):
        owner = {"": ("None", 0), "caller": (_me(), self._depth()), "thread": ("SomeOtherThread", "nonzero"),
                 "process": ("SomeOtherProcess", "nonzero")}
        return "<{}({}, {})>".format(type(self).__name__, *owner[self._holder()])


class _Counting(_ipc.Semaphore):
    """Awaitable forms of semaphores."""
    __slots__ = ()

    async def acquire_async(self, timeout=None):
        """acquire() as a coroutine of any asyncio loop."""
        return await _acquired(self._attempt, self, timeout)

    async def __aenter__(self):
        return await self.acquire_async()

    async def __aexit__(self, *args):
        self.release()

    # What the standard library's Queue, which ProcessPoolExecutor makes of whatever context, asks of a semaphore.

    @property
    def _semlock(self):
        return self

    def _get_value(self):
        return self.get_value()

    def _is_zero(self):
        return self.get_value() == 0


class Semaphore(_Counting):
    """Units that processes, threads and coroutines take and give back.

    Anybody may release one, so the units of a process that dies are gone, as in the standard library. With recover=
    they come back (960 at most), and who takes one has recover(error) called. Source: multiprocessing.Semaphore.
    """
    __slots__ = ()

    def __new__(cls, value=1, *, recover=None, ctx=None):
        return super().__new__(cls, value, False, recover)

    def __repr__(self):
        return f"<{type(self).__name__}(value={self.get_value()})>"


class BoundedSemaphore(_Counting):
    """A semaphore with never more units than at its beginning.

    The units of a process that dies come back, unless there are more than 960 in all. recover=, if any, is called as
    recover(error) by who takes such a unit. Source: multiprocessing.BoundedSemaphore.
    """
    __slots__ = ()

    def __new__(cls, value=1, *, recover=None, ctx=None):
        return super().__new__(cls, value, True, recover)

    def __repr__(self):
        return f"<{type(self).__name__}(value={self.get_value()}, maxvalue={self._most})>"


class _Seat:
    """What one task of a condition's waits for."""
    __slots__ = ("condition", "wait")

    def __init__(self, condition, wait):
        self.condition = condition
        self.wait = wait

    def arm(self):
        return self.condition._arm(self.wait)

    def heard(self):
        heard = self.condition._heard(self.wait)
        if heard is None:
            return NOT_YET
        self.wait = heard
        return True

    def leave(self):
        notified, self.wait = self.condition._leave(self.wait)
        return notified

    def desert(self):
        self.condition._desert(self.wait)


async def _retake(lock):
    """Takes the lock again, come what may: the exception there is to raise, or None."""
    from asyncio import current_task
    task = current_task()
    raised = None
    while True:
        try:
            await _acquired(lambda: lock._attempt(task), lock, None)
        except GeneratorExit:
            raise
        except BaseException as error:  # cancelled, or of recover=
            raised = raised or error
            if lock._holder() != "caller":
                continue
        return raised


class _Number:
    """A number where the standard condition has a semaphore, for who looks into it."""
    __slots__ = ("get_value",)

    def __init__(self, get_value):
        self.get_value = get_value


class Condition(_ipc.Condition):
    """A condition for processes, threads and coroutines: `with condition`, `async with condition`.

    lock: a Lock or RLock of this module, a new RLock by default. A notification goes to who has waited longest, and to
    the next when that one is killed before it is awake; who notifies waits for nobody.
    Source: multiprocessing.Condition.
    """
    __slots__ = ()

    def __new__(cls, lock=None, *, ctx=None):
        return super().__new__(cls, RLock() if lock is None else lock)

    def wait_for(self, predicate, timeout=None):
        """Waits until predicate() is true, up to `timeout` seconds (None: for ever): what it returned last.

        Source: multiprocessing.Condition.wait_for.
        """
        result = predicate()
        end = None if timeout is None else monotonic() + timeout
        while not result:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    async def acquire_async(self, timeout=None):
        """The lock's acquire_async()."""
        return await self._lock.acquire_async(timeout)

    async def __aenter__(self):
        return await self._lock.__aenter__()

    async def __aexit__(self, *args):
        self.release()

    async def wait_async(self, timeout=None):
        """wait() as a coroutine of any asyncio loop, for who has the lock by `async with`.

        Cancelled, it takes the lock back first. When it raises, a notification that it has had goes to another.
        """
        seat = _Seat(self, self._begin())
        failed = None
        try:
            try:
                await until(seat.heard, seat, timeout)
            except GeneratorExit:
                raise
            except BaseException as error:
                failed = error
            notified = seat.leave()
            again = await _retake(self._lock)
        except GeneratorExit:       # nobody will take the lock back
            seat.desert()
            raise
        raised = failed or again
        self._end(seat.wait, notified and raised is not None)
        if raised is not None:
            raise raised
        return notified

    async def wait_for_async(self, predicate, timeout=None):
        """wait_for() as a coroutine of any asyncio loop."""
        result = predicate()
        end = None if timeout is None else monotonic() + timeout
        while not result:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            await self.wait_async(left)
            result = predicate()
        return result

    @property
    def _sleeping_count(self):
        return _Number(self._waiting)

    @property
    def _woken_count(self):
        return _Number(int)

    _wait_semaphore = _woken_count

    def __repr__(self):
        return f"<{type(self).__name__}({self._lock!r}, {self._waiting()})>"


class Event(_ipc.Event):
    """An event for processes, threads and coroutines. Source: multiprocessing.Event."""
    __slots__ = ()

    async def wait_async(self, timeout=None):
        """wait() as a coroutine of any asyncio loop."""
        before = self._before()
        if self.is_set():
            return True
        return await until(lambda: self._was_set(before) or NOT_YET, self, timeout) is not NOT_YET

    def __repr__(self):
        return f"<{type(self).__qualname__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


class Barrier(_ipc.Barrier):
    """A barrier for processes, threads and coroutines. It breaks when one who waits at it is killed.

    Source: multiprocessing.Barrier.
    """
    __slots__ = ()

    async def wait_async(self, timeout=None):
        """wait() as a coroutine of any asyncio loop. Who is cancelled has not come."""
        if timeout is None:
            timeout = self._timeout
        index, number = await until(lambda: self._come() or NOT_YET, self)
        if number is None:
            return index
        try:
            over = await until(lambda: self._is_over(number) or NOT_YET, self, timeout)
        except threading.BrokenBarrierError:
            raise
        except BaseException:
            self._leave(number)
            raise
        if over is NOT_YET:
            if self._give_up(number):
                raise threading.BrokenBarrierError
            await until(lambda: self._is_over(number) or NOT_YET, self)
        return index

    def __repr__(self):
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"<{type(self).__module__}.{type(self).__qualname__} at {id(self):#x}: {state}>"


class _Side:
    """One side of a ReadWriteLock, with the methods of a Lock."""
    __slots__ = ("acquire", "acquire_async", "release", "_release_of_dead")

    def __init__(self, acquire, acquire_async, release, release_of_dead):
        self.acquire = acquire
        self.acquire_async = acquire_async
        self.release = release
        self._release_of_dead = release_of_dead

    def __enter__(self):
        try:
            return self.acquire()
        except OwnerDied:
            self._release_of_dead()
            raise

    def __exit__(self, *args):
        self.release()

    async def __aenter__(self):
        try:
            return await self.acquire_async()
        except OwnerDied:
            self._release_of_dead()
            raise

    async def __aexit__(self, *args):
        self.release()


class ReadWriteLock(_ipc.ReadWriteLock):
    """A lock that many may have to read, or one to write, in processes, threads and coroutines:
    `with lock.reader`, `with lock.writer`, `async with ...`.

    Who wants to write keeps new readers away. A reader that dies is forgotten; a writer that dies leaves the lock to
    the next as a Lock: even a reader that gets an OwnerDied has it to write then. recover= is called while nobody else
    reads or writes.
    """
    __slots__ = ()

    @property
    def reader(self):
        """The lock, to read."""
        return _Side(self.acquire_read, self.acquire_read_async, self.release_read, self._release_of_dead)

    @property
    def writer(self):
        """The lock, to write."""
        return _Side(self.acquire_write, self.acquire_write_async, self.release_write, self._release_of_dead)

    def _release_of_dead(self):
        """After an OwnerDied, with which the lock is taken, unless it is recover='s own."""
        if self._recover is None:
            self.release_write()

    async def acquire_read_async(self, timeout=None):
        """acquire_read() as a coroutine of any asyncio loop."""
        return await _acquired(self._attempt_read, self, timeout)

    async def acquire_write_async(self, timeout=None):
        """acquire_write() as a coroutine of any asyncio loop."""
        end = None if timeout is None else monotonic() + timeout
        if not await _acquired(self._attempt_word, self, timeout):
            return False
        taken = False
        try:
            left = None if end is None else max(end - monotonic(), 0)
            taken = await _acquired(self._attempt_write, self, left)
        finally:
            if not taken:
                self.release_write()
        return taken

    def __repr__(self):
        return f"<{type(self).__name__} at {id(self):#x}>"


def __getattr__(name):
    if name.startswith("__"):       # asked by `from ... import`: no reason to import the standard module
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multiprocessing import synchronize
    return getattr(synchronize, name)


def __dir__():
    from multiprocessing import synchronize
    return sorted({*globals(), *dir(synchronize)})
