# SPDX-License-Identifier: MIT
"""Progress bars for map(): what executor.options(progress=...) takes is a function of (calls done, calls in all)."""
from collections.abc import Callable
from typing import Any


def tqdm(bar: Any) -> Callable[[int, int | None], None]:
    """For a bar of tqdm's: options(progress=tqdm(bar))."""
    def show(done, total):
        if total is not None:
            bar.total = total
        bar.update(done - bar.n)
    return show


def rich(progress: Any, task: Any) -> Callable[[int, int | None], None]:
    """For a task of a rich.progress.Progress."""
    def show(done, total):
        progress.update(task, completed=done, total=total)
    return show


def bar(description: str = "") -> Callable[[int, int | None], None]:
    """A bar of its own on standard error, by tqdm, or by rich where there is no tqdm. Ends with the last call.

    ImportError without both.
    """
    try:
        return _tqdm_bar(description)
    except ImportError:
        return _rich_bar(description)


def _tqdm_bar(description):
    from tqdm.auto import tqdm as make
    shown = make(desc=description or None)
    update = tqdm(shown)

    def show(done, total):
        update(done, total)
        if done == total:
            shown.close()
    return show


def _rich_bar(description):
    from rich.console import Console
    from rich.progress import Progress
    progress = Progress(console=Console(stderr=True))
    update = rich(progress, progress.add_task(description, total=None))
    progress.start()

    def show(done, total):
        update(done, total)
        if done == total:
            progress.stop()
    return show
