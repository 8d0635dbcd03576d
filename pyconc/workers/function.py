# SPDX-License-Identifier: MIT
"""Functions as workers get them: a short pickle that each worker unpickles once, where that changes nothing."""
import pickle
import sys
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from pyconc.workers.remote import ByValue, Loaded, Rows, call, call_all

_CACHED_MOST = 256
_FUNCTIONS = frozenset({FunctionType, BuiltinFunctionType, type})
_UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError, RecursionError)


def qualified_name(fn):
    """module.qualname, as far as it has those."""
    fn = fn.fn if type(fn) is Rows else fn
    try:
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        module = getattr(fn, "__module__", None)
    except Exception:   # of the program's own __getattr__()
        name, module = type(fn).__qualname__, type(fn).__module__
    return f"{module}.{name}" if module not in (None, "builtins") else name


def _in_main_only(fn):
    """Whether no other process can import it: __main__ is no file, but an interactive session or a -c."""
    fn = fn.fn if type(fn) is Rows else fn
    while isinstance(fn, partial):
        fn = fn.func
    if getattr(fn, "__module__", None) != "__main__":
        return False
    main = sys.modules["__main__"]
    return getattr(main, "__file__", None) is None and getattr(main, "__spec__", None) is None


def _names(code):
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_constant(fn):
    """Whether a copy of the function stays what it is: it has no variables of its own and uses none of its module."""
    return (fn.__closure__ is None and fn.__defaults__ is None and fn.__kwdefaults__ is None
            and not fn.__globals__.keys() & set(_names(fn.__code__)))


def _blob(fn):
    """Its pickle, where that is always the same; None when it has to be pickled with its arguments."""
    if type(fn) is Rows:
        return _blob_of_rows(fn)
    if type(fn) is BuiltinFunctionType and not isinstance(fn.__self__, ModuleType | None):
        return None
    try:
        return pickle.dumps(fn)
    except _UNPICKLABLE:
        return pickle.dumps(ByValue(fn)) if type(fn) is FunctionType and _is_constant(fn) else None


def _blob_of_rows(rows):
    blob = _blob(rows.fn)
    return None if blob is None else pickle.dumps(Rows(Loaded(blob), rows.star))


def _only_call(rows, row):
    """The arguments of the call that is a task of its own."""
    return row if rows.star and type(row) in (tuple, list) else (row,)


class Functions:
    """What a pool knows of functions that it has sent.

    imports_main: whether its workers import the program's main module, which an interactive session has not as a file.
    """

    def __init__(self, imports_main):
        self._imports_main = imports_main
        self._blobs = {}
        self._known = {}    # {blob: function}
        self._call = pickle.dumps(call)
        self._call_all = pickle.dumps(call_all)

    def pack(self, fn, args, kwargs):
        """(blob, args, kwargs) to be sent for a call of fn(*args, **kwargs)."""
        if type(fn) in _FUNCTIONS or (type(fn) is Rows and type(fn.fn) in _FUNCTIONS):
            blob = self._blobs.get(fn)
            if blob is None:
                blob = self._learn(fn)
            if blob:
                return blob, args, kwargs
        if self._imports_main and _in_main_only(fn):
            try:
                return self._whole(fn, args, kwargs)
            except Exception:
                pass    # without cloudpickle, it goes as it is
        return self._call, (fn, *args), kwargs

    def _learn(self, fn):
        """b"" for one that goes with its arguments."""
        try:
            blob = None if self._imports_main and _in_main_only(fn) else _blob(fn)
        except Exception:
            blob = None     # it will raise again, for the call
        if len(self._blobs) >= _CACHED_MOST:
            self._blobs.clear()
            self._known.clear()
        self._blobs[fn] = blob or b""
        if blob:
            self._known[blob] = fn
        return blob

    def _whole(self, fn, args, kwargs):
        return self._call_all, (ByValue((fn, args, kwargs)),), {}

    def by_value(self, blob, args, kwargs):
        """The same call, all of it pickled by cloudpickle. Raises what that raises."""
        if blob == self._call_all:
            return blob, args, kwargs
        if blob == self._call:
            return self._whole(args[0], args[1:], kwargs)
        return self._whole(pickle.loads(blob), args, kwargs)

    def describe(self, blob, args, kwargs):
        """(name of the function, args, kwargs) of what was packed."""
        if blob == self._call_all:
            try:
                fn, args, kwargs = pickle.loads(args[0].data)
            except Exception:
                return "a function", (), {}
        elif blob == self._call:
            fn, *args = args
        else:
            fn = self._known.get(blob)
        if type(fn) is Rows and len(args[0]) == 1:
            args = _only_call(fn, *args[0])
        return "a function" if fn is None else qualified_name(fn), args, kwargs
