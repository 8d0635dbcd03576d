# SPDX-License-Identifier: MIT
"""The two threads of a pool: one sees to its workers, one to results that nobody waits for."""
import os
import sys
import threading
from functools import partial
from multiprocessing.connection import wait


class Bell:
    """Something to wait for beside processes."""

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
    """Ends the Futures of all results that are there. A callback that raises what is no Exception ends nothing else."""
    while True:
        try:
            return channel.collect()
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


class Supervisor(threading.Thread):
    """Calls pool.tend() whenever a worker has ended, the bell was rung, or as many seconds later as the pool says."""

    def __init__(self, pool, bell, daemon=False):
        super().__init__(name="pyconc-supervisor", daemon=daemon)
        self._pool = pool
        self._bell = bell

    def run(self):
        """Until the pool is over."""
        pool = self._pool
        try:
            while not pool.tend():
                wait([self._bell, *pool.sentinels()], pool.looks_again())
                self._bell.hush()
        except BaseException as error:
            pool.break_down("The process pool has failed by itself.", cause=error)
            raise
        finally:
            pool.end()


def _call_late(channel, daemon):
    """Calls the callbacks that a thread has left which collected when there was no collector any longer."""
    try:
        threading.Thread(target=collect, args=(channel,), name="pyconc-collector", daemon=daemon).start()
    except RuntimeError:
        collect(channel)    # better than never


class Collector(threading.Thread):
    """Collects results while no thread waits for any, and calls the callbacks that those which do have left."""

    def __init__(self, channel, daemon=False):
        super().__init__(name="pyconc-collector", daemon=daemon)
        self._channel = channel
        self._over = False

    def run(self):
        """Until stop()."""
        while not self._over:
            if self._channel.watch():
                collect(self._channel)
        self._channel.relief = partial(_call_late, self._channel, self.daemon)
        collect(self._channel)

    def stop(self):
        """Has it end."""
        self._over = True
        self._channel.wake()
