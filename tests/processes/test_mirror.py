"""Every name of the standard library's multiprocessing and its modules is here: the same object, or ours."""
import importlib
import inspect
import multiprocessing
import pkgutil
import subprocess
import sys

import pytest

import pyconc.multiprocessing as mp

# Not importable on this platform.
WINDOWS = {"popen_spawn_win32"}
MODULES = sorted({one.name for one in pkgutil.walk_packages(multiprocessing.__path__)} - WINDOWS)
# What is ours; all else is the same object.
REPLACED = {
    "connection": {"Client", "Connection", "Listener", "Pipe", "wait"},
    "context": {"BaseContext", "DefaultContext", "ForkContext", "ForkServerContext", "SpawnContext"},
    "managers": {"SharedMemoryManager", "SyncManager"},
    "pool": {"ApplyResult", "AsyncResult", "MapResult", "Pool", "ThreadPool"},
    "queues": {"JoinableQueue", "Queue", "SimpleQueue"},
    "shared_memory": {"ShareableList", "SharedMemory"},
    "sharedctypes": {"Array", "RawArray", "RawValue", "Synchronized", "SynchronizedArray", "SynchronizedBase",
                     "SynchronizedString", "Value", "copy", "rebuild_ctype", "reduce_ctype", "synchronized",
                     "typecode_to_type"},
    "synchronize": {"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"},
}


def modules_of(name):
    return importlib.import_module(f"multiprocessing.{name}"), importlib.import_module(f"pyconc.multiprocessing.{name}")


@pytest.mark.parametrize("name", [*MODULES, "dummy.connection"])
def test_module(name):
    theirs, ours = modules_of(name)
    if name not in REPLACED:
        assert ours is theirs
        return
    assert set(getattr(theirs, "__all__", ())) <= set(getattr(ours, "__all__", ()))
    assert set(dir(theirs)) <= set(dir(ours))
    for key, value in vars(theirs).items():
        found = getattr(ours, key)
        if key in REPLACED[name]:
            assert found is not value, key
            assert isinstance(found, dict) or found.__module__.startswith("pyconc."), key
        elif not key.startswith("_"):
            assert found is value, key


def test_package():
    assert set(multiprocessing.__all__) <= set(mp.__all__)
    assert set(dir(multiprocessing)) <= set(dir(mp))
    for name in dir(multiprocessing):
        getattr(mp, name)
    for name in mp.__all__:
        assert hasattr(mp, name)
    with pytest.raises(AttributeError):
        mp.no_such_name  # noqa: B018


def test_exceptions_and_processes_are_the_same():
    for name in ("AuthenticationError", "BufferTooShort", "Process", "ProcessError", "TimeoutError", "active_children",
                 "current_process", "parent_process"):
        assert getattr(mp, name) is getattr(multiprocessing, name)


@pytest.mark.parametrize("name", [*MODULES, "dummy.connection"])
def test_every_way_to_import_a_module(name):
    """In a new interpreter, where nothing has been imported: both names give one module, or ours where there is one."""
    package, _, last = f"pyconc.multiprocessing.{name}".rpartition(".")
    program = f"""
import sys
from {package} import {last} as one
import pyconc.multiprocessing.{name} as other
import pyconc.multiprocessing.{name}
assert one is other is sys.modules["pyconc.multiprocessing.{name}"] is pyconc.multiprocessing.{name}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_submodule_is_ours_though_theirs_was_imported_before():
    program = """
import multiprocessing.connection, multiprocessing.managers
import pyconc.multiprocessing as mp
assert mp.connection.__name__ == "pyconc.multiprocessing.connection"
from pyconc.multiprocessing import managers
assert managers.__name__ == "pyconc.multiprocessing.managers"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_import_is_cheap():
    """Of the modules that cost the most, none is imported before it is needed."""
    program = ("import sys, pyconc.multiprocessing; "
               "print(*{'asyncio', 'ctypes', 'logging', 'pyconc._core'} & {*sys.modules})")
    printed = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert printed.stdout.split() == []


@pytest.mark.parametrize("name", sorted(REPLACED["synchronize"]))
def test_inspect_knows_what_a_lock_takes(name):
    theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in modules_of("synchronize"))
    assert set(theirs) <= set(ours)
