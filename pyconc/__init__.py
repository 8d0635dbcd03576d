# SPDX-License-Identifier: MIT
"""Python's concurrency APIs in C.

The event loop: run(main()), install(), new_event_loop(), Loop, EventLoopPolicy (where Python has policies).
Offload: ThreadPoolExecutor, Future, hashing, native, parallel.
"""
__version__ = "0.1.0"

__all__ = ["Future", "Loop", "ThreadPoolExecutor", "hashing", "install", "native", "new_event_loop", "parallel", "run"]

# Nothing is imported before it is used: not even asyncio. (And never by its bare name here, where a submodule
# of that name would take its place.)
LAZY = {
    "Future": ("pyconc.concurrent.futures", "Future"),
    "Loop": ("pyconc.loop", "Loop"),
    "ThreadPoolExecutor": ("pyconc.concurrent.futures", "ThreadPoolExecutor"),
    "EventLoopPolicy": ("pyconc.loop.policy", "EventLoopPolicy"),
    "hashing": ("pyconc.hashing", None),
    "native": ("pyconc.native", None),
    "parallel": ("pyconc.parallel", None),
    "new_event_loop": ("pyconc.loop", "new_event_loop"),
}


def __getattr__(name):
    from importlib import import_module
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = LAZY[name]
    value = import_module(module)
    if attribute is not None:
        value = getattr(value, attribute, None)
        if value is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r} on this Python")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})


def run(main, *, debug=None, loop_factory=None, watchdog=None):
    """Runs a coroutine on a new loop and gives its result; the loop is closed afterwards.

    `debug` turns the loop's debug mode on or off (None: as the environment says), `loop_factory` makes another
    loop than pyconc's. When a callback holds the loop for `watchdog` seconds, the place is logged while it does (0:
    never; None: as the environment variable PYCONC_WATCHDOG says). Raises what `main` raises, and RuntimeError where
    a loop is running already. Like asyncio.run() of Python 3.12, on every Python.
    """
    from asyncio import Runner, _get_running_loop

    from pyconc.loop import new_event_loop
    if _get_running_loop() is not None:
        raise RuntimeError("pyconc.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=new_event_loop if loop_factory is None else loop_factory) as runner:
        if watchdog is not None:
            loop = runner.get_loop()
            if not hasattr(loop, "watchdog"):
                raise TypeError(f"watchdog is for pyconc's loop, not for {loop!r}")
            loop.watchdog = watchdog
        return runner.run(main)


def install():
    """Makes pyconc's loop the one that asyncio.run(), asyncio.Runner() and asyncio.new_event_loop() make.

    For programs whose entry point is not ours to change; else run() is the way. Sets the event loop policy where
    Python has policies (without the DeprecationWarning of 3.14) and takes asyncio.new_event_loop()'s place where
    it has none.
    """
    from pyconc.loop import policy
    policy.install()
