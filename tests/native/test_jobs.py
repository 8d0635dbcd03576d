"""What jobs do: results, errors, buffers, cancellation, waiting, loops, forks, exits."""
import array
import asyncio
import concurrent.futures
import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError

import pytest

import pyconc
import pyconc.concurrent.futures
from pyconc import native
from pyconc._limits import available_cores

CORES = available_cores()


def until(condition):
    while not condition():
        time.sleep(0.001)


# Results.

@pytest.mark.parametrize("threads", [None, 1, 2, 5])
@pytest.mark.parametrize("n, grain", [(0, None), (1, None), (1, 5), (1000, None), (1000, 1), (1000, 7), (1000, 1000),
                                      (1000, 10**6), (200_000, 3)])
def test_every_number_is_in_one_range(lib, n, grain, threads):
    seen = bytearray(n + 1)
    job = native.map_ranges(lib.count_range, n, grain, data=seen, threads=threads)
    assert job.result() is None
    assert seen == b"\1" * n + b"\0"


def test_ranges_are_no_larger_than_the_grain(lib, account):
    data = account()
    native.map_ranges(lib.check_range, 1000, 30, data=data).result()
    assert (data.calls, data.largest) == (34, 30)


def test_no_more_threads_than_asked_for(lib, account):
    for threads in (1, 3):
        data = account(nap=1000)
        native.map_ranges(lib.check_range, 60, 1, data=data, threads=threads).result()
        assert data.most_running <= threads

    data = account()
    job = native.map_ranges(lib.hold_range, 60, 1, data=data, threads=3)
    try:
        until(lambda: data.calls > 1)
    finally:
        data.stop = 1
    job.result()


def test_run(lib):
    source, target = os.urandom(10_000), bytearray(9_000)
    assert native.run(lib.invert, source, target).result() == 9_000
    assert target == bytes(byte ^ 255 for byte in source[:9_000])
    assert native.run(lib.invert).result() == 0
    value = array.array("q", [41])
    assert native.run(lib.increment, data=value).result() is None
    assert value[0] == 42
    assert native.run(lib.invert, source, target, data=array.array("q", [7])).result() == 7


@pytest.mark.parametrize("grain", [None, 1, 10_000])
def test_map_arrays_of_doubles(lib, grain):
    values = array.array("d", range(5000))
    halves = array.array("d", bytes(8 * 5000))
    assert native.map_arrays(lib.halve, values, halves, grain).result() is halves
    assert list(halves) == [value / 2 for value in values]
    assert native.map_arrays(lib.scale, halves, halves, grain, data=array.array("d", [6])).result() is halves
    assert list(halves) == [value * 3 for value in values]


def test_map_arrays_of_rows(lib):
    numpy = pytest.importorskip("numpy")
    rows = numpy.random.default_rng(1).random((1001, 8))
    sums = numpy.empty(1001)
    for grain in (None, 1, 17, 5000):
        sums[:] = 0
        assert native.map_arrays(lib.sum_rows, rows, sums, grain).result() is sums
        assert numpy.allclose(sums, rows.sum(axis=1))
    same = numpy.arange(600, dtype="u1").reshape(100, 6)
    native.map_arrays(lib.invert, same, same, 9).result()
    assert (same == 255 - numpy.arange(600).astype("u1").reshape(100, 6)).all()


def test_empty_arrays(lib):
    assert native.map_arrays(lib.halve, array.array("d"), array.array("d")).result() == array.array("d")
    assert native.map_arrays(lib.sum_rows, b"", bytearray()).result() == bytearray()


def test_a_function_is_used_again(lib):
    function = native.Function(lib.scale, data=array.array("d", [2]))
    values = array.array("d", [1, 2, 3])
    for _ in range(3):
        native.map_arrays(function, values, values).result()
    assert list(values) == [8, 16, 24]
    with pytest.raises(TypeError, match="has its signature and its data already"):
        native.map_arrays(function, values, values, data=b"12345678")


# Workers.

def test_calls_that_wait_for_one_another(lib, account):
    data = account()
    waits = native.run(lib.hold, data=data)
    stop = ctypes.addressof(data) + account.stop.offset
    assert native.run(lib.increment, data=stop).result(60) is None
    assert waits.result(60) is None


def test_neither_kind_of_job_keeps_the_other_from_its_workers(lib, account):
    data = account()
    try:
        ranges = native.map_ranges(lib.hold_range, 2 * CORES, 1, data=data)
        until(lambda: data.calls == CORES)
        assert native.run(lib.invert, b"x", bytearray(1)).result(60) == 1
    finally:
        data.stop = 1
    ranges.result(60)
    data = account()
    try:
        calls = [native.run(lib.hold, data=data) for _ in range(50)]
        assert native.map_ranges(lib.count_range, 100, 1, data=bytearray(100)).result(60) is None
    finally:
        data.stop = 1
    assert [call.result(60) for call in calls] == [None] * 50


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the threads in /proc")
def test_calls_have_as_many_threads_as_a_pool_has(lib, account):
    data, before = account(), len(os.listdir("/proc/self/task"))
    try:
        calls = [native.run(lib.hold, data=data) for _ in range(100)]
        assert len(os.listdir("/proc/self/task")) <= before + min(32, CORES + 4)
    finally:
        data.stop = 1
    for call in calls:
        call.result(60)


def test_one_thread_is_enough_to_have_a_turn(lib, account):
    long = native.map_ranges(lib.check_range, 1_000_000, 1, data=account(nap=1000), threads=CORES + 1)
    assert native.map_ranges(lib.count_range, 10, 1, data=bytearray(10), threads=1).result(60) is None
    assert not long.done()
    long.cancel()


# Errors that functions return.

@pytest.mark.parametrize("code, error", [(-errno.ENOENT, FileNotFoundError), (-errno.EIO, OSError),
                                         (-errno.ETIMEDOUT, TimeoutError)])
def test_a_negative_errno(lib, account, code, error):
    for job in (native.map_ranges(lib.check_range, 100, 3, data=account(bad=50, code=code)),
                native.run(lib.fail_with, data=array.array("q", [code])),
                native.run(lib.invert, b"x", bytearray(1), data=array.array("q", [code]))):
        with pytest.raises(error) as raised:
            job.result()
        assert raised.value.errno == -code
        assert raised.value.strerror == os.strerror(-code)
        assert job.exception() is raised.value


@pytest.mark.parametrize("code", [1, errno.EIO, -100_000])
def test_other_codes(lib, account, code):
    with pytest.raises(native.NativeError, match=f"returned {code} for the items from 48 on") as raised:
        native.map_ranges(lib.check_range, 100, 3, data=account(bad=50, code=code)).result()
    assert (raised.value.code, raised.value.item) == (code, 48)
    with pytest.raises(native.NativeError):
        native.run(lib.fail_with, data=array.array("q", [code])).result()


def test_the_first_error_counts(lib, account):
    """Not the one that comes first: items before a failed one are still worked on."""
    for _ in range(30):
        job = native.map_ranges(lib.check_range, 1000, 1, data=account(bad=700, code=1), threads=4)
        assert job.exception().item == 700


def test_no_further_calls_after_an_error(lib, account):
    data = account(bad=0, code=-errno.EIO, nap=1000)
    assert native.map_ranges(lib.check_range, 100_000, 1, data=data).exception().errno == errno.EIO
    assert data.calls < 50_000


# Buffers.

def test_buffers_are_held_while_it_runs_and_not_longer(lib, account):
    data = bytearray(account())
    job = native.run(lib.hold, data=data)
    with pytest.raises(BufferError):
        data.append(1)
    with memoryview(data) as view:
        view[56] = 1     # stop
    job.result()
    data.append(1)
    source, target = bytearray(8), bytearray(8)
    native.run(lib.invert, source, target).result()
    for buffer in (source, target):
        buffer.append(1)


def test_data_is_kept_alive(lib, account):
    data = account()
    job = native.map_ranges(lib.hold_range, 1, data=data)
    view = memoryview(data).cast("B")
    del data
    gc.collect()
    until(lambda: view[24] == 1)     # calls: it runs
    view[56] = 1                     # stop
    assert job.result() is None


@pytest.mark.parametrize("make, error, match", [
    (lambda m, lib: m.run(lib.invert, "text", bytearray(1)), TypeError, "input must be a buffer, not 'str'"),
    (lambda m, lib: m.run(lib.invert, b"x", b"x"), BufferError, "output: .*not writable"),
    (lambda m, lib: m.run(lib.invert, memoryview(b"abcd")[::2], None), BufferError, "input: .*contiguous"),
    (lambda m, lib: m.run(lib.increment, b"x"), TypeError, "takes no buffers"),
    (lambda m, lib: m.run(lib.increment, data="x"), TypeError, "data must be a buffer, a pointer"),
    (lambda m, lib: m.map_arrays(lib.halve, b"12345678", bytearray(8)), TypeError, "input must consist of C doubles"),
    (lambda m, lib: m.map_arrays(lib.halve, array.array("d", [1]), array.array("q", [1])), TypeError,
     "output must consist of C doubles in native order, not of items of format 'q'"),
    (lambda m, lib: m.map_arrays(lib.halve, array.array("d", [1]), array.array("d", [1, 2])), ValueError,
     "input has 1 items and output 2"),
    (lambda m, lib: m.map_arrays(lib.halve, memoryview(bytearray(17))[1:].cast("d"), array.array("d", [1, 2])),
     BufferError, "input is not aligned"),
    (lambda m, lib: m.map_arrays(lib.invert, b"abc", bytearray(2)), ValueError, "input has 3 items and output 2"),
    (lambda m, lib: m.map_ranges(lib.count_range, -1), ValueError, "n must be at least 0"),
    (lambda m, lib: m.map_ranges(lib.count_range, 2**64), ValueError, "n must be at least 0 and fit"),
    (lambda m, lib: m.map_ranges(lib.count_range, 1, 0), ValueError, "grain must be at least 1"),
    (lambda m, lib: m.map_ranges(lib.count_range, 1, threads=0), ValueError, "threads must be at least 1"),
    (lambda m, lib: m.map_ranges(lib.count_range, 1.5), TypeError, "integer"),
    (lambda m, lib: m.map_ranges(lib.halve, 1), ValueError, r"map_ranges\(\) calls functions declared as one of"),
    (lambda m, lib: m.run(lib.halve), ValueError, r"run\(\) calls functions declared as one of"),
    (lambda m, lib: m.map_arrays(lib.count_range, b"", bytearray()), ValueError, r"map_arrays\(\) calls"),
])
def test_refused(lib, make, error, match):
    with pytest.raises(error, match=match):
        make(native, lib)


# Cancellation.

def test_cancel_between_grains(lib, account):
    data = account(nap=1000)
    job = native.map_ranges(lib.check_range, 100_000, 1, data=data)
    until(lambda: data.calls > 3)
    assert job.cancel()
    with pytest.raises(CancelledError):
        job.result()
    assert (job.done(), job.cancelled(), job.running()) == (True, True, False)
    assert data.running == 0
    assert data.calls < 50_000
    assert job.cancel()
    with pytest.raises(CancelledError):
        job.exception()


def test_it_is_done_when_the_last_call_has_returned(lib, account):
    data = account()
    job = native.map_ranges(lib.hold_range, 10, 1, data=data, threads=1)
    until(lambda: data.calls == 1)
    assert job.cancel()
    assert (job.done(), job.cancelled(), job.running()) == (False, False, True)
    with pytest.raises(TimeoutError):
        job.result(0.01)
    data.stop = 1
    with pytest.raises(CancelledError):
        job.result()
    assert data.calls == 1


def test_cancel_comes_too_late(lib):
    job = native.run(lib.invert)
    assert job.result() == 0
    assert not job.cancel()
    assert job.result() == 0


# Waiting.

def test_timeout(lib, account):
    data = account()
    job = native.run(lib.hold, data=data)
    assert job.running()
    for timeout in (0, -1, 0.01):
        with pytest.raises(TimeoutError):
            job.result(timeout)
        with pytest.raises(TimeoutError):
            job.exception(timeout)
    assert not job.done()
    data.stop = 1
    assert job.result(60) is None
    assert (job.done(), job.running(), job.cancelled()) == (True, False, False)


@pytest.mark.parametrize("module", [concurrent.futures, pyconc.concurrent.futures], ids=["standard", "pyconc"])
def test_concurrent_futures_wait(lib, account, module):
    data = account()
    with pyconc.ThreadPoolExecutor(1) as pool:
        slow, fast, other = native.run(lib.hold, data=data), native.run(lib.invert), pool.submit(int, "5")
        assert module.wait([slow, fast, other], return_when="FIRST_COMPLETED").done
        done, rest = module.wait([slow, fast, other], timeout=0.2)
        assert slow in rest
        data.stop = 1
        assert module.wait([slow, fast, other]) == ({slow, fast, other}, set())
        assert set(module.as_completed([slow, fast, other])) == {slow, fast, other}
    cut = native.map_ranges(lib.check_range, 1000, 1, data=account(nap=1000))
    cut.cancel()
    assert module.wait([cut]).done == {cut}


def test_callbacks(lib, account):
    data, called = account(), []
    event = threading.Event()
    job = native.run(lib.hold, data=data)
    job.add_done_callback(called.append)
    job.add_done_callback(lambda future: event.set())
    assert not called
    data.stop = 1
    assert event.wait(60)
    assert called == [job]
    job.add_done_callback(called.append)
    assert called == [job, job]


def test_many_callbacks(lib):
    done = threading.Semaphore(0)
    jobs = [native.run(lib.invert) for _ in range(300)]
    for job in jobs:
        job.add_done_callback(lambda future: done.release())
    for _ in jobs:
        assert done.acquire(timeout=60)
    until(lambda: not any(thread.name == "pyconc-native" for thread in threading.enumerate()))


def test_a_callback_that_ends_its_thread(lib, account, monkeypatch):
    """The others are called all the same."""
    first, second, called = account(), account(), threading.Event()
    ended = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_type))
    jobs = [native.run(lib.hold, data=data) for data in (first, second)]
    jobs[0].add_done_callback(lambda job: sys.exit())
    jobs[1].add_done_callback(lambda job: called.set())
    first.stop = 1
    until(lambda: ended)
    second.stop = 1
    assert called.wait(60)
    assert ended == [SystemExit]
    until(lambda: not any(thread.name == "pyconc-native" for thread in threading.enumerate()))


def test_from_many_threads(lib, account):
    data = account()
    job = native.run(lib.hold, data=data)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(job.result) for _ in range(6)]
        data.stop = 1
        assert [one.result() for one in waiting] == [None] * 6


def test_fire_and_forget(lib):
    seen = bytearray(100_000)
    view = memoryview(seen)
    native.map_ranges(lib.count_range, 100_000, 100, data=seen)
    gc.collect()
    until(lambda: view.tobytes() == b"\1" * 100_000)


def test_repr(lib, account):
    data = account()
    job = native.map_ranges(lib.hold_range, 5, data=data)
    assert "pending 0 of 5 items" in repr(job) or "0 of 5 items" in repr(job)
    data.stop = 1
    job.result()
    assert "state=finished returned NoneType" in repr(job)


# Loops.

@pytest.fixture(params=[asyncio.run, pyconc.run], ids=["asyncio", "pyconc"])
def run(request):
    request.param(asyncio.sleep(0))     # libuv keeps a pipe for good from the first loop on
    return request.param


def test_awaited(run, lib, account, no_leaked_fds):
    async def main():
        assert await native.run(lib.invert) == 0
        seen = bytearray(1000)
        await asyncio.gather(*(native.map_ranges(lib.count_range, 1000, 10, data=seen) for _ in range(50)))
        assert await asyncio.wait_for(native.run(lib.invert, b"abc", bytearray(3)), 60) == 3
        assert await asyncio.wrap_future(native.run(lib.invert)) == 0
        with pytest.raises(FileNotFoundError):
            await native.run(lib.fail_with, data=array.array("q", [-errno.ENOENT]))
        job = native.run(lib.invert)
        assert await asyncio.gather(job, job, job) == [0, 0, 0]
        assert await job == 0

    run(main())


def test_the_loop_runs_meanwhile(run, lib, account):
    async def main():
        data, turns = account(), 0
        task = asyncio.ensure_future(waits(native.run(lib.hold, data=data)))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
            if turns == 1000:
                data.stop = 1
        assert turns >= 1000

    async def waits(job):
        await job

    run(main())


def test_two_loops_await_one_job(lib, account):
    data = account()
    job = native.run(lib.hold, data=data)

    async def main():
        asyncio.get_running_loop().call_soon(begun.release)
        return await job

    begun = threading.Semaphore(0)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(asyncio.run, main()), pool.submit(pyconc.run, main())]
        begun.acquire()
        begun.acquire()
        data.stop = 1
        assert [one.result(60) for one in both] == [None, None]


@pytest.mark.parametrize("times", [1, 3])
def test_cancelling_the_task_cuts_the_job(run, lib, account, no_leaked_fds, times):
    async def main():
        data = account(nap=1000)
        job = native.map_ranges(lib.check_range, 100_000, 1, data=data)

        async def waits():
            await job

        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)      # a task that is cancelled before it begins awaits nothing
        while data.calls < 3:
            await asyncio.sleep(0.001)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert job.cancelled()
        assert data.running == 0

    run(main())


def test_a_loop_that_is_closed_half_way(lib, account, no_leaked_fds):
    data = account()
    loop = asyncio.new_event_loop()
    job = native.run(lib.hold, data=data)

    async def waits():
        await job

    coroutine = waits()
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    task._log_destroy_pending = False
    coroutine.close()
    data.stop = 1
    assert job.result() is None
    del task


# Signals, exits, forks.

def python(library_path, code, *options):
    setting = f"import ctypes, os, sys\nfrom pyconc import native\nlib = ctypes.CDLL({str(library_path)!r})\n"
    return subprocess.run([sys.executable, *options, "-c", setting + textwrap.dedent(code)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)


def test_ctrl_c(library_path):
    done = python(library_path, """
        import signal, threading
        lib.check_range.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
        data = (ctypes.c_int64 * 8)(-1, 0, 1000)
        job = native.map_ranges(lib.check_range, 10**6, 1, data=data)
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            job.result()
        except KeyboardInterrupt:
            print("interrupted", job.running(), job.cancel())
    """, "-X", "dev")
    assert (done.stdout, done.returncode) == ("interrupted True True\n", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become a user who has no processes")
@pytest.mark.parametrize("kind", ["call", "ranges"])
def test_no_thread_for_the_other_kind(library_path, kind):
    """When no thread can be started, a job is refused where all there are may wait for it; beside its like it waits."""
    done = python(library_path, f"kind = {kind!r}\n" + textwrap.dedent("""
        import resource
        lib.hold.argtypes, lib.hold.restype = [ctypes.c_void_p], None
        lib.hold_range.argtypes = lib.check_range.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
        data, quick = (ctypes.c_int64 * 8)(-1), (ctypes.c_int64 * 8)(-1)
        start = {
            "call": lambda data: native.run(lib.hold, data=data),
            "ranges": lambda data: native.map_ranges(lib.hold_range, 10, 1, data=data),
        }
        other = "call" if kind == "ranges" else "ranges"
        quick[7] = 1
        waits = start[kind](data)
        os.setresuid(54321, 54321, 0)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        like = start[kind](quick)
        try:
            start[other](quick)
        except RuntimeError as error:
            print(error)
        data[7] = 1
        print(waits.result(60), like.result(60))
        os.setresuid(0, 0, 0)
        print(start[other](quick).result(60))
    """))
    assert done.stdout == f"can't start a thread: {os.strerror(errno.EAGAIN)}\nNone None\nNone\n"


def test_a_signal_while_it_is_found_to_be_over(lib):
    """A handler that raises must not come between finding it and saying it."""
    class Stop(BaseException):
        pass

    def stop(*args):
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for i in range(1000):
            job = native.run(lib.invert)
            while not job._work.over:
                time.sleep(0)
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + i % 15))
                try:
                    job.done()
                    until(lambda: False)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                pass
            assert job.done()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_exit_ends_what_runs(library_path):
    done = python(library_path, """
        lib.check_range.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
        data = (ctypes.c_int64 * 8)(-1, 0, 1000)
        for _ in range(20):
            native.map_ranges(lib.check_range, 10**6, 1, data=data).add_done_callback(print)
        print("bye")
    """, "-X", "dev")
    assert done.stdout.startswith("bye\n")
    assert done.returncode == 0
    assert "Fatal" not in done.stdout


def test_a_child_has_threads_of_its_own(lib, account, in_child):
    data = account()
    before = native.run(lib.hold, data=data)

    def child():
        over, _ = concurrent.futures.wait([before], 60)
        assert before.done() and str(before.exception()) == "the work belongs to the parent process"
        with pytest.raises(RuntimeError, match="^the work belongs to the parent process$"):
            before.result()
        return native.run(lib.invert, b"xy", bytearray(2)).result(), over == {before}, before.cancel()

    assert in_child(child) == "(2, True, False)"
    data.stop = 1
    assert before.result() is None


def test_another_signal_does_not_disturb(lib, account, meanwhile):
    data, seen = account(), []
    before = signal.signal(signal.SIGUSR1, lambda *args: (seen.append(1), setattr(data, "stop", 1)))
    try:
        job = native.run(lib.hold, data=data)
        with meanwhile(os.kill, os.getpid(), signal.SIGUSR1):
            assert job.result() is None
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [1]


@pytest.mark.leak
def test_nothing_leaks(lib, account, no_leaked_objects, flat_memory, no_leaked_fds):
    values = array.array("d", range(100))

    def everything():
        native.map_arrays(lib.scale, values, values, data=array.array("d", [1])).result()
        native.map_ranges(lib.check_range, 10, 1, data=account(bad=5, code=1)).exception()
        cut = native.map_ranges(lib.check_range, 10, 1, data=account(nap=10))
        cut.cancel()
        concurrent.futures.wait([cut])
        with pytest.raises(TypeError):
            native.run(lib.invert, "x")
        asyncio.run(waits())

    async def waits():
        await asyncio.gather(*(native.run(lib.invert) for _ in range(3)))

    no_leaked_objects(everything, 100)
    flat_memory(everything, 100)
