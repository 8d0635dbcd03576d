# SPDX-License-Identifier: MIT
"""Event loops in one process: the cases of loop/micro.py, a group each.

pytest benchmarks/bench_loop.py --benchmark-group-by=group -k timer
"""
import asyncio
import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "loop"))
micro = importlib.import_module("micro")

CASES = [name for name in micro.CASES if not name.endswith("latency")]
ROUNDS = 5
# The peers leave sockets open and use what newer Pythons deprecate.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=["asyncio", "uvloop", "rloop", "pyconc"])
def name(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def loop(name):
    loop = micro.new_loop(name)
    asyncio.set_event_loop(loop)
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.parametrize("case", CASES)
def test_case(benchmark, loop, case):
    benchmark.group = f"loop: {case}"
    function = micro.CASES[case]
    size = (50,) if benchmark.disabled else ()

    def run():
        benchmark.extra_info["operations"] = loop.run_until_complete(function(loop, *size))

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)


def test_start_and_stop(benchmark, name):
    benchmark.group = "loop: start and stop"
    benchmark.pedantic(micro.run_in_new_loop, (name,), rounds=ROUNDS, iterations=50, warmup_rounds=1)
