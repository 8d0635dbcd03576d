# SPDX-License-Identifier: MIT
"""Runs a program as python itself would, with pyconc's loop installed."""
import atexit
import importlib.machinery
import importlib.util
import os
import pkgutil
import signal
import sys
import types

from pyconc import install


def script(path, args):
    """python SCRIPT: a file of source or bytecode, or a folder or zip file with a __main__ in it."""
    sys.argv[:] = [path, *args]
    full = os.path.abspath(path)
    finder = pkgutil.get_importer(full)
    if finder is not None:
        set_first_path(full)
        spec = finder.find_spec("__main__")
        if spec is None:
            sys.exit(f"{sys.executable}: can't find '__main__' module in {full!r}")
        return execute(code_of(spec), main_of_spec(spec))
    set_first_path(os.path.dirname(os.path.realpath(path)))
    kind = importlib.machinery.SourcelessFileLoader if path.endswith(".pyc") else importlib.machinery.SourceFileLoader
    loader = kind("__main__", full)
    try:
        source = loader.get_data(full)
    except OSError as error:
        print(f"{sys.executable}: can't open file {full!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(2)
    main = new_main(__file__=full, __loader__=loader, __cached__=None)
    if kind is importlib.machinery.SourceFileLoader:
        execute(lambda: compile(source, full, "exec", dont_inherit=True), main)
    else:
        execute(lambda: loader.get_code("__main__"), main)


def module(name, args):
    """python -m MODULE: a module, or a package with a __main__ in it."""
    sys.argv[:] = ["-m", *args]
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
            if spec is None:
                sys.exit(f"{sys.executable}: No module named {name}.__main__; {name!r} is a package and cannot be "
                         "directly executed")
    except (ImportError, ValueError) as error:
        sys.exit(f"{sys.executable}: Error while finding module specification for {name!r} "
                 f"({type(error).__name__}: {error})")
    if spec is None:
        sys.exit(f"{sys.executable}: No module named {name}")
    sys.argv[0] = spec.origin or name
    execute(code_of(spec), main_of_spec(spec))


def command(text, args):
    """python -c COMMAND."""
    sys.argv[:] = ["-c", *args]
    set_first_path("")
    execute(lambda: compile(text, "<string>", "exec", dont_inherit=True),
            new_main(__loader__=importlib.machinery.BuiltinImporter))


def standard_input(args):
    """python -: the program comes by standard input."""
    sys.argv[:] = ["-", *args]
    set_first_path("")
    source = sys.stdin.buffer.read()
    execute(lambda: compile(source, "<stdin>", "exec", dont_inherit=True),
            new_main(__file__="<stdin>", __cached__=None, __loader__=importlib.machinery.BuiltinImporter))


def set_first_path(folder):
    if not sys.flags.safe_path:
        sys.path[0] = folder


def new_main(**attributes):
    """A fresh __main__ in the place of this package's own; it stays, for threads and atexit functions."""
    main, ours = types.ModuleType("__main__"), vars(sys.modules["__main__"])
    attributes = {"__builtins__": sys.modules["builtins"], "__annotations__": {}, **attributes}
    # Which of them a module has differs from Python to Python.
    vars(main).update({name: value for name, value in attributes.items() if name in ours})
    sys.modules["__main__"] = main
    return main


def main_of_spec(spec):
    return new_main(__spec__=spec, __package__=spec.parent, __loader__=spec.loader, __file__=spec.origin,
                    __cached__=spec.cached)


def code_of(spec):
    return lambda: spec.loader.get_code(spec.name)


def execute(compiled, main):
    """Runs what compiled() gives in the module `main`; ends the interpreter as an error in a script would."""
    install()
    interrupted: list[bool] = []
    atexit.register(end_like_interrupted, interrupted)
    try:
        exec(compiled(), vars(main))
    except SystemExit:
        raise
    except BaseException as error:
        # Without the frames that are ours: it is the program's error.
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals is globals():
            traceback = traceback.tb_next
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        if isinstance(error, KeyboardInterrupt):
            interrupted.append(True)
    else:
        return
    sys.exit(1)


def end_like_interrupted(interrupted):
    """A Ctrl-C that nobody caught ends the process by the signal, so that a shell's loop ends with it."""
    if interrupted:
        for stream in sys.stdout, sys.stderr:
            if stream is not None:
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
