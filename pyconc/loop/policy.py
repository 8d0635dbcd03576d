# SPDX-License-Identifier: MIT
"""asyncio's default: the event loop policy as long as Python has such, then new_event_loop() itself."""
import asyncio
import warnings

from pyconc.loop import new_event_loop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)     # 3.14 and 3.15 have policies and would rather not
    _Base = getattr(asyncio, "DefaultEventLoopPolicy", None)
    _set_policy = getattr(asyncio, "set_event_loop_policy", None)

if _Base is not None:
    class EventLoopPolicy(_Base):
        """asyncio.DefaultEventLoopPolicy with pyconc's loop: for asyncio.set_event_loop_policy()."""

        def new_event_loop(self):
            """A new pyconc.Loop."""
            return new_event_loop()

        __module__ = "pyconc"


def install():
    """See pyconc.install()."""
    if _Base is None or _set_policy is None:
        asyncio.new_event_loop = asyncio.events.new_event_loop = new_event_loop
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        _set_policy(EventLoopPolicy())
