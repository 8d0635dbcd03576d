"""What workers keep of the memory that their calls have had, and for how long."""
import gc
import multiprocessing
import os
import sysconfig
import time

import jobs
import pytest

from pyconc.concurrent.futures import ProcessPoolExecutor
from pyconc.workers.limits import private_memory, resident_memory

MIB = 1 << 20

pytestmark = [
    pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="AddressSanitizer keeps what is freed"),
    pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="that allocator has no arenas"),
]


# A forked one begins with all the memory that is free in this process, which has run other tests.
@pytest.fixture(params=["forkserver", "spawn"])
def context(request):
    return multiprocessing.get_context(request.param)


def large_pages_come_unasked():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            return "[always]" in file.read()
    except OSError:
        return False


counts_pages = pytest.mark.skipif(large_pages_come_unasked(), reason="large pages are too few to be counted")


@counts_pages
@pytest.mark.parametrize("make", [jobs.objects, jobs.blocks])
def test_a_call_finds_the_memory_of_the_one_before(context, make):
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        first, second = [pool.submit(jobs.page_faults_of, make).result() for _ in range(2)]
        assert first > 1000 and first > 4 * second


@pytest.mark.parametrize("make", [jobs.objects, jobs.blocks])
def test_an_idle_worker_gives_it_back(context, make):
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(jobs.page_faults_of, list).result()      # what that imports stays
        pid, before = pool.submit(os.getpid).result(), pool.submit(resident_memory, "self").result()
        pool.submit(jobs.page_faults_of, make).result()
        while resident_memory(pid) > before + 3 * MIB:
            time.sleep(0.01)


@counts_pages
def test_one_with_a_limit_keeps_none(context):
    with ProcessPoolExecutor(1, mp_context=context, max_memory_per_worker=1000 * MIB) as pool:
        pool.submit(jobs.page_faults_of, jobs.objects).result()
        assert pool.submit(jobs.page_faults_of, jobs.objects).result() > 1000


def test_collecting_garbage_copies_nothing_of_the_parent():
    kept = [[] for _ in range(500_000)]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        before = pool.submit(private_memory).result()
        pool.submit(gc.collect).result()
        assert pool.submit(private_memory).result() - before < 8 * MIB
    assert len(kept) == 500_000
