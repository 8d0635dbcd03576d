# SPDX-License-Identifier: MIT
"""multiprocessing.resource_tracker: the same module."""
import sys
from multiprocessing import resource_tracker

sys.modules[__name__] = resource_tracker
