# SPDX-License-Identifier: MIT
"""multiprocessing.popen_fork: the same module."""
import sys
from multiprocessing import popen_fork

sys.modules[__name__] = popen_fork
