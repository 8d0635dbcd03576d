"""pyconc: Python's concurrency APIs in C."""
from pyconc.loop import Loop, new_event_loop

__all__ = ["Loop", "new_event_loop"]
__version__ = "0.1.0"
