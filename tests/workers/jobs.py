"""What the tests have workers do: functions that a worker imports by name."""
import contextlib
import os
import resource
import signal
import time

from pyconc.workers import state


def double(number):
    return 2 * number


def total(*numbers, **more):
    return sum(numbers) + sum(more.values())


def tell(connection, word):
    """Says where it is."""
    connection.send(word)


def tell_and_wait(told, event):
    """Says that it runs, and goes on when it may."""
    told.put(os.getpid())
    event.wait()
    return os.getpid()


def tell_and_sleep(told):
    told.put(os.getpid())
    time.sleep(600)


def note(path, word):
    """Appends a word to a file."""
    with open(path, "a") as file:
        file.write(f"{word}\n")


def note_end(path):
    note(path, os.getpid())


class EndNoted:
    """Called as a finalizer."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        note(self.path, os.getpid())


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_with(*arguments):
    die()


def die_until(path, times):
    """Kills its process, so many times in all; then the pid."""
    with open(path, "a+") as file:
        file.write("x")
        file.seek(0)
        died = len(file.read()) - 1
    if died < times:
        die()
    return os.getpid()


def fail(message="told by the worker"):
    raise LookupError(message)


def leave(code):
    os._exit(code)


def nest(method):
    """A pool in a worker of a pool."""
    from pyconc.concurrent.futures import ProcessPoolExecutor
    from pyconc.multiprocessing import get_context
    with ProcessPoolExecutor(1, get_context(method)) as pool:
        return pool.submit(double, 21).result()


def interrupt_and_wait(told):
    """Ends when Ctrl-C comes."""
    with contextlib.suppress(KeyboardInterrupt):
        told.put(os.getpid())
        time.sleep(600)
    return "interrupted"


def ignores_sigterm(told):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told.put(os.getpid())
    time.sleep(600)


class Greeting:
    """Its method changes what it is called on, in the worker."""

    def __init__(self):
        self.times = 0

    def greet(self):
        self.times += 1
        return self.times


def set_state(value):
    state.value = value


def state_and_calls():
    state.calls = getattr(state, "calls", 0) + 1
    return state.value, state.calls


class CallsNoted:
    """Called as a finalizer."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        note(self.path, state.calls)


STATE = []


def keep(value):
    """What an initializer left in this worker."""
    STATE.append(value)


def kept():
    return STATE


def page_faults_of(make):
    """How many pages the kernel gave to this process meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    make()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def objects():
    return [str(number) for number in range(150_000)]


def blocks():
    return [b"x" * 300_000 for _ in range(30)]
