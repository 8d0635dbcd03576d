"""The loop in a program of its own making: many loops, threads, interpreters, and ends of all kinds."""
import asyncio
import gc
import os
import resource
import subprocess
import sys
import threading
import warnings
import weakref

import pytest

import pyconc

INTERPRETERS = {(3, 12): "_xxsubinterpreters", (3, 13): "_interpreters"}.get(
    sys.version_info[:2], "_interpreters" if sys.version_info > (3, 13) else None)


def test_loops_in_threads(no_leaked_threads, no_leaked_fds):
    results = []

    async def main(number):
        for _ in range(20):
            await asyncio.sleep(0.0005)
        return number

    def run(number):
        with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
            results.append(runner.run(main(number)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_one_loop_run_by_one_thread_after_the_other(loop):
    seen = []
    for _ in range(5):
        loop.call_soon(lambda: seen.append(threading.get_ident()))
        loop.call_soon(loop.stop)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        thread.join()
    assert len(seen) == 5 and threading.get_ident() not in seen


def test_loop_made_here_and_closed_there(no_leaked_fds):
    loop = pyconc.new_event_loop()
    loop.call_soon(print)
    thread = threading.Thread(target=loop.close)
    thread.start()
    thread.join()
    assert loop.is_closed()


def test_dropped_without_close(no_leaked_fds):
    loop = pyconc.new_event_loop()
    loop.call_soon(print)
    loop.call_later(10, print)
    loop.add_reader(0 if os.isatty(0) else loop._ssock, print)
    ref = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert ref() is None


def test_dropped_in_a_cycle(no_leaked_fds):
    """Through every place in which a loop keeps what it was given."""
    refs = []
    for keep in (lambda loop, cycle: loop.call_soon(print, cycle),
                 lambda loop, cycle: loop.call_soon_threadsafe(print, cycle),
                 lambda loop, cycle: loop.call_later(10, print, cycle),
                 lambda loop, cycle: loop._add_reader(loop._ssock, print, cycle),
                 lambda loop, cycle: loop.set_task_factory(cycle.append),
                 lambda loop, cycle: loop.set_exception_handler(cycle.append),
                 lambda loop, cycle: setattr(loop, "mine", cycle),
                 lambda loop, cycle: loop.create_future().add_done_callback(cycle.append),
                 lambda loop, cycle: cycle.append(loop.create_task(asyncio.sleep(1)))):
        for running in (False, True):
            loop = pyconc.new_event_loop()
            loop.set_debug(False)
            cycle = [loop]
            if running:
                loop.call_soon(keep, loop, cycle)
                loop.call_soon(loop.stop)
                loop.run_forever()
            else:
                keep(loop, cycle)
            refs.append(weakref.ref(loop))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                del loop, cycle
                gc.collect()
            if sys.version_info < (3, 14):
                assert refs[-1]() is None, (keep.__code__.co_firstlineno, running)
    gc.collect()


def test_dropped_after_close(new_loop):
    loop = new_loop()
    loop.close()
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is None


def test_subclass(no_leaked_fds):
    class Mine(pyconc.Loop):
        def __init__(self, extra):
            super().__init__()
            self.extra = extra

        def call_soon(self, callback, *args, context=None):
            self.extra.append(callback)
            return super().call_soon(callback, *args, context=context)

    calls = []
    loop = Mine(calls)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert calls


def test_many_loops(flat_memory, no_leaked_fds, no_leaked_threads):
    def use():
        loop = pyconc.new_event_loop()
        loop.call_later(0.00005, loop.stop)     # far enough away to sleep
        loop.call_soon_threadsafe(int)
        loop.run_forever()
        loop.call_later(10, print)
        loop.close()

    flat_memory(use, 1000, kib=128)


def test_loops_leave_no_objects(no_leaked_objects):
    def use():
        loop = pyconc.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_soon(print, loop)
        loop.close()

    no_leaked_objects(use, 100)


def test_no_descriptors_left_for_a_loop():
    """OSError, nothing left behind, nothing printed at the end."""
    loops, unraisable = [], []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(os.listdir("/proc/self/fd"))
    try:
        for spare in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + spare, before[1]))
            try:
                loops.append(pyconc.new_event_loop())
            except OSError:
                pass
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for loop in loops:
                loop.close()
            gc.collect()
            assert len(os.listdir("/proc/self/fd")) == in_use
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        sys.unraisablehook = hook
    assert loops and not unraisable


def test_init_twice(loop):
    before = len(os.listdir("/proc/self/fd"))
    pyconc._core.Loop.__init__(loop)
    assert len(os.listdir("/proc/self/fd")) == before


AT_EXIT = {
    "unclosed loop": "loop.call_soon(print)",
    "unclosed loop with a timer and a task": """
async def main():
    await asyncio.sleep(100)
task = loop.create_task(main())
loop.call_later(0.001, loop.stop)
loop.run_forever()
""",
    "loop in a daemon thread": """
threading.Thread(target=loop.run_forever, daemon=True).start()
time.sleep(0.05)
""",
    "busy loop in a daemon thread": """
def spin():
    loop.call_soon(spin)
spin()
threading.Thread(target=loop.run_forever, daemon=True).start()
time.sleep(0.05)
""",
    "loop of timers in a daemon thread": """
def tick():
    loop.call_later(0.0001, tick)
tick()
threading.Thread(target=loop.run_forever, daemon=True).start()
time.sleep(0.05)
""",
    "exit from a callback": "loop.call_soon(sys.exit)\nloop.run_forever()",
    "loop in a global cycle": "loop.mine = [loop]\nloop.call_later(1, print, loop)",
    "loop in a module": "sys.modules['mine'] = loop",
    "loop used by a destructor": """
class Late:
    def __del__(self, loop=loop):
        try:
            loop.call_soon(print, "x")
            loop.call_later(1, print)
            repr(loop)
        except RuntimeError:
            pass
late = Late()
""",
}


@pytest.mark.parametrize("how", AT_EXIT)
def test_interpreter_exit(program, how):
    """No hang, no crash, no message but the ResourceWarning of an unclosed loop."""
    done = program("import asyncio, pyconc, sys, threading, time\nloop = pyconc.new_event_loop()\n"
                   + AT_EXIT[how] + "\nprint('end')\n")
    assert done.returncode == 0, done.stderr_text
    assert done.stderr_text == "" or "Task was destroyed but it is pending" in done.stderr_text


def test_exit_of_a_thread_state(program):
    """A loop made in a thread that has ended is used by another."""
    done = program("""
        import pyconc, threading
        loops = []
        for _ in range(10):
            thread = threading.Thread(target=lambda: loops.append(pyconc.new_event_loop()))
            thread.start()
            thread.join()
        for loop in loops:
            loop.slow_callback_duration = 60
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.close()
        print("fine")
    """, "-X", "dev")
    assert (done.stdout_text, done.stderr_text) == ("fine\n", "")


IN_INTERPRETER = '''
import asyncio, socket, sys
import pyconc

async def main():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.send(b"x")
    assert await loop.sock_recv(ours, 10) == b"x"
    ours.close()
    theirs.close()
    await asyncio.sleep(0.001)
    return await asyncio.gather(*[asyncio.sleep(0.0001, number) for number in range(10)])

def run():
    loop = pyconc.new_event_loop()
    assert loop.run_until_complete(main()) == list(range(10))
    assert isinstance(loop.call_soon(print), asyncio.Handle)
    return loop

run().close()
'''
LEFTOVERS = '''
kept = run()
kept.call_later(100, print, kept)
kept.mine = kept
'''


@pytest.mark.skipif(INTERPRETERS is None, reason="Python 3.11 does not run asyncio in a subinterpreter")
@pytest.mark.parametrize("rounds", [1, 5])
@pytest.mark.parametrize("leftovers", [False, True])
def test_subinterpreter(program, rounds, leftovers):
    """uvloop and rloop cannot be imported there."""
    done = program(f"""
        import warnings
        warnings.simplefilter("ignore")
        import {INTERPRETERS} as interpreters
        source = {IN_INTERPRETER + (LEFTOVERS if leftovers else "")!r}
        exec(source)
        for _ in range({rounds}):
            one = interpreters.create()
            problem = interpreters.run_string(one, source)
            if problem is not None:
                print(problem)
            interpreters.destroy(one)
            run().close()
        print("fine")
    """, "-W", "ignore")
    assert done.stdout_text == "fine\n", done.stdout_text + done.stderr_text
    assert done.returncode == 0


@pytest.mark.skipif(INTERPRETERS is None, reason="Python 3.11 does not run asyncio in a subinterpreter")
def test_subinterpreters_in_threads(program):
    """Each with a GIL of its own, all at once."""
    done = program(f"""
        import {INTERPRETERS} as interpreters
        import threading
        source = {IN_INTERPRETER!r}
        problems = []

        def work():
            one = interpreters.create()
            try:
                problem = interpreters.run_string(one, source)
                if problem is not None:
                    problems.append(problem)
            finally:
                interpreters.destroy(one)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(problems)
    """, "-W", "ignore")
    assert done.stdout_text == "[]\n", done.stdout_text + done.stderr_text


def test_import_costs_no_loop():
    """The module alone opens nothing and starts nothing."""
    source = ("import os, threading\nimport asyncio\nbefore = len(os.listdir('/proc/self/fd'))\n"
              "import pyconc\nassert len(os.listdir('/proc/self/fd')) == before\nassert threading.active_count() == 1")
    subprocess.run([sys.executable, "-X", "dev", "-c", source], check=True,
                   cwd=os.path.dirname(os.path.dirname(pyconc.__file__)))


def test_no_descriptor_left_to_sleep_on(no_leaked_fds):
    """Timers and calls from threads come all the same."""
    in_use = max(map(int, os.listdir("/proc/self/fd"))) + 1
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for end in ("timer", "thread"):
        loop = pyconc.new_event_loop()
        thread = threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,))
        fill = [os.dup(0) for _ in range(in_use)]    # no gap below the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(fill), before[1]))
        try:
            if end == "timer":
                loop.call_later(0.01, loop.stop)
            else:
                thread.start()
            loop.run_forever()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for fd in fill:
                os.close(fd)
            if end == "thread":
                thread.join()
            loop.close()
