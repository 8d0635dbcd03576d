# SPDX-License-Identifier: MIT
"""A thread pool in which each thread has an interpreter of its own. Python 3.14 and later."""
import concurrent.futures
import itertools
import threading
from concurrent.futures.interpreter import BrokenInterpreterPool, WorkerContext

from pyconc.concurrent.futures.thread import ThreadPoolExecutor

_counter = itertools.count()
_here = threading.local()       # context: the interpreter of this thread


def _run(task):
    return _here.context.run(task)


class InterpreterPoolExecutor(ThreadPoolExecutor, concurrent.futures.InterpreterPoolExecutor):
    """Runs calls in threads that have an interpreter, and so a GIL, each.

    max_workers, thread_name_prefix, initializer, initargs: as ThreadPoolExecutor takes them; the initializer is called
    in each interpreter, and BrokenInterpreterPool raised after it has failed. There are no daemons: Python may crash
    when a thread still runs in another interpreter at exit.

    Functions, arguments and results are copied from one interpreter to the other. Source:
    concurrent.futures.InterpreterPoolExecutor.
    """

    _broken_type = BrokenInterpreterPool

    def __init__(self, max_workers=None, thread_name_prefix="", initializer=None, initargs=()):
        self._new_context, self._task = WorkerContext.prepare(initializer, initargs)
        super().__init__(max_workers, thread_name_prefix or f"InterpreterPoolExecutor-{next(_counter)}", initializer,
                         initargs)

    def _hooks(self):
        context = self._new_context()

        def begin():
            context.initialize()
            _here.context = context

        def end():
            del _here.context
            context.finalize()

        return begin, end

    def submit(self, fn, /, *args, **kwargs):
        """Runs fn(*args, **kwargs) in one of the interpreters; a Future. Source: concurrent.futures.Executor.submit."""
        return super().submit(_run, self._task(fn, args, kwargs))
