# ruff: noqa: F401
import queue
from queue import Empty, Full, LifoQueue, PriorityQueue, SimpleQueue

from . import BROKEN


class Queue(queue.Queue):
    if BROKEN:
        def qsize(self):
            return super().qsize() + 1
