# SPDX-License-Identifier: MIT
"""How the end of a subprocess is noticed, whoever else looks at it."""
import asyncio
import concurrent.futures
import gc
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

import pyconc

PIPE = subprocess.PIPE


async def true(**keywords):
    process = await asyncio.create_subprocess_exec("/bin/true", **keywords)
    return await process.wait()


async def gated(script):
    """A process that runs the script when it has read a line."""
    return await asyncio.create_subprocess_shell(f"read line; {script}", stdin=PIPE)


def test_exit_codes(run, watching):
    async def main():
        async def code(script):
            return await (await asyncio.create_subprocess_shell(script)).wait()
        assert await asyncio.gather(*[code(f"exit {n}") for n in (0, 1, 127, 255)]) == [0, 1, 127, 255]
        assert await code("kill -9 $$") == -9
        assert await code("ulimit -c 0; kill -ABRT $$") == -signal.SIGABRT
    run(main)


def test_ended_before_it_is_watched(run, watching, monkeypatch):
    real = subprocess.Popen

    class Slow(real):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(subprocess, "Popen", Slow)

    async def main():
        assert await true() == 0
        process = await asyncio.create_subprocess_exec("/bin/echo", "done", stdout=PIPE)
        assert await process.communicate() == (b"done\n", None)
    run(main)


def test_reaped_by_others(run, watching, caplog):
    async def main():
        process = await gated("exit 3")
        process.stdin.write(b"\n")
        os.waitpid(process.pid, 0)
        assert await process.wait() == 255
        return process.pid
    pid = run(main)
    assert f"child process pid {pid} exit status already read" in caplog.text


def test_reaped_before_it_is_watched(run, watching, monkeypatch):
    real = subprocess.Popen

    class Reaped(real):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            os.waitpid(self.pid, 0)

    monkeypatch.setattr(subprocess, "Popen", Reaped)
    assert run(true) == 255


def test_reaped_through_popen(run, watching, caplog):
    """Then its exit status is known."""
    async def main():
        process = await gated("exit 3")
        process.stdin.write(b"\n")
        assert process._transport.get_extra_info("subprocess").wait() == 3
        assert await process.wait() == 3
        assert "already read" not in caplog.text
    run(main)


def test_children_reaped_by_the_kernel(run, watching, caplog):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run(true) == 255
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert "already read" in caplog.text


def test_signal_handler_for_children(run, watching):
    """The program's own handler of SIGCHLD is called, and takes nothing away."""
    async def main():
        called = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, called.set)
        assert await true() == 0
        await called.wait()
        assert loop.remove_signal_handler(signal.SIGCHLD)
    run(main)


def test_signal_handler_that_reaps_all(run, watching):
    """As that of an init process: the loop gets what is left."""
    async def main():
        def reap():
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, reap)
        assert set(await asyncio.gather(*[true() for _ in range(20)])) <= {0, 255}
        loop.remove_signal_handler(signal.SIGCHLD)
    run(main)


def test_blocked_signal(run, watching):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        assert run(true) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def test_no_thread_that_can_wait(run, monkeypatch):
    """Neither pidfd nor thread: an error, and no process left."""
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    async def main():
        with monkeypatch.context() as patch:
            patch.delattr(os, "pidfd_open")
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                await asyncio.create_subprocess_exec("/bin/sleep", "100", stdout=PIPE)
        assert await true() == 0
    run(main)


@pytest.mark.parametrize("watching", ["thread"], indirect=True)
def test_thread_does_not_reap(run, watching):
    """The number stays the process's own until the loop's thread knows of its end."""
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        thread, = [thread for thread in threading.enumerate() if thread.name == f"pyconc-waitpid-{process.pid}"]
        process.kill()
        thread.join()
        assert process.returncode is None
        assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    run(main)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 brought eager tasks")
def test_eager_tasks(run, watching):
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert await asyncio.gather(*[asyncio.create_task(true()) for _ in range(5)]) == [0] * 5
        process = await asyncio.create_task(asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE))
        assert await process.communicate(b"in") == (b"in", None)
    run(main)


# ---- threads and loops


def test_loop_in_another_thread(run, watching):
    """Nothing has to be attached to the main thread first, on no Python."""
    def both():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return run(lambda: asyncio.wait_for(true(), 30))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(both).result() == 0


def test_no_warnings(watching):
    """The child watchers are deprecated in 3.12 and gone in 3.14; pyconc.run() does not come near them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pyconc.run(true()) == 0
        gc.collect()


def test_loops_that_spawn_at_once(run, watching):
    async def main():
        out = []
        for number in range(15):
            process = await asyncio.create_subprocess_shell(f"echo {number}; exit {number}", stdout=PIPE)
            out.append((await process.communicate(), process.returncode))
        return out

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(run, main) for _ in range(3)]:
            assert done.result() == [((b"%d\n" % number, None), number) for number in range(15)]


def test_other_threads_run_meanwhile(run):
    """Threads that allocate, set variables and fork while processes start."""
    stop, count = threading.Event(), [0]

    def busy():
        while not stop.is_set() or not count[0]:
            os.environ[f"PYCONC_TEST_{count[0] % 7}"] = "x" * (count[0] % 1000)
            count[0] += 1

    async def main():
        assert await asyncio.gather(*[true() for _ in range(50)]) == [0] * 50

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        run(main)
    finally:
        stop.set()
        thread.join()
        for number in range(7):
            os.environ.pop(f"PYCONC_TEST_{number}", None)
    assert count[0]


def test_popen_beside(run):
    """The standard library's own subprocesses at the same time, with its own waiting."""
    async def main():
        loop = asyncio.get_running_loop()
        runs = [loop.run_in_executor(None, lambda: subprocess.run(["/bin/sh", "-c", "exit 3"]).returncode)
                for _ in range(10)]
        assert await asyncio.gather(*[true() for _ in range(10)]) == [0] * 10
        assert await asyncio.gather(*runs) == [3] * 10
    run(main)


# ---- loops that end, processes that fork


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning", "ignore:unclosed:ResourceWarning")
def test_loop_closed_before_the_end(watching, caplog):
    """The process goes on until its transport is collected."""
    loop = pyconc.new_event_loop()
    transport, _ = loop.run_until_complete(loop.subprocess_exec(
        asyncio.SubprocessProtocol, "/bin/sleep", "100", stdin=None, stdout=None, stderr=None))
    loop.close()
    os.kill(transport.get_pid(), 0)
    assert transport.get_returncode() is None
    popen = transport.get_extra_info("subprocess")
    transport.close()
    assert popen.wait() == -9
    del transport
    caplog.clear()      # debug mode logged it
    gc.collect()


def test_closed_transport_of_a_closed_loop(watching, caplog):
    loop = pyconc.new_event_loop()
    transport, _ = loop.run_until_complete(loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/cat"))
    transport.close()
    popen = transport.get_extra_info("subprocess")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert popen.wait() == -9
    del transport
    caplog.clear()      # debug mode logged it
    gc.collect()


def test_daemon_outlives_the_loop(run, tmp_path):
    """What the child leaves behind in a session of its own is not ours to end."""
    async def main():
        process = await asyncio.create_subprocess_shell("setsid sleep 100 </dev/null >/dev/null 2>&1 & echo $!",
                                                        stdout=PIPE)
        out, _ = await process.communicate()
        return int(out)
    pid = run(main)
    os.kill(pid, signal.SIGKILL)    # still there, or ProcessLookupError


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_the_middle(run):
    """The forked child's copy of the transport has nothing to do with the process."""
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        child = os.fork()
        if child == 0:
            warnings.simplefilter("ignore")
            try:
                process._transport.close()
                process._transport.__del__()
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert process.returncode is None
        assert await process.communicate(b"alive") == (b"alive", None)
        assert process.returncode == 0
    run(main)


# ---- interpreters and limits


def program(source, **keywords):
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(pathlib.Path(pyconc.__file__).parents[1])}, **keywords)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_beside_a_subinterpreter():
    assert program("""
import asyncio, pyconc
try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        interpreters = None
async def main():
    process = await asyncio.create_subprocess_exec("/bin/echo", "alive", stdout=-1)
    return (await process.communicate())[0]
if interpreters is None:
    import test.support
other = interpreters.create()
print(pyconc.run(main()))
interpreters.destroy(other)
print(pyconc.run(main()))
""") == "b'alive\\n'\nb'alive\\n'\n"


def test_interpreter_exits_with_processes_alive():
    out = program("""
import asyncio, pyconc
async def main():
    process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
    print(process.pid)
loop = pyconc.new_event_loop()
loop.run_until_complete(main())
""")
    deadline = time.monotonic() + 60
    while True:
        try:
            with open(f"/proc/{int(out)}/cmdline") as file:
                if "sleep" not in file.read():
                    break   # a zombie of whoever is init here
        except (FileNotFoundError, ProcessLookupError):
            break
        assert time.monotonic() < deadline, "still alive"
        time.sleep(0.01)


def test_no_descriptors_left():
    """OSError, nothing leaked, and it works again when there are some."""
    assert program("""
import asyncio, errno, os, pyconc, resource
async def attempt():
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1, stderr=-1)
    return await process.communicate(b"through")
async def main():
    await attempt()
    before = sorted(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    for free in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) - 1 + free, limits[1]))
        try:
            assert (await attempt())[0] == b"through"
        except OSError as error:
            assert error.errno == errno.EMFILE
            refused += 1
    assert refused > 5
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await attempt()
    assert sorted(os.listdir("/proc/self/fd")) == before
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("ok")
pyconc.run(main())
""") == "ok\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become a user who has no processes")
def test_no_processes_left(tmp_path):
    """EAGAIN of fork(): raised, nothing leaked."""
    assert program("""
import asyncio, errno, os, pyconc, resource
async def main():
    before = sorted(os.listdir("/proc/self/fd"))
    os.setresuid(54321, 54321, 0)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    for _ in range(20):
        try:
            await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1, stderr=-1)
        except OSError as error:
            assert error.errno == errno.EAGAIN, error
        else:
            raise AssertionError("started")
    os.setresuid(0, 0, 0)
    assert sorted(os.listdir("/proc/self/fd")) == before
    print("ok")
pyconc.run(main())
""", cwd="/") == "ok\n"


# ---- many


@pytest.mark.stress
def test_many(run, report, times):
    """Descriptors, zombies and memory stay as they are. PYCONC_TEST_PROCESSES: how many, 5000 in CI, else 300."""
    all_of_them = "CI" in os.environ and "PYCONC_SANITIZE" not in os.environ
    total = int(os.environ.get("PYCONC_TEST_PROCESSES", times(5000) if all_of_them else 300))
    worker = """
import asyncio, gc, os, pyconc, sys
def state():
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * 4
    return len(os.listdir("/proc/self/fd")), resident
async def one(number):
    if number % 3:
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0
    else:
        process = await asyncio.create_subprocess_exec("/bin/echo", "a", stdin=-1, stdout=-1, stderr=-1)
        assert await process.communicate() == (b"a\\n", b"")
async def batch(count):
    for start in range(0, count, 25):
        await asyncio.gather(*map(one, range(start, min(start + 25, count))))
async def main(total):
    await batch(min(total // 3, 200))
    growth = []
    for _ in range(2):      # a leak grows each time, the heap without a GIL once, by 2 or 3 MiB
        fds, resident = state()
        await batch(total // 2)
        fds_after, resident_after = state()
        assert fds_after == fds, (fds, fds_after)
        growth.append(resident_after - resident)
    try:
        raise AssertionError(f"a child is left: {os.waitpid(-1, os.WNOHANG)}")
    except ChildProcessError:
        pass
    print(min(growth))
pyconc.run(main(int(sys.argv[1])))
"""
    done = subprocess.run([sys.executable, "-c", worker, str(total)], capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": str(pathlib.Path(pyconc.__file__).parents[1])})
    assert done.returncode == 0, done.stderr
    report("subprocesses", f"{total} subprocesses: the process grew by {done.stdout.strip()} KiB")
    assert int(done.stdout) < 1024 or "PYCONC_SANITIZE" in os.environ
