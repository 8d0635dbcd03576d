# SPDX-License-Identifier: MIT
"""multiprocessing.heap: the same module."""
import sys
from multiprocessing import heap

sys.modules[__name__] = heap
