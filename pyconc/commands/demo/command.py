# SPDX-License-Identifier: MIT
"""The demonstration: its options, its order and its end."""
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pyconc.commands.demo import offload, report, serve


@dataclass
class Options:
    connections: int
    size: int
    seconds: float
    keys: int
    rows: int
    files: list[Path]


def library_files(most):
    """The files of the interpreter's own library, at most so many."""
    root = Path(sysconfig.get_path("stdlib"))
    found = sorted(path for path in root.rglob("*") if "site-packages" not in path.parts and path.is_file())
    return found[:most]


def sections(options):
    """Name, function and number of steps of each part."""
    return [("echo server", serve.echo, 2 * 20),
            ("hash the library's files", serve.hash_files, 2 * len(options.files)),
            ("scrypt", offload.scrypt, 3 * options.keys),
            ("row means", offload.means, 2 * offload.ROUNDS)]


class Counted(Progress):
    """Progress that looks at counters when it draws: what is measured only adds to them."""

    counts: dict = {}

    def get_renderables(self):
        for task, done in self.counts.items():
            self.update(task, completed=done)
        return super().get_renderables()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--html", "html_file", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
              help="Write a page with a chart, too.")
@click.option("--quick", is_flag=True, help="A few seconds instead of a minute; the figures are rough.")
@click.option("--connections", type=click.IntRange(1, 1000), default=20, help="Connections to the echo server.")
@click.option("--size", type=click.IntRange(1, 1 << 16), default=1024, help="Bytes of an echo request.")
@click.option("--keys", type=click.IntRange(4), help="scrypt keys to derive.  [default: 2000, --quick 60]")
def demo(html_file, quick, connections, size, keys):
    """Serve, hash, derive keys and compute means: with the standard library and with pyconc, results compared.

    Ends with 1 when any result differs.
    """
    options = Options(connections, size, seconds=0.5 if quick else 4, keys=keys or (60 if quick else 2000),
                      rows=5000 if quick else 100_000, files=library_files(300 if quick else None))
    console, figures = Console(), []
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Counted(*columns, console=console, refresh_per_second=2) as progress:
        counts = progress.counts = {}
        tasks = [(progress.add_task(name, total=steps, start=False), function)
                 for name, function, steps in sections(options)]
        for task, function in tasks:
            progress.start_task(task)
            counts[task] = 0

            def advance(steps, task=task):
                counts[task] += steps

            figures += function(options, advance)
            progress.stop_task(task)
    console.print(report.table(figures))
    if html_file is not None:
        html_file.write_text(report.page(figures), encoding="utf-8")
        console.print(f"The same with a chart: {html_file}")
    if not all(figure.equal for figure in figures):
        console.print("Results differ.", style="bold red")
        sys.exit(1)
