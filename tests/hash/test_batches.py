"""How batches run: progress, cancellation, coroutines, signals, memory, exits, forks."""
import asyncio
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
import warnings

import pytest

import pyconc
from pyconc import _hash, _limits, hashing

SCRYPT = {"salt": b"salt", "n": 1024, "r": 8, "p": 1}
LONG = [b"x"] * 1_000_000  # some minutes of scrypt, or a second of SHA-256
EXPECTED = hashlib.sha256(b"x").digest()


def run_python(code, *options, env=None):
    return subprocess.run([sys.executable, *options, "-c", textwrap.dedent(code)], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, env=env)


class Mine(Exception):
    pass


# Progress.

def test_progress(reached):
    def attempt():
        calls, where = [], set()

        def progress(done, total):
            calls.append(done)
            where.add(threading.get_ident())
            assert total == 300

        hashing.scrypt_many([b"x"] * 300, **SCRYPT, progress=progress)
        assert calls == sorted(calls)
        assert calls[-1] == 300
        assert where == {threading.get_ident()}
        return len(calls) > 1       # or this thread was not let run before all was done

    reached(attempt)


@pytest.mark.parametrize("count", [0, 1, 10])
def test_progress_of_a_short_batch(count):
    calls = []
    hashing.digest_many("md5", [b"x"] * count, progress=lambda *args: calls.append(args))
    assert calls == [(count, count)]


def test_progress_that_raises_cancels(no_leaked_threads):
    def progress(done, total):
        raise Mine(done, total)

    with pytest.raises(Mine) as caught:
        hashing.scrypt_many(LONG, **SCRYPT, progress=progress)
    assert caught.value.args[0] < caught.value.args[1]
    with pytest.raises(Mine):
        hashing.digest_many("md5", [b"x"], progress=progress)


# Coroutines.

@pytest.fixture(params=[asyncio.run, pyconc.run], ids=["asyncio", "pyconc"])
def run(request):
    return request.param


def test_coroutine_forms(run, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    many = [bytes(1000)] * 1000

    async def main():
        assert await hashing.digest_many_async("sha256", [b"x"]) == [EXPECTED]
        assert await hashing.digest_many_async("sha256", []) == []
        assert await hashing.digest_many_async("sha256", many) == hashing.digest_many("sha256", many)
        assert await hashing.file_digest_many_async([path], "sha256") == [EXPECTED]
        assert await hashing.file_digest_many_async([], "sha256") == []
        found = await hashing.file_digest_many_async([path, tmp_path], "sha256", errors="return")
        assert isinstance(found[1], IsADirectoryError)
        assert await hashing.scrypt_many_async([b"x"], **SCRYPT) == [hashlib.scrypt(b"x", **SCRYPT)]
        key = await hashing.pbkdf2_many_async("sha1", [b"x"], salt=b"s", iterations=9, dklen=30)
        assert key == [hashlib.pbkdf2_hmac("sha1", b"x", b"s", 9, 30)]
        with pytest.raises(FileNotFoundError, match="missing"):
            await hashing.file_digest_many_async([tmp_path / "missing"], "sha256")
        with pytest.raises(TypeError, match=r"buffers\[0\]"):
            await hashing.digest_many_async("sha256", [1])

    run(main())


def test_many_coroutines_at_once(run, tmp_path, no_leaked_fds, no_leaked_threads):
    paths = []
    for i in range(100):
        paths.append(tmp_path / str(i))
        paths[-1].write_bytes(os.urandom(i * 1000))

    async def main():
        return await asyncio.gather(*(hashing.file_digest_many_async([path], "sha256") for path in paths))

    assert [digest for (digest,) in run(main())] == hashing.file_digest_many(paths, "sha256")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the descriptors in /proc")
def test_a_loop_has_one_descriptor_for_all_batches(run):
    async def count_in_a_round():
        tasks = [asyncio.ensure_future(hashing.scrypt_many_async(LONG[:10_000], **SCRYPT)) for _ in range(20)]
        await asyncio.sleep(0.01)
        meanwhile = len(os.listdir("/proc/self/fd"))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return meanwhile, len(os.listdir("/proc/self/fd"))

    async def main():
        _, before = await count_in_a_round()    # there are some that the loop keeps
        assert await count_in_a_round() == (before + 1, before)

    run(main())


def read_by_this_thread():
    """Bytes, by the kernel's count."""
    with open("/proc/thread-self/io") as file:
        return int(file.readline().split()[1])


def test_files_are_never_read_on_the_loops_thread(run, tmp_path, reached):
    sizes = [1, 100_000, 1 << 28]
    paths = [tmp_path / str(size) for size in sizes]
    for path, size in zip(paths, sizes):
        with path.open("wb") as file:
            file.truncate(size)     # without blocks: nothing but time to read

    wanted = [hashing.file_digest_many([path], "md5") for path in paths]

    async def main():
        before, turns = read_by_this_thread(), 0
        for path, digest in zip(paths, wanted):
            task = asyncio.ensure_future(hashing.file_digest_many_async([path], "md5"))
            while not task.done():
                await asyncio.sleep(0)
                turns += 1
            assert await task == digest
        assert read_by_this_thread() - before < 100_000
        return turns > 100

    reached(lambda: run(main()))


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs files that are in memory for certain")
def test_small_files_are_read_by_the_thread_that_asks():
    """Another would take longer to start than they do to read."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        paths, contents = [], [os.urandom(size) for size in (0, 1, 5000, 70_000)]
        for i, data in enumerate(contents):
            paths.append(os.path.join(folder, str(i)))
            with open(paths[-1], "wb") as file:
                file.write(data)
        for count in range(1, 5):
            before = read_by_this_thread()
            found = hashing.file_digest_many(paths[:count], "sha256")
            read = read_by_this_thread() - before
            assert found == [hashlib.sha256(data).digest() for data in contents[:count]]
            assert read >= sum(map(len, contents[:count]))
        large = os.path.join(folder, "large")
        with open(large, "wb") as file:
            file.truncate(1 << 21)
        before = read_by_this_thread()
        assert hashing.file_digest_many([paths[0], large], "sha256")[1] == hashlib.sha256(bytes(1 << 21)).digest()
        assert read_by_this_thread() - before < 1 << 20
        found = hashing.file_digest_many([paths[2], folder, paths[1]], "sha256", errors="return")
        assert found[::2] == [hashlib.sha256(contents[i]).digest() for i in (2, 1)]
        assert isinstance(found[1], IsADirectoryError)


@pytest.mark.parametrize("buffers, threads, here", [([bytes(1000)] * 300, None, True), ([bytes(1 << 21)], None, True),
                                                    ([bytes(1000)] * 2000, 1, True), ([bytes(1 << 25)], 1, False)])
def test_what_is_hashed_by_the_thread_that_asks(buffers, threads, here):
    """By its CPU time, which no other program changes much: all of the work, or next to none."""
    def cpu(call):
        begin = time.thread_time()
        call()
        return time.thread_time() - begin

    data = b"".join(buffers)    # in one piece: a call costs as much as a small buffer, and more under sanitizers
    alone = min(cpu(lambda: hashlib.sha256(data)) for _ in range(5))
    asked = min(cpu(lambda: hashing.digest_many("sha256", buffers, threads=threads)) for _ in range(5))
    assert (asked > alone / 3) is here


def test_the_loop_runs_meanwhile(run, reached):
    async def main():
        turns = 0
        task = asyncio.ensure_future(hashing.scrypt_many_async([b"x"] * 100, **SCRYPT))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        assert task.result() == [hashlib.scrypt(b"x", **SCRYPT)] * 100
        return turns > 100

    reached(lambda: run(main()))


def test_progress_comes_in_the_loop(run, reached):
    async def main():
        calls = []

        def progress(done, total):
            calls.append((done, total))
            assert asyncio.get_running_loop() is loop

        loop = asyncio.get_running_loop()
        await hashing.scrypt_many_async([b"x"] * 300, **SCRYPT, progress=progress)
        await hashing.digest_many_async("md5", [b"x"], progress=progress)
        assert calls[-2:] == [(300, 300), (1, 1)]
        assert calls[:-1] == sorted(calls[:-1])
        return len(calls) > 3       # or the loop was not let run before all was done

    reached(lambda: run(main()))


def test_progress_that_raises_cancels_the_coroutine(run, no_leaked_fds, no_leaked_threads):
    def progress(done, total):
        raise Mine

    async def main():
        with pytest.raises(Mine):
            await hashing.scrypt_many_async(LONG, **SCRYPT, progress=progress)

    run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_the_task_cancels_the_batch(run, times, no_leaked_fds, no_leaked_threads):
    async def main():
        task = asyncio.ensure_future(hashing.scrypt_many_async(LONG, **SCRYPT))
        await asyncio.sleep(0.01)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_timeout(run, no_leaked_fds, no_leaked_threads):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await hashing.digest_many_async("sha256", [bytes(1 << 20)] * 100_000)

    run(main())


def test_a_loop_that_is_closed_half_way(no_leaked_fds, no_leaked_threads):
    loop = asyncio.new_event_loop()
    coroutine = hashing.scrypt_many_async(LONG, **SCRYPT)
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0.01))
    loop._ready.clear()
    loop.close()
    task._log_destroy_pending = False
    coroutine.close()
    del task


# Signals.

@pytest.mark.parametrize("call", ["hashing.scrypt_many([b'x'] * 10**6, salt=b'', n=1024, r=8, p=1)",
                                  "hashing.file_digest_many(['/dev/zero'], 'sha256')",
                                  "hashing.digest_many('sha256', [bytes(1 << 24)] * 10**5, threads=1)"])
def test_ctrl_c(call):
    code = f"""
        import os, signal, threading
        from pyconc import hashing
        def runs(task):     # not who has been joined, while the kernel still puts it away
            try:
                with open("/proc/self/task/" + task + "/stat") as file:
                    return not int(file.read().rpartition(")")[2].split()[6]) & EXITING
            except (FileNotFoundError, ProcessLookupError):
                return False
        EXITING = 4     # PF_EXITING, one of the kernel's flags of a task
        def interrupt():
            os.write(1, b"go ")
            os.kill(os.getpid(), signal.SIGINT)
        try:
            threading.Timer(0.2, interrupt).start()
            {call}
        except KeyboardInterrupt:
            assert sum(map(runs, os.listdir("/proc/self/task"))) <= 2, "a thread is left"  # the timer's may be
            print("interrupted")
    """
    done = run_python(code, "-X", "dev")
    assert (done.stdout, done.returncode) == ("go interrupted\n", 0)


def test_ctrl_c_in_a_coroutine():
    code = """
        import asyncio, os, signal, threading
        from pyconc import hashing
        async def main():
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await hashing.scrypt_many_async([b'x'] * 10**4, salt=b'', n=1024, r=8, p=1)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("interrupted\n", 0)


def test_another_signal_does_not_cancel(meanwhile):
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *args: seen.append(1))
    try:
        with meanwhile(os.kill, os.getpid(), signal.SIGUSR1):
            assert hashing.scrypt_many([b"x"] * 100, **SCRYPT) == [hashlib.scrypt(b"x", **SCRYPT)] * 100
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [1]


# Exits, forks, interpreters.

def test_exit_with_a_batch_in_a_daemon_thread():
    code = """
        import threading, time
        from pyconc import hashing
        begun = threading.Event()
        def run():
            hashing.scrypt_many([b'x'] * 10**6, salt=b'', n=1024, r=8, p=1, progress=lambda *args: begun.set())
        threading.Thread(target=run, daemon=True).start()
        begun.wait()
        print("bye")
    """
    for _ in range(3):
        done = run_python(code, "-X", "dev")
        assert done.returncode == 0
        assert done.stdout.startswith("bye\n")
        assert "Fatal" not in done.stdout


def test_exit_with_a_batch_that_was_started():
    code = """
        import os
        from pyconc import _hash, hashing
        kept = _hash.scrypt_batch([b'x'] * 10**6, b'', 1024, 8, 1, 0, 64, None, False)
        kept.start(2, 2)
        print("bye")
    """
    done = run_python(code, "-X", "dev")
    assert (done.stdout, done.returncode) == ("bye\n", 0)


def test_a_child_hashes(in_child):
    many = [bytes(1000)] * 1000
    hashing.digest_many("sha256", many)
    assert in_child(lambda: hashing.digest_many("sha256", many)[0].hex()) == hashlib.sha256(bytes(1000)).hexdigest()


def test_a_child_forked_in_mid_batch(no_leaked_threads):
    """It may not wait for its parent's threads, but hash with its own."""
    reports = []
    parent = os.getpid()

    def progress(done, total):
        if not reports:
            reader, writer = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                os.dup2(writer, 1)
                return
            os.close(writer)
            with open(reader) as file:
                reports.append(file.read())
            os.waitpid(pid, 0)
            raise Mine

    try:
        hashing.scrypt_many(LONG, **SCRYPT, progress=progress)
    except Mine:
        pass
    except BaseException as error:
        if os.getpid() == parent:
            raise
        key = hashing.scrypt_many([b"x"] * 3, **SCRYPT)[2] == hashlib.scrypt(b"x", **SCRYPT)
        os.write(1, f"{error!r} {key}".encode())
        os._exit(0)
    assert reports == ["RuntimeError('the batch belongs to the parent process') True"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with Python 3.12")
def test_in_subinterpreters():
    code = """
        import hashlib, threading
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        # Python 3.12.1 crashes at exit when a subinterpreter imports hashlib.
        CODE = f'''if True:
            from pyconc import hashing
            digest = {hashlib.sha256(bytes(1000)).digest()}
            assert hashing.digest_many("sha256", [bytes(1000)] * 1000) == [digest] * 1000
            assert len(hashing.scrypt_many([b"x"] * 20, salt=b"", n=1024, r=8, p=1)) == 20
        '''
        def run():
            own = interpreters.create()
            error = interpreters.run_string(own, CODE)
            assert error is None, error
            interpreters.destroy(own)
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        run()
        print("fine")
    """
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("fine\n", 0)


# Memory.

its_own_memory = pytest.mark.skipif("PYCONC_SANITIZE" in os.environ, reason="a sanitizer has memory beside each byte")


def test_memory_limit_bounds_the_jobs_in_flight():
    need = 128 * 1027 * 8
    batch, threads = hashing._scrypt_batch([b"x"] * 9, b"", 1024, 8, 1, 0, 64, 8, 3 * need + 1)
    assert (batch.total, threads) == (9, 3)
    assert hashing._scrypt_batch([b"x"] * 9, b"", 1024, 8, 1, 0, 64, 2, 3 * need)[1] == 2
    assert hashing._scrypt_batch([b"x"] * 9, b"", 1024, 8, 1, 0, 64, None, None)[1] == _limits.available_cores()


@its_own_memory
def test_a_thread_takes_two_passwords_where_the_memory_allows_it():
    """And one by one where it does not."""
    arguments = {"salt": b"salt", "n": 1 << 14, "r": 8, "p": 1, "maxmem": 1 << 25}
    need = 128 * (arguments["n"] + 3) * arguments["r"]
    code = """
        from pyconc import hashing
        def memory(what):
            with open("/proc/self/status") as file:
                return int(next(line for line in file if line.startswith(what)).split()[1]) * 1024
        before = memory("VmRSS")
        hashing.scrypt_many([b"x"] * 4, **{arguments}, threads=1, memory_limit={limit})
        print(round((memory("VmHWM") - before) / {need}))
    """
    for passwords, limit in (1, need), (1, 2 * need - 1), (2, 2 * need), (2, 20 * need):
        done = run_python(code.format(arguments=arguments, need=need, limit=limit))
        assert (done.stdout, done.returncode) == (f"{passwords}\n", 0), done.stderr


@its_own_memory
def test_no_memory_to_mix_in():
    code = """
        import resource
        from pyconc import hashing
        hashing.scrypt_many([b"x"] * 4, salt=b"", n=2, r=8, p=1)
        with open("/proc/self/statm") as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for n in 1 << 20, 2:
            try:
                print(len(hashing.scrypt_many([b"x"] * 4, salt=b"", n=n, r=15, p=1, maxmem=2**31 - 1,
                                              threads=2, memory_limit=1 << 40)))
            except MemoryError:
                print("too little")
    """
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("too little\n4\n", 0), done.stderr


@its_own_memory
def test_memory_for_one_password_where_two_were_meant():
    code = """
        import hashlib, resource
        from pyconc import hashing
        cost = {"salt": b"", "n": 1 << 16, "r": 8, "p": 1, "maxmem": 1 << 27}     # 64 MiB
        hashing.scrypt_many([b"x"], salt=b"", n=2, r=8, p=1)
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (110 << 20), now + (110 << 20)))
        keys = hashing.scrypt_many([b"x", b"y", b"z"], **cost, threads=1, memory_limit=1 << 40)
        print(keys == [hashlib.scrypt(password, **cost) for password in (b"x", b"y", b"z")])
    """
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


@its_own_memory
def test_memory_is_nobody_s_but_the_batch_s():
    """Each worker that turned to another batch meanwhile has given its share back, and what it was told."""
    code = """
        import threading
        from pyconc import hashing
        def memory(what):
            with open("/proc/self/status") as file:
                return int(next(line for line in file if line.startswith(what)).split()[1]) * 1024
        need = 128 * 8 << 14
        begun, over = threading.Event(), threading.Event()
        def progress(done, total):
            begun.set()
            if over.is_set():
                raise KeyError
        def other():
            try:
                hashing.pbkdf2_many("sha256", [b"x"] * 10**4, salt=b"", iterations=20_000, threads=8,
                                    progress=progress)
            except KeyError:
                pass
        thread = threading.Thread(target=other)
        thread.start()
        begun.wait()
        before = memory("VmRSS")
        hashing.scrypt_many([b"x"] * 12, salt=b"", n=1 << 14, r=8, p=1, maxmem=1 << 25, threads=8, memory_limit=need)
        print(round((memory("VmHWM") - before) / need), round((memory("VmRSS") - before) / need))
        over.set()
        thread.join()
    """
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("1 0\n", 0), done.stderr


def test_many_blocks_count_too():
    """What they need beside the memory that is mixed in: p of them, and two to mix."""
    _, threads = hashing._scrypt_batch([b"x"] * 9, b"", 16, 8, 1000, 0, 64, 8, 3 * 128 * 8 * 1018)
    assert threads == 3
    assert hashing._scrypt_batch([b"x"] * 9, b"", 16, 8, 1000, 0, 64, 8, 128 * 8 * 16)[1] == 1


def test_memory_limit_below_one_job():
    with pytest.raises(ValueError, match="n=1024, r=8 needs 1048576 bytes a password, the memory limit is 1048575"):
        hashing.scrypt_many([b"x"], **SCRYPT, memory_limit=2**20 - 1)
    assert hashing.scrypt_many([b"x"] * 5, **SCRYPT, memory_limit=2**20) == [hashlib.scrypt(b"x", **SCRYPT)] * 5
    with pytest.raises(TypeError):
        hashing.scrypt_many([b"x"], **SCRYPT, memory_limit="1")


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler and LD_PRELOAD")
def test_no_memory_for_a_digest(tmp_path):
    library = tmp_path / "nothing.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], check=True, text=True,
                   input="void *EVP_MD_CTX_new(void) { return 0; }")
    done = run_python("""
        from pyconc import hashing
        for buffers in ([b"x"], [bytes(1 << 20)] * 3):
            try:
                hashing.digest_many("sha3_256", buffers)
            except MemoryError:
                print("too little")
    """, env={**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}"})
    assert (done.stdout, done.returncode) == ("too little\ntoo little\n", 0)


def test_control_groups(tmp_path, monkeypatch):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    version = []
    real = _limits._read
    monkeypatch.setattr(_limits, "_GROUPS", tmp_path)
    monkeypatch.setattr(_limits, "_read", lambda path: {
        "/proc/self/cgroup": version[0], "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8000 kB\n",
    }.get(str(path)) or real(path))
    quota = _limits._cpu_quota.__wrapped__

    version[:] = ["0::/a/b\n"]
    assert (quota(), _limits.available_memory()) == (float("inf"), 8_192_000)
    write("a/cpu.max", "150000 100000\n")
    write("a/b/cpu.max", "max 100000\n")
    write("a/b/memory.max", "max\n")
    write("a/memory.max", "5000\n")
    write("a/memory.current", "3000\n")
    assert (quota(), _limits.available_memory()) == (1.5, 2000)

    version[:] = ["4:memory:/m\n3:cpu,cpuacct:/c\n"]
    write("cpu/c/cpu.cfs_quota_us", "-1\n")
    write("cpu/c/cpu.cfs_period_us", "100000\n")
    write("memory/m/memory.limit_in_bytes", "10000\n")
    write("memory/m/memory.usage_in_bytes", "4000\n")
    assert (quota(), _limits.available_memory()) == (float("inf"), 6000)
    write("cpu/c/cpu.cfs_quota_us", "50000\n")
    assert quota() == 0.5


def test_cores():
    assert 1 <= _limits.available_cores() <= len(os.sched_getaffinity(0))


# The batch object.

def test_a_batch_runs_once():
    batch = _hash.digest_batch("sha256", [b"x"], None, None)
    assert (batch.done, batch.total, batch.short) == (0, 1, True)
    with pytest.raises(RuntimeError, match="not over"):
        batch.result()
    assert batch.run(1, 1, None) == [EXPECTED]
    assert batch.done == 1
    with pytest.raises(RuntimeError, match="once"):
        batch.run(1, 1, None)
    with pytest.raises(RuntimeError, match="once"):
        batch.start(1, 1)
    with pytest.raises(RuntimeError, match="not run"):
        batch.result()


def wait_for(batch):
    bell = _hash.Bell()
    if bell.watch(batch, "over"):
        select.select([bell], [], [])
        assert bell.answer() == ["over"]
    assert not bell.watch(batch, "over")


def test_a_batch_that_is_started():
    for count in (0, 1, 2000):
        batch = _hash.digest_batch("sha256", [b"x"] * count, None, None)
        batch.start(2, 2)
        wait_for(batch)
        assert batch.done == count
        assert batch.result() == [EXPECTED] * count
    batch = _hash.scrypt_batch(LONG, b"", 1024, 8, 1, 0, 64, None, False)
    batch.start(2, 2)
    with pytest.raises(RuntimeError, match="not over"):
        batch.result()
    batch.cancel()
    wait_for(batch)
    batch.close()
    assert batch.done < batch.total
    with pytest.raises(RuntimeError, match="not run to its end"):
        batch.result()


@pytest.mark.skipif(sys.version_info < (3, 14) and bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
                    reason="PyList_New() without memory frees the items of the list before it, in 3.13 without a GIL")
def test_no_memory_to_tell_what_is_over():
    """The bell keeps it for the next who asks."""
    pytest.importorskip("_testcapi")
    assert run_python("""
        import select, _testcapi
        from pyconc import _hash
        refused = 0
        for allowed in range(1000):
            bell = _hash.Bell()
            batches = [_hash.scrypt_batch([b"x"] * 10_000, b"", 1024, 8, 1, 0, 64, None, False) for _ in range(3)]
            for number, batch in enumerate(batches):
                batch.start(2, 2)
                assert bell.watch(batch, number)
            for batch in batches:
                batch.cancel()
            select.select([bell], [], [])
            _testcapi.set_nomemory(allowed, allowed + 1)
            try:
                over, failed = bell.answer(), False
            except MemoryError:
                over, failed = [], True
            finally:
                _testcapi.remove_mem_hooks()
            refused += failed
            while len(over) < 3:
                select.select([bell], [], [])
                over += bell.answer()
            assert sorted(over) == [0, 1, 2]
            if not failed:
                break
        print("refused" if refused else "never refused")
    """).stdout == "refused\n"


def test_a_batch_that_is_dropped(no_leaked_threads):
    """Its threads are gone before its memory is."""
    _hash.scrypt_batch([bytearray(5)] * 100_000, bytearray(9), 1024, 8, 1, 0, 64, None, False).start(2, 2)


def test_a_batch_is_not_made_by_hand():
    with pytest.raises(TypeError):
        _hash.Batch()
    for function in (_hash.digest_batch, _hash.file_batch, _hash.scrypt_batch, _hash.pbkdf2_batch):
        with pytest.raises(TypeError, match="arguments"):
            function()
