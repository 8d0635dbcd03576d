# SPDX-License-Identifier: MIT
"""Calls for which the channel has no room yet."""
from collections import OrderedDict


class Waiting:
    """Calls by their Futures: the most urgent first, and of those the first that came."""

    def __init__(self):
        self._levels = {}   # {priority: {future: call}}

    def __bool__(self):
        return bool(self._levels)

    def __len__(self):
        return sum(map(len, self._levels.values()))

    def __iter__(self):
        return (future for level in list(self._levels.values()) for future in list(level))

    def add(self, future, call, priority=0, *, first=False):
        """Behind the others of its priority, or before them."""
        level = self._levels.setdefault(priority, OrderedDict())
        level[future] = call
        if first:
            level.move_to_end(future, last=False)

    def first(self):
        """(future, call) of the one whose turn it is."""
        level = self._levels[max(self._levels)]
        return next(iter(level.items()))

    def remove(self, future):
        """Takes it out; whether it was there."""
        for priority, level in self._levels.items():
            if level.pop(future, None) is not None:
                if not level:
                    del self._levels[priority]
                return True
        return False
