# The loop's, the transports' and the pool's C halves. Not to be used by themselves: what they become is typed
# in pyconc.loop and pyconc.concurrent.futures.
from typing import Any

def __getattr__(name: str) -> Any: ...
