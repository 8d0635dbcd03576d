"""Builds the models of csrc/ipc and runs them: run.py [MODEL ...] for the real source, with --broken for copies of it
with a mistake each, which the models must find."""
import argparse
import concurrent.futures
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
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


def compile_to(source, target, flags):
    subprocess.run([CC, *FLAGS, *flags, "-c", source, "-o", target], check=True)
    return target


def build_explorer(folder):
    """What all models are linked with."""
    return [compile_to(HERE / f"{part}.c", folder / f"{part}.o", ["-O2"]) for part in ("explore", "processes")]


def compile_once(source, key, flags, folder):
    """An object that programs with the same key share."""
    target = folder / (hashlib.sha256(repr(key).encode()).hexdigest() + ".o")
    if not target.exists():
        compile_to(source, target.with_suffix(f".{threading.get_ident()}"), flags).rename(target)
    return target


def build(name, edits, explorer, folder):
    """The program of a model, on the source with the edits made."""
    changed = folder / "csrc"
    for edit in edits:
        copy = changed / edit.file
        text = (copy if copy.exists() else CSRC / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise ValueError(f"{edit.file} has {text.count(edit.old)} times: {edit.old}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text.replace(edit.old, edit.new))
    flags = [*REAL, f"-I{changed}", f"-I{CSRC}", "-isystem", sysconfig.get_path("include")]
    beside, kept = MODELS[name].beside, explorer[0].parent
    others = [edit for edit in edits if edit.file not in beside]    # of headers, and of what the model includes
    objects = [compile_once(HERE / f"{name}.c", (name, others), flags, kept)]
    for source in beside:
        copy, own = changed / source, [edit for edit in edits if edit.file == source]
        objects.append(compile_once(copy if own else CSRC / source, (source, others, own), flags, kept))
    subprocess.run([CC, *LINK, "-o", folder / name, *objects, *explorer, "-lm"], check=True)
    return folder / name


def run(name, explorer, edits=(), scenarios=()):
    """(whether all is well, what the program printed)"""
    with tempfile.TemporaryDirectory() as folder:
        program = build(name, (*MODELS[name].smaller, *edits), explorer, Path(folder))
        done = subprocess.run([program, *scenarios], text=True, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == 0, done.stdout


def find(name, explorer, broken):
    """(whether the mistake was found, what to print)"""
    sound, text = run(name, explorer, broken.edits, [broken.scenario])
    found = not sound and re.search(f"DEFECT: .*({broken.defect})", text) is not None
    return found, f"{name}, broken: {broken.name}: " + ("found\n" if found else f"NOT FOUND\n{text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="*", help=", ".join(MODELS))
    parser.add_argument("--broken", action="store_true", help="copies with a mistake")
    arguments = parser.parse_args()
    names = arguments.model or list(MODELS)
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        explorer = build_explorer(Path(folder))
        if arguments.broken:
            jobs = [pool.submit(find, name, explorer, broken) for name in names for broken in MODELS[name].broken]
        else:
            jobs = [pool.submit(run, name, explorer) for name in names]
        good = True
        for job in jobs:
            fine, text = job.result()
            good &= fine
            print(text, end="", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
