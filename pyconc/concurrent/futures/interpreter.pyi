import sys

from pyconc.concurrent.futures.thread import ThreadPoolExecutor

if sys.version_info >= (3, 14):
    import concurrent.futures

    class InterpreterPoolExecutor(ThreadPoolExecutor, concurrent.futures.InterpreterPoolExecutor): ...
