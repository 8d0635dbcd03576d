"""pyconc.threading.Timer beside threading's: a user of one must not notice the other."""
import gc
import os
import subprocess
import sys
import threading as standard
import time
import weakref

import pytest

from pyconc import threading
from pyconc.threading import Timer


def script(text, timeout=20):
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=timeout)
    return done.stdout, done.stderr, done.returncode


def test_fires_in_a_thread_of_its_own():
    seen = []
    timer = Timer(0.01, lambda *args, **kwargs: seen.append((standard.current_thread(), args, kwargs)), (1, 2),
                  {"a": 3})
    start = time.monotonic()
    timer.start()
    assert timer.is_alive() and timer in threading.enumerate()
    timer.join()
    assert time.monotonic() - start >= 0.01
    assert seen == [(timer, (1, 2), {"a": 3})]
    assert not timer.is_alive() and timer.finished.is_set() and timer not in threading.enumerate()
    assert isinstance(timer, standard.Thread) and timer.ident


def test_order_and_blocking_functions():
    """One that blocks holds up nobody."""
    seen, go = [], standard.Event()
    timers = [Timer(0.05, seen.append, ("late",)), Timer(0.01, go.wait), Timer(0.02, seen.append, ("early",))]
    for timer in timers:
        timer.start()
    timers[0].join()
    assert seen == ["early", "late"] and timers[1].is_alive()
    go.set()
    timers[1].join()


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


def test_exceptions_go_to_the_excepthook():
    seen, old = [], standard.excepthook
    standard.excepthook = seen.append
    try:
        timer = Timer(0, lambda: 1 / 0)
        timer.start()
        timer.join()
    finally:
        standard.excepthook = old
    assert seen[0].exc_type is ZeroDivisionError and seen[0].thread is timer


def test_timer_that_starts_another():
    seen, done = [], standard.Event()

    def again(left):
        seen.append(left)
        if left:
            Timer(0.001, again, (left - 1,)).start()
        else:
            done.set()

    again(5)
    assert done.wait(10) and seen == [5, 4, 3, 2, 1, 0]


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
    assert script("from pyconc.threading import Timer; Timer(0.2, print, ('fired',)).start(); print('end')") == (
        "end\nfired\n", "", 0)


def test_exit_does_not_wait_for_daemons():
    text = "from pyconc.threading import Timer; t = Timer(30, print, ('fired',)); t.daemon = True; t.start(); print(1)"
    assert script(text) == ("1\n", "", 0)


def test_timer_started_while_the_interpreter_exits():
    text = """
import threading, time
from pyconc.threading import Timer
Timer(0, print).start()
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
from pyconc.threading import Timer
seen = []
timer = Timer(0.3, print, ("parent's",), )
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
"""
    out, errors, status = script(text)
    assert (out, status) == ("0\nparent's\n", 0)
    assert "Traceback" not in errors


def test_idle_thread_ends(monkeypatch, no_leaked_threads):
    from pyconc import _timer
    monkeypatch.setattr(_timer, "LINGER", 0.05)
    timer = Timer(0.01, print)
    timer.start()
    timer.join()
