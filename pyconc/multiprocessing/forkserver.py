# SPDX-License-Identifier: MIT
"""multiprocessing.forkserver: the same module."""
import sys
from multiprocessing import forkserver

sys.modules[__name__] = forkserver
