# SPDX-License-Identifier: MIT
"""Integers in shared memory that are changed without a lock."""
from pyconc import _ipc

from . import awaiting

__all__ = ["AtomicInt"]


class AtomicInt(_ipc.AtomicInt):
    __doc__ = _ipc.AtomicInt.__doc__

    async def wait_async(self, expected, timeout=None):
        """wait() of a coroutine."""
        def changed():
            return self.load() != expected or awaiting.NOT_YET

        return await awaiting.until(changed, self, timeout) is not awaiting.NOT_YET
