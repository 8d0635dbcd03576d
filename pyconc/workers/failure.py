# SPDX-License-Identifier: MIT
"""What went wrong in a worker process, told to the one who waits for the result."""
import reprlib
import signal
from concurrent.futures.process import BrokenProcessPool

_repr = reprlib.Repr()
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 4
_repr.maxlevel = 2
_repr.maxstring = _repr.maxother = 40
_PLAIN = (int, float, complex, str, bytes, bool, type(None), range, list, tuple, dict, set, frozenset)

MAIN_GUARD = ("Under the start methods 'spawn' and 'forkserver' each worker imports the program's main module first: "
              "what that does at its top level must stand under `if __name__ == \"__main__\":`, and what workers call "
              "must be importable. What the worker itself said is on its standard error.")


class WorkerDied(BrokenProcessPool):
    """A worker process ended before its call did.

    function, arguments: the call, as text. pid: the process. exitcode: as Process.exitcode has it, negative for a
    signal; signal: that one's name, or None. peak_memory: the most bytes it had, or None where that is not known.
    output: what faulthandler wrote when it crashed. All but `pid` and `exitcode` may be None.
    """

    function = arguments = pid = exitcode = signal = peak_memory = None
    output = ""

    def __init__(self, message, **facts):
        super().__init__(message)
        self.__dict__.update(facts)

    def __reduce__(self):
        return _died, (type(self), self.args, self.__dict__)


def _died(kind, args, facts):
    error = kind(*args)
    error.__dict__.update(facts)
    return error


def _short(value):
    """Some characters of what it is, whatever it says of itself."""
    try:
        return _described(value)
    except Exception:
        return f"<{type(value).__qualname__}>"


def _described(value):
    if type(value) in _PLAIN:
        if type(value) in (list, tuple, dict, set, frozenset) and len(value) > 4:
            return f"<{type(value).__name__} of {len(value)}>"
        if type(value) in (list, tuple):
            inside = ", ".join(map(_described, value)) + ("," if type(value) is tuple and len(value) == 1 else "")
            return f"[{inside}]" if type(value) is list else f"({inside})"
        if type(value) in (dict, set, frozenset):
            return f"<{type(value).__name__} of {len(value)}>"
        return _repr.repr(value)
    shape = getattr(value, "shape", None)
    return f"<{type(value).__qualname__}{f' {shape}' if type(shape) is tuple else ''}>"


def summary(args, kwargs):
    """The arguments of a call in some characters."""
    shown = [*map(_short, args[:6]), *["..."] * (len(args) > 6),
             *(f"{name}={_short(value)}" for name, value in list(kwargs.items())[:6])]
    return ", ".join(shown)


def signal_name(exitcode):
    """SIGKILL for -9; None for what is no signal."""
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


def how_ended(exitcode):
    """How a process ended, as a predicate."""
    name = signal_name(exitcode)
    if name is not None:
        return f"was killed by {name}" + " (out of memory?)" * (name == "SIGKILL")
    return f"ended with exit code {exitcode}" if exitcode is not None else "ended"


def size(count):
    """Bytes for people."""
    return f"{count / (1 << 20):.0f} MiB"
