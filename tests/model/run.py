"""Builds the models of csrc/ipc and runs them: run.py [MODEL ...] for the real source, --broken for copies of it with a
mistake each, which the models must find."""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from mistakes import MODELS

HERE = Path(__file__).parent
CSRC = Path(os.environ.get("CSRC", HERE.parents[1] / "csrc"))  # another tree's, to try it before a merge
CC = os.environ.get("CC", "cc")
FLAGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers",
         "-Wno-override-init", "-fmax-errors=3",          f"-I{HERE}"]
# What the models do not call wants Python, which is not there.
LINK = ["-no-pie", "-Wl,--gc-sections", "-Wl,--unresolved-symbols=ignore-all"]
REAL = ["-O1", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-unused-but-set-variable", "-DNDEBUG",
        "-D_GNU_SOURCE=", "-fno-pie", "-ffunction-sections", "-fdata-sections", "-include", HERE / "atomics.h",
        f"-I{HERE / 'stub'}"]


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
    objects = [folder / "explore.o", folder / "processes.o"]
    for source in (HERE / f"{name}.c", *(CSRC / source for source in MODELS[name].beside)):
        if source.is_relative_to(CSRC) and (changed / source.relative_to(CSRC)).exists():
            source = changed / source.relative_to(CSRC)
        objects.append(folder / f"{source.stem}-{len(objects)}.o")
        commands.append([CC, *FLAGS, *REAL, f"-I{changed}", f"-I{CSRC}", "-isystem", include, "-c", source, "-o",
                         objects[-1]])
    commands.append([CC, *LINK, "-o", folder / name, *objects, "-lm"])
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
