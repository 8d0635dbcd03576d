"""What workers of a Pool run."""
import os
import signal
import threading
import time
from concurrent.futures import CancelledError

from pyconc.multiprocessing import Pool, get_context

started_with = None


def pid_and(item):
    return os.getpid(), item


def give(*args, **kwargs):
    return args, kwargs


def note(path, item):
    """Appends a line to a file."""
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\n" % item)
    return item


def fail_at(item):
    if item % 4 == 3:
        raise LookupError(item)
    return item


def fail_after_notice(path, item):
    note(path, item)
    return fail_at(item)


def raise_timeout():
    raise TimeoutError("of the job")


def raise_stop_iteration(*args):
    raise StopIteration(*args)


class Unsent(Exception):
    """With attributes of the names that pools have used."""

    def __init__(self, count):
        super().__init__(count)
        self.unsent = self.tb = count


def raise_unsent(count):
    raise Unsent(count)


def raise_cancelled(text):
    raise CancelledError(text)


def lock():
    return threading.Lock()


def wait_for(path):
    """Returns once the file is there."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


def wait_unless_first(number, path):
    if number:
        wait_for(path)
    return number


def start_with(value):
    global started_with
    started_with = value


def what_it_started_with():
    return started_with


def refuse_to_start():
    raise ArithmeticError("no start")


def ignore_sigterm(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(path, "w"):
        pass
    time.sleep(600)


def pool_of_its_own(item):
    """In a worker that may have children."""
    with Pool(1) as pool:
        return pool.apply(abs, (item,))


class WithChildren(get_context("fork").Process):
    """A worker that may have children: the way programs do it."""

    @property
    def daemon(self):
        return False

    @daemon.setter
    def daemon(self, value):
        pass


class ContextWithChildren(type(get_context("fork"))):
    Process = WithChildren
