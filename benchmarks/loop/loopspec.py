# SPDX-License-Identifier: MIT
"""The loop under test, by name: asyncio, uvloop, rloop, pyconc, or any module with a new_event_loop();
aiofastnet+NAME is one of them with aiofastnet's transports."""
import asyncio
import importlib
import importlib.metadata
import sys


def new_loop(name):
    patch, plus, rest = name.partition("+")
    if plus:
        return importlib.import_module(patch).patch_loop(new_loop(rest))
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    return importlib.import_module(name).new_event_loop()


def version(name):
    found = []
    for part in name.split("+"):
        try:
            found.append(f"{part} {importlib.metadata.version(part)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return " + ".join(found)


if __name__ == "__main__":
    print(version(sys.argv[1]))
