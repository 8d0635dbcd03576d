import multiprocessing.pool
import multiprocessing.queues
from typing import Any

__all__ = ["Pool", "ThreadPool"]

class PipeQueue(multiprocessing.queues.SimpleQueue[Any]):
    def __init__(self, *, ctx: Any) -> None: ...

class Pool(multiprocessing.pool.Pool): ...
class ThreadPool(multiprocessing.pool.ThreadPool): ...
