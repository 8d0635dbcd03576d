# SPDX-License-Identifier: MIT
"""What a pool has done and is doing."""
import time
from dataclasses import dataclass, field

from pyconc.workers.limits import resident_memory


@dataclass(frozen=True)
class WorkerStats:
    """Of one process.

    tasks: how many it has ended. busy, wait: seconds with tasks, and without. running: seconds that it has been at the
    present one, 0 without one. bytes_in, bytes_out: of calls and of results. memory: bytes that it has now (RSS).
    """

    pid: int
    tasks: int
    busy: float
    wait: float
    running: float
    bytes_in: int
    bytes_out: int
    memory: int


@dataclass(frozen=True)
class PoolStats:
    """Of a pool: the sums are also of processes that have ended.

    workers: a WorkerStats for each process there is. waiting: calls that no process has begun. deaths: processes that
    have ended other than by leaving.
    """

    tasks: int
    busy: float
    bytes_in: int
    bytes_out: int
    waiting: int
    running: int
    deaths: int
    workers: list[WorkerStats] = field(default_factory=list)


def of_worker(worker, record):
    """worker: a WorkerProcess; record: what the channel says of it."""
    age = time.monotonic() - worker.began
    return WorkerStats(worker.process.pid, record["tasks"], record["busy"],
                       max(0.0, age - record["busy"] - record["running"]), record["running"], record["bytes_in"],
                       record["bytes_out"], resident_memory(worker.process.pid))


def of_pool(channel, workers, waiting, ended):
    """waiting: calls that have not been sent. ended: the Totals."""
    records = [(worker, channel.worker(worker.number)) for worker in workers]
    running = sum(record["task"] != 0 for _, record in records)

    def total(name):
        return getattr(ended, name) + sum(record[name] for _, record in records)

    return PoolStats(total("tasks"), total("busy"), total("bytes_in"), total("bytes_out"),
                     waiting + max(0, channel.in_flight() - running), running, ended.deaths,
                     [of_worker(worker, record) for worker, record in records])
