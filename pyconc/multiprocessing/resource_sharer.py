# SPDX-License-Identifier: MIT
"""multiprocessing.resource_sharer: the same module."""
import sys
from multiprocessing import resource_sharer

sys.modules[__name__] = resource_sharer
