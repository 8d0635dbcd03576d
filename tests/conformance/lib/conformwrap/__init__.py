"""A thin wrapper of the standard library: it proves that the substitution takes effect.

With CONFORMANCE_BREAK=1 each class is wrong in one visible way, so that a run on it must turn red; with =crash the loop
ends the process.
"""
import asyncio
import os

BROKEN = bool(os.environ.get("CONFORMANCE_BREAK"))


class Loop(asyncio.unix_events._UnixSelectorEventLoop):
    if BROKEN:
        def call_at(self, when, callback, *args, context=None):
            return super().call_at(when, callback, *args)

        def call_soon(self, callback, *args, context=None):
            return super().call_soon(callback, *args)

    if os.environ.get("CONFORMANCE_BREAK") == "crash":
        def call_soon(self, callback, *args, context=None):
            os.abort()


def new_event_loop():
    return Loop()
