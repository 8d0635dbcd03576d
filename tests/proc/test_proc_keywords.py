# SPDX-License-Identifier: MIT
"""What subprocess_exec(), subprocess_shell() and create_subprocess_*() take, and what they raise."""
import asyncio
import contextlib
import errno
import fcntl
import getpass
import os
import pathlib
import platform
import signal
import subprocess
import sys

import pytest

import pyconc
from pyconc.loop.spawn import Popen, known

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
FACTORIES = {"pyconc": pyconc.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="another user may not become one more")


@pytest.fixture(params=FACTORIES)
def run_either(request):
    """run_either(main): on pyconc's loop and on asyncio's, for what has to be the same."""
    def run(main):
        with asyncio.Runner(loop_factory=FACTORIES[request.param]) as runner:
            return runner.run(main())
    return run


def output_of(run, script, *args, **keywords):
    """What the shell script writes to its stdout, started with the keywords."""
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, "sh", *args,
                                                       **{"stdout": PIPE, **keywords})
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()
    return run(main)


# ---- the standard descriptors


def test_pipes_are_pipes(run):
    """asyncio's own used sockets for stdin once, uvloop does for all: /proc/self/fd/N can't be opened then."""
    script = "for n in 0 1 2; do readlink /proc/self/fd/$n | cut -d: -f1; done; cat </proc/self/fd/0 >/proc/self/fd/1"

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate(b"in")
        assert (out, err) == (b"pipe\npipe\npipe\nin", b"")
    run(main)


def test_descriptors_and_files(run, tmp_path):
    path = tmp_path / "file"
    path.write_text("one\n")
    with path.open() as source, (tmp_path / "out").open("w+") as target:
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=source.fileno(), stdout=target)
            assert await process.wait() == 0
            assert process.stdin is process.stdout is process.stderr is None
        run(main)
        target.seek(0)
        assert target.read() == "one\n"


def test_stderr_to_stdout(run):
    assert output_of(run, "echo a; echo b >&2", stderr=STDOUT) == "a\nb\n"


def test_null_device(run):
    assert output_of(run, "cat; echo gone >&2; readlink /proc/self/fd/2", stdin=DEVNULL,
                     stderr=DEVNULL) == "/dev/null\n"


def test_standard_descriptors_closed_in_the_parent(tmp_path):
    """The pipes get the numbers 0 to 2 in the parent then, which they must not have in the child's way."""
    path = tmp_path / "result"
    program = f"""
import asyncio, os, pyconc
async def main():
    for fd in 0, 1, 2:
        os.close(fd)
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1, stderr=-1)
    out, err = await process.communicate(b"through")
    with open({str(path)!r}, "wb") as file:
        file.write(out + err)
pyconc.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60,
                   env={**os.environ, "PYTHONPATH": str(pathlib.Path(pyconc.__file__).parents[1])})
    assert path.read_bytes() == b"through"


def test_pipesize(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, pipesize=8192)
        for stream in process.stdin.transport, process._transport.get_pipe_transport(1):
            assert fcntl.fcntl(stream.get_extra_info("pipe"), fcntl.F_GETPIPE_SZ) == 8192
        await process.communicate(b"")
    run(main)


# ---- the child's surroundings


def test_env_and_cwd(run, tmp_path):
    assert output_of(run, "pwd; echo $KEY", cwd=tmp_path, env={"KEY": "välue"}) == f"{tmp_path}\nvälue\n"
    assert output_of(run, "pwd", cwd=os.fsencode(tmp_path)) == f"{tmp_path}\n"


def test_environment_as_it_is_now(run, monkeypatch):
    monkeypatch.setenv("PYCONC_TEST", "set")
    assert output_of(run, "echo $PYCONC_TEST") == "set\n"


def test_program_found_in_path(run, tmp_path):
    program = tmp_path / "its-name"
    program.write_text("#!/bin/sh\necho found $0 $1\n")
    program.chmod(0o755)

    async def main():
        process = await asyncio.create_subprocess_exec(
            "its-name", b"bytes", stdout=PIPE, env={"PATH": f"/nonexistent:{tmp_path}:/bin"})
        return (await process.communicate())[0]
    assert run(main) == f"found {program} bytes\n".encode()


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("path", "found"), [
    ("/nonexistent:{}", "{}/its-name"),
    ("{}/:/bin", "{}/its-name"),
    ("/nonexistent::/bin", "its-name"),
    ("", "its-name"),
    ("/nonexistent:/bin", None),
    (None, None),
], ids=str)
def test_folders_of_path(run_either, tmp_path, monkeypatch, given, path, found):
    """The PATH of env, or of the present environment; what is empty in it is the current folder."""
    program = tmp_path / "f\udcff" / "its-name"     # a folder whose name is no UTF-8
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho $0\n")
    program.chmod(0o755)
    monkeypatch.chdir(program.parent)
    monkeypatch.delenv("PATH")
    if path is not None:
        monkeypatch.setenv("PATH", path.format(program.parent))
    env = {**os.environ} if given else None
    if given:
        monkeypatch.setenv("PATH", "/nonexistent")

    async def main():
        process = await asyncio.create_subprocess_exec("its-name", stdout=PIPE, env=env)
        return os.fsdecode((await process.communicate())[0])
    if found is None:
        pytest.raises(FileNotFoundError, run_either, main)
    else:
        assert run_either(main) == found.format(program.parent) + "\n"


def test_path_objects(run, tmp_path):
    async def main():
        process = await asyncio.create_subprocess_exec(pathlib.Path("/bin/echo"), pathlib.Path("a"), stdout=PIPE)
        return (await process.communicate())[0]
    assert run(main) == b"a\n"


def test_executable(run):
    async def main():
        process = await asyncio.create_subprocess_exec("name", "-c", "echo $0", executable="/bin/sh", stdout=PIPE)
        shell = await asyncio.create_subprocess_shell("echo $0", executable="/bin/sh", stdout=PIPE)
        return (await process.communicate())[0], (await shell.communicate())[0]
    assert run(main) == (b"name\n", b"/bin/sh\n")


@pytest.mark.parametrize("command", ["echo $((6 * 7)); exit 3", b"echo $((6 * 7)); exit 3"])
def test_shell(run, command):
    async def main():
        process = await asyncio.create_subprocess_shell(command, stdout=PIPE)
        out, _ = await process.communicate()
        return out, process.returncode
    assert run(main) == (b"42\n", 3)


def test_descriptors_passed_on(run):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        listing = "cd /proc/self/fd; echo *"
        assert str(write) not in output_of(run, listing).split()
        assert str(write) in output_of(run, listing, close_fds=False).split()
        assert str(read) not in output_of(run, listing, close_fds=False).split()
        passed = output_of(run, listing, pass_fds=[read, write]).split()
        assert {str(read), str(write)} <= set(passed)
    finally:
        os.close(read)
        os.close(write)


def ids_of(run, **keywords):
    """The child's process id, group and session."""
    stat = output_of(run, "echo $$ $(cut -d' ' -f5,6 /proc/$$/stat)", **keywords)
    return map(int, stat.split())


def test_session_and_group(run):
    pid, group, session = ids_of(run)
    assert (group, session) == (os.getpgrp(), os.getsid(0))
    pid, group, session = ids_of(run, start_new_session=True)
    assert pid == group == session
    pid, group, session = ids_of(run, process_group=0)
    assert pid == group and session == os.getsid(0)


def test_umask(run):
    assert output_of(run, "umask", umask=0o27).strip() == "0027"


def mask_of(run, field, **keywords):
    return int(output_of(run, f"grep {field} /proc/self/status | cut -f2", **keywords), 16)


def test_signals_restored(run):
    """Python ignores SIGPIPE, its children do not."""
    bit = 1 << (signal.SIGPIPE - 1)
    assert not mask_of(run, "SigIgn", stdin=DEVNULL) & bit
    assert mask_of(run, "SigIgn", restore_signals=False) & bit


def test_signal_handlers_and_mask(run):
    """What the parent handles has its default action in the child; what it ignores or blocks stays so."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None), signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    try:
        assert not mask_of(run, "SigIgn") & (1 << (signal.SIGUSR1 - 1))
        assert mask_of(run, "SigIgn") & (1 << (signal.SIGUSR2 - 1))
        assert mask_of(run, "SigBlk") == 1 << (signal.SIGWINCH - 1)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGWINCH])
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_preexec_fn(run, tmp_path):
    assert output_of(run, "pwd; umask", preexec_fn=lambda: (os.chdir(tmp_path), os.umask(0o77))) == \
        f"{tmp_path}\n0077\n"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_preexec_fn_that_raises(run_either):
    async def main():
        with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
            await asyncio.create_subprocess_exec("/bin/true", preexec_fn=lambda: 1 / 0)
    run_either(main)


@ROOT
def test_user_and_groups(run):
    script = "id -u; id -g; id -G"
    assert output_of(run, script, user=65534, group=65533, extra_groups=[7]) == "65534\n65533\n65533 7\n"
    assert output_of(run, "id -un", user=getpass.getuser()).strip() == getpass.getuser()


@ROOT
def test_signal_to_another_users_process(run):
    """A process that has another user by now: to send it a signal is not ours any more, unless we are root."""
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100", user=65534)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    run(main)


# ---- what is refused


@pytest.mark.parametrize("keywords", [
    {"universal_newlines": True}, {"shell": "wrong"}, {"bufsize": 1}, {"bufsize": None}, {"text": True},
    {"encoding": "utf-8"}, {"errors": "strict"}], ids=lambda keywords: next(iter(keywords)))
@pytest.mark.parametrize("way", ["exec", "shell"])
def test_values_that_asyncio_refuses(run, way, keywords):
    keywords = {key: (way == "exec" if value == "wrong" else value) for key, value in keywords.items()}

    async def main():
        loop = asyncio.get_running_loop()
        start = loop.subprocess_exec if way == "exec" else loop.subprocess_shell
        with pytest.raises(ValueError, match=next(iter(keywords))):
            await start(asyncio.SubprocessProtocol, "true", **keywords)
    run(main)


def test_command_that_is_no_string(run_either):
    async def main():
        with pytest.raises(ValueError, match="cmd must be a string"):
            await asyncio.create_subprocess_shell(["true"])
    run_either(main)


@pytest.mark.parametrize("args, keywords", [
    (["/nonexistent/program"], {}),
    (["program-that-is-nowhere"], {}),
    (["/bin"], {}),
    (["/etc/hostname"], {}),
    (["/bin/true"], {"cwd": "/nonexistent/folder"}),
    (["/bin/true"], {"cwd": "/etc/hostname"}),
    (["/bin/true"], {"executable": "/nonexistent/program"}),
    (["/bin/true"], {"env": {"PATH": ""}, "executable": "nowhere"}),
    (["/bin/true", "zero\0byte"], {}),
    (["/bin/true"], {"cwd": "zero\0byte"}),
    (["/bin/true"], {"env": {"zero\0byte": "a"}}),
    (["/bin/true"], {"env": {"a=b": "c"}}),
    (["/bin/true"], {"env": {1: "c"}}),
    (["/bin/true", 1], {}),
    (["/bin/true"], {"pass_fds": [-1]}),
    (["/bin/true"], {"pass_fds": ["a"]}),
    (["/bin/true"], {"process_group": "a"}),
    (["/bin/true"], {"process_group": 2**31 - 1}),
    (["/bin/true"], {"umask": "a"}),
    (["/bin/true"], {"user": -5}),
    (["/bin/true"], {"user": "nobody-has-this-name"}),
    (["/bin/true"], {"extra_groups": "wheel"}),
    (["/bin/true"], {"stdin": "a"}),
    (["/bin/true"], {"stdin": STDOUT}),
    (["/bin/true"], {"pipesize": "a"}),
    (["/bin/true"], {"startupinfo": 1}),
    (["/bin/true"], {"nonsense": 1}),
    (["/bin/true", "a" * 3_000_000], {}),
], ids=str)
def test_what_cannot_be_started(args, keywords):
    """The same exception as asyncio's, with the same message and file name; nothing is left of the attempt."""
    async def main():
        with pytest.raises(Exception) as raised:
            await asyncio.create_subprocess_exec(*args, **{"stdin": PIPE, "stdout": PIPE, **keywords})
        error = raised.value
        return type(error), str(error), getattr(error, "filename", None)

    results = {}
    for name, factory in FACTORIES.items():
        with asyncio.Runner(loop_factory=factory) as runner:
            results[name] = runner.run(main())
    assert results["pyconc"] == results["asyncio"]


def test_program_that_is_no_program(run, tmp_path):
    path = tmp_path / "empty"
    path.touch(0o755)

    async def main():
        with pytest.raises(OSError, match="Exec format error") as raised:
            await asyncio.create_subprocess_exec(path)
        assert os.fspath(raised.value.filename) == str(path)
    run(main)


@contextlib.contextmanager
def audited():
    events, on = [], True
    sys.addaudithook(lambda event, args: events.append(args) if on and event == "subprocess.Popen" else None)
    yield events
    on = False


def test_audit_event(run):
    with audited() as events:
        output_of(run, "true", cwd="/", env={"A": "b"})
    assert events == [("/bin/sh", ["/bin/sh", "-c", "true", "sh"], "/", {"A": "b"})]


def test_popen_that_was_replaced(run, monkeypatch):
    """As test frameworks do that fake subprocesses."""
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda args, **keywords: real(["/bin/echo", "fake"], **keywords))

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true", stdout=PIPE)
        return (await process.communicate())[0]
    assert run(main) == b"fake\n"


@pytest.mark.parametrize("way", ["no close_range", "no vfork", "another _execute_child"])
def test_left_to_the_standard_library(run, monkeypatch, way):
    """Where the system or the program does not want it our way."""
    if way == "no close_range":
        monkeypatch.setattr(pyconc._core, "spawn", lambda *_: None)
    elif way == "no vfork":
        monkeypatch.setattr(subprocess, "_USE_VFORK", False, raising=False)
    else:
        assert not known(lambda self, args: None)
        monkeypatch.delattr(Popen, "_execute_child")
    assert output_of(run, "echo $KEY $1", "arg", cwd="/", env={"KEY": "a"}, start_new_session=True) == "a arg\n"

    async def main():
        process = await asyncio.create_subprocess_shell("echo $0", stdout=PIPE)
        assert (await process.communicate())[0] == b"/bin/sh\n"
        with pytest.raises(FileNotFoundError) as raised:
            await asyncio.create_subprocess_exec("/nonexistent")
        assert raised.value.filename == "/nonexistent"
    run(main)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of a system call")
def test_without_clone3():
    """As in containers whose filter does not know it: signals that this process handles are still the child's default,
    and those that it ignores are ignored."""
    program = """
import asyncio, ctypes, signal, struct, pyconc
SYS_CLONE3, ENOSYS = 435, 38
code = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, SYS_CLONE3, 6, 0, 0, 0x50000 | ENOSYS, 6, 0, 0, 0x7fff0000)
memory = ctypes.create_string_buffer(code)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(memory)))
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
libc = ctypes.CDLL(None)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter, 0, 0) < 0:
    raise SystemExit(77)
assert libc.syscall(SYS_CLONE3, 0, 0) == -1
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
async def main():
    process = await asyncio.create_subprocess_exec("sh", "-c", "kill -USR2 $$; kill -USR1 $$")
    assert await process.wait() == -signal.SIGUSR1
    try:
        await asyncio.create_subprocess_exec("/nonexistent")
    except FileNotFoundError as error:
        assert error.filename == "/nonexistent"
    else:
        raise AssertionError
pyconc.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False,
                          env={**os.environ, "PYTHONPATH": str(pathlib.Path(pyconc.__file__).parents[1])})
    if done.returncode == 77:
        pytest.skip("the kernel lets this process set no seccomp filter")
    assert done.returncode == 0


def test_standard_descriptors_crossed(run):
    """The child's 0, 1 and 2 from the parent's 2, 0 and 1 by number: none overwrites the other."""
    program = """
import asyncio, os, pyconc
names = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)}
async def main():
    script = f"test $(readlink /proc/self/fd/0) = {names[2]} && test $(readlink /proc/$$/fd/1) = {names[0]} && " \
             f"test $(readlink /proc/$$/fd/2) = {names[1]}"
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdin=2, stdout=0, stderr=1)
    raise SystemExit(await process.wait())
pyconc.run(main())
"""
    with open(os.devnull, "r+") as null, open("/dev/zero", "r+b", 0) as zero, open("/dev/full", "r+b", 0) as full:
        subprocess.run([sys.executable, "-c", program], stdin=null, stdout=zero, stderr=full, check=True, timeout=60,
                       env={**os.environ, "PYTHONPATH": str(pathlib.Path(pyconc.__file__).parents[1])})


def test_descriptor_that_is_not_open(run):
    async def main():
        with pytest.raises(OSError) as raised:
            await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=9999)
        assert raised.value.errno == errno.EBADF
    run(main)


def test_error_names_the_file(run, tmp_path):
    path = tmp_path / "file"
    path.touch(0o644)

    async def main():
        with pytest.raises(FileNotFoundError) as raised:
            await asyncio.create_subprocess_exec("/bin/true", cwd="/nonexistent/folder")
        assert raised.value.filename == "/nonexistent/folder"
        with pytest.raises(PermissionError) as raised:
            await asyncio.create_subprocess_exec(str(path), cwd="/")
        assert raised.value.filename == str(path)
    run(main)
