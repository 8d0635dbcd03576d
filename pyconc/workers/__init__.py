# SPDX-License-Identifier: MIT
"""The engine of pyconc's process pools. What programs use of it is in concurrent.futures and multiprocessing.pool."""
from types import SimpleNamespace

state = SimpleNamespace()
"""In each worker process its own, empty at first: what an initializer puts there, calls and the finalizer find."""
