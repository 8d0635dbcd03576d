# SPDX-License-Identifier: MIT
"""queue."""
from queue import *  # noqa: F403
