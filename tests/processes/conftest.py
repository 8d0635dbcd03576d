"""Children import what they run by name: from this folder."""
import asyncio
import multiprocessing
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def what_stays():
    """What the first use opens and a process keeps: libuv's signal pipe, the resource tracker and the fork server."""
    import pyconc
    pyconc.run(asyncio.sleep(0))
    for method in ("spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process()
        child.start()
        child.join()


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    """pyconc's context of each start method."""
    from pyconc.multiprocessing import get_context
    return get_context(request.param)


@pytest.fixture
def start_method():
    """A test that sets the start method does so for itself."""
    shared = multiprocessing.context._default_context
    before = shared._actual_context
    shared._actual_context = None
    yield
    shared._actual_context = before
