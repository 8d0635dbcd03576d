"""pyconc.Loop: asyncio's event loop with all that runs per callback in C.

What runs once per connection or loop is Python: the mixins of this folder, and asyncio's own loop for what
none of them overrides."""
import signal
import sys
import threading
import types
import warnings
from asyncio import SelectorEventLoop, base_events, events, format_helpers, futures, timeouts
from asyncio.log import logger

from pyconc import _core

_core.add_loop()

import pyconc.loop.streams  # what C uses: imported before a program replaces methods of asyncio's
from pyconc.concurrent.futures import ThreadPoolExecutor
from pyconc.loop.connection import Connections
from pyconc.loop.datagram import Datagrams
from pyconc.loop.pipe import Pipes
from pyconc.loop.resolve import Resolving
from pyconc.loop.sendfile import SendingFiles
from pyconc.loop.server import Servers
from pyconc.loop.subprocess import Subprocesses
from pyconc.loop.tls import TLS
from pyconc.loop.watchdog import Watched, limit_of_new_loops

__all__ = ["Loop", "new_event_loop"]

_describe_callback = format_helpers._format_callback_source
_describe_takes_debug = "debug" in (_describe_callback.__kwdefaults__ or ())


class _NoSelector:
    """Stands where asyncio's loop keeps its selector: pyconc's polls through libuv."""

    def get_key(self, fileobj):
        """Nothing is registered: KeyError."""
        raise KeyError(fileobj)

    def close(self):
        """Nothing was opened."""


class Loop(_core.Loop, Servers, Connections, TLS, Datagrams, Pipes, Resolving, SendingFiles, Subprocesses, Watched,
           SelectorEventLoop):
    """An event loop on libuv, in the place of asyncio's own.

    Source: asyncio.AbstractEventLoop
    """

    # Every attribute that asyncio's loop and the mixins set, other than those that _core.Loop has. While an object's
    # __dict__ was never made, the interpreter finds its methods at once, which makes call_soon() a tenth cheaper.
    __slots__ = (
        "_asyncgens", "_asyncgens_shutdown_called", "_clock_resolution", "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth", "_csock", "_current_handle", "_exception_handler", "_internal_fds",
        "_listeners", "_localhost", "_old_agen_hooks", "_ready", "_resolver", "_scheduled", "_selector",
        "_signal_handlers", "_socket_files", "_ssock", "_timer_cancelled_count", "_transports", "_unix_server_sockets",
        "_watchdog_logger", "_watcher", "slow_callback_duration",
    )

    def __init__(self):
        _core.Loop.__init__(self)
        Servers.__init__(self)
        Resolving.__init__(self)
        try:
            SelectorEventLoop.__init__(self, _NoSelector())
            self.watchdog = limit_of_new_loops()
        except BaseException:
            self._close()
            raise

    # ---- running

    def run_forever(self):
        """Run until stop() is called.

        Raises RuntimeError when this loop or another one runs in this thread, or when this one is closed.
        Source: asyncio.loop.run_forever
        """
        self._check_closed()
        self._check_running()
        hooks = sys.get_asyncgen_hooks()
        self._set_coroutine_origin_tracking(self._debug)
        before = self._take_wakeup_fd()
        try:
            sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook,
                                   finalizer=self._asyncgen_finalizer_hook)
            events._set_running_loop(self)
            self._run()
        finally:
            events._set_running_loop(None)
            self._give_wakeup_fd_back(before)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)

    def close(self):
        """Close the loop, dropping what is scheduled; twice is fine.

        Raises RuntimeError while it runs. Source: asyncio.loop.close
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        try:
            super().close()
        finally:
            self._close()

    # ---- the default executor

    def _make_default_executor(self):
        self._check_default_executor()
        self._default_executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        return self._default_executor

    if sys.version_info < (3, 13):      # that of 3.12.1 waits without a limit first
        async def shutdown_default_executor(self, timeout=None):
            """Wait until the default executor has ended, `timeout` seconds at most (None: as long as it takes).

            Warns with RuntimeWarning when that was not enough. Source: asyncio.loop.shutdown_default_executor
            (3.12)
            """
            self._executor_shutdown_called = True
            if self._default_executor is None:
                return
            future = self.create_future()
            thread = threading.Thread(target=self._do_shutdown, args=(future,))
            thread.start()
            try:
                async with timeouts.timeout(timeout):
                    await future
            except TimeoutError:
                warnings.warn(f"The executor did not finishing joining its threads within {timeout} seconds.",
                              RuntimeWarning, stacklevel=2)
                self._default_executor.shutdown(wait=False)
            else:
                thread.join()

        def _do_shutdown(self, future):
            try:
                self._default_executor.shutdown(wait=True)
                if not self.is_closed():
                    self.call_soon_threadsafe(futures._set_result_unless_cancelled, future, None)
            except Exception as exc:
                if not self.is_closed() and not future.cancelled():
                    self.call_soon_threadsafe(future.set_exception, exc)

    # ---- signals

    def _take_wakeup_fd(self):
        """Have signals end the poll; the descriptor to restore, or None in other threads than the main one."""
        try:
            return signal.set_wakeup_fd(self._csock.fileno())
        except ValueError:
            return None

    def _give_wakeup_fd_back(self, before):
        if before is not None and not self._signal_handlers:
            try:
                signal.set_wakeup_fd(before)
            except (OSError, ValueError):       # closed meanwhile
                signal.set_wakeup_fd(-1)

    def remove_signal_handler(self, sig):
        """Undo add_signal_handler(); whether there was something to undo.

        Source: asyncio.loop.remove_signal_handler
        """
        removed = super().remove_signal_handler(sig)
        if removed and not self._signal_handlers and self.is_running():
            signal.set_wakeup_fd(self._csock.fileno())
        return removed

    # ---- asyncio's own queue of callbacks, which this loop has not

    def _add_callback(self, handle):
        if not handle._cancelled:
            self.call_soon(handle._run)

    def _add_callback_signalsafe(self, handle):
        self.call_soon_threadsafe(handle._run)

    # ---- what the C half asks for

    _create_task_by_factory = SelectorEventLoop.create_task

    def _call_soon_by_name(self, callback, *args, context=None):
        return _core.Loop.call_soon(self, callback, *args, context=context)

    def _call_soon_threadsafe_by_name(self, callback, *args, context=None):
        return _core.Loop.call_soon_threadsafe(self, callback, *args, context=context)

    def _call_later_by_name(self, delay, callback, *args, context=None):
        return _core.Loop.call_later(self, delay, callback, *args, context=context)

    def _call_at_by_name(self, when, callback, *args, context=None):
        return _core.Loop.call_at(self, when, callback, *args, context=context)

    def _add_reader_by_name(self, fd, callback, *args):
        return _core.Loop.add_reader(self, fd, callback, *args)

    def _add_writer_by_name(self, fd, callback, *args):
        return _core.Loop.add_writer(self, fd, callback, *args)

    def _run_in_executor_by_name(self, executor, func, *args):
        return _core.Loop.run_in_executor(self, executor, func, *args)

    def _remove_reader_by_name(self, fd):
        return _core.Loop.remove_reader(self, fd)

    def _remove_writer_by_name(self, fd):
        return _core.Loop.remove_writer(self, fd)

    def _callback_failed(self, handle, exc):
        debug = {"debug": self._debug} if _describe_takes_debug else {}
        context = {
            "message": f"Exception in callback {_describe_callback(handle._callback, handle._args, **debug)}",
            "exception": exc,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _callback_took(self, handle, seconds):
        if seconds >= self.slow_callback_duration:
            logger.warning("Executing %s took %.3f seconds", base_events._format_handle(handle), seconds)

    def _descriptor_in_use(self, descriptor, user):
        if user is None:
            raise RuntimeError(f"File descriptor {descriptor!r} is one of the event loop's own")
        sock = getattr(user, "_sock", None)
        if sock is not None and sock.fileno() < 0:
            return      # closed under its transport, as the collector may do to garbage: the number is another's
        raise RuntimeError(f"File descriptor {descriptor!r} is used by transport {user!r}")


for _name in ("call_soon", "call_soon_threadsafe", "call_later", "call_at", "run_in_executor", "add_reader",
              "add_writer", "remove_reader", "remove_writer"):
    getattr(Loop, f"_{_name}_by_name").__qualname__ = f"Loop.{_name}"   # in the message of a TypeError

for _mixin in Servers, Connections, TLS, Datagrams, Pipes, Resolving, SendingFiles, Subprocesses, Watched:
    for _method in vars(_mixin).values():
        if isinstance(_method, types.FunctionType):
            _method.__qualname__ = f"Loop.{_method.__name__}"

for _name, _method in vars(_core.Loop).items():
    if type(_method) is types.MethodDescriptorType and _name not in vars(Loop):
        setattr(Loop, _name, Loop._adopt(_method))


def new_event_loop():
    """A new pyconc.Loop.

    Source: asyncio.new_event_loop
    """
    return Loop()
