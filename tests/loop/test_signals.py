"""Ctrl-C and other signals: they end a blocking poll and a busy loop, as in asyncio."""
import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import pyconc

BLOCKED = "loop.run_forever()"
BUSY = """
def spin():
    loop.call_soon(spin)
spin()
loop.run_forever()
"""
BUSY_IN_C = """
import functools
def refill():
    for _ in range(50):
        loop.call_soon(int)
    loop.call_soon(refill)
refill()
loop.run_forever()
"""
ONE_LONG_CALLBACK = """
def spin():
    while True:
        pass
loop.call_soon(spin)
loop.run_forever()
"""
IN_A_TASK = """
async def main():
    await asyncio.sleep(60)
loop.run_until_complete(main())
"""
IN_A_BUSY_TASK = """
async def main():
    while True:
        await asyncio.sleep(0)
loop.run_until_complete(main())
"""
WITH_A_TIMER = """
loop.call_later(60, print)
loop.run_forever()
"""
WITH_READERS = """
import socket
pair = socket.socketpair()
loop.add_reader(pair[0], print)
loop.run_forever()
"""
READER_ALWAYS_READY = """
import socket
pair = socket.socketpair()
pair[1].send(b"x")
loop.add_reader(pair[0], lambda: None)
loop.run_forever()
"""
PROGRAMS = {name.lower(): text for name, text in globals().items() if name.isupper() and isinstance(text, str)}


def interrupt(process, sig=signal.SIGINT):
    """Once the program says that it runs: the signal, a moment later, so that it is in its poll perhaps."""
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(sig)
    try:
        return process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"it did not end; it wrote {process.communicate()}")


@pytest.mark.parametrize("kind", PROGRAMS)
def test_ctrl_c_ends_run_forever(program, kind):
    process = program(f"""
import asyncio, pyconc
loop = pyconc.new_event_loop()
loop.call_soon(lambda: print("ready", flush=True))
try:
{"".join("    " + line for line in PROGRAMS[kind].splitlines(True))}
except KeyboardInterrupt:
    print("interrupted", loop.is_running())
loop.call_soon(loop.stop)
loop.run_forever()
print("runs again")
for task in asyncio.all_tasks(loop):
    task.cancel()
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        print("cancelled")
loop.close()
""", wait=False)
    out, err = interrupt(process)
    assert out.startswith("interrupted False\nruns again\n"), err
    assert process.returncode == 0


def test_exit_code_of_an_uncaught_interrupt(program):
    process = program("""
        import pyconc
        loop = pyconc.new_event_loop()
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
    """, wait=False)
    _, err = interrupt(process)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err


@pytest.mark.parametrize("busy", [False, True])
def test_runner_cancels_the_main_task(program, busy):
    process = program(f"""
        import asyncio, pyconc

        async def main():
            print("ready", flush=True)
            try:
                while True:
                    await asyncio.sleep({0 if busy else 60})
            except asyncio.CancelledError:
                print("cancelled")
                raise
            finally:
                print("cleaned up")

        try:
            with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """, wait=False)
    out, err = interrupt(process)
    assert out == "cancelled\ncleaned up\ninterrupted\n", err
    assert process.returncode == 0


def test_runner_exit_code(program):
    process = program("""
        import asyncio, pyconc

        async def main():
            print("ready", flush=True)
            await asyncio.sleep(60)

        with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
            runner.run(main())
    """, wait=False)
    interrupt(process)
    assert process.returncode == -signal.SIGINT


def test_signal_ends_the_program(program):
    process = program("""
        import pyconc
        loop = pyconc.new_event_loop()
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
    """, wait=False)
    interrupt(process, signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM


def test_handler_of_the_signal_module_runs_in_the_poll(loop, asleep):
    """A handler that raises ends run_forever(); one that does not, does not."""
    seen = []

    class Alarm(Exception):
        pass

    def handler(*args):
        seen.append(args[0])
        if len(seen) == 2:
            raise Alarm

    def kill_twice():
        for count in range(2):
            while len(seen) < count:    # two that wait to be handled are one
                time.sleep(0.001)
            asleep(threading.main_thread())
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=kill_twice)
    try:
        thread.start()
        with pytest.raises(Alarm):
            loop.run_forever()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1] * 2
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_add_signal_handler(either):
    seen = []

    def handler(*args):
        seen.append(args)
        if len(seen) == 3:
            either.stop()
        else:
            os.kill(os.getpid(), signal.SIGUSR1)

    either.add_signal_handler(signal.SIGUSR1, handler, 1, 2)
    either.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    either.run_forever()
    assert seen == [(1, 2)] * 3
    assert either.remove_signal_handler(signal.SIGUSR1) is True
    assert either.remove_signal_handler(signal.SIGUSR1) is False
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_add_signal_handler_wakes_the_poll(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    thread = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
    thread.start()
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_signal_handler_replaces_ctrl_c(program):
    process = program("""
        import pyconc, signal
        loop = pyconc.new_event_loop()
        loop.add_signal_handler(signal.SIGINT, loop.stop)
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
        print("stopped")
        loop.remove_signal_handler(signal.SIGINT)
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        loop.close()
    """, wait=False)
    out, err = interrupt(process)
    assert out == "stopped\nTrue\n", err


def test_sigchld_handler(loop):
    """uvloop refuses one."""
    loop.add_signal_handler(signal.SIGCHLD, loop.stop)
    process = subprocess.Popen([sys.executable, "-c", ""])
    loop.run_forever()
    process.wait()
    loop.remove_signal_handler(signal.SIGCHLD)


def test_failing_signal_handler_is_reported(either, errors):
    def fail():
        either.stop()
        raise ValueError

    either.add_signal_handler(signal.SIGUSR1, fail)
    either.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    either.run_forever()
    either.remove_signal_handler(signal.SIGUSR1)
    assert isinstance(errors[0]["exception"], ValueError)


def test_wrong_signals(either):
    async def coroutine():
        pass

    for args, error in (((signal.SIGKILL, print), (RuntimeError, ValueError)),
                        ((signal.SIGSTOP, print), (RuntimeError,)),
                        ((4000, print), ValueError), (("SIGINT", print), TypeError),
                        ((signal.SIGUSR1, coroutine), TypeError)):
        with pytest.raises(error):
            either.add_signal_handler(*args)


def test_signal_handler_in_another_thread(loop):
    raised = []

    def other():
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except (RuntimeError, ValueError) as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(raised) == 1


@pytest.fixture
def wakeup_socket():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    before = signal.set_wakeup_fd(ours.fileno())
    yield ours
    signal.set_wakeup_fd(before)
    ours.close()
    theirs.close()


def test_wakeup_descriptor_is_given_back(loop, wakeup_socket):
    inside = []

    def look():
        inside.append(signal.set_wakeup_fd(-1))
        signal.set_wakeup_fd(inside[0])
        loop.stop()

    loop.call_soon(look)
    loop.run_forever()
    assert inside[0] not in (-1, wakeup_socket.fileno())
    assert signal.set_wakeup_fd(wakeup_socket.fileno()) == wakeup_socket.fileno()


def test_wakeup_descriptor_after_a_failure(loop, wakeup_socket):
    def fail():
        raise SystemExit

    loop.call_soon(fail)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert signal.set_wakeup_fd(wakeup_socket.fileno()) == wakeup_socket.fileno()


def test_wakeup_descriptor_of_nested_threads(loop, wakeup_socket):
    """A loop in another thread leaves it alone."""
    other = pyconc.new_event_loop()
    other.call_soon(other.stop)
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    thread.join()
    other.close()
    assert signal.set_wakeup_fd(wakeup_socket.fileno()) == wakeup_socket.fileno()


def test_wakeup_descriptor_that_was_closed_meanwhile(loop):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    before = signal.set_wakeup_fd(ours.fileno())
    try:
        loop.call_soon(ours.close)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()


def test_wakeup_descriptor_survives_signal_handlers(loop, wakeup_socket):
    """Added and removed while the loop runs: the one from before is back at the end."""
    def use():
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.stop()

    loop.call_soon(use)
    loop.run_forever()
    assert signal.set_wakeup_fd(wakeup_socket.fileno()) == wakeup_socket.fileno()


def test_signals_after_close_are_left_alone(program):
    done = program("""
        import os, pyconc, signal
        loop = pyconc.new_event_loop()
        loop.slow_callback_duration = 60
        loop.add_signal_handler(signal.SIGUSR1, print, "handled")
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        print(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL, signal.set_wakeup_fd(-1))
    """, "-X", "dev")
    assert done.stdout_text == "True -1\n"
    assert done.stderr_text == ""


def test_many_signals(loop):
    """The wake-up socket fills and drains."""
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    for _ in range(100):
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert len(seen) >= 50


def test_interrupt_in_an_exception_handler(either):
    def handler(loop, context):
        raise KeyboardInterrupt

    either.set_exception_handler(handler)
    either.call_soon(int, "x")
    with pytest.raises(KeyboardInterrupt):
        either.run_forever()


def test_task_sees_the_interrupt_once(loop):
    async def main():
        raise KeyboardInterrupt

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert isinstance(task.exception(), KeyboardInterrupt)
    loop.run_until_complete(asyncio.sleep(0))
