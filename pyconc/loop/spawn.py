# SPDX-License-Identifier: MIT
"""subprocess.Popen with another way to start the program."""
import os
import subprocess
import sys

from pyconc import _core

# What subprocess.Popen calls; should it change, Popen is the standard library's.
PARAMETERS = ("self", "args", "executable", "preexec_fn", "close_fds", "pass_fds", "cwd", "env", "startupinfo",
              "creationflags", "shell", "p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite",
              "restore_signals", "gid", "gids", "uid", "umask", "start_new_session", "process_group")


def known(function):
    """Whether it has the parameters of ours."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_varnames[:code.co_argcount] == PARAMETERS


def search_path(env):
    """The PATH in which a program is looked for."""
    # os.get_exec_path() is slow: it silences the warnings that a mapping with bytes for keys may give.
    return os.fsencode(os.environ.get("PATH", os.defpath) if env is None else os.pathsep.join(os.get_exec_path(env)))


def environment(env):
    """A mapping as the list that execve() takes; None for None."""
    if env is None:
        return None
    result = []
    for name, value in env.items():
        name = os.fsencode(name)
        if b"=" in name:
            raise ValueError("illegal environment variable name")
        result.append(name + b"=" + os.fsencode(value))
    return result


class Popen(subprocess.Popen):
    """A subprocess, started by vfork() and without the GIL: it costs the same however large this process is.

    Source: subprocess.Popen
    """

    if known(getattr(subprocess.Popen, "_execute_child", None)):
        def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                           creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
                           restore_signals, gid, gids, uid, umask, start_new_session, process_group):
            started = None
            # Python code in the child, or another user's rights in this memory: for the standard library.
            if (preexec_fn is gid is gids is uid is None and type(umask) is type(process_group) is int
                    and getattr(subprocess, "_USE_VFORK", True)):
                argv = self._command(args, executable, shell)
                program = argv[0] if executable is None else executable
                sys.audit("subprocess.Popen", program, argv, cwd, env)
                name = os.fsencode(program)
                started = _core.spawn(
                    tuple(argv), name, b"" if b"/" in name else search_path(env), environment(env),
                    None if cwd is None else os.fsencode(cwd), p2cread, c2pwrite, errwrite, close_fds,
                    sorted(map(int, set(pass_fds))) if pass_fds else [], restore_signals, start_new_session,
                    process_group, umask)
            if started is None:
                return super()._execute_child(
                    args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                    p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
                    start_new_session, process_group)
            pid, errno, step = started
            if errno:
                raise OSError(errno, os.strerror(errno), (None, cwd, program)[step])
            self.pid = pid
            self._child_created = True
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

        # Both do with nothing but pipes what the standard library's do, which are slow.
        def _get_handles(self, stdin, stdout, stderr):
            if self.pipesize > 0 or any(each is not None and each is not subprocess.PIPE
                                        for each in (stdin, stdout, stderr)):
                return super()._get_handles(stdin, stdout, stderr)
            fds = []
            try:
                for each in stdin, stdout, stderr:
                    fds += (-1, -1) if each is None else os.pipe()
            except BaseException:
                for fd in fds:
                    if fd != -1:
                        os.close(fd)
                raise
            return tuple(fds)

        def _close_pipe_fds(self, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite):
            if hasattr(self, "_devnull"):
                return super()._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
            for ours, child in (p2cwrite, p2cread), (c2pread, c2pwrite), (errread, errwrite):
                if ours != -1:
                    os.close(child)
            self._closed_child_pipe_fds = True

    @staticmethod
    def _command(args, executable, shell):
        args = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
        return ["/bin/sh" if executable is None else executable, "-c", *args] if shell else args
