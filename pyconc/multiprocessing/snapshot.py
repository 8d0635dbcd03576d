# SPDX-License-Identifier: MIT
"""The latest state of something, written by one process and read by many, without a lock for those who read."""
import ctypes

from pyconc import _ipc

from .sharedctypes import _describe, _described, _memory

__all__ = ["Snapshot"]


class Snapshot(_ipc.Snapshot):
    """The latest value that was written, whole: a reader waits for nobody, and a writer who is killed in the middle
    leaves the value before.

    spec: how many bytes it holds at most (then it is written any bytes-like object, and read bytes), a ctypes type
    (read: a new object of it), or a dtype of numpy's (read: an array's element of it). value: what it holds first;
    without, no bytes, or zeros.
    Several writers come one after the other.
    """

    def __new__(cls, spec, value=None):
        capacity = _capacity(spec)
        self = super().__new__(cls, _memory(cls.bytes_for(capacity)), capacity)
        self._spec = spec
        if value is not None:
            self.write(value)
        elif not isinstance(spec, int):
            self._write(bytes(capacity))
        return self

    def write(self, value):
        """Makes `value` the latest."""
        spec = self._spec
        if isinstance(spec, int):
            self._write(value)
        elif isinstance(spec, type):
            if not isinstance(value, spec):
                raise TypeError(f"{value!r} is no {spec.__name__}")
            self._write(value)
        else:
            self._write(_element(value, spec).tobytes())

    def read(self):
        """The latest value."""
        spec, data = self._spec, self._read()
        if isinstance(spec, int):
            return data
        if isinstance(spec, type):
            return spec.from_buffer_copy(data)
        return _elements(data, spec)[0]

    def __repr__(self):
        return f"<Snapshot of {self._spec!r}, version {self.version}>"

    def __reduce__(self):
        spec = self._spec
        return _rebuild, (type(self), self._memory, _describe(spec) if isinstance(spec, type) else spec)


def _rebuild(cls, memory, spec):
    spec = _described(spec) if isinstance(spec, (tuple, type)) else spec
    self = _ipc.Snapshot.__new__(cls, memory, _capacity(spec))
    self._spec = spec
    return self


def _capacity(spec):
    if isinstance(spec, int):
        return spec
    if isinstance(spec, type):
        return ctypes.sizeof(spec)
    return spec.itemsize


def _element(value, dtype):
    from numpy import empty
    element = empty((), dtype)
    element[...] = value
    return element


def _elements(data, dtype):
    from numpy import frombuffer
    return frombuffer(data, dtype)
