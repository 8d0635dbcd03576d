# SPDX-License-Identifier: MIT
from typing import SupportsIndex

from pyconc import _ipc

__all__ = ["AtomicInt"]

class AtomicInt(_ipc.AtomicInt):
    async def wait_async(self, expected: SupportsIndex, timeout: float | None = None) -> bool: ...
