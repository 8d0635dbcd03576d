# SPDX-License-Identifier: MIT
"""multiprocessing.util: the same module."""
import sys
from multiprocessing import util

sys.modules[__name__] = util
