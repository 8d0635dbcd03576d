"""A program as a user writes it, for mypy: what it may write is no error."""
# mypy: disallow-untyped-calls
import asyncio

from pyconc.concurrent.futures import ProcessPoolExecutor
from pyconc.workers import progress


def double(number: int) -> int:
    return 2 * number


async def options() -> list[int]:
    with ProcessPoolExecutor() as executor:
        urgent = executor.options(priority=1, timeout=2.5)
        one: int = await urgent.submit(double, 1)
        urgent.submit(double, 2).cancel(running=True)
        two = await asyncio.get_running_loop().run_in_executor(urgent, double, 2)
        shown = executor.options(progress=progress.bar("doubling"))
        return [one, two, *shown.map(double, range(9), chunksize="auto", buffersize=3, ordered=False)]
