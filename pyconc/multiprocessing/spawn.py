# SPDX-License-Identifier: MIT
"""multiprocessing.spawn: the same module."""
import sys
from multiprocessing import spawn

sys.modules[__name__] = spawn
