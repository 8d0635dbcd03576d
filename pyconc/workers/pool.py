# SPDX-License-Identifier: MIT
"""The engine of process pools: calls go in, Futures come out, and processes come and go in between."""
import itertools
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import CancelledError
from functools import partial

from pyconc import _ipc
from pyconc.concurrent.futures._base import Future, TaskFuture
from pyconc.workers.deadlines import Deadlines
from pyconc.workers.failure import MAIN_GUARD, BrokenProcessPool, WorkerDied, how_ended, signal_name, size, summary
from pyconc.workers.function import Functions
from pyconc.workers.limits import Limits, cpu_sets
from pyconc.workers.processes import Processes
from pyconc.workers.supervisor import Bell, Collector, Supervisor, call, collect
from pyconc.workers.totals import Totals
from pyconc.workers.waiting import Waiting

OPEN, CLOSING, BROKEN, FORKED = "open", "closing", "broken", "forked"
_FAILED_STARTS = 3      # in a row
_GRACE = 5.0            # seconds from SIGTERM to SIGKILL
_SOON = 0.01
_NAP = 0.5              # a signal that comes just before a sleep, after it was looked for, is seen when that has ended
_HEARD = 1.0            # seconds after which the program's own handler has run, also on a busy machine
_pools = weakref.WeakValueDictionary()  # {number: pool}
_numbers = itertools.count()
_exiting = False


class Options:
    """What a call asks for beyond being run: a priority, higher is sooner; how often it is run again; its time.

    None: as the pool has it. progress: for map().
    """

    def __init__(self, priority=0, retry=None, timeout=None, progress=None):
        self.priority = priority
        self.retry = retry
        self.timeout = timeout
        self.progress = progress


def _priority(future):
    options = future.__dict__.get("_options")
    return 0 if options is None else options.priority


class WorkerPool:
    """Runs calls in processes.

    size: the most processes. context: of multiprocessing. initializer, initargs: called in each process first;
    finalizer: last. max_tasks: after so many calls a process is replaced. replaces: whether a process that dies is
    replaced, and only its call fails; else the pool breaks. retry: how often a call is run again whose process died.
    idle_timeout: seconds after which a process without work ends. daemon: whether the processes are daemons, and the
    pool's threads: the interpreter's exit waits for no call then.
    """

    def __init__(self, size, context, *, initializer=None, initargs=(), finalizer=None, max_tasks=None, replaces=False,
                 retry=0, idle_timeout=None, daemon=None, timeout=None, grace=3.0, max_memory=None, cpus=None):
        self.state = OPEN
        self.broken = None      # why
        self._cause = None      # an exception
        self.size = size
        self.replaces = replaces
        self._retry = retry
        self._idle_timeout = idle_timeout
        self._daemon = daemon
        self._stays_full = False        # with work or without
        self._forks = context.get_start_method(allow_none=False) == "fork"
        self._channel = _ipc.Channel(size)
        self._channel.refill = self._refill
        self._channel.describe = self._describe
        self._functions = Functions(imports_main=not self._forks)
        limits = None if max_memory is None and cpus is None else Limits(max_memory, cpu_sets(cpus))
        self._processes = Processes(context, self._channel, size, (initializer, initargs, max_tasks, finalizer, limits),
                                    daemon)
        self._waiting = Waiting()
        self._holds = set()             # weak references
        self._cancels = False           # what was submitted, and would be by who has called hold()
        self._is_ordered = False        # calls have priorities
        self._refills = False
        self._unsent = {}               # {Future: why its call cannot be sent}, of those that waited
        self._is_full = False           # all processes are there
        self._is_ending = False         # nothing is left but what has ended for the program
        self._is_closed = False         # the channel takes no more
        self._failed_starts = 0
        self._kill_at = None
        self._timeout = timeout
        self._ended = Totals()
        self._interrupted = None        # when Ctrl-C came
        self._lock = threading.RLock()  # of all of these; Python code of the program runs in it when a call is pickled
        self._bell = Bell()
        self._asked = deque()   # functions that the supervisor is to call; None: it has ended
        self._deadlines = Deadlines(self._channel, self._bell, grace, max_memory, self._describe, self.collect)
        self.supervisor = None
        self._collector = None
        _pools[next(_numbers)] = self

    @property
    def processes(self):
        """{pid: Process} of the workers there are."""
        with self._lock:    # one that has just been started may have answered already
            return self._processes.by_pid

    # Calls.

    def submit(self, fn, args, kwargs, options=None, *, held=False):
        """The Future of fn(*args, **kwargs). BrokenProcessPool and RuntimeError when there can be none.

        held: the caller has called hold().
        """
        if (self.state is not OPEN or _exiting and not self._daemon) and not (held and self.state is CLOSING):
            self._refuse()
        if self._cancels:
            raise CancelledError
        future = TaskFuture(self._channel, self)
        call = self._functions.pack(fn, args, kwargs)
        if options is not None:
            future._options = options
        if self._is_ordered or (options is not None and options.priority):
            self._put_in_order(future, call)
        elif self._waiting or self._refills or not self._sends(future, call, self._fail):
            self._put_off(future, call)
        if not self._is_full:
            self._hire(future)
        timeout = self._timeout if options is None or options.timeout is None else options.timeout
        if timeout is not None:
            self._deadlines.watch(future, timeout)
        return future

    def hold(self, who):
        """Calls will be submitted that count as submitted now: close() does not end the pool before all have been.

        Returns what is to be called then, once or more; that `who` is no more says the same. Either is one call of C,
        which Ctrl-C does not interrupt. Nobody rings the bell: while nothing else is left, the supervisor looks often.
        """
        mark = weakref.ref(who, self._holds.discard)
        self._holds.add(mark)
        return partial(self._holds.discard, mark)

    def _refuse(self):
        if self.state is FORKED:
            raise RuntimeError("this process pool belongs to the process that forked this one: make one here")
        if self.broken is not None:
            raise BrokenProcessPool(self.broken) from self._cause
        if self.state is not OPEN and not _exiting:
            raise RuntimeError("cannot schedule new futures after shutdown")
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _sends(self, future, call, fail):
        """False when there is no room. When the call cannot be pickled, fail(future, why) is called."""
        try:
            return self._channel.send(future, *call)
        except Exception as error:
            if self.state is BROKEN or self._is_closed:
                self._refuse()
            return self._sends_by_value(future, call, error, fail)

    def _sends_by_value(self, future, call, error, fail):
        try:
            return self._channel.send(future, *self._functions.by_value(*call))
        except ImportError:
            error.add_note("With the package cloudpickle installed, lambdas and closures can be sent.")
        except Exception:
            pass    # the first error says it in terms of the program's own objects
        fail(future, error)
        return True

    def _check_that_it_goes_on(self):
        """With the lock: else what is put off would wait for ever."""
        if self.state is BROKEN or self._is_closed:
            self._refuse()

    def _put_off(self, future, call, *, first=False):
        with self._lock:
            self._check_that_it_goes_on()
            self._waiting.add(future, call, _priority(future), first=first)
        self._refill()

    def _refill(self, _=None):
        """Sends what waits while there is room. Where calls have priorities, not much more than is run."""
        try:
            with self._lock:
                if self._refills:   # what a call's pickling does, or a finalizer, has come here again
                    return
                self._refills = True
                try:
                    self._send_waiting()
                finally:
                    self._refills = False
        finally:
            self._fail_unsent()

    def _fail_unsent(self):
        """Without the lock, which callbacks may want: at the end of the last refill under way."""
        if not self._refills:
            for future, error in list(self._unsent.items()):
                self._fail(future, error)
                self._unsent.pop(future, None)

    def _send_waiting(self):
        """What interrupts it once is for who calls it; what a call raises twice, when it is pickled, ends that."""
        interrupt = disturbed = None
        while self._waiting and self.state is not BROKEN and self._has_room():
            future, call = self._waiting.first()
            try:
                if not self._send_first(future, call):
                    break
            except Exception:   # the pool takes no more: whoever ends it ends this Future, too
                self._put_back(future, call)
                raise
            except BaseException as error:
                if not self._put_back(future, call):
                    interrupt = error
                elif disturbed is future and type(error) is type(interrupt):
                    self._waiting.remove(future)
                    self._unsent[future], interrupt = error, None
                else:
                    disturbed, interrupt = future, error
            if self._is_ordered:
                future.add_done_callback(self._refill)
        if interrupt is not None:
            raise interrupt

    def _send_first(self, future, call):
        """False when there is no room. It waits no longer before it is pickled, as that may cancel it."""
        self._waiting.remove(future)
        is_sent = self._sends(future, call, self._unsent.__setitem__)
        if not is_sent:
            self._waiting.add(future, call, _priority(future), first=True)
        return is_sent

    def _put_back(self, future, call):
        """After an error: whether it waits, since it was not sent."""
        if self._channel.call_of(future) is not None or future.done() or future in self._unsent:
            return False
        self._waiting.add(future, call, _priority(future), first=True)
        return True

    def _has_room(self):
        return not self._is_ordered or sum(not future.done() for future in self._channel.futures()) < 2 * self.size

    def _send_more(self):
        """Where no result has come that would make room."""
        if self._waiting:
            self._refill()

    def _put_in_order(self, future, call):
        """From the first call on that has a priority: takes back what is less urgent and has not begun."""
        priority = _priority(future)
        with self._lock:
            self._check_that_it_goes_on()
            self._is_ordered = True
            taken = []
            for other in self._channel.futures():
                other_call = self._channel.call_of(other) if _priority(other) < priority else None
                if other_call is not None and self._channel.revoke(other):
                    taken.append((other, other_call))
            for other, other_call in reversed(taken):
                self._waiting.add(other, other_call, _priority(other), first=True)
            self._waiting.add(future, call, priority)
        self._refill()

    def cancel(self, future, running=False):
        """What Future.cancel() asks: whether the call will never be run."""
        if self.state is FORKED:
            return future.cancelled()
        with self._lock:
            was_there = self._waiting.remove(future)
            makes_room = not was_there and self._channel.revoke(future)
        if makes_room:
            was_there = True
            self._send_more()
        runs = running and not was_there and self._channel.is_running(future)
        if (not was_there and not runs) or not Future.cancel(future):
            return future.cancelled()
        with self._lock:
            if future._state == "CANCELLED":
                future.set_running_or_notify_cancel()
        if runs:
            self._deadlines.end(future)
        elif self.state is CLOSING:
            self._bell.ring()
        return True

    def collect(self):
        """Ends the Futures of all results that are there; False when they cannot be read: that breaks the pool."""
        try:
            collect(self._channel)
        except OSError as error:
            self.break_down(f"The results of worker processes cannot be read, the process pool is not usable anymore: "
                            f"{error}", cause=error)
            return False
        return True

    def _has_work(self):
        return bool(self._waiting or self._unsent or self._channel.in_flight() or self._holds)

    def call(self, function):
        """Has function() called in a thread of the pool: here and now, if this is one or there is none."""
        with self._lock:
            later = self._asked is not None and self.supervisor is not None and not self.is_mine()
            if later:
                self._asked.append(function)
        if later:
            self._bell.ring()
        else:
            call(function)

    def _call_asked(self):
        while self._asked:
            call(self._asked.popleft())

    # Processes.

    def start(self):
        """Has all processes started now, and others in their places when they end."""
        self._stays_full = True
        self._hire()

    def _hire(self, future=None):
        """Starts the processes that are missing for what there is to do."""
        try:
            with self._lock:
                if self.state not in (OPEN, CLOSING):
                    return
                needed = self.size
                if not self._stays_full and (self.supervisor is not None or not self._forks):
                    needed = min(self.size, self._channel.in_flight() + len(self._waiting))
                while len(self._processes) < needed:
                    self._processes.start()
                self._is_full = len(self._processes) == self.size
                begins = self.supervisor is None
                if begins:
                    self._start_threads()
        except BaseException:
            self._supervise_those_there_are()
            if future is not None:
                self.cancel(future)
            raise
        if not begins:
            self._bell.ring()

    def _start_threads(self):
        """One that starts the other: who submits the first call waits for one thread only."""
        daemon = bool(self._daemon)
        supervisor = Supervisor(self, self._bell, daemon)
        if self._collector is None:
            self._collector = Collector(self._channel, self.collect, daemon)
        supervisor.start()
        self.supervisor = supervisor

    def _supervise_those_there_are(self):
        """When Ctrl-C came before all had been started: or nothing would end them, and nobody collect from them."""
        with self._lock:
            if self.supervisor is None and len(self._processes):
                self._start_threads()

    def is_supervised_by(self, thread):
        """For the supervisor: the first it asks. False when Ctrl-C came as it was started, and there is another now."""
        with self._lock:
            if self.supervisor is None:
                self.supervisor = thread
            return self.supervisor is thread

    def begin(self):
        """For the supervisor: the first it does."""
        try:
            self._collector.start()
        except RuntimeError:    # no more threads; Python 3.12 has none as soon as the main one ends
            self._collector = None

    def sentinels(self):
        """For the supervisor: of the processes there are."""
        with self._lock:
            return self._processes.sentinels()

    def looks_again(self):
        """For the supervisor: after how many seconds it calls tend() in any case; None: never."""
        if self._kill_at is not None:
            return max(0.0, self._kill_at - time.monotonic())
        times = [self._deadlines.next(self._has_work())]
        if self._is_ending or self._collector is None:
            times.append(_SOON)
        if self._interrupted is not None:
            times.append(0.2)
        if self._idle_timeout is not None and len(self._processes):
            times.append(max(0.05, self._idle_timeout / 4))
        return min((seconds for seconds in times if seconds is not None), default=None)

    def tend(self):
        """For the supervisor: sees to all that has happened. Whether the pool is over."""
        self._call_asked()
        if self._collector is None:
            self.collect()
        with self._lock:
            ended = [worker for worker in self._processes if worker.has_ended()]
        for worker in ended:
            self._bury(worker)
        if self.state is BROKEN:
            return self._has_buried_all()
        self._deadlines.tend(list(self._processes))
        has_work = self._has_work()
        if (has_work or self._stays_full and self.state is OPEN) and len(self._processes) < self.size:
            self._replace()
        if self.state is CLOSING:
            return self._closes(has_work)
        if self._idle_timeout is not None:
            self._retire_idle()
        return False

    def _has_buried_all(self):
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            with self._lock:
                self._processes.signal(kill=True)
        return not len(self._processes)

    def _closes(self, has_work):
        if self._interrupted is not None:
            self._interrupt_later_ones()
        if has_work:
            futures = [future for future in self._channel.futures() or self._waiting if not future.done()]
            self._is_ending = not futures   # the channel is about to forget the last ones, and tells nobody
            if futures:
                futures[-1].add_done_callback(self._bell.ring)
            return False
        return self._close_channel() and not len(self._processes)

    def _close_channel(self):
        """Lets the workers end; False when there is a call for them, which came at the last moment."""
        with self._lock:
            self._is_ending = self._has_work()
            if self._is_ending:
                return False
            self._is_closed = True
        self._channel.close()
        return True

    def _replace(self):
        try:
            self._hire()
        except Exception as error:
            if not len(self._processes):
                self.break_down("A worker process could not be started, and there is no other to do the work that is "
                                "left.", cause=error)

    def _interrupt_later_ones(self):
        """Ctrl-C, for calls that began when others were interrupted by it, before they could be cancelled."""
        now = time.monotonic()
        for worker in self._processes:
            record = self._channel.worker(worker.number)
            if record["task"] and now - record["running"] > self._interrupted and now >= worker.spared_until:
                worker.spared_until = now + 1.0     # it may be about to begin, or have something to put in order
                worker.signal(signal.SIGINT)

    def _retire_idle(self):
        for worker in self._processes:
            record = self._channel.worker(worker.number)
            if record["pid"] and not record["task"] and record["idle"] >= self._idle_timeout:
                self._channel.retire(worker.number)

    # Deaths.

    def _bury(self, worker):
        exitcode, number = worker.process.exitcode, worker.number
        record = self._channel.worker(number)
        output, initializer_failed = worker.memo.read()
        self.collect()
        suspect = self._channel.running(number)
        call = None if suspect is None else self._channel.call_of(suspect)
        self._ended.add(self._channel.worker(number), exitcode != 0)
        guilty = self._channel.bury(number)
        with self._lock:
            self._processes.remove(worker)
            self._is_full = False
        if record["pid"]:
            self._failed_starts = 0
        else:
            self._failed_starts += 1
        if self.state is BROKEN:
            if guilty is not None:
                self._fail(guilty, BrokenProcessPool(self.broken))
        elif initializer_failed is not None:
            self.break_down("A process initializer failed, the process pool is not usable anymore", initializer_failed)
        elif worker.is_doomed if guilty is None else guilty.done():
            pass    # nobody waits for what it was killed for
        elif guilty is not None:
            self._lost(guilty, call, self._obituary(worker, record, output, call))
        elif exitcode != 0 or not record["pid"]:
            self._died_idle(worker, record, output)
        self._send_more()

    def stats(self):
        """A PoolStats."""
        if self.state is FORKED:
            self._refuse()
        from pyconc.workers.stats import of_pool
        with self._lock:
            return of_pool(self._channel, list(self._processes), len(self._waiting), self._ended)

    def _describe(self, future):
        """Its call, as text."""
        call = self._channel.call_of(future)
        if call is None:
            return "a call"
        function, args, kwargs = self._functions.describe(*call)
        return f"{function}({summary(args, kwargs)})"

    def _obituary(self, worker, record, output, call):
        """The facts of a WorkerDied."""
        exitcode = worker.process.exitcode
        facts = {"pid": worker.process.pid, "exitcode": exitcode, "signal": signal_name(exitcode), "output": output,
                 "peak_memory": max(record["peak"], worker.peak_memory or 0) or None}
        if call is not None:
            function, args, kwargs = self._functions.describe(*call)
            facts.update(function=function, arguments=summary(args, kwargs))
        return facts

    def _death(self, facts, addition=""):
        text = f"worker process {facts['pid']} {how_ended(facts['exitcode'])}"
        if facts.get("function") is not None:
            text += f" while it ran {facts['function']}({facts['arguments']})"
        if facts["peak_memory"]:
            text += f"; it had {size(facts['peak_memory'])} of memory at most"
        return WorkerDied("\n".join(filter(None, [text + addition, facts["output"]])), **facts)

    def _lost(self, future, call, facts):
        """A process has died with a call."""
        options = future.__dict__.get("_options")
        left = future.__dict__.get("_retry_left", self._retry if options is None or options.retry is None
                                   else options.retry)
        if left > 0 and self.state in (OPEN, CLOSING):
            future._retry_left = left - 1
            try:
                self._put_off(future, call, first=True)
            except Exception as error:      # the pool was ended meanwhile
                self._fail(future, error)
        elif self.replaces:
            if self._has_work():
                self._replace()
            self._fail(future, self._death(facts))
        else:
            self._break_after(facts, future)

    def _patience(self):
        """How many starts may fail in a row: more where somebody works, who has begun as those could not."""
        works = any(self._channel.worker(worker.number)["pid"] for worker in self._processes)
        return _FAILED_STARTS * 5 if works else _FAILED_STARTS

    def _died_idle(self, worker, record, output):
        """A process has died without a call: of its own, or before it could take one."""
        facts = self._obituary(worker, record, output, None)
        if record["pid"]:
            if not self.replaces:
                self._break_after(facts)
        elif not self.replaces or self._failed_starts >= self._patience():
            how = how_ended(worker.process.exitcode)
            tries = f" {self._failed_starts} did so in a row." if self._failed_starts > 1 else ""
            guard = "" if self._forks else " " + MAIN_GUARD
            self.break_down(f"A worker process {how} before it could take a call: the process pool is not usable "
                            f"anymore.{tries}{guard}", output or None)

    def _break_after(self, facts, guilty=None):
        death = self._death(facts)
        self.break_down(f"A process in the process pool was terminated abruptly, the process pool is not usable "
                        f"anymore: {death}", facts=facts)
        if guilty is not None:
            self._fail(guilty, death)

    def _fail(self, future, error):
        try:
            future.set_exception(error)
        except Exception:
            if not future.done():
                raise

    def break_down(self, message, cause=None, facts=None):
        """Ends the pool and all Futures. cause: an exception or text; facts: of the death that did it."""
        from concurrent.futures.process import _RemoteTraceback
        with self._lock:
            if self.state is BROKEN:
                return
            self._cause = _RemoteTraceback(f"\n'''\n{cause}'''") if isinstance(cause, str) else cause
            self.broken = message
            self.state = BROKEN
            self._kill_at = time.monotonic() + _GRACE
        self._channel.stop()
        self.collect()
        with self._lock:
            futures = [*self._channel.futures(), *self._waiting]
            self._waiting = Waiting()
            self._processes.signal()
        for future in futures:
            self._channel.revoke(future)    # or the channel keeps it, and what its exception's traceback holds
            error = BrokenProcessPool(message) if facts is None else WorkerDied(message, **facts)
            error.__cause__ = self._cause
            self._fail(future, error)
        self._bell.ring()

    # The end.

    def close(self, cancel=False, interrupted=False):
        """Takes no more calls. cancel: cancels those that no process has begun. interrupted: after Ctrl-C, which the
        processes got as well."""
        if self.state is FORKED:
            return
        with self._lock:
            if self.state is OPEN:
                self.state = CLOSING
        self._supervise_those_there_are()
        if interrupted:
            self._interrupted = time.monotonic() - _HEARD
        if cancel:
            self._cancels = True
            self._cancel_all()
        if self.state is CLOSING and not self._has_work():
            self._close_channel()       # sooner than the supervisor would
        self._bell.ring()

    def _cancel_all(self):
        with self._lock:
            futures = [*self._waiting, *self._channel.futures()]    # or the latter would make room for the former
        for future in futures:
            future.cancel()

    def abandon(self):
        """As close(), from a finalizer: nothing is locked."""
        if self.state is OPEN:
            self.state = CLOSING
        self._bell.ring()

    def kill(self, kill=True, grace=None):
        """Ends the processes by SIGKILL, or SIGTERM; the calls fail that they were running, others are cancelled.

        grace: seconds after which SIGKILL comes for those that SIGTERM has not ended; None: it does not.
        """
        if self.state is FORKED:
            self._refuse()
        self.close()
        with self._lock:
            if self.state is CLOSING:
                self.broken = "The process pool was forcefully shut down."
                self.state = BROKEN
                self._kill_at = None if grace is None else time.monotonic() + grace
        self._channel.stop()    # first, or what another thread submits meanwhile is neither cancelled nor refused
        self._cancel_all()
        self._processes.signal(kill)
        self._bell.ring()

    def _threads(self):
        return [thread for thread in (self.supervisor, self._collector) if thread is not None]

    def is_mine(self):
        """Whether the calling thread is one of the pool's, as it is in callbacks."""
        return threading.current_thread() in self._threads()

    def is_forked(self):
        """Whether the pool belongs to the process that this one was forked from."""
        return self.state is FORKED

    def join(self, timeout=None):
        """Waits until the pool is over; whether it is, after so many seconds."""
        threads = self._threads()
        if self.is_mine():
            raise RuntimeError("cannot join current thread")
        end = None if timeout is None else time.monotonic() + timeout
        for thread in threads:
            if thread.ident is None:
                continue        # the collector, which could not be started
            left = _NAP
            while thread.is_alive() and left > 0:
                left = _NAP if end is None else min(_NAP, end - time.monotonic())
                thread.join(max(0.0, left))
            thread.join(0.0)    # that it has ended does not let go of it
        return not any(thread.is_alive() for thread in threads)

    def end(self):
        """For the supervisor: the last it does."""
        with self._lock:
            asked, self._asked = self._asked, None
        for function in asked:
            call(function)
        if not len(self._processes):
            self._channel.recall()
        if self._collector is not None:
            self._collector.stop()

    def after_fork(self):
        """In a forked child: the pool and its processes are the parent's."""
        self.state = FORKED
        self._lock = threading.RLock()
        self._asked = None
        self.supervisor = self._collector = None


def _at_exit():
    """Finishes what was submitted, before threading waits for all threads."""
    global _exiting
    _exiting = True
    pools = [pool for pool in _pools.values() if not pool._daemon]
    # What nobody has caught when the program ended.
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
    try:
        for pool in pools:
            pool.close(interrupted, interrupted)
        for pool in pools:
            pool.join()
    except KeyboardInterrupt:
        for pool in pools:
            pool.close(cancel=True, interrupted=True)
        for pool in pools:
            pool.join()
        raise


def _after_fork_in_child():
    for reference in _pools.valuerefs():
        pool = reference()
        if pool is not None:
            pool.after_fork()


threading._register_atexit(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
