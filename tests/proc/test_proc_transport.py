# SPDX-License-Identifier: MIT
"""The transport of a subprocess, its protocol, and Process on top of both."""
import asyncio
import gc
import logging
import os
import signal
import subprocess

import pytest

import pyconc

PIPE = subprocess.PIPE


class Recorder(asyncio.SubprocessProtocol):
    def __init__(self):
        self.events = []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def pipe_data_received(self, fd, data):
        self.events.append((fd, data))

    def pipe_connection_lost(self, fd, exc):
        self.events.append((fd, exc))

    def process_exited(self):
        self.events.append("exited")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


async def start(script, **keywords):
    loop = asyncio.get_running_loop()
    return await loop.subprocess_shell(Recorder, script, **keywords)


def test_protocol_hears_everything(run):
    async def main():
        transport, protocol = await start("read line; echo out $line; echo err >&2; exit 5")
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert transport.get_protocol() is protocol.transport.get_protocol() is protocol
        assert transport.get_pid() > 0 and transport.get_returncode() is None
        assert transport.get_extra_info("subprocess").pid == transport.get_pid()
        assert transport.get_pipe_transport(3) is None
        transport.get_pipe_transport(0).write(b"in\n")
        assert await protocol.lost is None
        events = protocol.events
        assert events[0] == "made" and events[-1] == "lost"
        assert sorted(events[1:-1], key=str) == [(0, None), (1, None), (1, b"out in\n"), (2, None), (2, b"err\n"),
                                                 "exited"] or (0, None) not in events
        for fd, data in ((1, b"out in\n"), (2, b"err\n")):
            assert events.index((fd, data)) < events.index((fd, None))
        assert transport.get_returncode() == 5 and transport.get_extra_info("subprocess").returncode == 5
        assert transport.get_protocol() is None
        transport.close()
        assert transport.is_closing()
    run(main)


def test_no_pipes(run, watching):
    async def main():
        transport, protocol = await start("exit 7", stdin=None, stdout=None, stderr=None)
        await protocol.lost
        assert protocol.events == ["made", "exited", "lost"]
        assert transport.get_returncode() == 7 == await transport._wait()
        assert [transport.get_pipe_transport(fd) for fd in range(3)] == [None] * 3
        transport.close()
    run(main)


def test_pipes_of_a_transport(run):
    async def main():
        transport, protocol = await start("cat")
        for fd in range(3):
            pipe = transport.get_pipe_transport(fd)
            assert pipe.get_extra_info("pipe").fileno() >= 0
            assert isinstance(pipe, asyncio.WriteTransport if fd == 0 else asyncio.ReadTransport)
        transport.get_pipe_transport(0).write_eof()
        await protocol.lost
        transport.close()
    run(main)


def test_another_protocol(run):
    async def main():
        transport, first = await start("echo a; read line; echo b")
        while (1, b"a\n") not in first.events:
            await asyncio.sleep(0)
        second = Recorder()
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        transport.get_pipe_transport(0).write(b"\n")
        await second.lost
        assert (1, b"b\n") in second.events and "exited" in second.events
        assert "exited" not in first.events
        transport.close()
    run(main)


def test_protocol_that_raises(run):
    """What a protocol raises goes to the exception handler, and the rest goes on."""
    class Raising(Recorder):
        def pipe_data_received(self, fd, data):
            super().pipe_data_received(fd, data)
            raise ValueError(data)

        def process_exited(self):
            super().process_exited()
            raise ValueError("exited")

    async def main():
        loop, seen = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: seen.append(str(context["exception"])))
        transport, protocol = await loop.subprocess_shell(Raising, "echo a; read line; echo b")
        while (1, b"a\n") not in protocol.events:
            await asyncio.sleep(0)
        transport.get_pipe_transport(0).write(b"\n")
        await protocol.lost
        assert (1, b"b\n") in protocol.events
        assert sorted(seen) == sorted([str(ValueError(b"a\n")), str(ValueError(b"b\n")), "exited"])
        transport.close()
    run(main)


def test_factory_that_raises(run):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.subprocess_exec(lambda: 1 / 0, "/bin/true")
    run(main)


def test_flow_control(run):
    async def main():
        class Slow(Recorder):
            def pause_writing(self):
                self.events.append("pause")

            def resume_writing(self):
                self.events.append("resume")

        transport, protocol = await asyncio.get_running_loop().subprocess_shell(Slow, "cat >/dev/null")
        pipe = transport.get_pipe_transport(0)
        pipe.write(bytes(10_000_000))
        pipe.write_eof()
        await protocol.lost
        assert [event for event in protocol.events if event in ("pause", "resume")] == ["pause", "resume"]
        transport.close()
    run(main)


# ---- signals and close


@pytest.mark.parametrize("name, number", [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM),
                                          ("send_signal", signal.SIGUSR1)])
def test_signals(run, watching, name, number):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        getattr(process, name)(*[number] * (name == "send_signal"))
        assert process.returncode is None
        assert await process.wait() == process.returncode == -number
        for action in process.kill, process.terminate, lambda: process.send_signal(0):
            with pytest.raises(ProcessLookupError):
                action()
    run(main)


def test_signals_from_other_threads(run, watching):
    """As they come, before and after its end."""
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(20):
            process = await asyncio.create_subprocess_exec("/bin/true")
            transport = process._transport

            def bother(transport=transport):
                while transport.get_returncode() is None:
                    transport._signal(0)
                for _ in range(20):
                    transport._signal(signal.SIGKILL)

            bothering = loop.run_in_executor(None, bother)
            assert await process.wait() == 0
            await bothering
    run(main)


def test_signal_from_a_signal_handler(run, watching):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        before = signal.signal(signal.SIGUSR1, lambda *_: process.kill())
        try:
            with process._transport._lock:      # in the middle of anything
                signal.raise_signal(signal.SIGUSR1)
            assert await process.wait() == -signal.SIGKILL
        finally:
            signal.signal(signal.SIGUSR1, before)
    run(main)


def test_bad_signals(run, watching):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        with pytest.raises(OSError, match="Invalid argument"):
            process.send_signal(1000)
        with pytest.raises(TypeError):
            process.send_signal("KILL")
        process.send_signal(0)
        process.kill()
        await process.wait()
    run(main)


def test_stopped_and_continued(run, watching):
    """Only its end counts as one."""
    async def main():
        process = await asyncio.create_subprocess_shell("kill -STOP $$; exit 9")
        while " T " not in open_stat(process.pid):
            await asyncio.sleep(0.001)
        assert process.returncode is None
        process.send_signal(signal.SIGCONT)
        assert await process.wait() == 9
    run(main)


def open_stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read()


def test_no_signal_for_a_reaped_process(run, watching, monkeypatch):
    """Whoever has got its number meanwhile is left alone."""
    async def main():
        process = await asyncio.create_subprocess_shell("read line", stdin=PIPE)
        process.stdin.write(b"\n")
        os.waitpid(process.pid, 0)      # the loop does not know yet
        monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled by number"))
        process.send_signal(signal.SIGTERM)
        process.kill()
        process._transport.close()
        assert await process.wait() == 255
    run(main)


def test_close_kills(run, watching):
    async def main():
        transport, protocol = await start("exec sleep 100")
        transport.close()
        transport.close()
        assert transport.is_closing() and "closed" in repr(transport)
        await protocol.lost
        assert transport.get_returncode() == -signal.SIGKILL
    run(main)


def test_close_after_its_end(run, watching):
    """Not noticed yet: nothing is killed, and the status is its own."""
    async def main():
        process = await asyncio.create_subprocess_shell("read line; exit 4", stdin=PIPE)
        process.stdin.write(b"\n")
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process._transport.close()
        assert await process.wait() == 4
    run(main)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_forgotten_transport(run):
    """Left open when its loop is closed: warned about and killed."""
    async def main():
        transport, _ = await start("exec sleep 100", stdin=None, stdout=None, stderr=None)
        return transport.get_pid()
    with pytest.warns(ResourceWarning, match="unclosed transport <SubprocessTransport pid="):
        pid = run(main)
        gc.collect()
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return      # Popen.__del__ has seen its end
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_repr(run):
    async def main():
        transport, protocol = await start("exec cat", stderr=None)
        text = repr(transport)
        assert text.startswith(f"<SubprocessTransport pid={transport.get_pid()} running stdin=<")
        assert "stdout=<" in text and "stderr" not in text
        assert "fd=1" in repr(transport._pipes[1])
        transport.kill()
        await protocol.lost
        assert "returncode=-9" in repr(transport)
        transport.close()
    run(main)


def test_debug_log(run, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")

    async def main():
        transport, protocol = await start("exec sleep 100")
        transport.close()
        await protocol.lost
    run(main, debug=True)
    for text in ("run shell command 'exec sleep 100'", "process 'exec sleep 100' created: pid ",
                 "Close running child process: kill <SubprocessTransport", "exited with return code -9"):
        assert text in caplog.text


# ---- Process


def test_communicate_megabytes(run):
    data = os.urandom(8_000_000)

    async def main():
        process = await asyncio.create_subprocess_shell("tee /dev/stderr", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        return await process.communicate(data)
    assert run(main) == (data, data)


def test_communicate_with_one_that_does_not_read(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(bytes(1_000_000)) == (b"", None)
        assert process.returncode == 0
    run(main)


def test_limit_and_lines(run):
    async def main():
        process = await asyncio.create_subprocess_shell("echo short; printf '%0100d\\n' 0", stdout=PIPE, limit=50)
        assert await process.stdout.readline() == b"short\n"
        with pytest.raises(ValueError, match="limit"):
            await process.stdout.readline()
        await process.communicate()
        process = await asyncio.create_subprocess_shell("for n in 1 2 3; do echo $n; done", stdout=PIPE)
        assert [line async for line in process.stdout] == [b"1\n", b"2\n", b"3\n"]
        await process.wait()
    run(main)


def test_conversation(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        for number in range(200):
            process.stdin.write(b"%d\n" % number)
            await process.stdin.drain()
            assert await process.stdout.readline() == b"%d\n" % number
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.wait() == 0
        assert await process.stdout.read() == b""
    run(main)


def test_wait_does_not_wait_for_others_with_the_pipe(run):
    """A grandchild may hold the pipe open long after the child's end."""
    async def main():
        process = await asyncio.create_subprocess_shell("sleep 100 & echo $!", stdout=PIPE)
        grandchild = int(await process.stdout.readline())
        assert await process.wait() == 0
        os.kill(grandchild, signal.SIGKILL)
        assert await process.stdout.read() == b""
    run(main)


def test_cancelled_wait(run, watching):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        others = [asyncio.create_task(process.wait()) for _ in range(3)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.01)
        others[0].cancel()
        process.kill()
        assert await process.wait() == -9
        assert await asyncio.gather(*others[1:]) == [-9, -9]
    run(main)


def test_cancelled_communicate(run):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
        task = asyncio.create_task(process.communicate(bytes(3_000_000)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        process.kill()
        await process.wait()
        process._transport.close()
    run(main)


@pytest.mark.parametrize("turns", range(6))
def test_cancelled_start(run, watching, turns):
    """Whenever it is cancelled, no process is left: the fixtures look."""
    async def main():
        task = asyncio.create_task(asyncio.create_subprocess_exec("/bin/sleep", "100", stdin=PIPE, stdout=PIPE,
                                                                  stderr=PIPE))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        process = await task
        process.kill()
        await process.communicate()
    run(main)


def test_pipe_that_cannot_be_connected(run, monkeypatch):
    """The process is killed, and nothing stays open."""
    async def main():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(type(loop), "connect_read_pipe", refuse)
        with pytest.raises(OSError, match="refused"):
            await asyncio.create_subprocess_exec("/bin/sleep", "100", stdin=PIPE, stdout=PIPE, stderr=PIPE)

    async def refuse(self, factory, pipe):
        await asyncio.sleep(0)
        raise OSError("refused")
    run(main)


@pytest.mark.parametrize("which", [1, 2])
def test_second_pipe_that_cannot_be_connected(run, monkeypatch, which):
    """Those before it are closed by then, and those after it too."""
    async def main():
        loop = asyncio.get_running_loop()
        real, calls = loop._make_read_pipe_transport, []

        def refuse(self, *args):
            calls.append(args)
            if len(calls) == which:
                raise OSError("refused")
            return real(*args)

        monkeypatch.setattr(type(loop), "_make_read_pipe_transport", refuse)
        with pytest.raises(OSError, match="refused"):
            await asyncio.create_subprocess_exec("/bin/sleep", "100", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    run(main)


@pytest.mark.parametrize("debug", [False, True])
def test_connected_by_the_loops_methods(debug):
    """Those of a class derived from ours are called, as asyncio's are."""
    calls = []

    class Loop(pyconc.Loop):
        async def connect_read_pipe(self, factory, pipe):
            calls.append("read")
            return await super().connect_read_pipe(factory, pipe)

        async def connect_write_pipe(self, factory, pipe):
            calls.append("write")
            return await super().connect_write_pipe(factory, pipe)

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert await process.communicate(b"data") == (b"data", b"")
    with asyncio.Runner(loop_factory=Loop, debug=debug) as runner:
        runner.run(main())
    assert calls == ["write", "read", "read"]


def test_process_group(run):
    """killpg() reaches the child's own children, a signal to the child does not."""
    async def main():
        process = await asyncio.create_subprocess_shell("sleep 100 & echo $!; wait", stdout=PIPE,
                                                        start_new_session=True)
        grandchild = int(await process.stdout.readline())
        assert os.getpgid(grandchild) == process.pid
        os.killpg(process.pid, signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        assert await process.stdout.read() == b""   # nobody has it open any more
    run(main)
