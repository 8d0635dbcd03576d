# SPDX-License-Identifier: MIT
"""python -m pyconc demo: pyconc beside the standard library, on this machine's own files."""
import sys


def main(args):
    """Runs the command with these arguments and ends the interpreter."""
    try:
        import click
        import numpy
        import rich
    except ImportError as error:
        sys.exit(f'python -m pyconc demo needs {error.name}: pip install "pyconc[demo]"')
    from pyconc.commands.demo.command import demo
    demo(args, prog_name="python -m pyconc demo")
