"""The watchdog: a callback that holds the loop is told of while it does, with its place, once; or else silence."""
import asyncio
import contextlib
import ctypes
import functools
import gc
import logging
import os
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

import pyconc
from pyconc.loop import watchdog

LIMIT = 0.02
LONG = 30       # seconds, after which a test gives up
FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


class Ear(logging.Filter):
    """Hears what asyncio's logger is told, and nobody else does; `heard` is set at each word."""

    def __init__(self):
        super().__init__()
        self.records, self.heard = [], threading.Event()

    def filter(self, record):
        if record.threadName == "pyconc-watchdog":      # and no word of the debug mode's
            self.records.append(record)
            self.heard.set()
        return False

    def texts(self):
        """All of the watchdog's, once its threads have ended."""
        for thread in threading.enumerate():
            if thread.name == "pyconc-watchdog":
                while thread.ident is None:     # it is about to start
                    time.sleep(0.001)
                thread.join(LONG)
        return [record.getMessage() for record in self.records]

    def forget(self):
        self.texts()
        self.records.clear()
        self.heard.clear()

    def hold(self):
        """Blocks until the watchdog has told."""
        assert self.heard.wait(LONG)
        self.heard.clear()


@pytest.fixture
def ear():
    ear, logger = Ear(), logging.getLogger("asyncio")
    logger.addFilter(ear)
    yield ear
    logger.removeFilter(ear)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("PYCONC_WATCHDOG", raising=False)


@pytest.fixture
def watched(loop, ear):
    loop.set_debug(False)
    loop.watchdog = LIMIT
    return loop


def unless_it_stalls(test):
    """Tries a test again, up to 20 times unless that takes long: on a machine that stalls, other callbacks hold the
    loop as well, which is told, and the watchdog looks too late."""
    @functools.wraps(test)
    def one_of_twenty(**fixtures):
        end = time.monotonic() + LONG
        for left in reversed(range(20)):
            if "ear" in fixtures:
                fixtures["ear"].forget()
            try:
                return test(**fixtures)
            except (AssertionError, ValueError):
                if not left or time.monotonic() > end:
                    raise
    return one_of_twenty


@unless_it_stalls
def test_task_that_blocks(watched, ear):
    async def inner():
        ear.hold()  # here

    async def main():
        await asyncio.sleep(0)
        await inner()

    watched.run_until_complete(watched.create_task(main(), name="slow one"))
    (text,) = ear.texts()
    assert text.startswith("Task 'slow one' (")
    assert ".main) has held the event loop for " in text
    if not FREE_THREADED:
        assert __file__ in text
        assert "ear.hold()  # here" in text
        assert "await inner()" in text
        assert "in hold" in text
        assert "run_until_complete" not in text     # what is around the loop is not what holds it


@unless_it_stalls
def test_how_long_it_has_lasted(watched, ear):
    watched.call_soon(ear.hold)
    watched.call_soon(watched.stop)
    watched.run_forever()
    (text,) = ear.texts()
    assert float(text.split("event loop for ")[1].split()[0]) >= LIMIT


@unless_it_stalls
def test_callback_that_blocks(watched, ear):
    def slow():
        ear.hold()
        watched.stop()

    for schedule in (watched.call_soon, watched.call_soon_threadsafe, lambda call: watched.call_later(0.001, call)):
        schedule(slow)
        watched.run_forever()
    texts = ear.texts()
    assert len(texts) == 3
    if not FREE_THREADED:
        assert all(text.startswith("Callback test_callback_that_blocks.<locals>.slow() has held") for text in texts)


@unless_it_stalls
def test_blocking_in_time_sleep(watched, ear):
    async def main():
        while not ear.heard.is_set():
            time.sleep(0.3)  # the place

    watched.run_until_complete(main())
    text = ear.texts()[0]
    assert "time.sleep(0.3)  # the place" in text
    assert "main" in text


@unless_it_stalls
def test_busy_python_code(watched, ear):
    def work():
        while not ear.heard.is_set():
            sum(range(100))

    async def main():
        work()

    watched.run_until_complete(main())
    (text,) = ear.texts()
    assert "Task" in text
    if not FREE_THREADED:
        assert "in work" in text


@unless_it_stalls
def test_callback_in_c(watched, ear):
    """It has no frame: all there is, is where the loop was started."""
    lock = threading.Lock()
    lock.acquire()
    ear.filter = lambda record: (Ear.filter(ear, record), lock.locked() and lock.release())[0]
    watched.call_soon(lock.acquire, True, LONG)
    watched.call_soon(watched.stop)
    watched.run_forever()
    (text,) = ear.texts()
    assert text.startswith("A callback in C has held the event loop")
    if not FREE_THREADED:
        assert "watched.run_forever()" in text


@unless_it_stalls
def test_protocol_that_blocks(watched, ear):
    """What comes from a descriptor is a callback as well."""
    class Slow(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            ear.hold()
            self.transport.close()

        def connection_lost(self, exc):
            done.set_result(None)

    async def main():
        server = await watched.create_server(Slow, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        await done
        writer.close()
        await writer.wait_closed()
        server.close()

    done = watched.create_future()
    watched.run_until_complete(main())
    (text,) = ear.texts()
    assert "data_received" in text or FREE_THREADED


@unless_it_stalls
def test_reader_that_blocks(watched, ear):
    def slow():
        ear.hold()
        watched.stop()

    read, write = os.pipe()
    watched.add_reader(read, slow)
    os.write(write, b"x")
    watched.run_forever()
    watched.remove_reader(read)
    os.close(read)
    os.close(write)
    assert len(ear.texts()) == 1


@unless_it_stalls
def test_once_per_occurrence(watched, ear):
    async def main():
        for _ in range(3):
            ear.hold()
            time.sleep(10 * LIMIT)
            await asyncio.sleep(0)

    watched.run_until_complete(main())
    assert len(ear.texts()) == 3


@unless_it_stalls
def test_end_is_told_at_level_info(watched, ear, caplog):
    async def main():
        ear.hold()
        while len(ear.records) < 2:
            await asyncio.sleep(0.001)

    caplog.set_level(logging.INFO, "asyncio")
    watched.run_until_complete(main())
    held, free = ear.texts()
    assert "has held" in held
    assert free.startswith("The event loop is free again after ")
    assert [record.levelno for record in ear.records] == [logging.WARNING, logging.INFO]


@unless_it_stalls
def test_end_is_told_when_the_loop_ends_with_it(ear, caplog):
    async def main():
        ear.hold()

    caplog.set_level(logging.INFO, "asyncio")
    pyconc.run(main(), debug=False, watchdog=0.8)   # a fifth of a second between two looks
    held, free = ear.texts()
    assert "has held" in held
    assert free.startswith("The event loop is free again after ")


@pytest.mark.skipif(FREE_THREADED, reason="there is no GIL to keep")
@pytest.mark.parametrize("how", ["in Python", "in C alone"])
@unless_it_stalls
def test_gil_kept_all_the_time(watched, ear, how):
    """Nobody else can look before it is given back: that is said."""
    keep = ctypes.PyDLL(None).usleep
    watched.watchdog = LIMIT

    async def main():
        keep(int(1e6 * 10 * LIMIT))  # no GIL for others
        await asyncio.sleep(0)

    if how == "in Python":
        watched.run_until_complete(main())
    else:
        watched.call_soon(keep, int(1e6 * 10 * LIMIT))
        watched.call_later(0.001, watched.stop)
        watched.run_forever()
    watched.watchdog = None     # after what it has to tell yet
    (text,) = ear.texts()
    if how == "in Python":
        assert "Task" in text and "kept the GIL until now" in text
        assert "# no GIL for others" in text
    else:
        assert text.startswith("A callback held the event loop, and the GIL with it, for ")
        assert text.endswith("it ended before its stack could be seen")


@unless_it_stalls
def test_healthy_program(loop, ear):
    """Busy and idle turns, for longer than the limit in all."""
    loop.watchdog = 1

    async def main():
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            for _ in range(100):
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
        await asyncio.to_thread(time.sleep, 1.5)

    loop.run_until_complete(main())
    assert ear.texts() == []


def watchdogs():
    """The threads' folders in /proc."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):      # it has just ended
            if (task / "comm").read_text() == "pyconc-watchdog\n":
                found.append(task)
    return found


def all_gone():
    """Whether there is no such thread. One that was joined may still be in its exit."""
    deadline = time.monotonic() + LONG
    while watchdogs() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not watchdogs()


def the_only_one():
    deadline = time.monotonic() + LONG
    while len(watchdogs()) != 1 and time.monotonic() < deadline:    # one that was joined may still be in its exit
        time.sleep(0.01)
    (task,) = watchdogs()
    return task


def switches(task):
    """How often it has gone to sleep."""
    for line in (task / "status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])


def test_idle_loop_costs_nothing(loop):
    """The thread sleeps as long as the loop does."""
    assert all_gone()
    loop.watchdog = 0.004
    loop.run_until_complete(asyncio.sleep(0))
    thread = the_only_one()         # before it has something to report: without a GIL another one does that
    running, stopped = [], []

    async def main():
        await asyncio.sleep(0.05)
        before = switches(thread)
        await asyncio.sleep(0.5)    # 500 looks, if it looked
        running.append(switches(thread) - before)

    for _ in range(5):              # in one of them the machine does not stall, which is reported
        loop.run_until_complete(main())
        before = switches(thread)
        time.sleep(0.2)             # nor while the loop does not run
        stopped.append(switches(thread) - before)
    assert min(running) < 20, running
    assert min(stopped) < 20, stopped


@unless_it_stalls
def test_idle_is_not_held(watched, ear):
    watched.run_until_complete(asyncio.sleep(20 * LIMIT))
    watched.call_later(10 * LIMIT, watched.stop)
    watched.run_forever()
    assert ear.texts() == []


@unless_it_stalls
def test_nested_run(watched, ear):
    """A callback that runs another loop holds this one."""
    inner = pyconc.new_event_loop()

    def run_inner():
        asyncio._set_running_loop(None)
        inner.run_until_complete(wait())
        asyncio._set_running_loop(watched)
        watched.stop()

    async def wait():
        while not ear.heard.is_set():
            await asyncio.sleep(0.01)

    watched.call_soon(run_inner)
    watched.run_forever()
    inner.close()
    (text,) = ear.texts()
    if not FREE_THREADED:
        assert text.startswith("Callback test_nested_run.<locals>.run_inner() has held")


def test_loops_in_threads(ear, no_leaked_threads):
    """Each is told of by itself."""
    waiting = threading.Barrier(4)

    async def main():
        waiting.wait(LONG)
        while sum("has held" in record.getMessage() for record in ear.records) < 3:
            time.sleep(0.01)

    def run():
        pyconc.run(main(), watchdog=LIMIT)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    waiting.wait(LONG)
    for thread in threads:
        thread.join()
    assert len(ear.texts()) >= 3


@unless_it_stalls
def test_limit_changes_while_it_runs(loop, ear):
    async def main():
        assert loop.watchdog is None
        loop.watchdog = LIMIT
        assert loop.watchdog == LIMIT
        ear.hold()
        await asyncio.sleep(0)
        loop.watchdog = 3600        # ends a thread that sleeps, and one whose look is a quarter of an hour away
        time.sleep(5 * LIMIT)
        loop.watchdog = None
        time.sleep(5 * LIMIT)
        loop.watchdog = LIMIT
        ear.hold()
        loop.watchdog = 0
        assert loop.watchdog is None
        time.sleep(5 * LIMIT)

    loop.run_until_complete(main())
    assert len(ear.texts()) == 2


def test_off_by_default(loop, ear, no_leaked_threads):
    assert loop.watchdog is None
    seen = []
    loop.call_soon(time.sleep, 0.1)
    assert all_gone()
    loop.call_soon(lambda: seen.append(watchdogs()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [[]]
    assert ear.texts() == []


@pytest.mark.parametrize("wrong,error", [
    (-1, ValueError), (-0.001, ValueError), (float("nan"), ValueError), (float("inf"), ValueError),
    (10 ** 400, ValueError), ("0.25", TypeError), (b"1", TypeError), ([], TypeError), (1j, TypeError)])
def test_no_limits(loop, wrong, error):
    loop.watchdog = 5
    with pytest.raises(error, match="watchdog must be a number of seconds") as caught:
        loop.watchdog = wrong
    assert repr(wrong) in str(caught.value)
    assert loop.watchdog == 5
    coroutine = asyncio.sleep(0)
    with pytest.raises(error, match="watchdog must be a number of seconds"):
        pyconc.run(coroutine, watchdog=wrong)
    coroutine.close()


def test_numbers_of_all_kinds(loop):
    from decimal import Decimal
    from fractions import Fraction
    for seconds in (1, 0.5, Decimal("2.5"), Fraction(1, 3), 1e300, 5e-324):
        loop.watchdog = seconds
        assert loop.watchdog == pytest.approx(min(float(seconds), 1e9))
        loop.run_until_complete(asyncio.sleep(0))


def test_for_another_loop_than_ours():
    coroutine = asyncio.sleep(0)
    with pytest.raises(TypeError, match="watchdog is for pyconc's loop"):
        pyconc.run(coroutine, watchdog=1, loop_factory=asyncio.SelectorEventLoop)
    coroutine.close()


def test_from_another_thread(watched):
    raised = []

    def other():
        try:
            watched.watchdog = 1
        except RuntimeError as error:
            raised.append(error)

    async def main():
        await asyncio.to_thread(other)

    watched.run_until_complete(main())
    assert len(raised) == 1
    assert watched.watchdog == LIMIT


def test_thread_ends_with_the_loop(ear, no_leaked_threads):
    for end in ("close", "drop", "turn off"):
        loop = pyconc.new_event_loop()
        loop.watchdog = LIMIT
        loop.run_until_complete(asyncio.sleep(0))
        assert the_only_one()
        ref = weakref.ref(loop)
        if end == "turn off":
            loop.watchdog = None
        elif end == "drop":
            with pytest.warns(ResourceWarning):
                del loop
                gc.collect()
            assert ref() is None
            assert all_gone()
            continue
        else:
            loop.close()
        assert all_gone()
        loop.close()
        loop.watchdog = LIMIT       # of no consequence, and no error


def test_closed_while_it_tells(ear, no_leaked_threads):
    """Over and over at the moment when the limit passes."""
    for number in range(40):
        loop = pyconc.new_event_loop()
        loop.watchdog = 0.001
        loop.call_soon(time.sleep, 0.0008 + 0.00002 * number)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
    ear.texts()


def test_the_place_has_been_left(ear):
    """Without a GIL the thread may have left every line before its stack is looked at."""
    loop = pyconc.new_event_loop()
    loop.watchdog = LONG
    loop._watchdog_tells(watchdog.HOLDS, 0.25, 0.0)     # as if it ran in a thread that has no stack any more
    loop.close()
    (text,) = ear.texts()
    assert "for 0.250 seconds; its thread is at a line that it has left by now" in text


def test_nothing_is_left(ear, no_leaked_objects):
    def use():
        loop = pyconc.new_event_loop()
        loop.watchdog = 0.001
        loop.call_soon(ear.hold)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        ear.texts()
        ear.records.clear()

    no_leaked_objects(use, 100)


def test_failing_report(ear):
    """An error in the report harms nobody."""
    seen = threading.Event()

    class Broken(pyconc.Loop):
        def _watchdog_tells(self, *args):
            seen.set()
            raise ZeroDivisionError

    loop = Broken()
    loop.watchdog = LIMIT
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: errors.append(unraisable.exc_type)
    errors = []
    try:
        loop.call_soon(seen.wait, LONG)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
    finally:
        sys.unraisablehook = hook
    assert set(errors) == {ZeroDivisionError}


# In programs of their own.

TELLS = """
    import asyncio, logging, sys, threading, time, pyconc

    class Ear(logging.Handler):
        heard = threading.Event()

        def emit(self, record):
            print(record.levelname, record.getMessage().splitlines()[0].split(" for ")[0], flush=True)
            self.heard.set()

    logging.getLogger("asyncio").addHandler(Ear())

    async def main():
        Ear.heard.wait(30)
"""


@unless_it_stalls
def test_environment_variable(program):
    source = TELLS + "    asyncio.run(main(), loop_factory=pyconc.new_event_loop)\n"
    if sys.version_info < (3, 12):
        source = TELLS + "    pyconc.run(main())\n"
    done = program(source, PYCONC_WATCHDOG="0.02")
    assert done.stdout_text == "WARNING Task 'Task-1' (main) has held the event loop\n", done.stderr_text


def test_argument_overrides_the_environment(program):
    done = program("""
        import pyconc
        async def main():
            import asyncio
            print(asyncio.get_running_loop().watchdog)
        pyconc.run(main())
        pyconc.run(main(), watchdog=2)
        pyconc.run(main(), watchdog=0)
    """, PYCONC_WATCHDOG="0.5")
    assert done.stdout_text == "0.5\n2.0\nNone\n", done.stderr_text


@pytest.mark.parametrize("value,limit", [("", None), ("0", None), ("1e-3", 0.001), (" 2 ", 2.0)])
def test_values_of_the_environment_variable(program, value, limit):
    done = program("import pyconc; print(pyconc.new_event_loop().watchdog)", "-W", "ignore", PYCONC_WATCHDOG=value)
    assert done.stdout_text == f"{limit}\n", done.stderr_text


def test_environment_is_ignored(program):
    done = program(f"""
        import sys; sys.path.insert(0, {str(Path(pyconc.__file__).parents[1])!r})
        import pyconc; print(pyconc.new_event_loop().watchdog)
    """, "-W", "ignore", "-E", PYCONC_WATCHDOG="nonsense")
    assert done.stdout_text == "None\n", done.stderr_text


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", "0,25", "1s"])
def test_wrong_environment_variable(program, value):
    done = program("import pyconc; pyconc.new_event_loop()", PYCONC_WATCHDOG=value)
    assert done.returncode == 1
    assert done.stderr_text.endswith("ValueError: the environment variable PYCONC_WATCHDOG must be a number of "
                                     f"seconds, 0 (off) or more, not {value!r}\n")


AT_EXIT = {
    "unclosed loop": "loop.run_until_complete(asyncio.sleep(0.01))",
    "held in a daemon thread": """
def hold():
    while not told:     # the watchdog's thread may look too late
        loop.run_until_complete(main())
threading.Thread(target=hold, daemon=True).start()
while not told:
    time.sleep(0.001)
""",
    "busy in a daemon thread": """
def spin():
    end = time.monotonic() + 0.003
    while time.monotonic() < end:
        pass
    loop.call_soon(spin)
loop.call_soon(spin)
threading.Thread(target=loop.run_forever, daemon=True).start()
time.sleep(0.05)
""",
    "exit while held": "loop.call_soon(time.sleep, 0.05)\nloop.call_soon(sys.exit)\nloop.run_forever()",
    "loop in a module": "sys.modules['mine'] = loop\nloop.run_until_complete(asyncio.sleep(0.01))",
    "a loop of atexit": """
import atexit
def late():
    other = pyconc.new_event_loop()
    other.watchdog = 0.002
    other.run_until_complete(main())
    other.close()
atexit.register(late)
""",
    "left running in atexit": """
import atexit
def late():
    global other
    other = pyconc.new_event_loop()
    other.watchdog = 0.002
    other.run_until_complete(asyncio.sleep(0.01))
atexit.register(late)
""",
}


@pytest.mark.parametrize("how", AT_EXIT)
@pytest.mark.parametrize("wait", [0, 0.003])
def test_interpreter_exit(program, how, wait):
    """No hang, no crash, no message."""
    done = program(f"""
import asyncio, logging, pyconc, sys, threading, time, warnings
warnings.simplefilter("ignore")
told = []
handler = logging.Handler()
handler.emit = told.append
logging.getLogger("asyncio").addHandler(handler)
loop = pyconc.new_event_loop()
loop.watchdog = 0.002
async def main():
    time.sleep(0.05)
{AT_EXIT[how]}
time.sleep({wait})
print("end")
""")
    assert done.returncode == 0, done.stderr_text
    # Without a GIL the end of CPython 3.13 says this of any thread that is about to start.
    assert done.stderr_text == "" or FREE_THREADED and done.stderr_text.endswith("RuntimeError: thread not started\n")


@unless_it_stalls
def test_fork(program):
    """The child has no watchdog of the parent's, and can have one of its own."""
    done = program(TELLS + """
    import os
    loop = pyconc.new_event_loop()
    loop.watchdog = 0.02
    loop.run_until_complete(asyncio.sleep(0.001))
    def fresh():
        loop.watchdog = 1
        loop.close()
        pyconc.run(main(), watchdog=0.02)
        sys.stdout.flush()
        os._exit(0)
    if os.fork() == 0:
        fresh()
    os.wait()
    loop.run_until_complete(main())
    loop.close()
    """, "-W", "ignore")
    assert done.stdout_text.count("(main) has held the event loop\n") == 2, done.stderr_text
    assert done.returncode == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 does not run asyncio in a subinterpreter")
@pytest.mark.parametrize("leftover", [False, True])
def test_subinterpreter(program, leftover):
    name = "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"
    source = f"""
import asyncio, logging, threading, time, warnings
warnings.simplefilter("ignore")
import pyconc
from pyconc.loop import watchdog
heard = threading.Event()
handler = logging.Handler()
handler.emit = lambda record: heard.set()
logging.getLogger("asyncio").addHandler(handler)
loop = pyconc.new_event_loop()
loop.watchdog = 0.01
async def main():
    assert heard.wait(30)
loop.run_until_complete(main())
if {leftover}:
    loop.mine = loop
else:
    loop.close()
"""
    done = program(f"""
        import {name} as interpreters
        source = {source!r}
        exec(source)
        for _ in range(3):
            one = interpreters.create()
            problem = interpreters.run_string(one, source)
            if problem is not None:
                print(problem)
            interpreters.destroy(one)
        print("fine")
    """, "-W", "ignore")
    assert done.stdout_text == "fine\n", done.stdout_text + done.stderr_text
    assert done.returncode == 0
