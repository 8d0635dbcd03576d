"""csrc/ keeps the order of its folders: a file includes only from its own folder and from those it may know."""
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.source

CSRC = Path(__file__).parents[2] / "csrc"
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)
# From the lowest to the highest. The others stand aside: they know base, py and crew, and nobody knows them but mod.
STACK = ["base", "py", "sync", "pool", "loop", "aio", "net", "proc"]
ASIDE = ["ipc", "hash", "native"]
MAY_INCLUDE = {
    **{folder: set(STACK[:place]) for place, folder in enumerate(STACK)},
    "crew": {"base", "py"},
    **dict.fromkeys(ASIDE, {"base", "py", "crew"}),
    "mod": {*STACK, *ASIDE},
}
FILES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".c", ".h"))


def named(path):
    return str(path.relative_to(CSRC))


def includes(path):
    """(system, name) of every #include of the file, in order."""
    return [(mark == "<", name) for mark, name in INCLUDE.findall(path.read_text())]


def resolve(path, name):
    """The file of csrc an #include "name" means; None when there is none."""
    return next((found for found in (path.parent / name, CSRC / name) if found.is_file()), None)


files = pytest.mark.parametrize("path", FILES, ids=named)


def test_there_are_sources():
    assert FILES
    assert {path.relative_to(CSRC).parts[0] for path in FILES} <= set(MAY_INCLUDE)


@files
def test_direction(path):
    folder = path.relative_to(CSRC).parts[0]
    for system, name in includes(path):
        if system:
            continue
        found = resolve(path, name)
        assert found is not None, f"{named(path)} includes {name!r}, which is nowhere"
        other = found.resolve().relative_to(CSRC).parts[0]
        assert other == folder or other in MAY_INCLUDE[folder], f"{named(path)} ({folder}/) may not include {name!r}"


@files
def test_python_h_comes_by_compat_h(path):
    """Python.h must be first of all headers and is, once py/compat.h is; base/ knows no Python, and no libuv either."""
    names = [name for _, name in includes(path)]
    if named(path) != "py/compat.h":
        assert "Python.h" not in names, f"{named(path)} must include py/compat.h"
    if path.relative_to(CSRC).parts[0] == "base":
        assert "uv.h" not in names


@files
def test_compat_h_comes_first(path):
    """In a file that reaches py/compat.h at all, every system header must come after it."""
    seen = set()

    def first_of(at):
        """"compat" or "system", whichever the preprocessor meets first in the file; None for neither."""
        if named(at) == "py/compat.h":
            return "compat"
        if at in seen:
            return None
        seen.add(at)
        for system, name in includes(at):
            found = None if system else resolve(at, name)
            first = "system" if system else found and first_of(found)
            if first:
                return first
        return None

    def reaches(at, visited):
        if named(at) == "py/compat.h":
            return True
        visited.add(at)
        return any(found not in visited and reaches(found, visited)
                   for system, name in includes(at) if not system and (found := resolve(at, name)))

    if path.suffix == ".c" and reaches(path, set()):
        assert first_of(path) == "compat", f"{named(path)} includes a system header before py/compat.h"


@files
def test_version_checks_are_in_py(path):
    if path.relative_to(CSRC).parts[0] != "py":
        assert "PY_VERSION_HEX" not in path.read_text(), f"{named(path)}: put the shim into csrc/py"


@files
def test_licence_comes_first(path):
    assert path.read_text().startswith("/* SPDX-License-Identifier: MIT */\n")


@files
def test_length(path):
    assert path.read_text().count("\n") <= 600, f"{named(path)} owns more than one thing"


def test_names_say_something():
    root = CSRC.parent
    vague = {"utils", "util", "misc", "helpers", "helper", "common"}
    found = [str(path.relative_to(root)) for top in ("csrc", "pyconc", "tests", "benchmarks", "examples", "docs")
             for path in (root / top).rglob("*") if path.stem in vague]
    standard = {f"pyconc/multiprocessing/util.{kind}" for kind in ("py", "pyi")}    # not our name
    assert {*found} <= standard
