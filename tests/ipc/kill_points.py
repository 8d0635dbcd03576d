"""kill_points.py OPERATION COUNT: kills processes in the middle of an operation on a shared object, one after each of
COUNT of its instructions, evenly chosen (0: of all), and looks each time whether who is left can go on and has lost
nothing but that operation. Linux on x86-64.

The operation is stepped through once, instruction by instruction. Each process after that is stopped by a breakpoint at
one of the instructions found, in pyconc._ipc or in libc on its behalf, and killed there.
"""
import ctypes
import os
import signal
import sys
import threading
import warnings
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from pyconc._ipc import Channel
from pyconc.multiprocessing.queues import Queue
from pyconc.multiprocessing.synchronize import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    OwnerDied,
    RLock,
    Semaphore,
)

TRACEME, PEEKTEXT, POKETEXT, PEEKUSER, POKEUSER, CONT, SINGLESTEP = 0, 1, 4, 3, 6, 7, 9
RIP = 16 * 8    # in struct user
BREAKPOINT = 0xcc
MOST_TURNS = 64     # of an instruction in a loop

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, address=0, data=0):
    ctypes.set_errno(0)
    result = libc.ptrace(request, pid, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"ptrace {request}")
    return result


def may_trace():
    """Whether the system lets a process be traced by its parent."""
    child = os.fork()
    if child == 0:
        try:
            ptrace(TRACEME, 0)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


class Traced:
    """A child that has stopped just before the operation."""

    def __init__(self, scenario, shared):
        self.pid = os.fork()
        if self.pid == 0:
            self.run(scenario, shared)
        assert self.wait() == signal.SIGSTOP

    def run(self, scenario, shared):
        try:
            scenario.prepare(shared)
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            scenario.operate(shared)
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(1)

    def wait(self):
        """The signal it has stopped by."""
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSTOPPED(status), f"the operation fails: {status}"
        return os.WSTOPSIG(status)

    def step(self):
        ptrace(SINGLESTEP, self.pid)
        return self.wait() == signal.SIGTRAP

    def where(self):
        return ptrace(PEEKUSER, self.pid, RIP)

    def goes_to(self, address, turn):
        """Runs to an instruction, for the turn-th time: whether it comes there."""
        before = ptrace(PEEKTEXT, self.pid, address)
        for more in reversed(range(turn)):
            ptrace(POKETEXT, self.pid, address, (before & ~0xff) | BREAKPOINT)
            ptrace(CONT, self.pid)
            if self.wait() != signal.SIGTRAP:
                return False
            assert self.where() == address + 1
            ptrace(POKETEXT, self.pid, address, before)
            ptrace(POKEUSER, self.pid, RIP, address)
            if more and not self.step():
                return False
        return True

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def code_of(*names):
    """The addresses of libraries' code."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            place, flags, *rest = line.split()
            if "x" in flags and any(os.path.basename(rest[-1]).startswith(name) for name in names):
                start, end = place.split("-")
                found.append(range(int(start, 16), int(end, 16)))
    return found


def points_of(scenario):
    """(address, turn) of each instruction between the first one in pyconc._ipc and the last."""
    shared = scenario.make()
    child = Traced(scenario, shared)
    scenario.before(shared)
    trace = []
    while child.step():
        trace.append(child.where())
    child.kill()
    scenario.check(shared)
    ours, libraries = code_of("_ipc."), code_of("_ipc.", "libc.", "libc-")
    inside = [at for at, address in enumerate(trace) if any(address in code for code in ours)]
    turns, points = Counter(), []
    for at, address in enumerate(trace):
        turns[address] += 1
        if inside[0] <= at <= inside[-1] and turns[address] <= MOST_TURNS and any(address in c for c in libraries):
            points.append((address, turns[address]))
    return points


def take(lock, timeout=30):
    """Whether the lock was taken, of whomever."""
    try:
        return lock.acquire(timeout=timeout)
    except OwnerDied:
        return True


class Waiter(threading.Thread):
    """Waits in a thread of the survivor; result() is how that ended."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.start()

    def run(self):
        self.returned = self.function()

    def result(self):
        self.join(60)
        assert not self.is_alive(), "a waiter hangs"
        return self.returned


class Watched:
    """A shared object and who waits for it."""

    def __init__(self, it, wait=None):
        self.it = it
        self.waiter = None
        if wait is not None:
            self.wait(wait)

    def wait(self, function):
        self.waiter = Waiter(lambda: function(self.it))


class Scenario:
    def prepare(self, shared):
        """In the child, before the operation."""

    def before(self, shared):
        """In the survivor, while the child has stopped before the operation."""

    def meanwhile(self, shared):
        """In the survivor, while the child has stopped in it."""


class Acquire(Scenario):
    def __init__(self, kind):
        self.make = kind

    def operate(self, lock):
        lock.acquire()

    def check(self, lock):
        for _ in range(2):
            assert take(lock)
            lock.release()
        assert not getattr(lock, "locked", bool)()


class Release(Acquire):
    """Of a lock that somebody waits for."""

    def __init__(self, kind):
        self.make = lambda: Watched(kind())

    def prepare(self, shared):
        shared.it.acquire()

    def before(self, shared):
        shared.wait(lambda lock: take(lock) and not lock.release())

    def operate(self, shared):
        shared.it.release()

    def check(self, shared):
        assert shared.waiter.result()
        super().check(shared.it)


class AcquireSemaphore(Scenario):
    def make(self):
        return Semaphore(1)

    def operate(self, semaphore):
        semaphore.acquire()

    def check(self, semaphore):
        assert semaphore.get_value() in (0, 1)
        semaphore.release()
        value = semaphore.get_value()
        assert value in (1, 2)
        assert [semaphore.acquire(timeout=0) for _ in range(value + 1)] == [True] * value + [False]


class ReleaseSemaphore(Scenario):
    def make(self):
        return Watched(Semaphore(0), lambda semaphore: semaphore.acquire(timeout=30))

    def operate(self, shared):
        shared.it.release()

    def check(self, shared):
        shared.it.release()
        assert shared.waiter.result()
        assert shared.it.get_value() in (0, 1)
        shared.it.release()
        assert shared.it.acquire(timeout=30)


def wait_once(condition, begins=None):
    assert take(condition)
    if begins is not None:
        begins.set()
    try:
        return condition.wait(30)
    except OwnerDied:
        return True
    finally:
        condition.release()


class Notify(Scenario):
    """One waits; the survivor notifies, too, as the child may not have come to it."""

    def make(self):
        shared = Watched(Condition(Lock()), wait_once)
        while shared.it._waiting() == 0:
            pass
        return shared

    def prepare(self, shared):
        shared.it.acquire()

    def operate(self, shared):
        shared.it.notify()
        shared.it.release()

    def check(self, shared):
        assert take(shared.it)
        shared.it.notify()
        shared.it.release()
        assert shared.waiter.result() is True
        assert shared.it._waiting() == 0


class Wait(Scenario):
    """The child has waited longest. A notification that it got, or would get, goes to the survivor's waiter."""

    def make(self):
        return Watched(Condition(Lock()))

    def prepare(self, shared):
        shared.it.acquire()

    def operate(self, shared):
        shared.it.wait(0.001)

    def notify(self, shared):
        begins = threading.Event()
        shared.wait(lambda condition: wait_once(condition, begins))
        assert begins.wait(60)
        assert take(shared.it)
        shared.it.notify()
        shared.it.release()

    def meanwhile(self, shared):
        if not shared.it.locked():
            self.notify(shared)

    def check(self, shared):
        if shared.waiter is None:
            if take(shared.it):
                shared.it.release()
            self.notify(shared)
        assert shared.waiter.result() is True


class Put(Scenario):
    def __init__(self, item):
        self.item = item

    def make(self):
        queue = Queue()
        queue.put_many([b"first", b"second"])
        return queue

    def operate(self, queue):
        queue.put(self.item)

    def check(self, queue):
        queue.put(b"last")
        count = queue.qsize()
        got = [queue.get(timeout=30) for _ in range(count)]
        assert got in ([b"first", b"second", b"last"], [b"first", b"second", self.item, b"last"])
        assert queue.empty()


class PutForWaiter(Put):
    """Somebody waits for the item, or else for the next."""

    def make(self):
        return Watched(Queue(), lambda queue: queue.get(timeout=30))

    def operate(self, shared):
        shared.it.put(self.item)

    def check(self, shared):
        shared.it.put(b"last")
        got = [shared.waiter.result(), *(shared.it.get(timeout=30) for _ in range(shared.it.qsize()))]
        assert got in ([b"last"], [self.item, b"last"])


class Get(Scenario):
    def __init__(self, item):
        self.item = item

    def make(self):
        queue = Queue(maxsize=3)
        queue.put_many([self.item, b"second", b"third"])
        return queue

    def operate(self, queue):
        assert queue.get() == self.item

    def check(self, queue):
        count = queue.qsize()
        assert count in (2, 3)
        for number in range(5 - count):
            queue.get(timeout=30) if queue.full() else queue.put(number, timeout=30)
        got = [queue.get(timeout=30) for _ in range(queue.qsize())]
        assert got[:1] in ([b"second"], [b"third"]) and queue.empty()
        queue.put(b"last", timeout=30)
        assert queue.get(timeout=30) == b"last"


class SetEvent(Scenario):
    def make(self):
        return Watched(Event(), lambda event: event.wait(30))

    def operate(self, shared):
        shared.it.set()

    def check(self, shared):
        shared.it.set()
        assert shared.waiter.result() is True


class LeaveBarrier(Scenario):
    """The child has not come after all, or breaks the barrier by its death."""

    def make(self):
        return Watched(Barrier(4))

    def prepare(self, shared):
        _, shared.round = shared.it._come()

    def before(self, shared):
        def wait(barrier):
            try:
                barrier.wait()
            except threading.BrokenBarrierError:
                return True

        shared.wait(wait)
        while shared.it.n_waiting < 2:
            pass

    def operate(self, shared):
        shared.it._leave(shared.round)

    def check(self, shared):
        try:
            index, _ = shared.it._come()
        except threading.BrokenBarrierError:
            index = None
        assert index in (None, 1, 2)
        if index == 1:
            shared.it.abort()
        assert shared.waiter.result() is True


class TakeJob(Scenario):
    """Of two workers the child is the first. Its task is known to be its, or is there for the second."""

    def __init__(self, payload, value=None):
        self.payload, self.value = payload, value

    def make(self):
        shared = Watched(Channel(2))
        shared.futures = [Future() for _ in range(3)]
        for number, future in enumerate(shared.futures):
            assert shared.it.send(future, b"", (number, self.payload), {})
        return shared

    def operate(self, shared):
        assert shared.it.load(shared.it.take(0))[1][0] == 0

    def check(self, shared):
        channel = shared.it
        guilty = channel.bury(0)
        assert guilty in (None, shared.futures[0])
        left = [future for future in shared.futures if not future.done() and future is not guilty]
        for future in left:
            job = channel.take(1, timeout=30)
            _, (number, payload), _ = channel.load(job)
            assert shared.futures[number] is future and payload == self.payload
            channel.reply(job[0], payload)
        assert channel.collect() == len(left)
        assert all(future.result(0) == self.payload for future in left)
        assert channel.in_flight() == 0 and channel.worker(0)["pid"] == 0
        assert channel.send(Future(), b"", (), {}) and channel.take(1, timeout=30)
        return guilty


class Reply(TakeJob):
    """The result is there as a whole, or the task is known to be the dead one's."""

    def prepare(self, shared):
        shared.task = shared.it.take(0)[0]

    def operate(self, shared):
        shared.it.reply(shared.task, self.value)

    def check(self, shared):
        guilty = super().check(shared)
        first = shared.futures[0]
        assert not first.done() if guilty is first else first.result(0) == self.value


SCENARIOS = {
    "lock_acquire": Acquire(Lock), "lock_release": Release(Lock),
    "rlock_acquire": Acquire(RLock),
    "semaphore_acquire": AcquireSemaphore(), "semaphore_release": ReleaseSemaphore(),
    "bounded_acquire": Acquire(BoundedSemaphore), "bounded_release": Release(BoundedSemaphore),
    "condition_notify": Notify(), "condition_wait": Wait(),
    "queue_put": Put(b"small"), "queue_put_for_waiter": PutForWaiter(b"small"),
    "queue_put_large": Put(b"x" * 100_000),
    "queue_get": Get(b"small"), "queue_get_large": Get(b"x" * 100_000),
    "event_set": SetEvent(), "barrier_leave": LeaveBarrier(),
    "channel_take": TakeJob("small"), "channel_take_large": TakeJob(b"x" * 100_000),
    "channel_reply": Reply("small", (1, "small")), "channel_reply_large": Reply("small", b"y" * 100_000),
}


def main(name, count):
    if not may_trace():
        return 77   # as automake's tests that are skipped
    scenario = SCENARIOS[name]
    points = points_of(scenario)
    chosen = points if count == 0 else [points[at * len(points) // count] for at in range(min(count, len(points)))]
    killed, checks = 0, []
    with ThreadPoolExecutor(64) as survivors:
        for point in chosen:
            shared = scenario.make()
            child = Traced(scenario, shared)
            scenario.before(shared)
            came = child.goes_to(*point)
            if came:
                scenario.meanwhile(shared)
            killed += came
            child.kill()
            checks.append((point, survivors.submit(scenario.check, shared)))
    wrong = [(point, check.exception()) for point, check in checks if check.exception() is not None]
    for (address, turn), error in wrong:
        start = code_of("_ipc.")[0].start
        print(f"killed at {address:#x} (pyconc._ipc is at {start:#x}), turn {turn}: {error!r}")
    print(f"{name}: {len(points)} instructions, {killed} of {len(chosen)} killed, {len(wrong)} wrong")
    return len(wrong) > 0


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)     # of forks beside threads: the children are killed
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
