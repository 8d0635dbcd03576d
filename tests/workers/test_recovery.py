"""What goes wrong in a worker ends the job it happened to, by name, and nothing else: nobody waits for ever and nothing
is left. Every mishap, under every kind of pool and every start method.

Pools are shared by the tests of this module: each test leaves a pool that works, which is a part of what is tested.
"""
import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.pool import MaybeEncodingError
from pathlib import Path

import mishaps
import psutil
import pytest

from pyconc.concurrent.futures.process import ProcessPoolExecutor
from pyconc.multiprocessing import get_context

LIMIT = 60      # seconds for anything that must happen
METHODS = ["fork", "forkserver", "spawn"]


def all_started(pids):
    """Waits until both workers have answered, so that it is known which one a job can kill."""
    deadline = time.monotonic() + LIMIT
    while len(set(pids())) < 2:
        assert time.monotonic() < deadline


class Executor:
    """A ProcessPoolExecutor of two workers, opened when it is needed."""

    def __init__(self, method, on_worker_death):
        self.breaks = on_worker_death == "break"
        self.how = {"mp_context": get_context(method), "on_worker_death": on_worker_death}
        self.pool = None

    def submit(self, function, *args):
        if self.pool is None:
            self.pool = ProcessPoolExecutor(2, **self.how)
            all_started(lambda: [job.result(LIMIT) for job in [self.pool.submit(mishaps.slow_pid) for _ in range(4)]])
        return self.pool.submit(function, *args)

    def submit_for(self, seconds, function):
        return self.pool.options(timeout=seconds).submit(function)

    def result(self, job):
        return job.result(LIMIT)

    def close(self):
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


class Pool:
    """A multiprocessing.Pool of two workers, opened when it is needed."""

    breaks = False

    def __init__(self, method):
        self.context = get_context(method)
        self.pool = None

    def submit(self, function, *args):
        if self.pool is None:
            self.pool = self.context.Pool(2)
            all_started(lambda: [job.get(LIMIT) for job in [self.pool.apply_async(mishaps.slow_pid) for _ in range(4)]])
        return self.pool.apply_async(function, args)

    def submit_for(self, seconds, function):
        return self.pool.apply_async(function, timeout=seconds)

    def result(self, job):
        return job.get(LIMIT)

    def close(self):
        if self.pool is not None:
            self.pool.close()
            self.pool.join()
            self.pool = None


KINDS = {"replace": lambda method: Executor(method, "replace"), "break": lambda method: Executor(method, "break"),
         "pool": Pool}


def belongings():
    """What a pool could leave: {descriptors}, {children}, and how many mappings of memory without names."""
    fds = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):      # the one that listdir used
            fds.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    return fds, children, Path("/proc/self/maps").read_text().count("memfd:")


@contextlib.contextmanager
def nothing_left():
    gc.collect()
    before, deadline = belongings(), time.monotonic() + LIMIT
    yield
    while True:
        gc.collect()
        *sets, maps = belongings()
        left = [after - old for after, old in zip(sets, before)] + [max(0, maps - before[-1])]
        if not any(left):
            return
        assert time.monotonic() < deadline, f"left: descriptors, children, mappings {left}"
        time.sleep(0.02)


@pytest.fixture(scope="module", params=[(kind, method) for kind in KINDS for method in METHODS], ids="-".join)
def subject(request):
    kind, method = request.param
    with nothing_left():
        subject = KINDS[kind](method)
        yield subject
        subject.close()


@pytest.fixture
def among_innocents(subject):
    """among_innocents(submit): the error of the job that submit() makes, with others before and behind it.

    Those end with their results; where a death breaks the pool, with that or as the guilty one does.
    """
    def among_innocents(submit, deadly=False):
        innocents = {subject.submit(mishaps.square, number): number for number in range(2)}
        guilty = submit()
        innocents |= {subject.submit(mishaps.square, number): number for number in range(2, 6)}
        held = subject.submit(time.sleep, 600) if deadly and subject.breaks else None
        with pytest.raises(Exception) as caught:
            subject.result(guilty)
        for job, number in innocents.items():
            try:
                assert subject.result(job) == number * number
            except BrokenProcessPool as error:
                assert deadly and subject.breaks, error
                assert mishaps.die.__name__ in str(error)
        if held is not None:
            with pytest.raises(BrokenProcessPool, match=mishaps.die.__name__):
                subject.result(held)
            with pytest.raises(BrokenProcessPool):
                subject.submit(mishaps.square, 1)
            subject.close()
        assert subject.result(subject.submit(mishaps.square, 9)) == 81
        return caught.value

    return among_innocents


def text(error):
    """All that a user is told: notes, causes, the remote traceback."""
    return "".join(traceback.format_exception(error))


# AddressSanitizer ends a process by itself.
CRASH = "exit code 1" if "PYCONC_SANITIZE" in os.environ else "SIGSEGV"


@pytest.mark.parametrize("how, told", [("killed", "SIGKILL"), ("segfault", CRASH),
                                       ("exits", r"exit (code|status) 3")])
def test_a_worker_that_dies(subject, among_innocents, tmp_path, how, told):
    path = str(tmp_path / "pid")
    error = among_innocents(lambda: subject.submit(mishaps.die, how, path), deadly=True)
    assert isinstance(error, BrokenProcessPool)
    assert type(error).__name__ == "WorkerDied"
    assert mishaps.die.__name__ in str(error) and repr(how) in str(error)
    assert re.search(told, str(error)), error
    assert re.search(rf"\b{Path(path).read_text()}\b", str(error)), error


def test_an_idle_worker_is_killed(subject):
    """Nobody is guilty: nobody is told, and jobs find another worker. Where a death breaks the pool, it does."""
    victim = subject.result(subject.submit(os.getpid))
    os.kill(victim, signal.SIGKILL)
    if subject.breaks:
        with pytest.raises(BrokenProcessPool, match=rf"\b{victim}\b"):
            while True:
                subject.result(subject.submit(mishaps.square, 1))
        subject.close()
    jobs = [subject.submit(mishaps.square, number) for number in range(6)]
    assert [subject.result(job) for job in jobs] == [number * number for number in range(6)]


def test_somebody_else_waits_for_a_worker(subject):
    """As a program may that has children of its own, or ignores SIGCHLD."""
    victim = subject.result(subject.submit(os.getpid))
    os.kill(victim, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):    # the pool was quicker, or it is the fork server's
        os.waitpid(victim, 0)
    if subject.breaks:
        with pytest.raises(BrokenProcessPool, match=rf"\b{victim}\b"):
            while True:
                subject.result(subject.submit(mishaps.square, 1))
        subject.close()
    assert victim not in {subject.result(subject.submit(os.getpid)) for _ in range(6)}


def test_a_job_runs_out_of_memory(subject, among_innocents):
    error = among_innocents(lambda: subject.submit(mishaps.run_out_of_memory))
    assert type(error) is MemoryError
    assert "run_out_of_memory" in text(error)


def test_no_memory_to_send_the_result(subject, among_innocents):
    error = among_innocents(lambda: subject.submit(mishaps.return_what_is_too_large))
    assert "MemoryError" in text(error) or "Cannot allocate memory" in text(error), text(error)


def test_an_argument_that_cannot_be_pickled(subject, among_innocents):
    error = among_innocents(lambda: subject.submit(mishaps.answer_to_arguments, mishaps.threading.Lock()))
    assert isinstance(error, TypeError)
    assert "cannot pickle '_thread.lock' object" in str(error)


def test_an_argument_that_cannot_be_unpickled(subject, among_innocents):
    error = among_innocents(lambda: subject.submit(mishaps.answer_to_arguments, mishaps.Unloadable("the argument")))
    assert isinstance(error, ArithmeticError)
    assert "the argument cannot be unpickled" in str(error)
    assert "_refuse" in text(error)     # where in the worker it was


def pids_of(subject):
    """Of all its workers: each takes some of so many calls at once."""
    return {subject.result(call) for call in [subject.submit(mishaps.slow_pid) for _ in range(20)]}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_argument_that_ends_who_unpickles_it(subject, error):
    """Not the worker."""
    pid = subject.result(subject.submit(os.getpid))
    guilty = subject.submit(mishaps.answer_to_arguments, mishaps.Leaving(error))
    with pytest.raises(error, match="on unpickling"):
        subject.result(guilty)
    assert pid in pids_of(subject)


@pytest.mark.parametrize("function, told", [
    (mishaps.return_what_leaves, "on unpickling"), (mishaps.return_what_leaves_when_pickled, "on pickling"),
    (mishaps.raise_what_leaves_when_pickled, "said by the worker")])
def test_a_result_that_ends_who_pickles_or_unpickles_it(subject, function, told):
    pid = subject.result(subject.submit(os.getpid))
    guilty = subject.submit(function)
    with pytest.raises((SystemExit, MaybeEncodingError)) as caught:
        subject.result(guilty)
    assert told in text(caught.value)
    assert pid in pids_of(subject)


def test_a_result_that_cannot_be_pickled(subject, among_innocents):
    error = among_innocents(lambda: subject.submit(mishaps.return_what_cannot_be_pickled))
    assert "cannot pickle '_thread.lock' object" in str(error)


def test_a_result_that_cannot_be_unpickled(subject, among_innocents):
    error = among_innocents(lambda: subject.submit(mishaps.return_what_cannot_be_loaded))
    assert "the result cannot be unpickled" in text(error)
    assert "return_what_cannot_be_loaded" in text(error)


@pytest.mark.parametrize("function", [mishaps.raise_what_cannot_be_loaded, mishaps.raise_what_cannot_be_pickled])
def test_an_exception_that_cannot_be_sent(subject, among_innocents, function):
    error = among_innocents(lambda: subject.submit(function))
    assert "said by the worker" in text(error)
    assert function.__name__ in text(error)


def test_a_job_that_hangs(subject, among_innocents):
    error = among_innocents(lambda: subject.submit_for(0.2, mishaps.hang))
    assert isinstance(error, TimeoutError)
    assert mishaps.hang.__name__ in text(error)


@pytest.mark.parametrize("method", METHODS)
def test_the_parent_is_killed(method, tmp_path):
    """With workers that work and workers that wait, of all three kinds of pool."""
    program = Path(__file__).parent / "orphans.py"
    with subprocess.Popen([sys.executable, program, method, tmp_path], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout.readline() == b"ready\n"
            left = psutil.Process(parent.pid).children(recursive=True)
            assert {int(name) for name in os.listdir(tmp_path)} < {child.pid for child in left}
        finally:
            parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(left, LIMIT)
    assert not alive
