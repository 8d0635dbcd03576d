"""The functions of functions.c, and what they take as data."""
import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

WORD, POINTER = ctypes.c_size_t, ctypes.c_void_p
BLOCK = ctypes.c_int64, [POINTER, WORD, POINTER, WORD, POINTER]
DECLARED = {
    "count_range": (None, [WORD, WORD, POINTER]),
    "check_range": (ctypes.c_int, [WORD, WORD, POINTER]),
    "hold_range": (ctypes.c_int, [WORD, WORD, POINTER]),
    "invert": BLOCK,
    "sum_rows": BLOCK,
    "halve": (ctypes.c_double, [ctypes.c_double]),
    "scale": (ctypes.c_double, [ctypes.c_double, POINTER]),
    "increment": (None, [POINTER]),
    "fail_with": (ctypes.c_int, [POINTER]),
    "hold": (None, [POINTER]),
    "single": (ctypes.c_float, [ctypes.c_float]),
}


class Account(ctypes.Structure):
    """See functions.c."""

    _fields_ = [(name, ctypes.c_int64) for name in
                ("bad", "code", "nap", "calls", "largest", "running", "most_running", "stop")]

    def __init__(self, bad=-1, **values):
        super().__init__(bad=bad, **values)


@pytest.fixture(scope="session")
def library_path(tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    path = tmp_path_factory.mktemp("native") / "functions.so"
    source = Path(__file__).with_name("functions.c")
    subprocess.run([compiler, "-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", path,
                    source], check=True)
    return path


@pytest.fixture(scope="session")
def lib(library_path):
    library = ctypes.CDLL(str(library_path))
    for name, (result, arguments) in DECLARED.items():
        getattr(library, name).restype = result
        getattr(library, name).argtypes = arguments
    return library


@pytest.fixture
def account():
    return Account
