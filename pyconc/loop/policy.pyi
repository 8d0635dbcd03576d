import asyncio
import sys

from pyconc.loop import Loop

if sys.version_info < (3, 16):
    class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> Loop: ...

def install() -> None: ...
