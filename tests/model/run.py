"""Builds the models of csrc/ipc and runs them: run.py [MODEL ...] for the real source, --broken for copies of it with a
mistake each, which the models must find."""
import argparse
import concurrent.futures
import dataclasses
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CSRC = Path(os.environ.get("CSRC", HERE.parents[1] / "csrc"))  # another tree's, to try it before a merge
CC = os.environ.get("CC", "cc")
FLAGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers",
         f"-I{HERE}"]
# Functions of the source that no model calls want Python, which is not there: they are left out.
REAL = ["-O1", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-unused-but-set-variable", "-ffunction-sections", "-fdata-sections", "-include",
        str(HERE / "atomics.h"), f"-I{HERE / 'stub'}"]


@dataclasses.dataclass(frozen=True)
class Edit:
    file: str  # below csrc
    old: str
    new: str


@dataclasses.dataclass(frozen=True)
class Broken:
    """A mistake, and where it must be found."""

    name: str
    scenario: str
    defect: str  # a pattern
    edits: tuple


@dataclasses.dataclass(frozen=True)
class Model:
    smaller: tuple = ()  # edits that leave the logic as it is, and the number of states small
    broken: tuple = ()


MUTEX = "ipc/mutex.c"
FEW_SPINS = Edit(MUTEX, "enum { SPINS = 100 };", "enum { SPINS = 1 };")
ALL_SLEEP = "all sleep, though nobody was killed"
LAYOUT = "ipc/layout.h"
SMALL_ARENA = (
    Edit(LAYOUT, "#define PYC_ARENA_SIZE (512 * 1024)", "#define PYC_ARENA_SIZE (3 * 256)"),
    Edit(LAYOUT, "#define PYC_PLACES 512 ", "#define PYC_PLACES 4 "),
    Edit(LAYOUT, "#define PYC_PAGE_SIZE (16 * 1024)", "#define PYC_PAGE_SIZE 256"),
    Edit(LAYOUT, "#define PYC_FIRST_PAGE 3 ", "#define PYC_FIRST_PAGE 2 "),
    Edit(LAYOUT, "#define PYC_PLACE_BITS 9", "#define PYC_PLACE_BITS 2"),
)
MODELS = {
    "mutex": Model((FEW_SPINS,), (
        Broken("takes_over_no_sleepers", "three", ALL_SLEEP, (
            Edit(MUTEX, "take(mutex, 0, mine | PYC_SLEEPERS)", "take(mutex, 0, mine)"),)),
        Broken("wakes_before_it_gives", "two", ALL_SLEEP, (
            Edit(MUTEX, "    uint32_t word =\n        atomic_exchange_explicit(&mutex->word, 0, memory_order_release);\n"
                        "    if (word & PYC_SLEEPERS) {\n        pyc_wake(&mutex->word, 1);\n    }\n",
                        "    uint32_t word = atomic_load(&mutex->word);\n"
                        "    if (word & PYC_SLEEPERS) {\n        pyc_wake(&mutex->word, 1);\n    }\n"
                        "    atomic_store(&mutex->word, 0);\n"),)),
        Broken("never_asks_for_the_dead", "kill", "all sleep after the slices", (
            Edit(MUTEX, "over && pyc_arena_owner_is_dead(arena, word & ~PYC_SLEEPERS)", "false"),)),
        Broken("takes_from_the_living", "kill_early_slices", "two have the mutex", (
            Edit(MUTEX, "over && pyc_arena_owner_is_dead(arena, word & ~PYC_SLEEPERS)", "over"),)),
        Broken("undoes_nothing", "kill", "half of a change|made twice", (
            Edit(MUTEX, "    if (died) {\n        undo(mutex);\n    }\n", ""),)),
        Broken("undoes_the_first_first", "kill_undo_order", "half of a change", (
            Edit(MUTEX, "for (uint32_t i = n < PYC_UNDO_MOST ? n : PYC_UNDO_MOST; i-- > 0;) {",
                        "for (uint32_t i = 0; i < n; i++) {"),)),
        Broken("undoes_what_is_done", "kill", "a change was lost", (
            Edit(MUTEX, "    pyc_mutex_commit(mutex);\n    uint32_t word =\n", "    uint32_t word =\n"),)),
        Broken("logs_without_an_order", "kill_buffered", "half of a change|made twice|lost", (
            Edit("ipc/mutex.h", "n + 1, memory_order_release);\n    atomic_thread_fence(memory_order_seq_cst); "
                                "/* the log, then the field */\n"
                                "    atomic_store_explicit(field, value, memory_order_release);",
                                "n + 1, memory_order_relaxed);\n"
                                "    atomic_store_explicit(field, value, memory_order_relaxed);"),)),
    )),
    "arena": Model(SMALL_ARENA, ()),
}


def build(name, edits, folder):
    """The program of a model, on the source with the edits made."""
    changed = folder / "csrc"
    for edit in edits:
        copy = changed / edit.file
        text = (copy if copy.exists() else CSRC / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise ValueError(f"{edit.file} has {text.count(edit.old)} times: {edit.old}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text.replace(edit.old, edit.new))
    include = sysconfig.get_path("include")
    commands = [[CC, *FLAGS, "-O2", "-c", HERE / f"{part}.c", "-o", folder / f"{part}.o"]
                for part in ("explore", "processes")]
    commands.append([CC, *FLAGS, *REAL, f"-I{changed}", f"-I{CSRC}", "-isystem", include, "-c", HERE / f"{name}.c", "-o",
                     folder / f"{name}.o"])
    commands.append([CC, "-Wl,--gc-sections", "-o", folder / name, folder / f"{name}.o", folder / "explore.o",
                     folder / "processes.o", "-lm"])
    for command in commands:
        subprocess.run(command, check=True)
    return folder / name


def run(name, edits=(), scenarios=()):
    """(whether all is well, what the program printed)"""
    with tempfile.TemporaryDirectory() as folder:
        program = build(name, (*MODELS[name].smaller, *edits), Path(folder))
        done = subprocess.run([program, *scenarios], text=True, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == 0, done.stdout


def finds(name, broken):
    """(whether the mistake was found, what was printed)"""
    sound, text = run(name, broken.edits, [broken.scenario])
    return not sound and re.search(f"DEFECT: .*({broken.defect})", text) is not None, text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="*", help=", ".join(MODELS))
    parser.add_argument("--broken", action="store_true", help="the copies with a mistake, too")
    arguments = parser.parse_args()
    names = arguments.model or list(MODELS)
    good = True
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for sound, text in pool.map(run, names):
            good &= sound
            print(text, end="", flush=True)
        wrong = [(name, broken) for name in names for broken in MODELS[name].broken if arguments.broken]
        for (name, broken), (found, text) in zip(wrong, pool.map(lambda pair: finds(*pair), wrong), strict=True):
            good &= found
            print(f"{name}, broken: {broken.name}: {'found' if found else 'NOT FOUND'}")
            if not found:
                print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
