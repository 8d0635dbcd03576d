import multiprocessing
import multiprocessing.pool

from . import BROKEN


class _Pool(multiprocessing.pool.Pool):
    if BROKEN:
        def map(self, func, iterable, chunksize=None):
            return super().map(func, iterable, chunksize)[::-1]


def Pool(processes=None, initializer=None, initargs=(), maxtasksperchild=None):
    return _Pool(processes, initializer, initargs, maxtasksperchild, context=multiprocessing.get_context())


def Lock():
    return multiprocessing.get_context().Lock()
