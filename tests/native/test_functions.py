"""Where C functions come from, and what is refused because it needs the GIL."""
import array
import ctypes
import gc
import math
import struct

import pytest

from pyconc import native
from pyconc.native import SIGNATURES, Function
from pyconc.native.function import _letters

VALUES = array.array("d", range(100))


def halves(function, **options):
    out = array.array("d", bytes(800))
    native.map_arrays(function, VALUES, out, **options).result()
    return list(out) == [value / 2 for value in VALUES]


def address(function):
    return ctypes.cast(function, ctypes.c_void_p).value


@pytest.fixture
def capsule():
    """Makes a capsule of an address, a name and a context."""
    new, set_context = ctypes.pythonapi.PyCapsule_New, ctypes.pythonapi.PyCapsule_SetContext
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    set_context.argtypes = [ctypes.py_object, ctypes.c_void_p]
    kept = []

    def make(pointer, name, context=None):
        kept.append(name)
        made = new(pointer, name, None)
        set_context(made, context)
        return made
    return make


@pytest.mark.parametrize("signature, letters", [
    *zip(SIGNATURES, ("vp", "ip", "wpwpwp", "vwwp", "iwwp", "dd", "ddp")),
    ("double(double)", "dd"), ("double (*)(double)", "dd"), (" double  f (double x , void* data) ", "ddp"),
    ("double (double x, void* data)", "ddp"), ("double (double, void *const)", "ddp"),
    ("long (void *, unsigned long, char [], Py_ssize_t n, const struct thing *)", "wpwpwp"),
    ("void (size_t begin, ssize_t end, double *)", "vwwp"), ("void ()", "v"), ("void (void)", "v"),
    ("int (int, char * *)", "iip"), ("float (double)", None), ("double", None), ("", None), ("double (double", None),
    ("double (double), void", None), ("double (unsigned)", None), ("double complex (double complex)", None),
    ("double (long double)", None), ("int (int unsigned)", None), ("double (float double)", None),
    ("long long int (unsigned long int n, long unsigned, signed long long)", "wwww"),
])
def test_signatures(signature, letters):
    assert _letters(signature) == letters


# ctypes.

def test_ctypes(lib):
    assert halves(lib.halve)
    assert repr(Function(lib.halve)) == f"<Function 'double (double)' at {address(lib.halve):#x}>"


def test_ctypes_pointer_of_an_address(lib):
    pointer = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address(lib.halve))
    assert halves(pointer)


def test_ctypes_without_argtypes(library_path):
    plain = ctypes.CDLL(str(library_path)).halve
    with pytest.raises(ValueError, match="what is the signature of .* or set its argtypes and restype"):
        Function(plain)
    assert halves(plain, signature="double (double)")


def test_pointers_of_ctypes_as_data(lib):
    """What they point to is meant, not the memory that the pointer is in."""
    libc = ctypes.CDLL(None)
    for length, data in ((libc.strlen, ctypes.c_char_p(b"hello, world")),
                         (libc.wcslen, ctypes.c_wchar_p("hello, world")),
                         (libc.strlen, ctypes.cast(b"hello, world", ctypes.c_void_p)),
                         (libc.strlen, ctypes.pointer(ctypes.create_string_buffer(b"hello, world")))):
        with pytest.raises(native.NativeError, match="returned 12 "):
            native.run(address(length), data=data, signature="int (void *)").result()
    assert Function(lib.increment, data=lib.halve).data == address(lib.halve)
    assert Function(lib.increment, data=ctypes.c_char_p()).data == 0


def test_ctypes_functions_stay_as_they_were(lib):
    """ctypes.cast() would have made the function keep itself alive."""
    before = dict(lib.halve._objects)
    Function(lib.halve)
    assert lib.halve._objects == before


@pytest.mark.parametrize("kind", [ctypes.c_ulong, ctypes.c_longlong, ctypes.c_ssize_t, ctypes.c_size_t])
def test_words(library_path, kind):
    function = ctypes.CDLL(str(library_path)).count_range
    function.restype, function.argtypes = None, [kind, kind, ctypes.POINTER(ctypes.c_double)]
    seen = bytearray(10)
    native.map_ranges(function, 10, data=seen).result()
    assert seen == b"\1" * 10


def test_python_callbacks_of_ctypes_are_refused():
    kind = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    callback = kind(lambda x: x)
    again = ctypes.cast(callback, kind)
    for function in (callback, again):
        with pytest.raises(TypeError, match="is a Python callback: a thread that never takes the GIL can't call it"):
            Function(function)


def test_functions_with_the_gil_are_refused():
    for function in (ctypes.pythonapi.PyFloat_FromDouble, ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(1)):
        with pytest.raises(TypeError, match="is called with the GIL"):
            Function(function, "void (void *)")


def test_unsupported_signatures(lib):
    with pytest.raises(ValueError, match=r"declared as 'c_float \(c_float\)' can't be called, only these: void \(void"):
        Function(lib.single)
    with pytest.raises(ValueError, match=r"declared as 'void \(char\)' can't be called"):
        Function(lib.single, "void (char)")


# Capsules.

def test_capsule(lib, capsule):
    assert halves(capsule(address(lib.halve), b"double (double)"))
    factor = ctypes.c_double(0.5)
    assert halves(capsule(address(lib.scale), b"double (double, void *)", ctypes.addressof(factor)))
    other = ctypes.c_double(7)
    scaled = capsule(address(lib.scale), b"double (double, void *)", ctypes.addressof(other))
    assert halves(scaled, data=factor)     # what is given comes before the context


def test_wrong_capsules(lib, capsule):
    with pytest.raises(ValueError, match="declared as 'pyconc.thing' can't be called"):
        Function(capsule(address(lib.halve), b"pyconc.thing"))
    nameless = capsule(address(lib.halve), None)
    with pytest.raises(ValueError, match="what is the signature of"):
        Function(nameless)
    assert halves(nameless, signature="double (double)")


def test_scipy(lib, capsule):
    scipy = pytest.importorskip("scipy", reason="scipy is not installed")
    assert halves(scipy.LowLevelCallable(lib.halve))
    factor = ctypes.c_double(0.5)
    pointer = ctypes.cast(ctypes.pointer(factor), ctypes.c_void_p)
    assert halves(scipy.LowLevelCallable(lib.scale, pointer))
    assert halves(scipy.LowLevelCallable(capsule(address(lib.halve), b"double (double)")))
    callback = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(lambda x: x)
    with pytest.raises(TypeError, match="is a Python callback"):
        Function(scipy.LowLevelCallable(callback))


# cffi and numba.

def test_cffi(library_path):
    cffi = pytest.importorskip("cffi", reason="cffi is not installed")
    ffi = cffi.FFI()
    ffi.cdef("double halve(double); double scale(double, void *); void count_range(size_t, size_t, void *);")
    library = ffi.dlopen(str(library_path))
    assert halves(library.halve)
    assert halves(ffi.addressof(library, "halve"))
    assert halves(library.scale, data=ffi.new("double *", 0.5))
    seen = ffi.new("unsigned char[10]")
    native.map_ranges(library.count_range, 10, 2, data=seen).result()
    assert bytes(ffi.buffer(seen)) == b"\1" * 10
    callback = ffi.callback("double(double)", lambda x: x)
    with pytest.raises(TypeError, match="is a Python callback"):
        Function(callback)
    with pytest.raises(TypeError, match="is no C function"):
        Function(ffi.new("double *"))
    with pytest.raises(ValueError, match="null pointer"):
        Function(ffi.cast("double(*)(double)", 0))


def test_numba():
    numba = pytest.importorskip("numba", reason="numba is not installed")
    types = numba.types

    @numba.cfunc("float64(float64)")
    def halve(x):
        return x / 2

    assert halves(halve)
    assert halves(halve.ctypes)
    assert halves(halve.address, signature="double (double)")

    @numba.cfunc(types.void(types.uintp, types.uintp, types.CPointer(types.uint8)))
    def count(begin, end, seen):
        for i in range(begin, end):
            seen[i] += 1

    seen = bytearray(1000)
    native.map_ranges(count, 1000, 7, data=seen).result()
    assert seen == b"\1" * 1000
    with pytest.raises(TypeError, match="compile it with numba.cfunc"):
        Function(numba.njit(lambda x: x))


# Addresses, and what is none.

def test_address(lib):
    assert halves(address(lib.halve), signature="double (double)")
    with pytest.raises(ValueError, match="what is the signature of"):
        Function(address(lib.halve))
    for wrong in (0, -5):
        with pytest.raises(ValueError, match=f"no function has the address {wrong}"):
            Function(wrong, "void (void *)")


@pytest.mark.parametrize("thing, advice", [
    (lambda x: x, "pyconc.ThreadPoolExecutor can"), (math.sin, "ffi.addressof"), ("sin", "never takes the GIL"),
    (None, "never takes the GIL"), (5.0, "never takes the GIL"), (True, "never takes the GIL"),
    ((1, 2, 3), "never takes the GIL")])
def test_what_is_no_c_function(thing, advice):
    with pytest.raises(TypeError, match="is no C function: .*" + advice):
        Function(thing)


# Data.

def test_kinds_of_data(lib):
    factor = ctypes.c_double(0.5)
    for data in (factor, struct.pack("d", 0.5), array.array("d", [0.5]), ctypes.addressof(factor),
                 ctypes.pointer(factor), ctypes.c_void_p(ctypes.addressof(factor)), memoryview(struct.pack("d", 0.5))):
        assert halves(lib.scale, data=data)
    for data, name in ((0.5, "float"), ("0.5", "str"), (ctypes.byref(factor), "CArgObject")):
        with pytest.raises(TypeError, match=f"data must be a buffer, a pointer or an address .* not '{name}'"):
            Function(lib.scale, data=data)


def test_data_without_anybody_who_holds_it(lib):
    function = Function(lib.scale, data=ctypes.pointer(ctypes.c_double(0.5)))
    gc.collect()
    assert halves(function)
