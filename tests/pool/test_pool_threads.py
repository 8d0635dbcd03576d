"""pyconc's ThreadPoolExecutor: concurrent.futures' own in behaviour."""
import concurrent.futures
import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref
from types import SimpleNamespace

import pytest

from pyconc.concurrent.futures import BrokenThreadPool, Future, ThreadPoolExecutor

pytestmark = pytest.mark.usefixtures("no_leaked_threads")


def run_script(script, timeout=60):
    """Runs a program of its own: (exit code, output, errors)."""
    header = "import faulthandler; faulthandler.dump_traceback_later(45, exit=True)\n"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", header + textwrap.dedent(script)], capture_output=True,
                          text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_is_a_standard_executor(pool):
    assert isinstance(pool, concurrent.futures.ThreadPoolExecutor)
    assert isinstance(pool.submit(int), Future)


def test_arguments(pool):
    def echo(*args, **kwargs):
        return args, kwargs

    assert pool.submit(echo).result() == ((), {})
    assert pool.submit(echo, 1, 2).result() == ((1, 2), {})
    assert pool.submit(echo, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
    assert pool.submit(echo, **{"timeout": 1}).result() == ((), {"timeout": 1})
    assert pool.submit(str.format, "{}-{x}", 1, x=2).result() == "1-2"
    with pytest.raises(TypeError, match="'fn'"):
        pool.submit()
    with pytest.raises(TypeError, match="not callable"):
        pool.submit(42).result()


@pytest.mark.parametrize("kwargs, error", [
    ({"max_workers": 0}, ValueError), ({"max_workers": -1}, ValueError), ({"max_workers": "2"}, TypeError),
    ({"initializer": 5}, TypeError), ({"workers": 5}, TypeError),
])
def test_bad_arguments(kwargs, error):
    with pytest.raises(error):
        ThreadPoolExecutor(**kwargs)
    with pytest.raises(error):
        concurrent.futures.ThreadPoolExecutor(**kwargs)


def test_a_pool_that_was_never_made():
    pool = ThreadPoolExecutor.__new__(ThreadPoolExecutor)
    with pytest.raises(RuntimeError, match="__init__"):
        pool.submit(int)


def test_default_size_and_names():
    with ThreadPoolExecutor() as pool, concurrent.futures.ThreadPoolExecutor() as theirs:
        assert pool._max_workers == theirs._max_workers
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("ThreadPoolExecutor-")
    with ThreadPoolExecutor(2, "spam") as pool:
        assert pool.submit(lambda: threading.current_thread().name).result() == "spam_0"
        assert "spam_0" in [thread.name for thread in threading.enumerate()]


def test_threads_start_when_nobody_is_idle():
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            pool.submit(int).result()
        if getattr(sys, "_is_gil_enabled", lambda: True)():
            assert len(pool._threads) == 1
        gate = threading.Event()
        jobs = [pool.submit(gate.wait, 30) for _ in range(30)]
        assert len(pool._threads) == 8
        gate.set()
        assert all(job.result() for job in jobs)


def test_as_many_jobs_run_at_once_as_there_are_threads():
    """A burst wakes every worker that it needs, though submit() wakes one only."""
    with ThreadPoolExecutor(6) as pool:
        for _ in range(20):
            barrier = threading.Barrier(6)
            for job in [pool.submit(barrier.wait, 30) for _ in range(6)]:
                job.result()


def test_jobs_that_are_no_python_code_do_not_keep_the_gil(reached):
    def attempt():
        gate = threading.Event()
        pool.submit(gate.wait, 30)
        for _ in range(200_000):
            pool.submit(int)
        gate.set()
        seen = set()
        while left := pool._work_queue.qsize():
            seen.add(left)
        return seen - {200_000, 200_001}

    with ThreadPoolExecutor(1) as pool:
        reached(attempt)


def test_nested_submit(pool):
    assert pool.submit(lambda: pool.submit(lambda: pool.submit(int, "7").result()).result()).result() == 7


def test_submit_from_many_threads(pool):
    sums = []

    def submit():
        sums.append(sum(job.result() for job in [pool.submit(int, 1) for _ in range(500)]))

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [500] * 6


def test_exceptions_and_tracebacks(pool):
    def fail(depth):
        if depth:
            fail(depth - 1)
        raise KeyError("deep")

    job = pool.submit(fail, 3)
    with pytest.raises(KeyError) as caught:
        job.result()
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-4:] == ["fail"] * 4
    assert job.exception() is caught.value
    assert isinstance(pool.submit(sys.exit, 3).exception(), SystemExit)
    assert pool.submit(int, "9").result() == 9


def test_context_of_the_submitter(pool):
    variable = contextvars.ContextVar("variable", default="default")
    seen = []
    for value in range(5):
        variable.set(value)
        seen.append(pool.submit(variable.get))
        pool.submit(variable.set, "changed").result()
    assert [job.result() for job in seen] == list(range(5))
    assert variable.get() == 4
    assert contextvars.Context().run(pool.submit, variable.get).result() == "default"


def test_callback_runs_in_the_worker(pool):
    names = []
    job = pool.submit(time.sleep, 0.05)
    job.add_done_callback(lambda got: names.append(threading.current_thread().name))
    job.result()
    pool.shutdown()
    assert names[0] == "MainThread" or names[0].endswith(("_0", "_1"))


def test_a_callback_that_exits_does_not_cost_a_worker(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with ThreadPoolExecutor(1) as pool:
        gate = threading.Event()
        job = pool.submit(gate.wait, 30)
        job.add_done_callback(lambda got: sys.exit(1))
        gate.set()
        assert pool.submit(int, "1").result(30) == 1
    assert [unraisable.exc_type for unraisable in seen] == [SystemExit]
    seen.clear()


def test_arguments_and_results_are_let_go():
    class Big:
        pass

    with ThreadPoolExecutor(1) as pool:
        argument = Big()
        ref = weakref.ref(argument)
        result = pool.submit(lambda big: Big(), argument)
        del argument
        result_ref = weakref.ref(result.result())
        assert ref() is None
        del result
        for _ in range(1000):  # without a GIL the worker itself must let go, which it does between lines of Python
            pool.submit(lambda: None).result()
            if result_ref() is None:
                break
        assert result_ref() is None


def test_map(pool):
    assert list(pool.map(pow, range(10), range(10))) == [n ** n for n in range(10)]
    assert list(pool.map(str, [])) == []
    results = pool.map(divmod, [3, 4], [2, 0], chunksize=7)
    assert next(results) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_times_out_and_cancels():
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        results = pool.map(gate.wait, [30] * 5, timeout=0.05)
        try:
            with pytest.raises(TimeoutError):
                next(results)
        finally:
            gate.set()
        assert pool._work_queue.qsize() <= 4
        assert list(results) == []


def test_map_submits_no_more_than_the_buffer():
    started = []
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(started.append, range(100), buffersize=3)
        for taken in range(1, 98):
            next(results)
            assert len(started) <= taken + 3
        assert len(list(results)) == 3
    assert sorted(started) == list(range(100))


@pytest.mark.parametrize("size, error", [(0, ValueError), (-1, ValueError), ("2", TypeError), (1.0, TypeError)])
def test_map_bad_buffer(pool, size, error):
    with pytest.raises(error, match=str(size)):
        pool.map(str, [1], buffersize=size)


def test_map_does_not_keep_the_pool():
    pool = ThreadPoolExecutor(1)
    results = pool.map(str, range(20), buffersize=2)
    ref = weakref.ref(pool)
    threads = list(pool._threads)
    del pool
    assert ref() is None
    assert list(results) == ["0", "1"]
    for thread in threads:
        thread.join()


def test_initializer():
    local = threading.local()

    def prepare(*args):
        local.args = args

    with ThreadPoolExecutor(2, initializer=prepare, initargs=("a", "b")) as pool:
        assert pool.submit(lambda: local.args).result() == ("a", "b")


def test_initializer_that_fails(caplog):
    gate = threading.Event()

    def fail():
        gate.wait(30)
        raise OSError("no")

    with ThreadPoolExecutor(2, initializer=fail) as pool:
        jobs = [pool.submit(int) for _ in range(5)]
        gate.set()
        for job in jobs:
            with pytest.raises(BrokenThreadPool, match="initializer failed"):
                job.result(30)
        with pytest.raises(BrokenThreadPool, match="initializer failed"):
            pool.submit(int)
    assert BrokenThreadPool is concurrent.futures.thread.BrokenThreadPool
    assert caplog.records[0].levelno == logging.CRITICAL
    assert caplog.records[0].getMessage() == "Exception in initializer:"


def test_a_worker_without_memory_fails_what_relied_on_it():
    pytest.importorskip("_testcapi")
    ended = run_script("""
        import _testcapi, threading
        from pyconc.concurrent.futures import ThreadPoolExecutor
        asked = threading.Event()
        def prepare():
            asked.wait()
            _testcapi.set_nomemory(0, 1)
        threading.excepthook = lambda args: _testcapi.remove_mem_hooks()
        with ThreadPoolExecutor(1, initializer=prepare) as pool:
            futures = [pool.submit(pow, 2, n) for n in range(3)]
            asked.set()
            print([type(future.exception(30)).__name__ for future in futures])
    """)
    assert ended == (0, "['MemoryError', 'MemoryError', 'MemoryError']\n", "")


def test_shutdown_finishes_what_is_queued():
    pool = ThreadPoolExecutor(2)
    done = []
    for number in range(200):
        pool.submit(done.append, number)
    pool.shutdown()
    assert sorted(done) == list(range(200))
    assert not any(thread.is_alive() for thread in pool._threads)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    pool.shutdown()


def test_shutdown_cancels():
    pool = ThreadPoolExecutor(1)
    gate = threading.Event()
    first = pool.submit(gate.wait, 30)
    rest = [pool.submit(int) for _ in range(10)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert concurrent.futures.wait(rest, 30).not_done == set()
    assert all(job.cancelled() for job in rest)
    gate.set()
    assert first.result(30) is True
    pool.shutdown()


def test_shutdown_waits_no_longer_than_the_timeout():
    gate, running = threading.Event(), threading.Event()

    def blocks():
        running.set()
        gate.wait(30)

    pool = ThreadPoolExecutor(2, thread_name_prefix="slow")
    future = pool.submit(blocks)
    assert running.wait(30)
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=r"1 of 1 threads still run after 0\.05 seconds: slow_0 at .* in "):
        pool.shutdown(timeout=0.05)
    assert time.monotonic() - before < 15
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    gate.set()
    pool.shutdown(timeout=30)
    assert future.done()
    with pytest.raises(TypeError):
        pool.shutdown(timeout="1")


def test_shutdown_wakes_who_waits_for_cancelled_jobs():
    pool = ThreadPoolExecutor(1)
    gate = threading.Event()
    jobs = [pool.submit(gate.wait, 30)] + [pool.submit(int) for _ in range(5)]
    seen = []
    thread = threading.Thread(target=lambda: seen.append(concurrent.futures.wait(jobs[1:], 30)))
    thread.start()
    while not jobs[-1]._waiters:
        time.sleep(0.001)
    pool.shutdown(wait=False, cancel_futures=True)
    thread.join()
    assert seen[0].not_done == set()
    gate.set()
    pool.shutdown()


def test_cancel_before_it_starts():
    with ThreadPoolExecutor(1) as pool:
        gate = threading.Event()
        first = pool.submit(gate.wait, 30)
        second = pool.submit(int)
        assert second.cancel() and second.cancelled()
        while not first.running():
            time.sleep(0.001)
        assert not first.cancel()
        gate.set()
    assert first.result() is True


def test_a_pool_that_is_dropped_ends_its_threads():
    pool = ThreadPoolExecutor(3)
    done = []
    for number in range(30):
        pool.submit(done.append, number)
    threads = list(pool._threads)
    del pool
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(done) == 30


def test_a_pool_in_a_cycle_is_collected():
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()
    pool.me = pool
    [thread] = pool._threads
    ref = weakref.ref(pool)
    del pool
    gc.collect()
    assert ref() is None
    thread.join(30)
    assert not thread.is_alive()


def test_a_thread_that_cannot_start(monkeypatch):
    with ThreadPoolExecutor(2) as pool:
        def refuse(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(int)
        assert pool._work_queue.qsize() == 0
        monkeypatch.undo()
        assert pool.submit(int, "5").result(30) == 5


def test_who_relied_on_a_thread_that_cannot_start(monkeypatch):
    """Another job came while the only worker was being started."""
    with ThreadPoolExecutor(1) as pool:
        later = []

        def refuse(thread):
            later.append(pool.submit(int))
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(int)
        monkeypatch.undo()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            later[0].result(30)


def test_shutdown_waits_for_a_thread_that_is_just_being_started(monkeypatch):
    pool, ran, looks = ThreadPoolExecutor(1), [], []
    start_worker, starting, go_on = pool._start_worker, threading.Event(), threading.Event()

    def start(number):
        starting.set()
        go_on.wait(30)
        start_worker(number)

    def sleep(seconds):     # shutdown() has found that a thread is missing, again and again
        looks.append(seconds)
        if len(looks) == 5000:
            go_on.set()
            submitter.join(30)

    monkeypatch.setattr(ThreadPoolExecutor, "_start_worker", lambda self, number: start(number))
    submitter = threading.Thread(target=pool.submit, args=(ran.append, 1))
    submitter.start()
    assert starting.wait(30)
    monkeypatch.setattr("pyconc.concurrent.futures.thread.time", SimpleNamespace(sleep=sleep))
    pool.shutdown()
    assert ran == [1] and go_on.is_set()


def test_shutdown_in_a_handler_that_interrupts_submit(monkeypatch):
    """It does not wait for the thread that cannot start before it returns."""
    pool, start_worker, ran = ThreadPoolExecutor(1), ThreadPoolExecutor._start_worker, []

    def start(self, number):
        if not ran:
            ran.append("handler")
            pool.shutdown()         # as a signal's handler would that came right here
        return start_worker(self, number)

    monkeypatch.setattr(ThreadPoolExecutor, "_start_worker", start)
    assert pool.submit(ran.append, "job").result(30) is None
    assert ran == ["handler", "job"]


@pytest.fixture
def busy():
    """A thread that always wants the GIL."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            sum(range(100))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_the_switch_interval_is_what_it_was(pool, busy):
    """It is shortened while a woken thread comes for the GIL."""
    before = sys.getswitchinterval()
    for number in range(50):
        assert pool.submit(int, number).result() == number
        assert sys.getswitchinterval() == before
    threads = [threading.Thread(target=lambda: [pool.submit(int).result() for _ in range(30)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.submit(int).result()
    assert sys.getswitchinterval() == before


def test_a_switch_interval_that_a_job_sets_stays(pool, busy):
    before = sys.getswitchinterval()
    try:
        pool.submit(sys.setswitchinterval, 0.002).result()
        pool.submit(int).result()
        assert sys.getswitchinterval() == 0.002
    finally:
        sys.setswitchinterval(before)


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="no GIL, nothing to be shortened")
def test_a_switch_interval_that_was_read_while_it_was_short(pool):
    """A program that sets another for a while puts back what it read, which may be ours."""
    before, stop = sys.getswitchinterval(), threading.Event()

    def use():
        while not stop.is_set():
            pool.submit(int).result()

    users = [threading.Thread(target=use) for _ in range(2)]
    for user in users:
        user.start()
    try:
        end = time.monotonic() + 30
        while (read := sys.getswitchinterval()) == before and time.monotonic() < end:
            pass
        assert read != before
        sys.setswitchinterval(0.001)
        for _ in range(100_000):
            pass
        stop.set()
        for user in users:
            user.join()
        sys.setswitchinterval(read)
        for _ in range(100):
            pool.submit(int).result()
        assert sys.getswitchinterval() == before
    finally:
        stop.set()
        for user in users:
            user.join()
        sys.setswitchinterval(before)


@pytest.mark.stress
def test_a_hundred_thousand_jobs():
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(int, number) for number in range(100_000)]
        assert sum(job.result(60) for job in jobs) == sum(range(100_000))
        assert len(concurrent.futures.wait(jobs, 60).done) == 100_000


@pytest.mark.stress
def test_racing_cancels():
    with ThreadPoolExecutor(4) as pool:
        ran = []
        for _ in range(50):
            jobs = [pool.submit(ran.append, 1) for _ in range(100)]
            cancelled = sum(job.cancel() for job in jobs)
            assert not concurrent.futures.wait(jobs, 60).not_done
            assert len(ran) == 100 - cancelled
            ran.clear()


def call(function, *args):
    """Python code, where a worker lets go of what other threads have dropped; builtins alone give it no time to."""
    return function(*args)


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(),
                    reason="without a GIL a block freed by another thread than its own stays counted for a while")
def test_no_leak(no_leaked_objects):
    with ThreadPoolExecutor(2) as pool:
        def once():
            pool.submit(call, int, "1").result()
            pool.submit(call, int, "x").exception()
            pool.submit(call, dict, 5).cancel()
            list(pool.map(lambda number: str(number), range(3), buffersize=2))

        no_leaked_objects(once, 100)

    def whole():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int)

    no_leaked_objects(whole, 20)


# What only a program of its own shows.

def test_exit_finishes_what_is_queued():
    code, out, err = run_script("""
        import os, time
        from pyconc.concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        for number in range(6):
            pool.submit(lambda number=number: (time.sleep(0.05), os.write(1, b"%d\\n" % number)))
    """)
    assert (code, sorted(out.split()), err) == (0, list("012345"), "")


def test_exit_does_not_wait_for_daemons():
    code, out, err = run_script("""
        import threading, time
        from pyconc.concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(2, daemon=True)
        running = threading.Event()
        pool.submit(lambda: (running.set(), time.sleep(3600)))
        forever = pool.submit(threading.Event().wait)
        waits = pool.submit(print, "never")
        waits.add_done_callback(lambda future: print(future.cancelled()))
        running.wait()
    """)
    assert (code, out, err) == (0, "True\n", "")


def test_exit_cancels_what_waits_for_a_daemon_without_a_pool():
    """And wakes the thread that waits for it."""
    code, out, err = run_script("""
        import threading, time
        from pyconc.concurrent.futures import CancelledError, ThreadPoolExecutor

        def use():
            pool, running = ThreadPoolExecutor(1, daemon=True), threading.Event()
            pool.submit(lambda: (running.set(), time.sleep(3600)))
            running.wait()
            return pool.submit(print, "never")

        def wait(future):
            try:
                future.result()
            except CancelledError:
                print("cancelled")

        threading.Thread(target=wait, args=(use(),)).start()
    """)
    assert (code, out, err) == (0, "cancelled\n", "")


def test_exit_with_idle_threads():
    assert run_script("""
        from pyconc.concurrent.futures import ThreadPoolExecutor
        pools = [ThreadPoolExecutor(3) for _ in range(3)]
        for pool in pools:
            list(pool.map(int, range(10)))
    """) == (0, "", "")


def test_exit_after_the_start_of_a_thread_was_interrupted():
    code, out, err = run_script("""
        import threading
        from pyconc.concurrent.futures import ThreadPoolExecutor
        pool, start = ThreadPoolExecutor(2), threading.Thread.start

        def interrupted(thread):
            start(thread)
            raise KeyboardInterrupt

        threading.Thread.start = interrupted
        try:
            pool.submit(int)
        except KeyboardInterrupt:
            print("interrupted")
        threading.Thread.start = start
    """)
    assert (code, out, err) == (0, "interrupted\n", "")


def test_submit_while_the_interpreter_ends():
    code, out, err = run_script("""
        import atexit, threading
        from pyconc.concurrent.futures import ThreadPoolExecutor
        fresh, used = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
        used.submit(int).result()

        @atexit.register
        def late():
            for pool in (fresh, used):
                try:
                    pool.submit(int)
                except RuntimeError as error:
                    print(error)
    """)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["cannot schedule new futures after interpreter shutdown"] * 2


def test_submit_from_a_job_while_the_interpreter_ends():
    code, out, err = run_script("""
        import time
        from pyconc.concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)

        def job():
            try:
                while True:
                    pool.submit(int)
                    time.sleep(0.001)
            except RuntimeError as error:
                print(error)

        pool.submit(job)
    """)
    assert (code, out, err) == (0, "cannot schedule new futures after interpreter shutdown\n", "")


def test_exit_while_a_job_raises_and_another_waits_for_it():
    code, out, err = run_script("""
        from pyconc.concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        first = pool.submit(lambda: 1 / 0)
        pool.submit(lambda: print(type(first.exception()).__name__))
    """)
    assert (code, out, err) == (0, "ZeroDivisionError\n", "")


FORK = """
    import os, sys, threading, time, warnings
    from pyconc.concurrent.futures import BrokenThreadPool, ThreadPoolExecutor
    warnings.simplefilter("ignore", DeprecationWarning)
    pool = ThreadPoolExecutor(2)
    gate = threading.Event()

    def in_child(what):
        if (pid := os.fork()) == 0:
            try:
                what()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            sys.stdout.flush()
            os._exit(0)
        return os.waitpid(pid, 0)[1]
"""


def test_fork_child_has_a_fresh_pool():
    assert run_script(FORK + """
    list(pool.map(int, range(10)))
    assert in_child(lambda: print(pool.submit(int, "7").result(30), list(pool.map(int, range(3))))) == 0
    print(pool.submit(int, "8").result(30))
    """)[:2] == (0, "7 [0, 1, 2]\n8\n")


def test_fork_child_is_told_of_lost_jobs():
    code, out, err = run_script(FORK + """
    jobs = [pool.submit(gate.wait, 30) for _ in range(4)]

    def child():
        for job in jobs:
            try:
                job.result(30)
            except BrokenThreadPool as error:
                print(error)
        print(pool.submit(int, "7").result(30))
        pool.shutdown()

    assert in_child(child) == 0
    gate.set()
    print([job.result(30) for job in jobs])
    """)
    assert (code, err) == (0, "")
    assert out.count("forked") == 4 and out.endswith("7\n[True, True, True, True]\n")


def test_fork_child_has_the_usual_switch_interval():
    """Also one that was forked while it was short, for a thread that the child has not."""
    code, out, err = run_script(FORK + """
    stop = threading.Event()
    usual = sys.getswitchinterval()

    def use():
        while not stop.is_set():
            pool.submit(int).result()

    def child():
        assert sys.getswitchinterval() == usual

    users = [threading.Thread(target=use) for _ in range(2)]
    for user in users:
        user.start()
    failed = 0
    for _ in range(20):
        for _ in range(20_000):
            if sys.getswitchinterval() != usual:
                break
        failed += in_child(child) != 0
    stop.set()
    for user in users:
        user.join()
    print(failed)
    """)
    assert (code, out, err) == (0, "0\n", "")


def test_fork_in_a_worker():
    code, out, err = run_script(FORK + """
    pool.submit(gate.wait, 30)
    job = pool.submit(in_child, lambda: print(pool.submit(int, "7").result(30)))
    assert job.result(30) == 0
    gate.set()
    """)
    assert (code, out, err) == (0, "7\n", "")


def test_fork_child_that_returns_from_the_worker_ends():
    code, out, err = run_script(FORK + """
    pid = pool.submit(os.fork).result(30)
    assert os.waitpid(pid, 0)[1] == 0
    print("ended")
    """)
    assert (code, out.splitlines()[-1], err) == (0, "ended", "")


@pytest.mark.parametrize("daemon", [False, True])
def test_fork_child_is_told_of_the_lost_jobs_of_a_pool_that_was_dropped(daemon):
    code, out, err = run_script(FORK + f"""
    job = ThreadPoolExecutor(1, daemon={daemon}).submit(gate.wait, 30)

    def child():
        try:
            job.result(30)
        except BrokenThreadPool as error:
            print("told")

    assert in_child(child) == 0
    gate.set()
    print(job.result(30))
    """)
    assert (code, out, err) == (0, "told\nTrue\n", "")


def test_fork_child_goes_on_with_as_completed():
    code, out, err = run_script(FORK + """
    from pyconc.concurrent.futures import as_completed
    jobs = [pool.submit(int), pool.submit(gate.wait, 30), pool.submit(gate.wait, 30)]
    results = as_completed(jobs, 30)
    assert next(results) is jobs[0]

    def child():
        print([type(job.exception()).__name__ for job in results])

    assert in_child(child) == 0
    gate.set()
    print([job.result() for job in results])
    """)
    assert (code, out, err) == (0, "['BrokenThreadPool', 'BrokenThreadPool']\n[True, True]\n", "")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads the CPU time from /proc")
def test_idle_threads_sleep():
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(time.sleep, [0.01] * 8))
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
