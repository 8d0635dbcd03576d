# SPDX-License-Identifier: MIT
"""What a worker process does. It imports little: its start and its memory are what a pool costs first."""
import fcntl
import gc
import os
import pickle
import signal
import sys
from multiprocessing.process import parent_process

from pyconc import _ipc
from pyconc.workers.remote import ByValue, Raised

_CACHED_MOST = 256
_GIL_IS_OPTIONAL = "t" in sys.abiflags     # freezing writes to all objects then
_NOTHING = object()
_NO_KWARGS = {}
_OF_MAIN = "main__' "    # of <module '__main__' ...>, or '__mp_main__'
_NOT_THERE = ("Worker processes do not have it: it was defined after they had started, or where they do not come by: "
              "in an interactive session, or below `if __name__ == \"__main__\":`. Define it at the top level of a "
              "module. (With the package cloudpickle, workers that are not forked have a session's functions.)")


def work(channel, number, memo, initializer, initargs, max_tasks, finalizer, limits=None, mask=None):
    """The target of a worker process: runs jobs of the channel until there are none for it.

    number: which of the channel's workers it is. max_tasks: after so many it ends; None: any number. limits: a Limits,
    or None. mask: the signals to be blocked from when SIGINT has its handler; None: as they are.
    """
    if not _GIL_IS_OPTIONAL:
        gc.freeze()     # the collector writes to all that it looks at, and a forked process copies what it writes to
    worker = Worker(channel, number)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, worker.interrupt)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _end_with_parent()
    memo.catch_crashes()
    if limits is not None:
        limits.begin(number)
    if limits is None or limits.memory is None:
        _ipc.keep_memory()
    if initializer is not None and not _initialize(memo, worker, initializer, initargs):
        return
    del initializer, initargs
    worker.run(max_tasks, None if limits is None else limits.exceeded)
    if finalizer is not None:
        _finalize(finalizer)


def _end_with_parent():
    """Has the kernel end this process when the parent is killed, whatever it runs: the end of a pipe is a signal."""
    sentinel = parent_process().sentinel
    try:
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    except (AttributeError, OSError):
        pass    # no Linux: take() sees it, between two jobs


def _log(message, error):
    import logging
    logging.getLogger("concurrent.futures").critical(message, exc_info=error)


def _initialize(memo, worker, initializer, initargs):
    _, error = worker.call(initializer, initargs)
    if error is not None:
        from traceback import format_exception
        memo.initializer_failed("".join(format_exception(error)))
        _log("Exception in initializer:", error)
    return error is None


def _finalize(finalizer):
    try:
        finalizer()
    except BaseException as error:
        _log("Exception in finalizer:", error)


class Worker:
    """One that takes jobs and answers them."""

    def __init__(self, channel, number):
        self.busy = False       # with code of the program
        self._task = 0
        self._channel = channel
        self._number = number
        self._functions = {}    # {pickle: function}

    def interrupt(self, signum, frame):
        """Ctrl-C goes to all processes of the terminal: it interrupts what runs, and leaves who waits alone.

        Another one is meant for a single task, which may have ended meanwhile.
        """
        unwanted = self._channel.interrupted(self._number)
        if self.busy and unwanted in (0, self._task):
            self.busy = False   # a second one meets what handles the first
            raise KeyboardInterrupt

    def call(self, fn, args, kwargs=_NO_KWARGS):
        """(value, None), or (None, what fn raised). interrupt() interrupts it, or nothing when it has just ended."""
        value, error = _NOTHING, None
        try:
            try:
                self.busy = True
                value = fn(*args, **kwargs)
                self.busy = False
            except BaseException as raised:
                if value is _NOTHING:
                    error = raised
                self.busy = False
        except KeyboardInterrupt as late:
            if value is _NOTHING and error is None:
                error = late.__context__
        return (value, None) if error is None else (None, error)

    def run(self, max_tasks, exceeded=None):
        """Answers jobs until there are none, or exceeded() after one of them."""
        done = 0
        while max_tasks is None or done < max_tasks:
            job = self._channel.take(self._number)
            if job is None:
                return
            self._answer(job)
            del job
            done += 1
            if exceeded is not None and exceeded():
                return

    def _answer(self, job):
        channel, task = self._channel, job[0]
        self._task = task
        try:
            blob, args, kwargs = channel.load(job)
            fn = self._functions.get(blob) or self._learn(blob)
        except BaseException as error:
            if isinstance(error, AttributeError) and _OF_MAIN in str(error):
                error.add_note(_NOT_THERE)
            channel.fail(task, Raised(error))
            return
        value, error = self.call(fn, args, kwargs)
        if error is not None:
            channel.fail(task, Raised(error))
            return
        del args, kwargs    # the result may have their memory
        try:
            channel.reply(task, value)
        except Exception as error:
            self._reply_by_value(task, value, error)
        except BaseException as error:
            channel.fail(task, Raised(error))

    def _learn(self, blob):
        if len(self._functions) >= _CACHED_MOST:
            self._functions.clear()
        fn = self._functions[blob] = pickle.loads(blob)
        return fn

    def _reply_by_value(self, task, value, error):
        try:
            self._channel.reply(task, ByValue(value))
        except BaseException:
            self._channel.fail(task, Raised(error, unsent=value))
