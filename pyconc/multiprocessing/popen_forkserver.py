# SPDX-License-Identifier: MIT
"""multiprocessing.popen_forkserver: the same module."""
import sys
from multiprocessing import popen_forkserver

sys.modules[__name__] = popen_forkserver
