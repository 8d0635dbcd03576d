"""pyconc.threading.Timer beside threading's: a user of one must not notice the other."""
import gc
import os
import signal
import subprocess
import sys
import threading as standard
import time
import weakref

import pytest

from pyconc import threading
from pyconc.threading import Timer


def script(text, timeout=60, env=None):
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=timeout, env=env)
    return done.stdout, done.stderr, done.returncode


@pytest.fixture
def hooked(monkeypatch):
    """What threading.excepthook was called with."""
    seen = []
    monkeypatch.setattr(standard, "excepthook", seen.append)
    return seen


def test_fires_in_a_thread_of_its_own():
    def function(*args, **kwargs):
        go.wait(30)
        seen.append((standard.current_thread(), args, kwargs))

    seen, go = [], standard.Event()
    timer = Timer(0.01, function, (1, 2), {"a": 3})
    start = time.monotonic()
    timer.start()
    assert timer.is_alive() and timer in threading.enumerate()
    go.set()
    timer.join()
    assert time.monotonic() - start >= 0.01
    assert seen == [(timer, (1, 2), {"a": 3})]
    assert not timer.is_alive() and timer.finished.is_set() and timer not in threading.enumerate()
    assert isinstance(timer, standard.Thread) and timer.ident


def test_order_and_blocking_functions():
    """One that blocks holds up nobody."""
    seen, go = [], standard.Event()
    late, blocks, early = Timer(60, seen.append, ("late",)), Timer(0.01, go.wait), Timer(0.02, seen.append, ("early",))
    for timer in (late, blocks, early):
        timer.start()
    early.join()
    assert seen == ["early"] and blocks.is_alive() and late.is_alive()
    late.cancel()
    go.set()
    blocks.join()


def test_cancel():
    seen = []
    timer = Timer(60, seen.append, (1,))
    timer.start()
    timer.cancel()
    timer.join()
    assert not timer.is_alive() and not seen
    late = Timer(0, seen.append, (1,))
    late.start()
    late.join()
    late.cancel()
    assert seen == [1]


def test_cancel_before_start():
    seen = []
    timer = Timer(0.01, seen.append, (1,))
    timer.cancel()
    timer.start()
    timer.join()
    assert not seen


def test_cancelled_timers_let_go_of_their_function():
    def function():
        pass

    ref = weakref.ref(function)
    timer = Timer(60, function)
    timer.start()
    timer.cancel()
    del timer, function
    gc.collect()
    assert ref() is None


def test_many_cancelled_timers_take_no_memory(flat_memory):
    def operation():
        timer = Timer(3600, print)
        timer.start()
        timer.cancel()

    flat_memory(operation, 3000)


def test_timers_cancelled_while_they_are_waited_for_take_no_memory(flat_memory):
    def operation():
        timers = [Timer(3600, print) for _ in range(500)]
        for timer in timers:
            timer.start()
        passed = Timer(0, int)  # fires after the thread has seen all before
        passed.start()
        passed.join()
        for timer in timers:
            timer.cancel()

    flat_memory(operation, 30)


def test_join_of_a_timer_cancelled_after_it_was_due(monkeypatch, thread, asleep):
    """While the thread of another is being started, which takes long here."""
    held, go, start = standard.Event(), standard.Event(), standard.Thread.start

    def slow(self):
        if self is first:
            held.set()
            go.wait(60)
        start(self)

    first, second = Timer(0.01, int), Timer(0.02, int)
    monkeypatch.setattr(standard.Thread, "start", slow)
    first.start()
    second.start()
    assert held.wait(30)
    joins = [thread(timer.join) for timer in (first, second)]
    asleep(*joins)
    assert first.is_alive() and second.is_alive()
    assert first in threading.enumerate() and second in threading.enumerate()
    second.cancel()
    joins[1].join(30)
    assert not joins[1].is_alive() and not second.is_alive() and first.is_alive()
    first.cancel()
    go.set()
    joins[0].join(30)
    assert not joins[0].is_alive() and not first.is_alive()


def test_join_in_its_own_function(hooked):
    timer = Timer(0, lambda: timer.join())
    timer.start()
    timer.join()
    assert hooked[0].exc_type is RuntimeError and "current thread" in str(hooked[0].exc_value)


def test_asked_while_it_becomes_a_thread(monkeypatch):
    init = standard.Thread.__init__

    def slow(self, *args, **kwargs):
        time.sleep(0.02)
        init(self, *args, **kwargs)

    monkeypatch.setattr(standard.Thread, "__init__", slow)
    for ask in (Timer.is_alive, Timer.join, repr, lambda timer: timer.name, lambda timer: timer.ident):
        timers = [Timer(0.01, int) for _ in range(3)]
        for timer in timers:
            timer.start()
        for timer in timers:
            while timer.is_alive():
                ask(timer)


def test_first_thread_cannot_start():
    text = """
import threading
from pyconc.threading import Timer, enumerate
def refuse(thread):
    raise RuntimeError("can't start new thread")
start, threading.Thread.start = threading.Thread.start, refuse
seen = []
timer = Timer(0, seen.append, (1,))
for method in timer.start, timer.join:
    try:
        method()
    except RuntimeError as error:
        print(error)
assert not timer.is_alive() and timer not in enumerate()
threading.Thread.start = start
timer.start()
timer.join()
print(seen)
"""
    assert script(text) == ("can't start new thread\ncannot join thread before it is started\n[1]\n", "", 0)


def test_thread_cannot_start_when_it_fires(monkeypatch, hooked):
    def refuse(thread):
        if thread is timer:
            raise RuntimeError("can't start new thread")
        start(thread)

    start, timer = standard.Thread.start, Timer(0.01, print)
    monkeypatch.setattr(standard.Thread, "start", refuse)
    timer.start()
    timer.join()
    assert not timer.is_alive() and timer not in threading.enumerate()
    assert "can't start" in str(hooked[0].exc_value) and hooked[0].thread is timer


def test_join_with_a_timeout():
    timer = Timer(60, print)
    with pytest.raises(RuntimeError, match="before it is started"):
        timer.join()
    timer.start()
    timer.join(0.01)
    assert timer.is_alive()
    timer.finished.set()  # what cancel() does in threading.Timer
    timer.join()
    assert not timer.is_alive()
    timer.cancel()


def test_starts_once():
    timer = Timer(60, print)
    timer.start()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            timer.start()
        timer.cancel()


def test_attributes_of_a_thread():
    timer = Timer(60, print)
    assert timer.name.startswith("Thread-") and timer.daemon == standard.current_thread().daemon
    timer.name, timer.daemon = "mine", True
    timer.start()
    assert timer.name == "mine" and timer.daemon
    with pytest.raises(RuntimeError, match="active thread"):
        timer.daemon = False
    assert "mine" in repr(timer)
    timer.cancel()
    with pytest.raises(AttributeError, match="nothing"):
        timer.nothing()


def test_arguments_are_not_shared():
    seen = []
    for _ in range(2):
        timer = Timer(0, lambda *args, **kwargs: seen.append((args, kwargs)))
        timer.args.append("x")
        timer.kwargs["y"] = 1
        timer.start()
        timer.join()
    assert seen == [(("x",), {"y": 1})] * 2


def test_subclass_with_its_own_run():
    class Repeat(Timer):
        def run(self):
            while not self.finished.wait(self.interval):
                self.function(*self.args)

    seen = []
    timer = Repeat(0.005, seen.append, (1,))
    timer.start()
    assert timer.ident
    while len(seen) < 3:
        time.sleep(0.001)
    timer.cancel()
    timer.join()
    assert not timer.is_alive()


def test_exceptions_go_to_the_excepthook(hooked):
    timer = Timer(0, lambda: 1 / 0)
    timer.start()
    timer.join()
    assert hooked[0].exc_type is ZeroDivisionError and hooked[0].thread is timer


def test_timer_that_starts_another():
    seen, done = [], standard.Event()

    def again(left):
        seen.append(left)
        if left:
            Timer(0.001, again, (left - 1,)).start()
        else:
            done.set()

    again(5)
    assert done.wait(30) and seen == [5, 4, 3, 2, 1, 0]


def test_odd_intervals(monkeypatch):
    failed = standard.Event()
    monkeypatch.setattr(standard, "excepthook", lambda args: failed.set())
    timer = Timer("soon", print)
    timer.start()
    timer.join()
    assert failed.is_set()  # in the thread, as threading.Timer
    never = Timer(float("inf"), print)
    never.daemon = True
    failed.clear()
    never.start()
    never.join()
    assert failed.is_set()


def test_exit_waits_for_timers_that_are_not_daemons():
    text = """
import threading
from pyconc.threading import Timer
def fire():
    threading.main_thread().join()
    print("fired")
Timer(0.2, fire).start()
print("end")
"""
    assert script(text) == ("end\nfired\n", "", 0)


def test_exit_does_not_wait_for_daemons():
    text = "from pyconc.threading import Timer; t = Timer(30, print, ('fired',)); t.daemon = True; t.start(); print(1)"
    assert script(text) == ("1\n", "", 0)


def test_exit_while_daemons_go_on_starting_daemons():
    """Without Python's debug allocator: CPython itself reads the state of a daemon thread that it has freed at exit."""
    text = """
import threading, time
from pyconc.threading import Timer

def start():
    while True:
        timer = Timer(5, print)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:    # so late that no thread starts
            return
        timer.cancel()

for _ in range(3):
    threading.Thread(target=start, daemon=True).start()
time.sleep(0.2)
print("exits", flush=True)
"""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDEVMODE"}
    assert script(text, env=env) == ("exits\n", "", 0)


def test_a_daemon_fires_while_the_exit_waits_for_others():
    """Started before and after the main thread has ended."""
    text = """
import threading, time
from pyconc.threading import Timer
fired = threading.Semaphore(0)

def fire(name):
    print(name)
    fired.release()

def daemon(name):
    timer = Timer(0.1, fire, (name,))
    timer.daemon = True
    timer.start()

def late():
    threading.main_thread().join()
    time.sleep(0.05)
    try:
        daemon("after")
    except RuntimeError:        # Python 3.12 starts no thread any more
        fire("after")
    for _ in range(2):
        fired.acquire(timeout=30)

threading.Thread(target=late).start()
daemon("before")
"""
    out, errors, status = script(text)
    assert (sorted(out.split()), status) == (["after", "before"], 0), errors


@pytest.mark.parametrize("before", ["before = Timer(0, print); before.start(); before.join()", ""])
def test_timer_started_while_the_interpreter_exits(before):
    text = f"""
import threading, time
from pyconc.threading import Timer
{before}
def late():
    threading.main_thread().join()
    time.sleep(0.1)
    Timer(0.05, print, ("late",)).start()
threading.Thread(target=late).start()
"""
    out, errors, status = script(text)
    expected = script(text.replace("pyconc.threading", "threading"))
    # Python 3.12 starts no thread any more.
    assert (out, errors.splitlines()[-1:], status) == (expected[0], expected[1].splitlines()[-1:], expected[2])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork():
    """A child has no timers, and can make its own."""
    text = """
import os
from pyconc.threading import Event, Timer
seen, waited = [], Event()
timer = Timer(0.3, lambda: (waited.wait(60), print("parent's")))
timer.start()
pid = os.fork()
if not pid:
    assert not timer.is_alive()
    timer.join()
    mine = Timer(0.01, seen.append, (1,))
    mine.start()
    mine.join()
    os._exit(0 if seen == [1] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
waited.set()
"""
    out, errors, status = script(text)
    assert (out, status) == ("0\nparent's\n", 0)
    assert "Traceback" not in errors


def test_exit_ends_a_timer_that_is_cancelled_late():
    text = """
import threading, time
from pyconc.threading import Timer
timer = Timer(60, print)
timer.start()
def cancel():
    threading.main_thread().join()
    timer.cancel()
threading.Thread(target=cancel).start()
"""
    assert script(text) == ("", "", 0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_signal_handler_that_cancels_and_starts():
    """A watchdog that is put off by a signal, while the main thread does the same."""
    text = """
import faulthandler, signal
from pyconc.threading import Timer
faulthandler.dump_traceback_later(80, exit=True)
def new():
    timer = Timer(100, int)
    timer.daemon = True
    timer.start()
    return timer
dog, handled = new(), 0
def handler(*_):
    global dog, handled
    dog.cancel()
    dog, handled = new(), handled + 1
    signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while handled < 500:
    new().cancel()
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    assert script(text, 90) == ("", "", 0)


def test_finalizer_that_cancels():
    text = """
import faulthandler, gc, weakref
from pyconc.threading import Timer
faulthandler.dump_traceback_later(80, exit=True)
class Session:
    def __init__(self):
        self.me = self      # only the garbage collector ends it
        self.timer = Timer(100, print, [weakref.ref(self)])
        self.timer.daemon = True
        self.timer.start()
    def __del__(self):
        self.timer.cancel()
        Timer(0, int).start()
for _ in range(5000):
    Session()
gc.collect()
"""
    assert script(text, 90) == ("", "", 0)


def test_counted_like_threads():
    """The thread that waits is seen by the standard library alone, and not for long after the last timer."""
    text = """
import threading as standard, time
from pyconc import threading
main = standard.main_thread()
timers = [threading.Timer(60, print) for _ in range(3)]
for timer in timers:
    timer.start()
assert threading.active_count() == 4 and set(threading.enumerate()) == {main, *timers}
while [thread.name for thread in standard.enumerate() if thread is not main] != ["pyconc-timer"]:
    time.sleep(0.001)
for timer in timers:
    timer.cancel()
assert threading.active_count() == 1 and threading.enumerate() == [main]
while standard.active_count() > 1:
    time.sleep(0.001)
"""
    assert script(text) == ("", "", 0)


def test_idle_thread_ends(no_leaked_threads):
    timer = Timer(0.01, print)
    timer.start()
    timer.join()


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(3))
def test_ten_thousand_timers(seed, times):
    """Eight threads start, cancel, join and ask at random; main ends at a random moment, and exit waits for all."""
    text = f"""
import faulthandler, random, sys, threading, time
from pyconc.threading import Timer, enumerate
faulthandler.dump_traceback_later(100, exit=True)
sys.setswitchinterval(1e-4)
fired, cancelled, errors = [], [], []
def user(seed):
    choose = random.Random(seed)
    mine = []
    def one(number):
        interval = choose.choice([0, choose.random() * 0.02, choose.random(), 100])
        timer = Timer(interval, fired.append, [(seed, number)])
        timer.daemon = choose.random() < 0.1
        try:
            timer.start()
        except RuntimeError:
            assert sys.version_info[:2] == (3, 12) and not threading.main_thread().is_alive()
            return      # this Python starts no thread while it exits
        if interval == 100 or choose.random() < 0.7:
            if choose.random() < 0.5:
                time.sleep(choose.random() * 0.001)
            (mine[choose.randrange(len(mine))] if mine and choose.random() < 0.1 else timer).cancel()
            timer.cancel()
            if choose.random() < 0.3:
                timer.join()
                assert not timer.is_alive() and timer not in enumerate()
        elif interval < 0.02:
            timer.join()
            assert not timer.is_alive() and (seed, number) in fired
        mine.append(timer)
        other = choose.choice(mine)
        other.is_alive(), repr(other), other.name
    try:
        for number in range({times(1250)}):
            one(number)
        left = [timer for timer in mine if not timer.finished.is_set() and not timer.daemon]
        expected.extend(timer.args[0] for timer in left)
    except BaseException as error:
        errors.append(error)
        raise
expected = []
def judge():
    threading.main_thread().join()
    for thread in users:
        thread.join()
    assert not errors and len(expected) == len(set(expected))
    print("judged", flush=True)
    while not set(expected) <= set(fired):  # one that is never fired holds this up until faulthandler ends it
        time.sleep(0.01)
    assert len(fired) == len(set(fired))
    print("all fired", flush=True)
users = [threading.Thread(target=user, args=({seed} * 8 + number,)) for number in range(8)]
for thread in [*users, threading.Thread(target=judge)]:
    thread.start()
time.sleep({seed} * 0.5)
"""
    assert script(text, 120) == ("judged\nall fired\n", "", 0)
