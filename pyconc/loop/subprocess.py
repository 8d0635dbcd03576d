# SPDX-License-Identifier: MIT
"""Subprocesses: the transport of one, and how the loop learns that it has ended."""
import asyncio
import os
import signal
import subprocess
import threading
import warnings
from asyncio.log import logger

from pyconc.loop.pipe import Pipes
from pyconc.loop.spawn import Popen

NAMES = ("stdin", "stdout", "stderr")


def makes_pipes_as_ours(loop):
    """Whether its connect_read_pipe() and connect_write_pipe() are those of pyconc.Loop."""
    return (getattr(loop.connect_read_pipe, "__func__", None) is Pipes.connect_read_pipe and
            getattr(loop.connect_write_pipe, "__func__", None) is Pipes.connect_write_pipe)


class PipeEnd(asyncio.Protocol):
    """The protocol of one pipe to a subprocess: passes on what happens to that of the subprocess."""

    __slots__ = ("connected", "fd", "pipe", "process")

    def __init__(self, process, fd):
        self.process = process
        self.fd = fd
        self.pipe = None
        self.connected = True

    def __repr__(self):
        return f"<{type(self).__name__} fd={self.fd} pipe={self.pipe!r}>"

    def connection_made(self, transport):
        self.pipe = transport

    def data_received(self, data):
        process = self.process
        process._call(process._protocol.pipe_data_received, self.fd, data)

    def connection_lost(self, exc):
        process, self.process = self.process, None
        self.connected = False
        process._call(process._protocol.pipe_connection_lost, self.fd, exc)
        process._end_if_over()

    def pause_writing(self):
        self.process._protocol.pause_writing()

    def resume_writing(self):
        self.process._protocol.resume_writing()


class SubprocessTransport(asyncio.SubprocessTransport):
    """A subprocess and the pipes to it.

    Source: asyncio.SubprocessTransport
    """

    def __init__(self, loop, protocol, process, extra):
        super().__init__(extra)
        self._extra["subprocess"] = process
        self._loop = loop
        self._protocol = protocol
        self._proc = process
        self._pid = process.pid
        self._pidfd = None          # while it runs, where the system has such a thing
        self._returncode = None
        self._closed = False
        self._pipes = {}
        self._calls_before = []     # None once connection_made() is on its way
        self._waiters = set()
        # Other threads may send signals; signal handlers may, in the middle of anything.
        self._lock = threading.RLock()

    def __repr__(self):
        info = [type(self).__name__, *["closed"] * self._closed, f"pid={self._pid}",
                "running" if self._returncode is None else f"returncode={self._returncode}"]
        info += [f"{NAMES[fd]}={end.pipe}" for fd, end in self._pipes.items()]
        return f"<{' '.join(info)}>"

    def __del__(self, warn=warnings.warn, close_fd=os.close):
        try:
            if not self._closed:
                warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
                self.close()
        finally:
            if self._pidfd is not None:
                close_fd(self._pidfd)

    def set_protocol(self, protocol):
        """Have `protocol` told of what happens from now on. Source: asyncio.BaseTransport.set_protocol"""
        self._protocol = protocol

    def get_protocol(self):
        """The protocol; None after its connection_lost(). Source: asyncio.BaseTransport.get_protocol"""
        return self._protocol

    def is_closing(self):
        """Whether close() was called. Source: asyncio.BaseTransport.is_closing"""
        return self._closed

    def get_pid(self):
        """The subprocess's id. Source: asyncio.SubprocessTransport.get_pid"""
        return self._pid

    def get_returncode(self):
        """Its exit status, -N when signal N ended it, None while it runs.

        Source: asyncio.SubprocessTransport.get_returncode
        """
        return self._returncode

    def get_pipe_transport(self, fd):
        """The transport of the pipe to its descriptor `fd` (0, 1, 2); None where there is no pipe.

        Source: asyncio.SubprocessTransport.get_pipe_transport
        """
        end = self._pipes.get(fd)
        return None if end is None else end.pipe

    def send_signal(self, signal):
        """Send it a signal; nothing once it has ended, and never to another process that has got its id since.

        Raises ProcessLookupError after connection_lost(), PermissionError when it runs as another user by now.
        Source: asyncio.SubprocessTransport.send_signal
        """
        if self._proc is None:
            raise ProcessLookupError
        if self._returncode is None:
            self._signal(signal)

    def terminate(self):
        """send_signal(SIGTERM). Source: asyncio.SubprocessTransport.terminate"""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """send_signal(SIGKILL). Source: asyncio.SubprocessTransport.kill"""
        self.send_signal(signal.SIGKILL)

    def close(self):
        """Close the pipes and kill the subprocess if it runs; twice is fine.

        Source: asyncio.SubprocessTransport.close
        """
        if self._closed:
            return
        self._closed = True
        if self._loop is None:
            return
        if not self._loop.is_closed():
            for end in self._pipes.values():
                if end.pipe is not None:
                    end.pipe.close()
        if self._runs():
            if self._loop.get_debug():
                logger.warning("Close running child process: kill %r", self)
            try:
                self._proc.kill()
            except (ProcessLookupError, PermissionError):
                pass    # it may run as another user by now

    # ---- its start

    async def _start(self):
        loop = self._loop
        pipes = [(fd, pipe) for fd, name in enumerate(NAMES) if (pipe := getattr(self._proc, name)) is not None]
        for fd, _ in pipes:
            self._pipes[fd] = PipeEnd(self, fd)
        at_once = not loop.get_debug() and makes_pipes_as_ours(loop)
        try:
            self._watch_or_kill()
            for fd, pipe in pipes:
                end = self._pipes[fd]
                if at_once:     # connection_made() is called in the next turn, before that of the protocol
                    make = loop._make_read_pipe_transport if fd else loop._make_write_pipe_transport
                    end.pipe = make(pipe, end)
                else:
                    connect = loop.connect_read_pipe if fd else loop.connect_write_pipe
                    await connect(lambda end=end: end, pipe)
        except BaseException:
            for fd, pipe in pipes:
                if self._pipes[fd].pipe is None:
                    pipe.close()
            raise
        loop.call_soon(self._protocol.connection_made, self)
        for callback, args in self._calls_before:
            loop.call_soon(callback, *args)
        self._calls_before = None
        await asyncio.sleep(0)      # until that has been called

    def _call(self, callback, *args):
        if self._calls_before is None:
            self._loop.call_soon(callback, *args)
        else:
            self._calls_before.append((callback, args))

    # ---- its end

    def _watch_or_kill(self):
        try:
            self._watch()
        except BaseException:
            self._proc.kill()
            self._proc.wait()
            self._ended()
            raise

    def _watch(self):
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except (AttributeError, OSError):
            threading.Thread(target=self._wait_in_thread, name=f"pyconc-waitpid-{self._pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._ended)

    def _wait_in_thread(self):
        """Without pidfd: sleep until the subprocess ends, and leave it to the loop's thread, which may signal it."""
        try:
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass
        loop = self._loop
        try:
            loop.call_soon_threadsafe(self._ended)
        except RuntimeError:
            logger.warning("Loop %r that handles pid %r is closed", loop, self._pid)
            self._proc.poll()

    def _waitid(self, options):
        if self._pidfd is None:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | options)
        return os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | options)

    def _runs(self):
        if self._returncode is not None or self._proc.returncode is not None:
            return False
        try:
            return self._waitid(os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:   # others have waited for it
            return False

    def _signal(self, number):
        with self._lock:
            try:
                if self._pidfd is not None:
                    signal.pidfd_send_signal(self._pidfd, number)
                elif self._runs():
                    os.kill(self._pid, number)
            except ProcessLookupError:
                pass

    def _reap(self):
        try:
            # None while a debugger has still to see it.
            result = self._waitid(os.WNOHANG) or os.waitid(os.P_PID, self._pid, os.WEXITED)
        except ChildProcessError:
            if self._proc.returncode is not None:   # thanks to Popen.wait() or poll()
                return self._proc.returncode
            logger.warning("child process pid %d exit status already read: will report returncode 255", self._pid)
            return 255
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def _ended(self):
        loop = self._loop
        with self._lock:
            self._returncode = self._proc.returncode = self._reap()
            if self._pidfd is not None:
                loop.remove_reader(self._pidfd)
                os.close(self._pidfd)
                self._pidfd = None
        if loop.get_debug():
            logger.info("%r exited with return code %r", self, self._returncode)
        self._call(self._protocol.process_exited)
        self._end_if_over()
        waiters, self._waiters = self._waiters, None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self):
        """Wait for the subprocess to end; its exit status."""
        if self._returncode is None:
            waiter = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                if self._waiters is not None:
                    self._waiters.discard(waiter)
        return self._returncode

    def _end_if_over(self):
        if self._returncode is not None and not any(end.connected for end in self._pipes.values()):
            self._call(self._connection_lost)

    def _connection_lost(self):
        try:
            self._protocol.connection_lost(None)
        finally:
            self._loop = self._proc = self._protocol = None


class Subprocesses:
    """The part of pyconc.Loop that starts subprocesses."""

    async def _make_subprocess_transport(self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None,
                                         **kwargs):
        start = Popen if subprocess.Popen is Popen.__base__ else subprocess.Popen      # which tests replace
        process = start(args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, universal_newlines=False,
                        bufsize=bufsize, **kwargs)
        if self._debug:
            logger.debug("process %r created: pid %s", args if isinstance(args, (bytes, str)) else args[0],
                         process.pid)
        transport = SubprocessTransport(self, protocol, process, extra)
        try:
            await transport._start()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await asyncio.shield(transport._wait())
            raise
        return transport
