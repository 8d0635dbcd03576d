# SPDX-License-Identifier: MIT
"""multiprocessing.popen_spawn_posix: the same module."""
import sys
from multiprocessing import popen_spawn_posix

sys.modules[__name__] = popen_spawn_posix
