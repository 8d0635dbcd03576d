# SPDX-License-Identifier: MIT
"""python -m pyconc: a program on pyconc's loop, or the demonstration."""
import sys

USAGE = """\
usage: python -m pyconc SCRIPT [ARGUMENT]...      run a script (or folder, or zip file) on pyconc's event loop
       python -m pyconc -m MODULE [ARGUMENT]...   the same with a module
       python -m pyconc -c COMMAND [ARGUMENT]...  the same with a command
       python -m pyconc - [ARGUMENT]...           the same with a program from standard input
       python -m pyconc demo [OPTION]...          pyconc beside the standard library on this machine (demo --help)
       python -m pyconc --version | --help
before a program:
       --watchdog SECONDS   log where the program is whenever one callback holds the loop for so long

The program runs as under python itself: asyncio.run() and asyncio.new_event_loop() make pyconc's loop.
"""


def main(args=None):
    """The command line; `args` are what follows the program's name, sys.argv[1:] by default."""
    args = sys.argv[1:] if args is None else list(args)
    args = take_watchdog(args)
    first = args[0] if args else None
    if first in ("--help", "-h"):
        print(USAGE, end="")
    elif first in ("--version", "-V"):
        from pyconc import __version__
        print(f"pyconc {__version__}")
    elif first == "demo":
        check_environment()
        from pyconc.commands.demo import main as demo
        demo(args[1:])
    elif first in ("-m", "-c") and len(args) > 1:
        run = runner()
        (run.module if first == "-m" else run.command)(args[1], args[2:])
    elif first == "-":
        runner().standard_input(args[1:])
    elif first is not None and not first.startswith("-"):
        runner().script(first, args[1:])
    elif first is None:
        sys.exit(USAGE.rstrip())
    else:
        what = "needs an argument" if first in ("-m", "-c") else "is no option"
        refuse(f"{first} {what}")


def take_watchdog(args):
    """What follows --watchdog SECONDS, which is set for every loop that the program makes."""
    option, equals, text = args[0].partition("=") if args else ("", "", "")
    if option != "--watchdog":
        return args
    args = args[1:]
    if not equals:
        if not args:
            refuse("--watchdog needs an argument")
        text, args = args[0], args[1:]
    from pyconc.loop import watchdog
    try:
        watchdog.chosen = watchdog.parsed(text, "--watchdog")
    except ValueError as error:
        refuse(error)
    if not args or (args[0].startswith("-") and args[0] not in ("-", "-m", "-c")):
        refuse("--watchdog needs a program to watch")
    return args


def runner():
    """The module that runs programs."""
    from pyconc.commands import run
    check_environment()
    return run


def check_environment():
    """Refuses what the first loop would stumble on."""
    from pyconc.loop import watchdog
    try:
        watchdog.limit_of_new_loops()
    except ValueError as error:
        refuse(error)


def refuse(why):
    """Ends as for a wrong command line."""
    print(f"python -m pyconc: {why}", file=sys.stderr)
    sys.exit(2)
