# SPDX-License-Identifier: MIT
"""The loop under test, by name: asyncio, uvloop, rloop, pyconc, or any module with a new_event_loop()."""
import asyncio
import importlib
import importlib.metadata
import sys


def new_loop(name):
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    return importlib.import_module(name).new_event_loop()


def version(name):
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    print(version(sys.argv[1]))
