# SPDX-License-Identifier: MIT
"""What a worker leaves behind: the last words of its crash, and why its initializer failed. Workers import it."""
import os
from multiprocessing.reduction import DupFd

# Before the fork: a worker has each page to itself that it writes to.
try:
    import faulthandler
except ImportError:     # in an interpreter that is not the main one
    faulthandler = None

_FAILED = b"initializer\n"
_MOST = 1 << 16


class Memo:
    """A file without a name that the pool and one worker have open. It is the worker's argument."""

    _fd = -1    # for __del__(), when Ctrl-C comes as one is made

    def __init__(self, fd=None):
        self._fd = os.memfd_create("pyconc-worker") if fd is None else fd

    def __reduce__(self):
        return _receive, (DupFd(self._fd),)

    def __del__(self):
        self.close()

    def close(self):
        """Lets go of it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def catch_crashes(self):
        """In the worker: what faulthandler has to say goes here, instead of to where it went before."""
        if faulthandler is not None:
            faulthandler.enable(self._fd)

    def initializer_failed(self, text):
        """In the worker: its last words."""
        os.pwrite(self._fd, _FAILED + text.encode(errors="backslashreplace")[:_MOST], 0)

    def read(self):
        """(what faulthandler wrote, the traceback of the initializer that failed or None)."""
        data = os.pread(self._fd, _MOST + len(_FAILED), 0)
        if data.startswith(_FAILED):
            return "", data[len(_FAILED):].decode(errors="replace")
        return data.decode(errors="replace"), None


def _receive(duplicate):
    return Memo(duplicate.detach())
