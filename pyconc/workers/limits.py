# SPDX-License-Identifier: MIT
"""How much of the machine a pool takes: how many processes, on which CPUs, how much memory. A worker imports it."""
import os

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_cpu_count = getattr(os, "process_cpu_count", None) or (
    lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _folders(top, path):
    """Those of a control group and of the ones that it is in; in a container, only the topmost may be there."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [os.path.join(top, *parts[:count]) for count in range(len(parts), -1, -1)]


def _quotas(root):
    """CPUs that each control group may use which this process is in."""
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:       # version 2
            for folder in _folders(f"{root}/sys/fs/cgroup", path):
                quota, _, period = _read(f"{folder}/cpu.max").partition(" ")
                if quota.isdigit():
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for folder in _folders(f"{root}/sys/fs/cgroup/{controllers}", path) + _folders(f"{root}/sys/fs/cgroup/cpu",
                                                                                           path):
                quota, period = _read(f"{folder}/cpu.cfs_quota_us").strip(), _read(f"{folder}/cpu.cfs_period_us")
                if quota.isdigit() and int(quota) > 0:
                    yield int(quota) / int(period)


def available_cpus(root=""):
    """How many CPUs this process may keep busy: those of its affinity, or fewer where a control group allows less.

    A container that may use 1.5 CPUs gets 2. root: where /proc and /sys are.
    """
    count = _cpu_count() or 1
    return max(1, min([count, *(int(-(-quota // 1)) for quota in _quotas(root))]))


def resident_memory(pid):
    """Bytes of memory that a process has, also what it shares; 0 when there is no such process."""
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def private_memory(pid="self", above=0):
    """Bytes of memory that a process has for itself; 0 when there is no such process, or it has no more than `above`.

    Not what it shares, nor what is still as it was in the process that forked it. Counting that walks through all of
    its memory, so less than `above` is not counted.
    """
    fields = _read(f"/proc/{pid}/statm").split()
    most = (int(fields[1]) - int(fields[2])) * _PAGE if fields else 0
    if most <= above:
        return 0
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_")) or most


def cpu_sets(cpus):
    """A list of sets of CPUs from what the program says: True (each CPU of its own), CPUs or collections of them.

    None for None and False. TypeError, ValueError for what is no CPU of this process.
    """
    if cpus is None or cpus is False:
        return None
    ours = os.sched_getaffinity(0)
    if cpus is True:
        return [{cpu} for cpu in sorted(ours)]
    sets = [{cpu} if isinstance(cpu, int) else set(cpu) for cpu in cpus]
    for cpu in set().union(*sets):
        if cpu not in ours:
            raise ValueError(f"this process may not use the CPU {cpu!r}, but {sorted(ours)}")
    if not sets or not all(sets):
        raise ValueError(f"cpus must name a CPU for each worker, not {cpus!r}")
    return sets


class Limits:
    """Those of each worker. memory: bytes, or None. cpus: as cpu_sets() returns them, in turn for the workers."""

    def __init__(self, memory=None, cpus=None):
        self.memory = memory
        self.cpus = cpus

    def begin(self, number):
        """In the worker, before all else."""
        if self.cpus is not None:
            os.sched_setaffinity(0, self.cpus[number % len(self.cpus)])

    @property
    def exceeded(self):
        """In the worker: a function that says whether it has too much memory; None where that is no matter."""
        return None if self.memory is None else lambda: private_memory(above=self.memory) > self.memory
