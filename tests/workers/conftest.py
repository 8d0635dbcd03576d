"""Workers import what they run by name: from this folder."""
import multiprocessing
import sys
from pathlib import Path

import pytest

from pyconc._ipc import Channel

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def what_stays():
    """What the first use opens and a process keeps: an arena, the resource tracker and the fork server."""
    Channel(1)
    for method in ("spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process()
        child.start()
        child.join()
