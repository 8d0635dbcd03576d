"""The names of tests/api.toml: per module, which exist. One that is missing fails in the modules that are done."""
import asyncio
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

API = tomllib.loads((Path(__file__).parent / "api.toml").read_text())
DONE = {"concurrent.futures", "multiprocessing", "queue", "threading"}
NOT_NAMES = {"typecodes"}
# Functions of multiprocessing that make one of a class, and the classes' modules.
MADE_IN = {"Lock": "synchronize.", "Semaphore": "synchronize.", "Event": "synchronize.", "Condition": "synchronize.",
           "Queue": "queues.", "Connection": "connection.", "Pool": "pool."}
LISTS = {"functions", "ours", "classes", "constants"}


def name_of(entry):
    """`put` of "put(obj, block=True)   # a comment"."""
    return re.match(r"[\w.]+", entry)[0]


def wanted(module):
    """Every dotted name that the module must offer, `Lock.acquire` say; submodules' names are `pool.Pool`."""
    for key, entries in API[module].items():
        if key == "EventLoop" or key in NOT_NAMES:
            continue
        for entry in entries:
            if key in LISTS:
                yield name_of(entry)
            elif key == "submodules":
                yield name_of(entry)
                listed = re.search(r"\((.*)\)", entry)
                yield from (f"{name_of(entry)}.{name}" for name in re.findall(r"\w+", listed[1] if listed else ""))
            else:
                place = MADE_IN.get(key, "") if module == "multiprocessing" else ""
                yield f"{place}{key}.{name_of(entry)}"


def load(module):
    try:
        return importlib.import_module(f"pyconc.{module}")
    except ModuleNotFoundError as error:
        if not f"pyconc.{module}".startswith(error.name):
            raise
        return None


def has(module, dotted):
    """Whether module.a.b exists, `a` being a submodule perhaps."""
    for place, name in enumerate(dotted.split(".")):
        if not hasattr(module, name) and place == 0 and inspect.ismodule(module):
            module = load(f"{module.__name__.removeprefix('pyconc.')}.{name}")
            if module is None:
                return False
            continue
        try:
            module = getattr(module, name)
        except AttributeError:
            return False
    return True


def public(module):
    return getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]


@pytest.mark.parametrize("module", API)
def test_names(module, report):
    ours = load(module)
    names = dict.fromkeys([*wanted(module), *public(importlib.import_module(module))])
    missing = [name for name in names if ours is None or not has(ours, name)]
    report("API", f"pyconc.{module}: {len(names) - len(missing)} of {len(names)} names"
                  + ("" if module in DONE else ", not done"))
    if module in DONE:
        assert not missing


@pytest.fixture
def loop_type():
    pyconc = pytest.importorskip("pyconc")
    if not hasattr(pyconc, "Loop"):
        pytest.skip("the loop is not there yet")
    return pyconc.Loop


@pytest.mark.parametrize("name", API["asyncio"]["EventLoop"])
def test_loop_has(loop_type, name):
    loop = loop_type()
    loop.close()
    assert hasattr(loop, name)


THEIRS = [name for name in public(asyncio.SelectorEventLoop) if callable(getattr(asyncio.SelectorEventLoop, name))]


@pytest.mark.parametrize("name", THEIRS)
def test_loop_takes_what_asyncio_takes(loop_type, name):
    """Every argument that the running Python's own loop names can be given to pyconc's by that name."""
    try:
        ours = inspect.signature(getattr(loop_type, name)).parameters
    except ValueError:
        pytest.fail(f"Loop.{name} has no text signature")
    if any(one.kind is one.VAR_KEYWORD for one in ours.values()):
        return
    for parameter in inspect.signature(getattr(asyncio.SelectorEventLoop, name)).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            assert parameter.name in ours, f"Loop.{name} lacks {parameter.name}"
            by_name = ours[parameter.name].kind is not parameter.POSITIONAL_ONLY
            assert by_name or parameter.name == "self"
