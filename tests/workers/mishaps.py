"""What goes wrong in a worker, as functions that it can import."""
import ctypes
import os
import resource
import signal
import threading
import time

MIB = 1 << 20


def square(number):
    """An innocent job, long enough to be in flight when another one goes wrong."""
    time.sleep(0.02)
    return number * number


def slow_pid():
    time.sleep(0.02)
    return os.getpid()


def answer_to_arguments(argument):
    return "called"


def die(how, path):
    """Writes its pid to a file and ends its process."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)
    os._exit(3)


def _address_space():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _limit(more):
    """Lets the process have so many bytes more of address space, or as many as it likes."""
    soft = resource.RLIM_INFINITY if more is None else _address_space() + more
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))


def run_out_of_memory():
    _limit(64 * MIB)
    try:
        return bytearray(1024 * MIB)
    finally:
        _limit(None)


class Heavy:
    """There is no memory to send it until it has been dropped."""

    def __init__(self):
        self.data = b"x" * (128 * MIB)
        _limit(16 * MIB)

    def __reduce__(self):
        return bytes, (self.data[:-1],)

    def __del__(self):
        _limit(None)


def return_what_is_too_large():
    return Heavy()


def _refuse(what):
    raise ArithmeticError(f"{what} cannot be unpickled")


class Unloadable:
    """Is pickled well and never unpickled."""

    def __init__(self, what):
        self.what = what

    def __reduce__(self):
        return _refuse, (self.what,)


class Leaving:
    """Ends the program that unpickles it, or so it thinks."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return _leave, (self.error,)


def _leave(error):
    raise error("on unpickling")


def return_what_leaves():
    return Leaving(SystemExit)


class LeavingWhenPickled:
    def __reduce__(self):
        raise SystemExit("on pickling")


def return_what_leaves_when_pickled():
    return LeavingWhenPickled()


class Left(Exception):
    def __reduce__(self):
        raise SystemExit("on pickling")


def raise_what_leaves_when_pickled():
    raise Left("said by the worker")


def return_what_cannot_be_loaded():
    return Unloadable("the result")


def return_what_cannot_be_pickled():
    return threading.Lock()


class Stubborn(Exception):
    """Pickles as Stubborn(message), which is an argument short."""

    def __init__(self, message, number):
        super().__init__(message)


def raise_what_cannot_be_loaded():
    raise Stubborn("said by the worker", 1)


class Locked(Exception):
    """Cannot be pickled."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


def raise_what_cannot_be_pickled():
    raise Locked("said by the worker")


def hang():
    time.sleep(600)


def note_and_hang(path):
    """Writes its pid to a file of that directory and never returns."""
    with open(os.path.join(path, str(os.getpid())), "w"):
        pass
    hang()
