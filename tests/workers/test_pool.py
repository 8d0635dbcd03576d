"""ProcessPoolExecutor from its first worker to its last: starting, sharing out, cancelling, running again, ending."""
import asyncio
import contextlib
import functools
import gc
import mmap
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from pathlib import Path

import jobs
import mishaps
import psutil
import pytest

from pyconc import _ipc, multiprocessing
from pyconc.concurrent.futures import ProcessPoolExecutor, WorkerDied, as_completed, wait
from pyconc.concurrent.futures._base import TaskFuture
from pyconc.workers.memo import Memo
from pyconc.workers.pool import WorkerPool
from pyconc.workers.processes import WorkerProcess
from pyconc.workers.supervisor import Collector

HERE = Path(__file__).parent
LIMIT = 60


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def fork():
    """The start method that costs least, where it makes no difference which one it is."""
    return multiprocessing.get_context("fork")


def until(condition):
    """Waits for what others do."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def run(program, *args):
    """A program of its own, with the folder of `jobs` to import from; (exit code, stdout, stderr)."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-X", "dev", "-c", textwrap.dedent(program), *args], env=environment,
                          text=True, capture_output=True, timeout=LIMIT)
    return done.returncode, done.stdout, done.stderr


def memories():
    """How many descriptors of shared memory of ours this process has."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum("memfd:pyconc" in name for name in names)


# Calls.

def test_calls_and_their_errors(context):
    with ProcessPoolExecutor(2, context) as pool:
        assert pool.submit(jobs.total, 1, 2, three=3).result(LIMIT) == 6
        assert pool.submit(pow, 2, 8).result(LIMIT) == 256
        with pytest.raises(LookupError, match="told by the worker") as caught:
            pool.submit(jobs.fail).result(LIMIT)
        assert type(caught.value.__cause__) is _RemoteTraceback
        assert "in fail" in str(caught.value.__cause__)
        assert list(pool.map(jobs.double, range(10))) == list(range(0, 20, 2))


def test_futures_of_both_kinds_together(fork):
    with ProcessPoolExecutor(2, fork) as pool:
        futures = [pool.submit(jobs.double, number) for number in range(50)]
        assert sorted(future.result() for future in as_completed(futures, LIMIT)) == list(range(0, 100, 2))
        assert not wait(futures, LIMIT).not_done

        async def main():
            first, *others = [pool.submit(jobs.double, number) for number in range(20)]
            return [await first, *await asyncio.gather(*map(asyncio.wrap_future, others))]

        assert asyncio.run(main()) == list(range(0, 40, 2))


def test_many_threads_submit_and_wait(fork, crowd):
    with ProcessPoolExecutor(2, fork) as pool:
        def work(number):
            assert pool.submit(jobs.double, number).result(LIMIT) == 2 * number

        with crowd(work, 4):
            time.sleep(0.5)


def test_methods_and_partials_are_pickled_each_time(fork):
    """Their state is that of the moment of each call, and no call sees what another one has changed."""
    greeting = jobs.Greeting()
    with ProcessPoolExecutor(1, fork) as pool:
        assert [pool.submit(greeting.greet).result(LIMIT) for _ in range(2)] == [1, 1]
        greeting.times = 10
        assert pool.submit(greeting.greet).result(LIMIT) == 11
        add = functools.partial(jobs.total, 1)
        assert pool.submit(add, 2).result(LIMIT) == 3
        assert pool.submit([3, 4].count, 3).result(LIMIT) == 1


def test_lambdas_closures_and_what_they_return(context):
    pytest.importorskip("cloudpickle")
    here = 5
    with ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(lambda number: number + 1, 1).result(LIMIT) == 2
        assert pool.submit(lambda number: number + here, 1).result(LIMIT) == 6
        assert pool.submit(sorted, [1, 2], key=lambda number: -number).result(LIMIT) == [2, 1]
        assert pool.submit(lambda: lambda: here).result(LIMIT)() == 5


def test_a_lambda_without_cloudpickle(fork, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with ProcessPoolExecutor(1, fork) as pool:
        error = pool.submit(lambda: 1).exception(LIMIT)
        assert isinstance(error, pickle.PicklingError | AttributeError)
        assert "cloudpickle" in "".join(error.__notes__)


class Service:
    def __init__(self, pool):
        self.pool = pool

    def double(self, number):
        return 2 * number


def test_a_method_of_an_object_that_has_the_pool(context):
    with ProcessPoolExecutor(1, context) as pool:
        for call in pool.submit(Service(pool).double, 1), pool.submit(jobs.double, pool.options(retry=1)):
            with pytest.raises(TypeError, match="cannot pickle 'ProcessPoolExecutor' object: .* method"):
                call.result(LIMIT)


# Workers.

def test_workers_start_when_they_are_needed():
    with ProcessPoolExecutor(4, multiprocessing.get_context("forkserver")) as pool:
        assert not pool._processes
        for _ in range(3):
            pool.submit(jobs.double, 1).result(LIMIT)
            assert len(pool._processes) == 1


def test_no_start_method_and_threads_alive():
    """Forking would copy the locks that they hold. A pool's own threads are none that hold any."""
    program = """
        import sys, threading, time
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        pool = ProcessPoolExecutor(1, get_context("fork"))
        pool.submit(abs, 1).result()
        if sys.argv[1:]:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        print(ProcessPoolExecutor(1)._mp_context.get_start_method())
    """
    default = multiprocessing.get_all_start_methods()[0]
    assert run(program) == (0, f"{default}\n", "")
    assert run(program, "thread") == (0, f"{'forkserver' if default == 'fork' else default}\n", "")


def test_initializer_and_finalizer(context, tmp_path):
    path = tmp_path / "ended"
    with ProcessPoolExecutor(2, context, jobs.keep, ("value",), finalizer=jobs.EndNoted(path)) as pool:
        assert pool.submit(jobs.kept).result(LIMIT) == ["value"]
        pids = set(pool._processes)
    assert set(map(int, path.read_text().split())) == pids


def test_an_initializer_that_fails(context):
    with ProcessPoolExecutor(2, context, jobs.fail, ("for the initializer",), on_worker_death="replace") as pool:
        with pytest.raises(BrokenProcessPool, match="initializer failed") as caught:
            pool.submit(jobs.double, 1).result(LIMIT)
        assert "LookupError: for the initializer" in str(caught.value.__cause__)
        with pytest.raises(BrokenProcessPool, match="initializer failed") as caught:
            pool.submit(jobs.double, 1)
        assert "LookupError: for the initializer" in str(caught.value.__cause__)


@pytest.mark.parametrize("deaths", ["break", "replace"])
def test_a_worker_that_dies_in_its_initializer(fork, deaths):
    """Again and again: it is said, instead of starting others for ever."""
    with ProcessPoolExecutor(2, fork, jobs.die, on_worker_death=deaths) as pool:
        with pytest.raises(BrokenProcessPool, match="SIGKILL.*before it could take a call"):
            pool.submit(jobs.double, 1).result(LIMIT)


def test_a_worker_that_leaves_in_its_initializer(fork):
    """As if all were well."""
    with ProcessPoolExecutor(1, fork, os._exit, (0,), on_worker_death="replace") as pool:
        with pytest.raises(BrokenProcessPool, match="exit code 0 before it could take a call.*3 did so in a row"):
            pool.submit(jobs.double, 1).result(LIMIT)


def test_a_worker_that_dies_in_its_initializer_once(fork, tmp_path):
    initargs = (tmp_path / "tried", 1)
    with ProcessPoolExecutor(2, fork, jobs.die_until, initargs, on_worker_death="replace") as pool:
        assert [pool.submit(jobs.double, 1).result(LIMIT) for _ in range(10)] == [2] * 10


def test_max_tasks_per_child(context):
    with ProcessPoolExecutor(1, context, max_tasks_per_child=2) as pool:
        pids = [pool.submit(os.getpid).result(LIMIT) for _ in range(6)]
        assert len(set(pids)) == 3
        assert [pids[0], pids[2], pids[4]] == [pids[1], pids[3], pids[5]]


def test_max_tasks_per_child_with_work_for_more(fork):
    with ProcessPoolExecutor(2, fork, max_tasks_per_child=1) as pool:
        futures = [pool.submit(os.getpid) for _ in range(10)]
        assert len({future.result(LIMIT) for future in futures}) == 10


def test_idle_workers_end(fork):
    with ProcessPoolExecutor(2, fork, idle_timeout=0.1) as pool:
        first = pool.submit(os.getpid).result(LIMIT)
        until(lambda: not pool._processes)
        assert pool.submit(os.getpid).result(LIMIT) != first


def test_the_death_of_the_guilty_is_described(fork):
    with ProcessPoolExecutor(1, fork) as pool:
        with pytest.raises(WorkerDied) as caught:
            pool.submit(jobs.leave, 7).result(LIMIT)
        error = caught.value
        assert (error.function, error.arguments, error.exitcode, error.signal) == ("jobs.leave", "7", 7, None)
        assert str(error.pid) in str(error) and "exit code 7" in str(error)
        assert error.peak_memory > 1 << 20
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is WorkerDied and again.pid == error.pid and str(again) == str(error)


class Shapeless:
    """What says nothing of itself."""

    @property
    def shape(self):
        raise ValueError("there is none")

    def __getattr__(self, name):
        raise RuntimeError(f"there is no {name}")

    def __call__(self):
        jobs.die()


ENDLESS = [1]
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize("call", [
    lambda: (jobs.die_with, 10 ** 5000), lambda: (jobs.die_with, Shapeless()), lambda: (jobs.die_with, ENDLESS),
    lambda: (Shapeless(),)])
def test_the_death_of_a_call_that_cannot_be_described(fork, call):
    """It fails all the same, and the pool goes on."""
    with ProcessPoolExecutor(1, fork, on_worker_death="replace") as pool:
        assert isinstance(pool.submit(*call()).exception(LIMIT), WorkerDied)
        assert pool.submit(jobs.double, 1).result(LIMIT) == 2


def test_the_death_of_one_call_of_a_map_is_described(fork):
    with ProcessPoolExecutor(1, fork, on_worker_death="replace") as pool:
        with pytest.raises(WorkerDied, match=r"while it ran jobs.leave\(7\)"):
            list(pool.map(jobs.leave, [7]))
        with pytest.raises(WorkerDied, match=r"while it ran jobs.leave\(range\(7, 9\)\)"), fork.Pool(1) as other:
            other.map(jobs.leave, range(7, 9), chunksize=2)
        with pytest.raises(WorkerDied, match=r"while it ran jobs.die_with\(1, 2\)"):
            list(pool.map(jobs.die_with, [1], [2]))


@pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="AddressSanitizer ends a process that crashes by itself")
def test_a_crash_says_where(fork):
    with ProcessPoolExecutor(1, fork) as pool:
        import ctypes
        error = pool.submit(ctypes.string_at, 1).exception(LIMIT)
        assert error.signal == "SIGSEGV"
        assert "Fatal Python error: Segmentation fault" in error.output and "in string_at" in str(error)


def test_a_call_is_run_again(fork, tmp_path):
    with ProcessPoolExecutor(1, fork, on_worker_death="replace", retry=2) as pool:
        assert pool.submit(jobs.die_until, tmp_path / "two", 2).result(LIMIT) in pool._processes
        with pytest.raises(WorkerDied):
            pool.submit(jobs.die_until, tmp_path / "three", 3).result(LIMIT)
        with pytest.raises(WorkerDied):
            pool.options(retry=0).submit(jobs.die_until, tmp_path / "none", 1).result(LIMIT)
    with ProcessPoolExecutor(1, fork) as pool:      # which breaks only when that is used up
        assert pool.options(retry=1).submit(jobs.die_until, tmp_path / "one", 1).result(LIMIT)


def test_nested_pools(context):
    with ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(jobs.nest, context.get_start_method()).result(LIMIT) == 42


# Cancelling.

def test_cancelling_is_exact(fork):
    """What was cancelled never runs, what runs is not cancelled."""
    told, event = fork.Queue(), fork.Event()
    with ProcessPoolExecutor(1, fork) as pool:
        runs = pool.submit(jobs.tell_and_wait, told, event)
        waits = [pool.submit(jobs.tell, told, number) for number in range(3)]
        assert told.get(timeout=LIMIT) in pool._processes
        assert runs.running() and not runs.cancel()
        assert not waits[0].running() and waits[0].cancel() and waits[0].cancelled()
        event.set()
        runs.result(LIMIT)
        wait(waits, LIMIT)
    assert told.empty()
    with pytest.raises(CancelledError):
        waits[0].result()


def test_cancelling_what_has_no_room_yet(fork):
    told, event = fork.Queue(), fork.Event()
    with ProcessPoolExecutor(1, fork) as pool:
        pool.submit(jobs.tell_and_wait, told, event)
        futures = [pool.submit(jobs.double, number) for number in range(3000)]
        assert all(future.cancel() for future in futures[::2])
        event.set()
        assert [future.result(LIMIT) for future in futures[1::2]] == [2 * number for number in range(1, 3000, 2)]


def test_priorities(fork, tmp_path):
    path = tmp_path / "order"
    told, event = fork.Queue(), fork.Event()
    with ProcessPoolExecutor(1, fork) as pool:
        pool.submit(jobs.tell_and_wait, told, event)
        told.get(timeout=LIMIT)
        for word in "ab":
            pool.submit(jobs.note, path, word)
        for word in "cd":
            pool.options(priority=1).submit(jobs.note, path, word)
        pool.options(priority=-1).submit(jobs.note, path, "f")
        pool.options(priority=2).submit(jobs.note, path, "0")
        pool.submit(jobs.note, path, "e")
        event.set()
    assert path.read_text().split() == ["0", "c", "d", "a", "b", "e", "f"]


# The end.

def test_after_shutdown(fork):
    pool = ProcessPoolExecutor(1, fork)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(jobs.double, 1)
    pool.shutdown()


def test_shutdown_lets_all_be_done(context):
    pool = ProcessPoolExecutor(2, context)
    futures = [pool.submit(jobs.double, number) for number in range(2000)]
    processes = list(pool._processes.values())
    pool.shutdown()
    assert [future.result(0) for future in futures] == list(range(0, 4000, 2))
    assert all(process.exitcode == 0 for process in processes)


def test_shutdown_without_waiting(fork, no_leaked_threads):
    told, event = fork.Queue(), fork.Event()
    pool = ProcessPoolExecutor(2, fork)
    future = pool.submit(jobs.tell_and_wait, told, event)
    pid = told.get(timeout=LIMIT)
    with pytest.raises(TimeoutError, match="still run after 0.01 seconds"):
        pool.shutdown(timeout=0.01)
    pool.shutdown(wait=False)
    event.set()
    assert future.result(LIMIT) == pid
    until(lambda: is_gone(pid))


def test_shutdown_that_cancels(fork):
    told, event = fork.Queue(), fork.Event()
    pool = ProcessPoolExecutor(1, fork)
    runs = pool.submit(jobs.tell_and_wait, told, event)
    waits = [pool.submit(jobs.double, 1) for _ in range(2000)]
    told.get(timeout=LIMIT)
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waits)
    event.set()
    pool.shutdown()
    assert runs.result(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_raises_no_exception(fork):
    """It is told, and results go on to come."""
    told = threading.Event()

    def callback(future):
        told.set()
        raise KeyboardInterrupt

    started, event, ended = fork.Queue(), fork.Event(), threading.Event()
    with ProcessPoolExecutor(1, fork) as pool:
        pool.submit(jobs.tell_and_wait, started, event).add_done_callback(callback)
        event.set()
        assert told.wait(LIMIT)
        pool.submit(jobs.double, 1).add_done_callback(lambda future: ended.set())
        assert ended.wait(LIMIT)


def test_shutdown_in_a_callback(fork):
    """Where waiting would be for ever."""
    pool, ended = ProcessPoolExecutor(1, fork), threading.Event()

    def callback(future):
        pool.shutdown(wait=False)
        ended.set()

    pool.submit(jobs.double, 1).add_done_callback(callback)
    assert ended.wait(LIMIT)
    pool.shutdown()


def test_nobody_has_the_pool_any_longer(fork, no_leaked_threads, no_leaked_fds):
    """What it was given is done, and then nothing is left of it."""
    pool = ProcessPoolExecutor(2, fork)
    futures = [pool.submit(jobs.double, number) for number in range(100)]
    pids = list(pool._processes)
    del pool
    gc.collect()
    assert [future.result(LIMIT) for future in futures] == list(range(0, 200, 2))
    del futures
    until(lambda: all(map(is_gone, pids)))


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_ending_all_workers(fork, end):
    told = fork.Queue()
    pool = ProcessPoolExecutor(1, fork)
    runs = pool.submit(jobs.tell_and_sleep, told)
    waits = pool.submit(jobs.double, 1)
    told.get(timeout=LIMIT)
    getattr(pool, end)()
    with pytest.raises(BrokenProcessPool, match="forcefully shut down"):
        runs.result(LIMIT)
    assert waits.cancelled()
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(jobs.double, 1)


def test_a_broken_pool_kills_who_ignores_sigterm(fork, monkeypatch):
    from pyconc.workers import pool as engine
    monkeypatch.setattr(engine, "_GRACE", 0.1)
    told = fork.Queue()
    with ProcessPoolExecutor(2, fork) as pool:
        stubborn = pool.submit(jobs.ignores_sigterm, told)
        told.get(timeout=LIMIT)
        assert isinstance(pool.submit(jobs.die).exception(LIMIT), WorkerDied)
        assert isinstance(stubborn.exception(LIMIT), WorkerDied)


def test_exit_of_the_interpreter_lets_all_be_done(context, tmp_path):
    program = f"""
        import time, jobs
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        pool = ProcessPoolExecutor(2, get_context({context.get_start_method()!r}))
        for word in range(20):
            pool.submit(jobs.note, {str(tmp_path / "done")!r}, word)
    """
    assert run(program) == (0, "", "")
    assert len((tmp_path / "done").read_text().split()) == 20


def test_a_call_that_comes_while_the_pool_breaks(fork, monkeypatch):
    """And for which there was no room before: it does not wait for who will never come."""
    told, event = fork.Queue(), fork.Event()
    with ProcessPoolExecutor(1, fork) as pool:
        first = pool.submit(jobs.tell_and_wait, told, event)
        told.get(timeout=LIMIT)
        while not pool._pool._waiting:
            pool.submit(jobs.double, 1)
        put_off = WorkerPool._put_off

        def late(engine, *arguments, **more):
            engine.break_down("It breaks meanwhile.")
            put_off(engine, *arguments, **more)

        monkeypatch.setattr(WorkerPool, "_put_off", late)
        with pytest.raises(BrokenProcessPool, match="meanwhile"):
            pool.submit(jobs.double, 1)
        with pytest.raises(BrokenProcessPool, match="meanwhile"):
            pool.options(priority=1).submit(jobs.double, 1)
        assert isinstance(first.exception(LIMIT), BrokenProcessPool)


def test_results_that_cannot_be_read(fork):
    """Because something has written into the memory of the queue: who waits for one does not wait for ever."""
    told, event, calls, goes_on = fork.Queue(), fork.Event(), threading.Event(), threading.Event()
    mark = b"a result that is found again"

    def callback(future):
        calls.set()
        goes_on.wait(LIMIT)

    with ProcessPoolExecutor(1, fork) as pool:
        pool.submit(jobs.tell_and_wait, told, event).add_done_callback(callback)
        event.set()
        assert calls.wait(LIMIT)    # so nobody collects the next one
        future = pool.submit(bytes, mark)
        _, (_, results, _) = pool._pool._channel.__reduce__()
        with mmap.mmap(results.descriptors()[1], 0) as memory:
            until(lambda: mark in memory[:])
            at = memory.find(mark)
            memory[at - 64:at] = b"\xff" * 64
        threading.Timer(0.2, goes_on.set).start()
        with pytest.raises(BrokenProcessPool, match="corrupt"):
            future.result(LIMIT)
        with pytest.raises(BrokenProcessPool, match="corrupt"):
            pool.submit(jobs.double, 1)


def test_no_thread_collects(fork, monkeypatch):
    """As when the program ends at once under Python 3.12, which starts none from then on."""
    def start(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(Collector, "start", start)
    called = threading.Event()
    with ProcessPoolExecutor(2, fork) as pool:
        pool.submit(jobs.double, 1).add_done_callback(lambda future: called.set())
        assert called.wait(LIMIT)       # though nobody waits for the result
        assert list(pool.map(jobs.double, range(50))) == [2 * n for n in range(50)]
        last = pool.submit(jobs.double, 2)
    assert last.done() and last.result() == 4


def test_submitting_at_exit():
    program = """
        import atexit, jobs
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context

        @atexit.register
        def late():
            try:
                pool.submit(jobs.double, 1)
            except RuntimeError as error:
                print(error)
        pool = ProcessPoolExecutor(1, get_context("fork"))
        pool.submit(jobs.double, 1).result()
    """
    assert run(program) == (0, "cannot schedule new futures after interpreter shutdown\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_function_that_workers_do_not_have(method, tmp_path):
    """The error says why that may be."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(f"""
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        if __name__ == "__main__":
            with ProcessPoolExecutor(1, get_context({method!r})) as pool:
                pool.submit(abs, 1).result()
                def late():
                    pass
                error = pool.submit(late).exception(50)
                print(type(error).__name__, error.__notes__)
    """))
    done = subprocess.run([sys.executable, program], text=True, capture_output=True, timeout=LIMIT)
    assert done.stdout.startswith("AttributeError") and "top level of a module" in done.stdout, done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_session_defines(method):
    """Its main module is no file that a worker could import."""
    pytest.importorskip("cloudpickle")
    program = f"""
        import functools
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        def power(exponent, number):
            return number ** exponent
        cube = functools.partial(power, 3)
        with ProcessPoolExecutor(1, get_context({method!r})) as pool:
            print([pool.submit(power, 2, 3).result(), pool.submit(cube, 2).result(), *pool.map(cube, [3, 4])])
    """
    assert run(program) == (0, "[9, 8, 27, 64]\n", "")


def test_no_main_guard(tmp_path):
    """The error of the program says what is missing."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent("""
        import jobs, sys
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        pool = ProcessPoolExecutor(1, get_context("spawn"))
        future = pool.submit(jobs.double, 1)
        print(future.exception(50))
    """))
    done = subprocess.run([sys.executable, program], env={**os.environ, "PYTHONPATH": str(HERE)}, text=True,
                          capture_output=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert "exit code 1 before it could take a call" in done.stdout
    assert 'if __name__ == "__main__":' in done.stdout


# Signals and forks.

def test_ctrl_c_as_soon_as_a_worker_is_forked():
    """It does not go through the program's own code there."""
    program = """
        import ctypes, functools, os
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        os.register_at_fork(after_in_child=functools.partial(getattr(ctypes.CDLL(None), "raise"), 2))
        try:
            with ProcessPoolExecutor(2, get_context("fork")) as pool:
                print(pool.submit(abs, -1).result(50))
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert run(program) == (0, "1\n", "")


@pytest.mark.parametrize("place", ["os.pipe", "os.memfd_create", "processes.WorkerProcess.__init__"])
def test_ctrl_c_as_its_parts_are_made(place):
    """What has been begun is let go of without a word."""
    program = f"""
        import os, time
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        from pyconc.workers import processes

        def interrupted(*_):
            raise KeyboardInterrupt

        {place} = interrupted
        try:
            ProcessPoolExecutor(1, get_context("fork")).submit(abs, -1)
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert run(program) == (0, "interrupted\n", "")


INTERRUPTED = """
    import sys, threading, time
    from multiprocessing.process import BaseProcess
    from pyconc.concurrent.futures import ProcessPoolExecutor
    from pyconc.multiprocessing import get_context
    from pyconc.workers.processes import Processes

    def has_begun(channel):
        return any(record["task"] or record["tasks"] for record in map(channel.worker, range(2)))

    def interrupted(start, after):
        def start_some(self):
            if len(started) < after:
                started.append(start(self))
                return
            if after == 0:
                start(self)
            while not has_begun(pool._pool._channel):   # what cannot be cancelled any more
                time.sleep(0.001)
            kind.start = start
            raise KeyboardInterrupt
        return start_some

    if __name__ == "__main__":
        started, (kind, after) = [], {place}
        kind.start = interrupted(kind.start, after)
        try:
            with ProcessPoolExecutor(4, get_context({method!r})) as pool:
                {call}
        except KeyboardInterrupt:
            print("interrupted", len(pool._pool.processes), threading.active_count())
"""


@pytest.mark.parametrize("call", ["pool.submit(time.sleep, 0.1)", "list(pool.map(time.sleep, [0.1] * 8))"])
@pytest.mark.parametrize("method, place", [("fork", "(Processes, 2)"), ("fork", "(BaseProcess, 0)"),
                                           ("spawn", "(BaseProcess, 0)"), ("forkserver", "(BaseProcess, 0)")])
def test_ctrl_c_while_workers_are_started(call, method, place, tmp_path):
    """Those that there are end, though not all had been started, or the last one was not known yet."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(INTERRUPTED.format(call=call, method=method, place=place)))
    done = subprocess.run([sys.executable, program], text=True, capture_output=True, timeout=LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted 0 1\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_ctrl_c_as_soon_as_a_worker_is_started(method, tmp_path):
    """It is known, and ends; Ctrl-C is heard from then on as before."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent("""
        import signal, sys, threading, time
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        from pyconc.workers import processes

        def interrupted(*_):
            while not pool._pool._channel.worker(0)["task"]:
                time.sleep(0.001)
            processes._pidfd = pidfd
            raise KeyboardInterrupt

        if __name__ == "__main__":
            pidfd, processes._pidfd = processes._pidfd, interrupted
            try:
                with ProcessPoolExecutor(1, get_context(sys.argv[1])) as pool:
                    pool.submit(time.sleep, 0.1)
            except KeyboardInterrupt:
                print(len(pool._pool.processes), threading.active_count(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """))
    done = subprocess.run([sys.executable, "-X", "dev", program, method], text=True, capture_output=True, timeout=LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1 set()\n", "")


def test_ctrl_c_interrupts_what_runs_and_nothing_else(fork):
    told = fork.Queue()
    with ProcessPoolExecutor(2, fork) as pool:
        runs = pool.submit(jobs.interrupt_and_wait, told)
        busy = told.get(timeout=LIMIT)
        pids = list(pool._processes)
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        assert runs.result(LIMIT) == "interrupted"
        for _ in range(20):
            assert pool.submit(jobs.double, 1).result(LIMIT) == 2
        assert list(pool._processes) == pids and busy in pids


def test_ctrl_c_ends_a_program_once(context):
    """The whole group of processes gets it, as from a terminal: one traceback, that of the program."""
    program = f"""
        import jobs
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        context = get_context({context.get_start_method()!r})
        told = context.Queue()
        with ProcessPoolExecutor(2, context) as pool:
            futures = [pool.submit(jobs.tell_and_sleep, told) for _ in range(20)]
            told.get(), told.get()
            print("ready", flush=True)
            futures[0].result()
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(HERE)},
                               start_new_session=True)
    try:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode in (1, -signal.SIGINT)
    assert error.count("KeyboardInterrupt") == 1 and error.count("Traceback") <= 2, error


def test_ctrl_c_at_exit_ends_a_program(fork):
    """Which waits for its calls by then: those that have not begun never will."""
    program = """
        import jobs, os, signal, threading
        from pyconc.concurrent.futures import ProcessPoolExecutor
        from pyconc.multiprocessing import get_context
        from pyconc.workers.pool import WorkerPool
        context = get_context("fork")
        told = context.Queue()
        pool = ProcessPoolExecutor(2, context)
        futures = [pool.submit(jobs.tell_and_sleep, told) for _ in range(20)]
        told.get(), told.get()

        def interrupt():
            waits.wait()
            os.killpg(0, signal.SIGINT)

        def joined(self, timeout=None):
            waits.set()
            return join(self, timeout)

        waits, join, WorkerPool.join = threading.Event(), WorkerPool.join, joined
        threading.Thread(target=interrupt, daemon=True).start()
        print("ready", flush=True)
    """
    process = subprocess.Popen([sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(HERE)}, start_new_session=True)
    try:
        out, error = process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert out == "ready\n" and error.count("\nKeyboardInterrupt") == 1, (process.returncode, error)


def test_ctrl_c_just_before_the_wait_for_the_end(fork, monkeypatch):
    """It does not end the sleep that begins when it has been looked for, but that is not for ever."""
    join = threading.Thread.join

    def join_and_interrupt(thread, timeout=None):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        try:
            join(thread, timeout)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    with ProcessPoolExecutor(1, fork) as pool:
        pool.submit(jobs.double, 1).result(LIMIT)
        gives_up = threading.Timer(20, pool._pool.close)
        gives_up.start()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(threading.Thread, "join", join_and_interrupt)
            pool._pool.join()
        assert pool._pool.state == "open"
        gives_up.cancel()
        gives_up.join()


def test_a_forked_child_has_no_pool(fork, in_child):
    """It is told so, at once; the parent's goes on."""
    told, event = fork.Queue(), fork.Event()
    with ProcessPoolExecutor(1, fork) as pool:
        future = pool.submit(jobs.tell_and_wait, told, event)
        told.get(timeout=LIMIT)
        assert in_child(lambda: pool.submit(jobs.double, 1)) == (
            "RuntimeError: this process pool belongs to the process that forked this one: make one here")
        assert in_child(future.result) == "RuntimeError: this call's result goes to the process that forked this one"

        assert in_child(future.cancel) == "False"
        assert in_child(lambda: future.cancel(running=True)) == "False"
        assert in_child(lambda: pool.shutdown(cancel_futures=True)) == "None"
        for end in (pool.kill_workers, pool.terminate_workers, pool.stats):
            assert in_child(end).startswith("RuntimeError: this process pool belongs to the process that forked")

        def own():
            pool.shutdown()
            with ProcessPoolExecutor(1, fork) as another:
                return another.submit(jobs.double, 1).result(LIMIT)

        assert in_child(own) == "2"
        event.set()
        assert future.result(LIMIT) in pool._processes


def test_a_daemon_has_no_workers(fork):
    """As it may have no children at all."""
    def body():
        try:
            ProcessPoolExecutor(1, fork).submit(jobs.double, 1)
        except AssertionError as error:
            theirs.send(str(error))

    ours, theirs = fork.Pipe()
    process = fork.Process(target=body, daemon=True)
    process.start()
    assert ours.poll(LIMIT) and ours.recv() == "daemonic processes are not allowed to have children"
    process.join()
    for end in (ours, theirs):
        end.close()


@pytest.mark.parametrize("arguments, error", [
    ({"max_workers": 0}, ValueError), ({"max_workers": -1}, ValueError), ({"initializer": 5}, TypeError),
    ({"finalizer": 5}, TypeError), ({"max_tasks_per_child": 0}, ValueError), ({"max_tasks_per_child": 1.5}, TypeError),
    ({"on_worker_death": "ignore"}, ValueError), ({"retry": -1}, ValueError), ({"retry": "no"}, TypeError),
    ({"idle_timeout": -1}, ValueError)])
def test_wrong_arguments(arguments, error):
    with pytest.raises(error) as caught:
        ProcessPoolExecutor(**arguments)
    assert repr(next(iter(arguments.values()))) in str(caught.value)


@pytest.mark.parametrize("name, value, error", [
    ("priority", "high", TypeError), ("priority", None, TypeError), ("retry", -1, ValueError),
    ("retry", 1.5, TypeError), ("progress", 5, TypeError)])
def test_wrong_options(fork, name, value, error):
    with ProcessPoolExecutor(1, fork) as pool, pytest.raises(error, match=f"{name} .*{value!r}"):
        pool.options(**{name: value})


def test_a_signal_for_a_process_that_has_ended(fork):
    process = fork.Process()
    process.start()
    process.join()
    worker = WorkerProcess(0, process, Memo())
    worker.signal(signal.SIGTERM)
    worker.close()


# What nobody else would do.

def test_calls_are_sent_in_place_of_those_that_were_cancelled(fork):
    """No result comes that would make room."""
    goes_on = fork.Event()
    with ProcessPoolExecutor(1, fork, initializer=goes_on.wait) as pool:
        futures = [pool.submit(jobs.double, number) for number in range(1100)]
        assert all(future.cancel() for future in futures[:1050])
        goes_on.set()
        assert [future.result(LIMIT) for future in futures[1050:]] == list(range(2100, 2200, 2))


def test_cancelled_calls_make_no_room_for_others_that_are_to_be_cancelled(fork, tmp_path):
    goes_on, path = fork.Event(), tmp_path / "ran"
    pool = ProcessPoolExecutor(1, fork, initializer=goes_on.wait)
    futures = [pool.submit(jobs.note, path, number) for number in range(1100)]
    pool.shutdown(wait=False, cancel_futures=True)
    goes_on.set()
    pool.shutdown()
    assert all(future.cancelled() for future in futures)
    assert not path.exists()


@pytest.fixture
def one_slot(monkeypatch):
    """All calls but one wait in the parent."""
    channel = _ipc.Channel
    monkeypatch.setattr(_ipc, "Channel", lambda workers: channel(workers, slots=1))


@pytest.mark.parametrize("end", ["result", "cancel"])
def test_the_callback_of_a_call_that_cannot_be_sent_when_there_is_room(fork, one_slot, end):
    """The pool can be used in it, also by other threads."""
    told, event, blocked = fork.Queue(), fork.Event(), []

    def callback(future):
        thread = threading.Thread(target=pool.submit, args=(jobs.double, 1))
        thread.start()
        thread.join(10)
        blocked.append(thread.is_alive())

    with ProcessPoolExecutor(1, fork, initializer=event.wait if end == "cancel" else None) as pool:
        first = pool.submit(jobs.double, 1) if end == "cancel" else pool.submit(jobs.tell_and_wait, told, event)
        bad = pool.submit(jobs.double, threading.Lock())
        bad.add_done_callback(callback)
        if end == "cancel":
            assert first.cancel()
        event.set()
        assert isinstance(bad.exception(LIMIT), TypeError)
        until(lambda: blocked)
    assert blocked == [False]


class Cancelling:
    """Cancels the call that it is an argument of."""

    def __reduce__(self):
        self.cancelled = self.future.cancel()
        return int, (1,)


def test_an_argument_that_cancels_its_call_when_it_is_pickled(fork, one_slot, tmp_path):
    """It is cancelled or run, not both."""
    event, path = fork.Event(), tmp_path / "ran"
    with ProcessPoolExecutor(1, fork) as pool:
        pool.submit(event.wait)
        argument = Cancelling()
        argument.future = future = pool.submit(jobs.note, path, argument)
        event.set()
    assert argument.cancelled == future.cancelled() != path.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_argument_that_ends_who_pickles_it_when_there_is_room(fork, one_slot):
    """It ends its call, and not those behind it."""
    event = fork.Event()
    with ProcessPoolExecutor(1, fork) as pool:
        first = pool.submit(event.wait)
        bad, good = pool.submit(jobs.double, mishaps.LeavingWhenPickled()), pool.submit(jobs.double, 1)
        event.set()
        first.exception(LIMIT)
        assert good.result(LIMIT) == 2
        assert isinstance(bad.exception(LIMIT), SystemExit)


@pytest.mark.parametrize("line", range(12))
def test_ctrl_c_while_a_call_is_sent(fork, one_slot, tmp_path, line):
    """At any moment: it is sent once."""
    event, path, lines = fork.Event(), tmp_path / "ran", []

    def interrupt(frame, what, argument):
        if frame.f_code.co_name in ("_send_waiting", "_sends", "remove"):
            if what == "line" and frame.f_globals["__name__"].startswith("pyconc.workers"):
                lines.append(frame.f_lineno)
                if len(lines) == line + 1:
                    raise KeyboardInterrupt
            return interrupt
        return None

    with ProcessPoolExecutor(1, fork) as pool:
        first = pool.submit(event.wait)
        last = pool.submit(jobs.note, path, "sent")
        event.set()
        sys.settrace(interrupt)
        try:
            first.result(LIMIT)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        last.result(LIMIT)
    assert path.read_text() == "sent\n"


def test_a_call_is_sent_in_place_of_one_whose_worker_died(fork, one_slot):
    with ProcessPoolExecutor(1, fork, on_worker_death="replace") as pool:
        dies, lives = pool.submit(jobs.die), pool.submit(jobs.double, 2)
        assert type(dies.exception(LIMIT)) is WorkerDied
        assert lives.result(LIMIT) == 4


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_memory_is_given_back_that_a_worker_has_not_taken_over(method):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context) as pool:
        pool.submit(jobs.double, 1).result(LIMIT)
    del pool
    while gc.collect():     # of the tests before: what a finalizer keeps is garbage afterwards
        pass
    before = memories()
    with ProcessPoolExecutor(1, context, on_worker_death="replace") as pool:
        future = pool.submit(jobs.double, 2)
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        assert future.result(LIMIT) == 4
    del pool, future
    gc.collect()
    assert memories() == before


def test_the_collector_calls_what_came_while_it_was_stopped():
    """A thread that waits leaves callbacks to it, perhaps when it does not sleep."""
    channel, called = _ipc.Channel(1), []
    future = TaskFuture(channel, None)
    future.add_done_callback(called.append)
    assert channel.send(future, pickle.dumps(abs), (-1,), {})
    channel.reply(channel.take(0)[0], 1)
    assert future.result(LIMIT) == 1
    collector = Collector(channel, lambda: channel.collect() is not None)
    collector.stop()
    collector.start()
    collector.join(LIMIT)
    assert called == [future]
