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


def programs(executable, env):
    """The paths that may be meant by the name of a program."""
    if b"/" in executable:
        return [executable]
    return [os.path.join(os.fsencode(folder), executable) for folder in os.get_exec_path(env)]


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
                started = _core.spawn(
                    [os.fsencode(arg) for arg in argv], programs(os.fsencode(program), env), environment(env),
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

        def _get_handles(self, stdin, stdout, stderr):
            if stdin is stdout is stderr is None:   # the most common, and not quick there
                return -1, -1, -1, -1, -1, -1
            return super()._get_handles(stdin, stdout, stderr)

        def _close_pipe_fds(self, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite):
            if p2cwrite == c2pread == errread == -1 and not hasattr(self, "_devnull"):
                self._closed_child_pipe_fds = True
            else:
                super()._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    @staticmethod
    def _command(args, executable, shell):
        args = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
        return ["/bin/sh" if executable is None else executable, "-c", *args] if shell else args
