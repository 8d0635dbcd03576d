import logging
import threading
import traceback
from collections.abc import Callable
from typing import NamedTuple

logger: logging.Logger

class Waiting(NamedTuple):
    thread: threading.Thread
    lock: object
    stack: traceback.StackSummary

def watch_deadlocks(on: bool = True, *, callback: Callable[[list[Waiting]], object] | None = None) -> None: ...
