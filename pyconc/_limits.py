# SPDX-License-Identifier: MIT
"""What this process may use of the machine: its CPU mask and its control groups count, not the hardware."""

import functools
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _group_folders(controller: str) -> list[Path]:
    """The folders of this process's control groups, from its own up to the root (version 2, else version 1)."""
    folders = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, group = line.split(":", 2)
        if names == "":
            base = _GROUPS
        elif controller in names.split(","):
            base = _GROUPS / controller
        else:
            continue
        own = base / group.lstrip("/")
        folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(base)]
    return folders


@functools.cache
def _cpu_quota() -> float:
    """CPUs' worth of time that the strictest control group allows, or infinity."""
    quotas = [float("inf")]
    for folder in _group_folders("cpu"):
        limit = (_read(folder / "cpu.max").split()
                 or [_read(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period")])
        if limit[0] not in ("", "max", "-1"):
            quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas)


def available_cores() -> int:
    """CPUs that this process can keep busy: those of its affinity mask, and no more than its CPU quota pays for."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, int(min(cores, _cpu_quota())))


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping or meeting a control group's limit; None when it is not known."""
    known = [int(line.split()[1]) * 1024 for line in _read(Path("/proc/meminfo")).splitlines()
             if line.startswith("MemAvailable:")]
    for folder in _group_folders("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, now = _read(folder / limit), _read(folder / used)
            if most.isdigit() and now.isdigit():
                known.append(max(0, int(most) - int(now)))
    return min(known, default=None)
