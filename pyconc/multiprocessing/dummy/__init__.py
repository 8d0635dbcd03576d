# SPDX-License-Identifier: MIT
"""multiprocessing.dummy: the same package."""
import sys
from multiprocessing import dummy

sys.modules[__name__] = dummy
sys.modules[f"{__name__}.connection"] = dummy.connection
