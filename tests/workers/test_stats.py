"""What a pool says of itself: stats(), progress; and what workers have for themselves."""
import io
import multiprocessing
import os
import time
import typing
from collections.abc import Callable

import jobs
import pytest

from pyconc.concurrent.futures import ProcessPoolExecutor
from pyconc.workers import progress, state

FORK = multiprocessing.get_context("fork")


def test_stats():
    with ProcessPoolExecutor(2, FORK) as pool:
        assert pool.stats().tasks == 0 and pool.stats().workers == []
        for _ in range(5):
            assert len(pool.submit(bytes, 200_000).result()) == 200_000
        pool.submit(time.sleep, 0.2).result()
        sleeper = pool.submit(time.sleep, 1)
        while not sleeper.running():
            time.sleep(0.01)
        stats = pool.stats()
        assert stats.tasks == sum(worker.tasks for worker in stats.workers) == 6
        assert stats.running == 1 and stats.waiting == 0 and stats.deaths == 0
        assert stats.bytes_out >= 1_000_000 > stats.bytes_in > 0
        assert 0.2 <= stats.busy < 30
        assert {worker.pid for worker in stats.workers} == set(pool._processes)
        assert sum(worker.running > 0 for worker in stats.workers) == 1
        assert all(worker.memory > 1 << 20 and worker.wait >= 0 for worker in stats.workers)


def test_stats_of_what_waits_and_of_what_has_ended():
    with ProcessPoolExecutor(1, FORK, on_worker_death="replace") as pool:
        pool.submit(pow, 2, 3).result()
        assert pool.submit(os._exit, 3).exception() is not None
        futures = [pool.submit(time.sleep, 0.3) for _ in range(3)]
        while not futures[0].running():
            time.sleep(0.01)
        stats = pool.stats()
        assert (stats.running, stats.waiting, stats.deaths, stats.tasks) == (1, 2, 1, 1)
        for future in futures:
            future.cancel()


def square(x):
    return x * x


@pytest.mark.parametrize("chunksize", ["auto", 10])
def test_progress(chunksize):
    told = []
    with ProcessPoolExecutor(2, FORK) as pool:
        options = pool.options(progress=lambda *now: told.append(now))
        assert list(options.map(square, range(100), chunksize=chunksize)) == [x * x for x in range(100)]
    assert told[-1] == (100, 100) and sorted(told) == told
    assert len(told) == 10 or chunksize == "auto"


def test_progress_of_nobody_knows_how_many():
    told = []
    with ProcessPoolExecutor(2, FORK) as pool:
        options = pool.options(progress=lambda *now: told.append(now))
        assert len(list(options.map(square, iter(range(10)), buffersize=4))) == 10
    assert told[-1] == (10, None)


def test_tqdm():
    tqdm = pytest.importorskip("tqdm")
    text = io.StringIO()
    with tqdm.tqdm(file=text) as bar:
        show = progress.tqdm(bar)
        show(3, 10)
        show(10, 10)
        assert (bar.n, bar.total) == (10, 10)


def test_rich():
    rich = pytest.importorskip("rich.progress")
    shown = rich.Progress()
    show = progress.rich(shown, shown.add_task("x", total=None))
    show(3, 10)
    assert (shown.tasks[0].completed, shown.tasks[0].total) == (3, 10)


def test_a_bar_of_its_own(capsys, monkeypatch):
    pytest.importorskip("rich")
    show = progress._rich_bar("squares")
    show(1, 2)
    show(2, 2)
    assert "squares" in capsys.readouterr().err


@pytest.mark.parametrize("make", [progress.bar, progress.rich, progress.tqdm])
def test_type_checkers_know_that_options_take_it(make):
    assert typing.get_type_hints(make)["return"] == Callable[[int, int | None], None]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_each_worker_has_a_state(method, tmp_path):
    path = str(tmp_path / "calls")
    with ProcessPoolExecutor(1, multiprocessing.get_context(method), initializer=jobs.set_state, initargs=("x",),
                             finalizer=jobs.CallsNoted(path)) as pool:
        assert [pool.submit(jobs.state_and_calls).result() for _ in range(3)] == [("x", 1), ("x", 2), ("x", 3)]
    with open(path) as file:
        assert file.read() == "3\n"
    assert not vars(state)
