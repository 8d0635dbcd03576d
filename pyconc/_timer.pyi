import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

class Timer(threading.Thread):
    args: Iterable[Any]
    finished: threading.Event
    function: Callable[..., Any]
    interval: float
    kwargs: Mapping[str, Any]

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None: ...
    @property
    def daemon(self) -> bool: ...
    @daemon.setter
    def daemon(self, value: bool) -> None: ...
    def start(self) -> None: ...
    def run(self) -> None: ...
    def cancel(self) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...

def enumerate() -> list[threading.Thread]: ...
def active_count() -> int: ...

LINGER: float
NEVER: float
OF_THREAD: frozenset[str]
