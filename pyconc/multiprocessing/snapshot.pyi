# SPDX-License-Identifier: MIT
from ctypes import _CData
from typing import Any, Generic, TypeVar, overload

from typing_extensions import Buffer

from pyconc import _ipc

__all__ = ["Snapshot"]

_T = TypeVar("_T")
_Object = TypeVar("_Object", bound=_CData)

class Snapshot(_ipc.Snapshot, Generic[_T]):
    @overload
    def __new__(cls, spec: int, value: Buffer | None = None) -> Snapshot[bytes]: ...
    @overload
    def __new__(cls, spec: type[_Object], value: _Object | None = None) -> Snapshot[_Object]: ...
    @overload
    def __new__(cls, spec: Any, value: Any = None) -> Snapshot[Any]: ...
    def write(self, value: Any) -> None: ...
    def read(self) -> _T: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
