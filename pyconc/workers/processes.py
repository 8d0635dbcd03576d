# SPDX-License-Identifier: MIT
"""The worker processes of a pool: starting them, seeing which have ended, and ending them."""
import os
import signal
import sys
import time
from multiprocessing import resource_tracker

from pyconc.workers.memo import Memo
from pyconc.workers.worker import work

# Calls of C alone, which no signal's handler interrupts before they have done it: signal's own is written in Python.
pthread_sigmask = sys.modules["_signal"].pthread_sigmask
_UNKNOWN = 255      # an exit code, as the standard library has it for a forkserver's child


def _pidfd(process):
    """A descriptor that is ready when it has ended, or -1.

    The end of a pipe, which multiprocessing has for that, says nothing as long as a process has the other end that
    another thread has forked at the same time.
    """
    try:
        return -1 if process._popen.method == "forkserver" else os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return -1


class WorkerProcess:
    """A process, its number in the channel and its memo."""

    _pidfd = -1     # for __del__(), when Ctrl-C comes as one is made

    def __init__(self, number, process, memo):
        self.number = number
        self.process = process
        self.memo = memo
        self.peak_memory = None
        self.spared_until = 0.0     # from another SIGINT
        self.is_doomed = False      # it is being killed on purpose
        self.began = time.monotonic()

    def watch(self):
        """Once it has been started: for a better sentinel."""
        self._pidfd = _pidfd(self.process)

    @property
    def sentinel(self):
        """Ready when it has ended."""
        return self.process.sentinel if self._pidfd < 0 else self._pidfd

    def close(self):
        """Lets go of what it has but the process."""
        self.memo.close()
        self.__del__()

    def __del__(self):
        fd, self._pidfd = self._pidfd, -1
        if fd >= 0:
            os.close(fd)

    def has_ended(self):
        """Whether it has; its exit code is known then."""
        popen = self.process._popen
        if popen is not None and popen.returncode is None and hasattr(os, "wait4"):
            try:
                pid, status, usage = os.wait4(popen.pid, os.WNOHANG)
                if pid != 0:
                    popen.returncode = os.waitstatus_to_exitcode(status)
                    self.peak_memory = usage.ru_maxrss * 1024
            except ChildProcessError:
                if popen.method != "forkserver":    # whose children are not ours
                    popen.returncode = _UNKNOWN     # somebody has waited for it before, or SIGCHLD is ignored
        return self.process.exitcode is not None

    def signal(self, number):
        """Sends it one."""
        try:
            os.kill(self.process.pid, number)
        except ProcessLookupError:
            pass    # it has ended meanwhile


class Processes:
    """Up to `most` workers of a channel. Whoever calls it has the pool's lock.

    arguments: what work() gets beyond the channel, the number and the memo. daemon: whether the processes are daemons.
    """

    def __init__(self, context, channel, most, arguments, daemon=None):
        self.by_pid = {}
        self.most = most
        self._context = context
        self._method = context.get_start_method(allow_none=False)
        self._channel = channel
        self._arguments = arguments
        self._daemon = daemon
        self._workers = {}

    def __len__(self):
        return len(self._workers)

    def __iter__(self):
        return iter(list(self._workers.values()))

    def start(self):
        """One more. Raises what Process.start() does."""
        number = next(n for n in range(self.most) if n not in self._workers)
        memo = Memo()
        inherits = self._method != "forkserver"
        mask = pthread_sigmask(signal.SIG_BLOCK, ())
        process = self._context.Process(target=work, args=(self._channel, number, memo, *self._arguments),
                                        kwargs={"mask": mask} if inherits else {})
        if self._daemon is not None:
            process.daemon = self._daemon
        worker = WorkerProcess(number, process, memo)
        try:
            if inherits:    # Ctrl-C is nothing to a child, nor to handlers of the program's in it, until work() has one
                if self._method == "spawn":
                    resource_tracker.ensure_running()   # which unblocks it when it has started that
                pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            process.start()
        finally:
            # Also when a signal's handler has raised just now, and before one can: nothing written in Python is called.
            started = process._popen
            if started is not None:
                self._workers[number] = worker
                self.by_pid[started.pid] = process
            pthread_sigmask(signal.SIG_SETMASK, mask)
            if started is None:
                worker.close()
        worker.watch()

    def remove(self, worker):
        """Forgets one that has ended."""
        del self._workers[worker.number]
        self.by_pid.pop(worker.process.pid, None)
        worker.process.join()   # or multiprocessing keeps it until the next one starts
        worker.close()

    def sentinels(self):
        """What is ready when one has ended."""
        return [worker.sentinel for worker in self]

    def signal(self, kill=False):
        """SIGTERM, or SIGKILL, for all that have not ended."""
        for process in list(self.by_pid.values()):
            try:
                if process.is_alive():
                    process.kill() if kill else process.terminate()
            except (ValueError, ProcessLookupError):
                pass    # it was closed, or has ended meanwhile
