# SPDX-License-Identifier: MIT
"""multiprocessing.process: the same module."""
import sys
from multiprocessing import process

sys.modules[__name__] = process
