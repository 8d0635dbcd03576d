# SPDX-License-Identifier: MIT
"""The two threads of a pool: one sees to its workers, one to results that nobody waits for."""
import math
import os
import select
import sys
import threading
import time
from functools import partial

_SOON = 0.01


class Bell:
    """Something to wait for beside processes."""

    _reader = _writer = -1      # for __del__(), when Ctrl-C comes as one is made

    def __init__(self):
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self):
        """Ready to be read once it was rung."""
        return self._reader

    def ring(self, *_):
        """Any thread may, at any time, also after it was closed."""
        try:
            os.write(self._writer, b"!")
        except OSError:
            pass    # it has been rung often enough

    def hush(self):
        """Until it is rung again."""
        try:
            os.read(self._reader, 1 << 16)
        except BlockingIOError:
            pass

    def close(self):
        """Lets go of it."""
        reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        if reader >= 0:
            os.close(reader)
            os.close(writer)

    __del__ = close


def collect(channel):
    """Ends the Futures of all results that are there. A callback that raises what is no Exception ends nothing else.

    OSError when there are results that cannot be read.
    """
    while True:
        try:
            return channel.collect()
        except OSError:
            raise
        except MemoryError:
            time.sleep(_SOON)   # nothing is lost until there is some
        except BaseException:
            _report()


def call(function):
    """Calls what may be the program's."""
    try:
        function()
    except BaseException:
        _report()


def _report():
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def wait(descriptors, seconds):
    """Until one of them is ready, or so many seconds; None: any number."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll(None if seconds is None else math.ceil(seconds * 1000))


class Supervisor(threading.Thread):
    """Calls pool.tend() whenever a worker has ended, the bell was rung, or as many seconds later as the pool says."""

    def __init__(self, pool, bell, daemon=False):
        super().__init__(name="pyconc-supervisor", daemon=daemon)
        self._pool = pool
        self._bell = bell

    def run(self):
        """Until the pool is over."""
        pool = self._pool
        if not pool.is_supervised_by(self):
            return
        try:
            pool.begin()
            while not pool.tend():
                wait([self._bell.fileno(), *pool.sentinels()], pool.looks_again())
                self._bell.hush()
        except BaseException as error:
            pool.break_down("The process pool has failed by itself.", cause=error)
            raise
        finally:
            pool.end()


def _call_late(collect, daemon):
    """Calls the callbacks that a thread has left which collected when there was no collector any longer."""
    try:
        threading.Thread(target=collect, name="pyconc-collector", daemon=daemon).start()
    except RuntimeError:
        collect()   # better than never


class Collector(threading.Thread):
    """Collects results while no thread waits for any, and calls the callbacks that those which do have left.

    collect: does it; whether results can be read.
    """

    def __init__(self, channel, collect, daemon=False):
        super().__init__(name="pyconc-collector", daemon=daemon)
        self._channel = channel
        self._collect = collect
        self._over = False

    def run(self):
        """Until stop(), or until nothing can be collected any longer."""
        while not self._over:
            if self._channel.watch() and not self._collect():
                break
        self._channel.relief = partial(_call_late, self._collect, self.daemon)
        self._collect()

    def stop(self):
        """Has it end."""
        self._over = True
        self._channel.wake()
