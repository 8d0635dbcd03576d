"""How many processes, on which CPUs, with how much memory."""
import multiprocessing
import os

import pytest

from pyconc.concurrent.futures import ProcessPoolExecutor
from pyconc.workers import limits
from pyconc.workers.limits import available_cpus, cpu_sets, private_memory, resident_memory

OURS = sorted(os.sched_getaffinity(0))


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.fixture(autouse=True)
def eight(monkeypatch):
    monkeypatch.setattr(limits, "_cpu_count", lambda: 8)


@pytest.mark.parametrize("files, count", [
    ({}, 8),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
      "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 3),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "600000 100000\n",
      "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n"}, 4),
    ({"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
    ({"proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/docker/1\n",
      "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "250000\n",
      "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n"}, 3),
    ({"proc/self/cgroup": "2:cpu,cpuacct:/docker/1\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n"}, 2),
    ({"proc/self/cgroup": "2:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
])
def test_a_control_group_may_allow_less(tmp_path, files, count):
    assert available_cpus(tree(tmp_path, files)) == count


def test_here():
    assert 1 <= available_cpus() <= 8


def test_memory():
    before = private_memory()
    data = b"x" * (64 << 20)
    assert 60 << 20 < private_memory() - before < 80 << 20
    assert resident_memory(os.getpid()) >= private_memory(os.getpid()) > len(data)
    assert private_memory(os.getpid(), above=1 << 40) == 0
    assert private_memory(1 << 30) == resident_memory(1 << 30) == 0


def test_what_a_forked_process_has_not_touched_is_not_its_own(in_child):
    data = b"x" * (256 << 20)
    assert int(in_child(lambda: private_memory(above=1 << 20))) < 128 << 20 < len(data)


@pytest.mark.parametrize("cpus, sets", [
    (None, None), (False, None), (True, [{cpu} for cpu in OURS]), ([OURS[0]], [{OURS[0]}]),
    ([OURS[0], set(OURS)], [{OURS[0]}, set(OURS)]), (iter([OURS]), [set(OURS)]),
])
def test_cpu_sets(cpus, sets):
    assert cpu_sets(cpus) == sets


@pytest.mark.parametrize("cpus, error", [([], ValueError), ([set()], ValueError), ([4000], ValueError), (3, TypeError)])
def test_what_is_no_cpu(cpus, error):
    with pytest.raises(error):
        ProcessPoolExecutor(1, cpus=cpus)


def affinity(_):
    return os.sched_getaffinity(0)


def test_workers_are_bound():
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), cpus=[OURS[-1]]) as pool:
        assert list(pool.map(affinity, range(3))) == [{OURS[-1]}] * 3
    assert sorted(os.sched_getaffinity(0)) == OURS
