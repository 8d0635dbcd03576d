# SPDX-License-Identifier: MIT
"""multiprocessing.reduction: the same module."""
import sys
from multiprocessing import reduction

sys.modules[__name__] = reduction
