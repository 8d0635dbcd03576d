# SPDX-License-Identifier: MIT
"""What can be called without the GIL: addresses with a signature, however they come."""
import re
import sys
from typing import Any

from pyconc import _native

# In the order of csrc/native/work.h.
SIGNATURES = (
    "void (void *)",
    "int (void *)",
    "int64_t (const void *, size_t, void *, size_t, void *)",
    "void (size_t, size_t, void *)",
    "int (size_t, size_t, void *)",
    "double (double)",
    "double (double, void *)",
)
CALL, CALL_INT, BLOCK, RANGE, RANGE_INT, UNARY, UNARY_DATA = range(7)

# Types that are passed the same way have one letter: v(oid), d(ouble), i(nt), w(ord), p(ointer).
_WORDS = {
    "void": "v", "double": "d", "float64_t": "d", "npy_double": "d",
    "int": "i", "signed int": "i", "int32_t": "i",
    **dict.fromkeys((
        "ulong", "longlong", "ulonglong", "int64_t", "uint64_t", "size_t", "ssize_t", "Py_ssize_t", "intptr_t",
        "uintptr_t", "ptrdiff_t", "npy_intp", "npy_uintp", "npy_int64", "npy_uint64"), "w"),
}
# In any order and number, with "long" among them, these are a word.
_LONG = {"long", "int", "signed", "unsigned"}
# What an argument can't be called.
_RESERVED = {"char", "short", "float", "complex", "_Complex", "imaginary", "_Imaginary", "bool", "_Bool", "struct",
             "union", "enum", *_LONG, *_WORDS}
_QUALIFIERS = {"const", "volatile", "restrict", "__restrict", "register"}
_FUNCFLAG_PYTHONAPI = 4  # of ctypes


def _letter(declaration: str) -> str | None:
    """The letter of an argument or result; None for what there is no letter for."""
    if "*" in declaration or "[" in declaration:
        return "p"
    words = [word for word in declaration.split() if word not in _QUALIFIERS]
    if len(words) > 1 and words[-1] not in _RESERVED:
        words.pop()     # the argument's name
    if "long" in words and _LONG.issuperset(words):
        return "w"
    return _WORDS.get(" ".join(words))


def _letters(signature: str) -> str | None:
    """"double (double x, void *)" is "ddp"; None for what is no signature or has types that are in none of ours."""
    match = re.fullmatch(r"\s*([^()]+?)\s*(?:\(\s*\*\s*\w*\s*\))?\s*\(([^()]*)\)\s*", signature)
    if match is None:
        return None
    result, arguments = match.groups()
    parts = [] if arguments.strip() in ("", "void") else arguments.split(",")
    letters = [_letter(part) for part in (result, *parts)]
    return None if None in letters else "".join(letter or "" for letter in letters)


_KINDS = {_letters(signature): kind for kind, signature in enumerate(SIGNATURES)}


def _kind(signature: str) -> int:
    kind = _KINDS.get(_letters(signature))
    if kind is None:
        raise ValueError(f"functions declared as {signature!r} can't be called, only these: {'; '.join(SIGNATURES)}")
    return kind


class Function:
    """A C function that threads call without the GIL.

    function: one of

    - a PyCapsule whose name is the C signature and whose context is the function's last argument (what
      scipy.LowLevelCallable and Cython's ``__pyx_capi__`` have), or a scipy.LowLevelCallable;
    - a function of a ctypes.CDLL, or a ctypes function pointer;
    - a cffi function, or a pointer to one;
    - what numba.cfunc returns;
    - an address (int).

    signature: a C signature, one of SIGNATURES up to the names of types that are passed the same way (every pointer is
    one, so are int64_t, long and size_t). Needed for an address and for a ctypes function without argtypes; otherwise
    it overrides what the function says of itself.
    data: the last argument, a `void *`: None for NULL, an address, a ctypes or cffi pointer, or a buffer, which is held
    while the function may be called; by default the capsule's context.

    Raises TypeError for what is no C function: a Python function, called by way of ctypes or cffi or not, and one of a
    ctypes.PyDLL need the GIL. ValueError for another signature. Whether an address or a cffi `extern "Python"` function
    leads into Python can't be seen: don't.
    """

    __slots__ = ("address", "data", "kind", "owner")

    def __init__(self, function: Any, signature: str | None = None, data: Any = None) -> None:
        self.owner = function, data  # a pointer does not keep alive what it leads to
        address, declared, context = _take_apart(function)
        if signature is None:
            signature = declared
        if signature is None:
            raise ValueError(f"what is the signature of {function!r}? Give signature=, or set its argtypes and restype")
        self.address = address
        self.kind = _kind(signature)
        self.data = _pointer(data) if data is not None else context

    def __repr__(self) -> str:
        return f"<Function {SIGNATURES[self.kind]!r} at {self.address:#x}>"


def _take_apart(function: Any) -> tuple[int, str | None, Any]:
    """Its address, its signature where that is known, and the last argument that comes with it."""
    if isinstance(function, int) and not isinstance(function, bool):
        if function <= 0:
            raise ValueError(f"no function has the address {function}")
        return function, None, None
    for take in (_of_capsule, _of_scipy, _of_ctypes, _of_cffi, _of_numba):
        if (found := take(function)) is not None:
            return found
    advice = "a thread that never takes the GIL can't call it"
    if hasattr(function, "py_func"):
        advice = "compile it with numba.cfunc"
    elif type(function).__name__ == "builtin_function_or_method":
        advice = "if it is a function of cffi's API mode, give ffi.addressof(lib, name)"
    elif callable(function):
        advice += "; pyconc.ThreadPoolExecutor can"
    raise TypeError(f"{function!r} is no C function: {advice}")


def _of_capsule(function: Any) -> tuple[int, str | None, Any] | None:
    parts = _native.unpack(function)
    if parts is None:
        return None
    address, name, context = parts
    return address, name, context or None


def _of_scipy(function: Any) -> tuple[int, str | None, Any] | None:
    # A tuple of a capsule, the function and its data: recognised without importing scipy.
    if not isinstance(function, tuple) or type(function).__name__ != "LowLevelCallable":
        return None
    capsule, inner, _ = tuple(tuple.__iter__(function))
    for look_into in (_of_ctypes, _of_cffi):  # they refuse what calls Python
        look_into(inner)
    return _of_capsule(capsule)


def _of_ctypes(function: Any) -> tuple[int, str | None, Any] | None:
    ctypes = sys.modules.get("ctypes")
    if ctypes is None or not isinstance(function, ctypes._CFuncPtr):
        return None
    if function._flags_ & _FUNCFLAG_PYTHONAPI:
        raise TypeError(f"{function!r} is called with the GIL, as all functions of a ctypes.PyDLL: "
                        "take it from a ctypes.CDLL if it does without")
    if _calls_python(function, set()):
        raise TypeError(f"{function!r} is a Python callback: a thread that never takes the GIL can't call it")
    address = ctypes.c_void_p.from_buffer_copy(function).value  # ctypes.cast() would make a cycle of it
    if not address:
        raise ValueError(f"{function!r} is a null pointer")
    if function.argtypes is None:
        return address, None, None
    types = [_name_of_ctype(ctypes, of) for of in (function.restype, *function.argtypes)]
    return address, f"{types[0]} ({', '.join(types[1:])})", None


def _calls_python(pointer: Any, seen: set[int]) -> bool:
    """Whether a thunk of ctypes, which leads into Python, is among the objects that it keeps alive."""
    if type(pointer).__name__ == "CThunkObject":
        return True
    seen.add(id(pointer))
    kept = getattr(pointer, "_objects", None) or {}
    values = kept.values() if isinstance(kept, dict) else (kept,)
    return any(_calls_python(one, seen) for one in values if id(one) not in seen)


def _name_of_ctype(ctypes: Any, of: Any) -> str:
    if of is None:
        return "void"
    if issubclass(of, ctypes._SimpleCData) and of._type_ not in "zZPO":
        if of._type_ in "lLqQ" and ctypes.sizeof(of) == 8:
            return "int64_t"
        return {"d": "double", "i": "int"}.get(of._type_, of.__name__)
    # numpy's ndpointer() is none of ctypes's own.
    return of.__name__ if issubclass(of, (ctypes.Structure, ctypes.Union)) else "void *"


def _is_cdata(value: Any) -> bool:
    return type(value).__module__ == "_cffi_backend" and "CData" in type(value).__name__


def _of_cffi(function: Any) -> tuple[int, str | None, Any] | None:
    backend = sys.modules.get("_cffi_backend")
    if backend is None or not _is_cdata(function):
        return None
    kind = backend.typeof(function)
    if kind.kind != "function":
        return None
    if "OwnGC" in type(function).__name__:
        raise TypeError(f"{function!r} is a Python callback: a thread that never takes the GIL can't call it")
    address = int(backend.cast(backend.new_primitive_type("uintptr_t"), function))
    if not address:
        raise ValueError(f"{function!r} is a null pointer")
    return address, kind.cname, None


def _of_numba(function: Any) -> tuple[int, str | None, Any] | None:
    if not hasattr(function, "address") or not hasattr(function, "ctypes") or not hasattr(function, "native_name"):
        return None
    return _of_ctypes(function.ctypes)


def _pointer(data: Any) -> Any:
    """What csrc/native takes for a `void *`: an int or a buffer."""
    parts = _native.unpack(data)
    if parts is not None:
        return parts[0]
    ctypes, backend = sys.modules.get("ctypes"), sys.modules.get("_cffi_backend")
    if ctypes is not None and isinstance(data, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p, ctypes._Pointer,
                                                ctypes._CFuncPtr)):
        # Its own memory holds the address: what is meant is what it points to.
        return ctypes.c_void_p.from_buffer_copy(data).value or 0
    if backend is not None and _is_cdata(data):
        return int(backend.cast(backend.new_primitive_type("uintptr_t"), data))
    if isinstance(data, int):
        return data
    try:
        memoryview(data).release()
    except TypeError:
        raise TypeError("data must be a buffer, a pointer or an address (for ctypes.byref(x) give x itself), "
                        f"not {type(data).__name__!r}") from None
    return data
