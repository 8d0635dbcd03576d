# SPDX-License-Identifier: MIT
"""multiprocessing.sharedctypes: ctypes objects in shared memory, and Value and Array, which are such objects behind a
lock. All of them can be sent to another process at any time."""
import ctypes
import weakref
from multiprocessing.context import reduction

from pyconc import _ipc

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

_CELL_MOST = 1024   # bytes: above, memory of its own is less of a waste

typecode_to_type = {
    "c": ctypes.c_char, "u": ctypes.c_wchar,
    "b": ctypes.c_byte, "B": ctypes.c_ubyte,
    "h": ctypes.c_short, "H": ctypes.c_ushort,
    "i": ctypes.c_int, "I": ctypes.c_uint,
    "l": ctypes.c_long, "L": ctypes.c_ulong,
    "q": ctypes.c_longlong, "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float, "d": ctypes.c_double,
}
_type_to_typecode = {type_: code for code, type_ in typecode_to_type.items()}


def _type_of(typecode_or_type):
    type_ = typecode_to_type.get(typecode_or_type, typecode_or_type)
    try:
        ctypes.sizeof(type_)
    except TypeError:
        raise TypeError(f"bad typecode {typecode_or_type!r} (must be a ctypes type or one of "
                        f"{', '.join(typecode_to_type)})") from None
    return type_


def _memory(size):
    return _ipc.Cell(size) if size <= _CELL_MOST else _ipc.Segment(size)


def _new_value(type_):
    return _object_in(type_, _memory(ctypes.sizeof(type_)))


def _object_in(type_, memory):
    reduction.ForkingPickler.register(type_, reduce_ctype)
    obj = type_.from_buffer(memory)
    obj._wrapper = memory
    return obj


def _memory_of(obj):
    """The shared memory a ctypes object of ours begins with; None for any other."""
    memory = getattr(obj, "_wrapper", None)
    return memory if isinstance(memory, (_ipc.Cell, _ipc.Segment)) else None


def RawValue(typecode_or_type, *args):
    """A ctypes object in shared memory, initialised with `args`."""
    obj = _new_value(_type_of(typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type, size_or_initializer):
    """A ctypes array in shared memory: so many zeros, or as long as the initializer and filled from it."""
    type_ = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_value(type_ * size_or_initializer)
    obj = _new_value(type_ * len(size_or_initializer))
    obj.__init__(*size_or_initializer)
    return obj


def Value(typecode_or_type, *args, lock=True, ctx=None):
    """A RawValue behind a lock: a new RLock, or the one given; without one if lock is False."""
    obj = RawValue(typecode_or_type, *args)
    return obj if lock is False else synchronized(obj, _lock(lock, ctx))


def Array(typecode_or_type, size_or_initializer, *, lock=True, ctx=None):
    """A RawArray behind a lock: a new RLock, or the one given; without one if lock is False."""
    obj = RawArray(typecode_or_type, size_or_initializer)
    return obj if lock is False else synchronized(obj, _lock(lock, ctx))


def _lock(lock, ctx):
    if lock is True or lock is None:
        return None if ctx is None else ctx.RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return lock


def copy(obj):
    """A copy of a ctypes object, in shared memory."""
    new = _new_value(type(obj))
    ctypes.pointer(new)[0] = obj
    return new


def synchronized(obj, lock=None, ctx=None):
    """A ctypes object behind a lock."""
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    return _class_for(type(obj))(obj, lock, ctx)


def _class_for(type_):
    if issubclass(type_, ctypes._SimpleCData):
        return Synchronized
    if issubclass(type_, ctypes.Array):
        special = {ctypes.c_char: SynchronizedString, ctypes.c_wchar: SynchronizedUnicode}
        return special.get(type_._type_, SynchronizedArray)
    if type_ not in _classes:
        fields = {name: _make_property(name) for name in _field_names(type_)}
        _classes[type_] = type("Synchronized" + type_.__name__, (SynchronizedBase,), fields)
    return _classes[type_]


_classes = weakref.WeakKeyDictionary()


def _field_names(type_):
    """Those of its bases, too."""
    return [field[0] for base in reversed(type_.__mro__) for field in base.__dict__.get("_fields_", ())]


def _make_property(name):
    def get(self):
        self.acquire()
        try:
            return getattr(self._obj, name)
        finally:
            self.release()

    def set(self, value):
        self.acquire()
        try:
            setattr(self._obj, name, value)
        finally:
            self.release()

    return property(get, set)


# Pickles. A type of arrays has no name to be found by: it goes as its items' type and its length.

def _describe(type_):
    return (_describe(type_._type_), type_._length_) if issubclass(type_, ctypes.Array) else type_


def _described(description):
    return _described(description[0]) * description[1] if isinstance(description, tuple) else description


def reduce_ctype(obj):
    memory = _memory_of(obj)
    if memory is not None:
        return rebuild_ctype, (_describe(type(obj)), memory)
    if hasattr(obj, "_wrapper"):    # made by the standard library
        from multiprocessing.sharedctypes import reduce_ctype
        return reduce_ctype(obj)
    return obj.__reduce_ex__(2)     # not shared: a copy


def rebuild_ctype(description, memory):
    return _object_in(_described(description), memory)


def _rebuild_synchronized(description, memory, lock):
    return synchronized(rebuild_ctype(description, memory), lock)


class SynchronizedBase:
    """What Value and Array return: a ctypes object and its lock."""

    def __init__(self, obj, lock=None, ctx=None):
        self._obj = obj
        self._lock = lock or _new_lock(ctx)
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *args):
        return self._lock.__exit__(*args)

    def __reduce__(self):
        obj = self.get_obj()
        memory = _memory_of(obj)
        if memory is None:
            return synchronized, (obj, self.get_lock())
        return _rebuild_synchronized, (_describe(type(obj)), memory, self.get_lock())

    def get_obj(self):
        """The ctypes object."""
        return self._obj

    def get_lock(self):
        """The lock."""
        return self._lock

    def __repr__(self):
        return f"<{type(self).__name__} wrapper for {self._obj}>"


def _new_lock(ctx):
    if ctx is not None:
        return ctx.RLock()
    from .synchronize import RLock
    return RLock()


class Synchronized(_ipc.Value, SynchronizedBase):
    """A number or a character behind a lock."""

    def __init__(self, obj, lock=None, ctx=None):
        self._bind(obj, lock or _new_lock(ctx), _memory_of(obj), _type_to_typecode.get(type(obj), ""), 1)


class SynchronizedArray(_ipc.Array, SynchronizedBase):
    """An array behind a lock. Its buffer, which numpy takes, is the memory itself, past the lock."""

    def __init__(self, obj, lock=None, ctx=None):
        self._bind(obj, lock or _new_lock(ctx), _memory_of(obj), _type_to_typecode.get(obj._type_, ""), len(obj))


class SynchronizedString(SynchronizedArray):
    """An array of bytes: `value` is what is before the first zero byte."""

    value = _make_property("value")
    raw = _make_property("raw")


class SynchronizedUnicode(SynchronizedArray):
    """An array of characters: `value` is what is before the first null character."""

    value = _make_property("value")


def __getattr__(name):
    if name.startswith("__"):       # asked by `from ... import`: no reason to import the standard module
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multiprocessing import sharedctypes
    return getattr(sharedctypes, name)


def __dir__():
    from multiprocessing import sharedctypes
    return sorted({*globals(), *dir(sharedctypes)})
