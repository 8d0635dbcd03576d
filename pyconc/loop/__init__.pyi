import asyncio
import ssl as _ssl
from collections.abc import Callable
from os import PathLike
from socket import socket
from typing import Any, TypeVar, overload

_P = TypeVar("_P", bound=asyncio.BaseProtocol)

__all__ = ["Loop", "new_event_loop"]

class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None: ...
    @property
    def watchdog(self) -> float | None: ...
    @watchdog.setter
    def watchdog(self, seconds: float | None) -> None: ...
    # what asyncio.SelectorEventLoop has in the newest Python, on every Python
    @overload
    async def create_connection(
        self, protocol_factory: Callable[[], _P], host: str | None = ..., port: int | str | None = ..., *,
        ssl: bool | _ssl.SSLContext | None = None, family: int = 0, proto: int = 0, flags: int = 0, sock: None = None,
        local_addr: tuple[str | None, int] | None = None, server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None, ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None, interleave: int | None = None,
        all_errors: bool = False) -> tuple[asyncio.Transport, _P]: ...
    @overload
    async def create_connection(
        self, protocol_factory: Callable[[], _P], host: None = None, port: None = None, *,
        ssl: bool | _ssl.SSLContext | None = None, family: int = 0, proto: int = 0, flags: int = 0, sock: socket,
        local_addr: None = None, server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None, ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None, interleave: int | None = None,
        all_errors: bool = False) -> tuple[asyncio.Transport, _P]: ...
    async def create_unix_connection(
        self, protocol_factory: Callable[[], _P],
        path: str | bytes | PathLike[str] | PathLike[bytes] | None = None, *,
        ssl: bool | _ssl.SSLContext | None = None, sock: socket | None = None, server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None) -> tuple[asyncio.Transport, _P]: ...
    async def getaddrinfo(
        self, host: str | bytes | None, port: str | bytes | int | None, *, family: int = 0, type: int = 0,
        proto: int = 0, flags: int = 0) -> list[Any]: ...
    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int],
        flags: int = 0) -> tuple[str, str]: ...
    async def shutdown_default_executor(self, timeout: float | None = None) -> None: ...

def new_event_loop() -> Loop: ...
