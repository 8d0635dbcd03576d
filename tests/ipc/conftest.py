"""Fixtures for what processes share."""
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

# A spawned child imports a test's functions by the name that pytest gave its file, wherever pytest was started: last of
# all, so that the package is the installed one.
sys.path.append(str(Path(__file__).parents[2]))


class Child:
    """A forked process that runs a function, with the Child if it takes an argument; what it returns, or what it raises
    as text, arrives here."""

    def __init__(self, function):
        context = multiprocessing.get_context("fork")
        self.ours, self.theirs = context.Pipe()
        self.process = context.Process(target=self.run, args=(function,), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # of a process with threads, 3.12
            self.process.start()

    def run(self, function):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            takes = function.__code__.co_argcount - len(function.__defaults__ or ())
            result = function(self) if takes else function()
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        self.theirs.send(("result", result))

    def tell(self):
        """From the child: has got to where the test waits for it."""
        self.theirs.send(("told", None))

    def wait_told(self):
        assert self.ours.poll(60), f"the child does not get there: {self.process}"
        assert self.ours.recv() == ("told", None)

    def result(self, timeout=60):
        assert self.ours.poll(timeout), f"the child hangs: {self.process}"
        kind, result = self.ours.recv()
        assert kind == "result", kind
        self.process.join(60)
        return result

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(60)


@pytest.fixture
def child():
    """child(function): a Child, killed at the end."""
    children = []

    def start(function):
        one = Child(function)
        children.append(one)
        return one

    yield start
    for one in children:
        if one.process.is_alive():
            one.kill()
        one.process.join(60)
        one.process.close()
        one.ours.close()
        one.theirs.close()


@pytest.fixture
def in_time():
    """in_time(seconds): a block that takes no longer than that, on any machine that is not stuck."""
    @contextlib.contextmanager
    def in_time(seconds=10):
        start = time.monotonic()
        yield
        assert time.monotonic() - start < seconds

    return in_time


def channel_worker(channel, worker):
    """What a process does that works for a channel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while (job := channel.take(worker)) is not None:
        try:
            blob, args, kwargs = channel.load(job)
            value = pickle.loads(blob)(*args, **kwargs)
            del args, kwargs
            channel.reply(job[0], value)
        except Exception as error:
            channel.fail(job[0], error)
        job = value = None
