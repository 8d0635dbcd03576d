# SPDX-License-Identifier: MIT
"""Tells coroutines that the work of C threads is over: with one descriptor a loop, however many wait."""
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from pyconc import _hash, _native


class LoopBell:
    """Wakes the coroutines of one loop; there while some wait, each in a `with` of its own."""

    def __init__(self, loop: "asyncio.AbstractEventLoop", kind: "type[_hash.Bell] | type[_native.Bell]") -> None:
        self.loop = loop
        self.kind = kind
        self.bell = kind()
        self.waiting = 0
        loop.add_reader(self.bell.fileno(), self.answer)

    def answer(self) -> None:
        for over in self.bell.answer():
            if not over.done():
                over.set_result(None)

    def watch(self, work: Any) -> "asyncio.Future[None]":
        """A future of the loop that is done when the work is over."""
        over = self.loop.create_future()
        if not self.bell.watch(work, over):
            over.set_result(None)
        return over

    def __enter__(self) -> "LoopBell":
        self.waiting += 1
        return self

    def __exit__(self, *args: object) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            _bells.pop((self.loop, self.kind), None)
            if not self.loop.is_closed():
                self.loop.remove_reader(self.bell.fileno())
            del self.bell   # a traceback may keep what is here, but shall not keep the descriptor


_bells: "dict[tuple[asyncio.AbstractEventLoop, type], LoopBell]" = {}


def bell_of(loop: "asyncio.AbstractEventLoop", kind: "type[_hash.Bell] | type[_native.Bell]") -> LoopBell:
    """The loop's bell for work of that module."""
    bell = _bells.get((loop, kind))
    if bell is None:
        bell = _bells[loop, kind] = LoopBell(loop, kind)
    return bell


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_bells.clear)    # the descriptors are the parent's, too
