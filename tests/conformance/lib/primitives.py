"""CPython's lock_tests and queue tests on the implementation's threading, multiprocessing and queue."""
import importlib
import multiprocessing
import os
import queue
import threading
import unittest

import conformance_subst
from test import lock_tests, test_queue

os.environ["CONFORMANCE_PATCH"] = "modules"
DONE = conformance_subst.patch_modules()
OFFERED = {std: importlib.import_module(name) for std, name in DONE.items()}
STDLIB = not conformance_subst.spec().get("modules")

# class: (lock_tests' base, the attribute it makes one through)
LOCKS = {
    "Lock": ("LockTests", "locktype"),
    "RLock": ("RLockTests", "locktype"),
    "Event": ("EventTests", "eventtype"),
    "Condition": ("ConditionTests", "condtype"),
    "Semaphore": ("SemaphoreTests", "semtype"),
    "BoundedSemaphore": ("BoundedSemaphoreTests", "semtype"),
    "Barrier": ("BarrierTests", "barriertype"),
}


def has(std, name):
    return STDLIB or (std in OFFERED and hasattr(OFFERED[std], name))


def cases():
    for short, module in (("Thr", threading), ("Mp", multiprocessing)):
        for name, (base, attribute) in LOCKS.items():
            if not has(module.__name__, name):
                continue
            body = {attribute: staticmethod(getattr(module, name)), "__module__": __name__}
            if name == "Condition":
                body["locktype"] = staticmethod(module.RLock)
            yield type(f"{short}{name}Tests", (getattr(lock_tests, base),), body)
    for name in ("Queue", "LifoQueue", "PriorityQueue"):
        if has("queue", name):
            yield type(f"Q{name}Test", (getattr(test_queue, f"{name}Test"), unittest.TestCase),
                       {"queue": queue, "__module__": __name__})


globals().update((case.__name__, case) for case in cases())

if has("queue", "SimpleQueue"):
    class QSimpleQueueTest(test_queue.BaseSimpleQueueTest, unittest.TestCase):
        queue = queue

        def setUp(self):
            self.type2test = self.queue.SimpleQueue
            super().setUp()
