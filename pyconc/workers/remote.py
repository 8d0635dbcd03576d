# SPDX-License-Identifier: MIT
"""What goes between a pool and its workers and pickles as something else. A worker imports it: so little is here."""
import pickle
import sys
import time
from multiprocessing.reduction import ForkingPickler


class ByValue:
    """Pickles as `value`, with cloudpickle: lambdas, closures and what only this process's __main__ has.

    Raises ImportError without cloudpickle, and what that raises for what it cannot pickle.
    """

    def __init__(self, value):
        import cloudpickle
        self.data = cloudpickle.dumps(value)

    def __reduce__(self):
        return pickle.loads, (self.data,)


_NOTHING = object()
_LONGEST = 1000     # characters of an object that could not be sent


def _text(value):
    try:
        return repr(value)[:_LONGEST]
    except Exception as error:
        return f"<{type(value).__qualname__}, whose repr() raised {type(error).__qualname__}>"


class Loaded:
    """Pickles as what was pickled before."""

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return pickle.loads, (self.data,)


class Raised:
    """Pickles as the exception that a call raised, with the worker's traceback as its cause.

    One that cannot be pickled, or not be unpickled, arrives as the exception which says so, with the same cause.
    unsent: what could not be pickled, for which `error` is the reason; as text it is the cause's `unsent`.
    """

    def __init__(self, error, unsent=_NOTHING):
        from traceback import format_exception
        self.unsent = None if unsent is _NOTHING else _text(unsent)
        self.text = "".join(format_exception(error))
        # Its frames hold all objects of the call.
        error.__traceback__ = None
        try:
            self.data = bytes(ForkingPickler.dumps(error))
        except BaseException as unpicklable:
            unpicklable.add_note(f"The exception that a call raised cannot be pickled: {type(error).__qualname__}.")
            self.text += "\n" + "".join(format_exception(unpicklable))
            unpicklable.__cause__ = unpicklable.__context__ = None
            self.data = pickle.dumps(unpicklable)
            self.unsent = _text(error)

    def __reduce__(self):
        return rebuild, (self.data, self.text, self.unsent)


def rebuild(data, text, unsent=None):
    """The exception of a Raised, in the process that gets it."""
    from concurrent.futures.process import _RemoteTraceback
    try:
        error = pickle.loads(data)
        if not isinstance(error, BaseException):
            raise TypeError(f"what a call raised unpickles to {error!r}, which is no exception")
    except Exception as not_loaded:
        error = not_loaded.with_traceback(None)
        error.add_note("The exception that a call raised cannot be unpickled.")
    error.__cause__ = cause = _RemoteTraceback(f'\n"""\n{text}"""')
    cause.unsent = unsent
    return error


def call(fn, /, *args, **kwargs):
    """For functions that travel among their arguments."""
    return fn(*args, **kwargs)


def call_all(whole, /):
    """For calls that travel as one argument."""
    fn, args, kwargs = whole
    return fn(*args, **kwargs)


class Rows:
    """Calls fn with each of many arguments, or with each of many tuples of arguments.

    Called with those it returns (results, what the next call raised or None, seconds, about how many bytes a result
    has). Two are equal when they do the same, so that a worker gets it once.
    """

    def __init__(self, fn, star):
        self.fn = fn
        self.star = star

    def __eq__(self, other):
        return type(other) is Rows and (self.fn, self.star) == (other.fn, other.star)

    def __hash__(self):
        return hash((self.fn, self.star))

    def __reduce__(self):
        return Rows, (self.fn, self.star)

    def __call__(self, rows):
        results, error = [], None
        began = time.perf_counter()
        try:
            if self.star:
                for row in rows:
                    results.append(self.fn(*row))
            else:
                for row in rows:    # extend(map()) would take a StopIteration of fn's for the end of the rows
                    results.append(self.fn(row))
        except BaseException as raised:
            error = Raised(raised)
        seconds = time.perf_counter() - began
        if not results:
            return results, error, seconds, 0
        size = getattr(results[-1], "nbytes", None)
        return results, error, seconds, size if type(size) is int else sys.getsizeof(results[-1])
