"""fork() in a process that runs a loop: the child is told, the parent goes on."""
import gc
import socket
import subprocess
import sys
import threading
import warnings
import weakref

import pytest

import pyconc

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")     # of a process with threads, 3.12


def exchange(loop):
    """Everything the parent's loop does still works: readers, timers, threads."""
    ours, theirs = socket.socketpair()
    seen = []

    def note(what):
        seen.append(what)
        if len(seen) == 3:
            loop.stop()

    loop.add_reader(ours, lambda: (note(ours.recv(10)), loop.remove_reader(ours)))
    theirs.send(b"x")
    loop.call_later(0.001, note, "timer")
    thread = threading.Timer(0.005, loop.call_soon_threadsafe, (note, "thread"))
    thread.start()
    limit = loop.call_later(60, loop.stop)
    loop.run_forever()
    limit.cancel()
    thread.join()
    ours.close()
    theirs.close()
    assert sorted(map(str, seen)) == ["b'x'", "thread", "timer"]


def run_a_moment(loop):
    """With polls: a timer that is due before the first one would stop the loop too early."""
    loop.call_soon(loop.call_later, 0.002, loop.stop)
    loop.run_forever()


@pytest.mark.parametrize("method,args", [
    ("call_soon", (print,)), ("call_soon_threadsafe", (print,)), ("call_later", (1, print)), ("call_at", (1, print)),
    ("run_forever", ()), ("add_reader", (0, print)), ("add_writer", (0, print)),
    ("run_in_executor", (None, print))])
def test_child_is_told(loop, method, args, in_child):
    text = in_child(lambda: getattr(loop, method)(*args))
    assert text.startswith("RuntimeError: This event loop was made before a fork()")
    assert "pyconc.new_event_loop()" in text


def test_child_creates_no_task(loop, in_child):
    async def main():
        pass

    def create():
        coroutine = main()
        try:
            return loop.create_task(coroutine)
        finally:
            coroutine.close()

    assert "before a fork()" in in_child(create)


def test_child_has_a_loop_of_its_own(loop, in_child):
    def child():
        own = pyconc.new_event_loop()
        exchange(own)
        own.close()
        return "fine"

    assert in_child(child) == "fine"
    exchange(loop)


def test_grandchild(loop, in_child):
    def child():
        own = pyconc.new_event_loop()
        exchange(own)
        text = in_child(lambda: own.call_soon(print))
        exchange(own)
        own.close()
        return text

    assert "before a fork()" in in_child(child)


def watched(loop):
    """A socket pair of which one end is watched and registered with the kernel."""
    ours, theirs = socket.socketpair()
    seen = []
    loop.add_reader(ours, lambda: seen.append(ours.recv(10)))
    run_a_moment(loop)
    return ours, theirs, seen


def close(loop, ours):
    loop.close()


def remove_reader(loop, ours):
    loop.remove_reader(ours)


def remove_and_close(loop, ours):
    loop.remove_reader(ours)
    loop.remove_writer(ours)
    loop.close()
    loop.close()


@pytest.mark.parametrize("what", [close, remove_reader, remove_and_close])
def test_parent_goes_on_after_the_child_cleans_up(loop, what, in_child):
    """The two share an epoll set: what the child takes out must not be taken from the parent."""
    ours, theirs, seen = watched(loop)
    assert in_child(lambda: what(loop, ours)) == "None"
    theirs.send(b"x")
    run_a_moment(loop)
    assert seen == [b"x"]
    exchange(loop)
    loop.remove_reader(ours)
    ours.close()
    theirs.close()


def test_parent_hears_signals_after_the_child_closed(program):
    done = program("""
        import os, pyconc, signal, threading
        loop = pyconc.new_event_loop()
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
        loop.call_soon(loop.stop)
        loop.run_forever()
        pid = os.fork()
        if pid == 0:
            loop.close()
            os._exit(0)
        os.waitpid(pid, 0)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        loop.run_forever()
        loop.close()
        print("heard")
    """)
    assert done.stdout_text == "heard\n", done.stderr_text


def test_child_collects_the_loop(in_child):
    loops = [pyconc.new_event_loop()]
    ours, theirs, seen = watched(loops[0])

    def child():
        ref = weakref.ref(loops.pop())
        gc.collect()
        return ref()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert in_child(child) == "None"
    theirs.send(b"x")
    loop, = loops
    run_a_moment(loop)
    assert seen == [b"x"]
    loop.close()
    ours.close()
    theirs.close()


LEAVING = {
    "exit": "sys.exit(7)",
    "_exit": "os._exit(7)",
    "return": "return",
    "raise": "raise ValueError",
    "from a reader": "sys.exit(7)",
}


@pytest.mark.parametrize("how", LEAVING)
def test_fork_inside_a_callback(program, how):
    """The child leaves the running loop in every way, and cleans up; the parent's loop does not notice."""
    done = program(f"""
        import asyncio, os, pyconc, signal, socket, sys
        loop = pyconc.new_event_loop()
        parent = os.getpid()
        ours, theirs = socket.socketpair()
        seen = []
        loop.add_reader(ours, lambda: (seen.append(ours.recv(10)), loop.stop()))
        pids = []

        def fork():
            loop.call_later(0.02, rest)
            pid = os.fork()
            if pid == 0:
                signal.alarm(40)
                {LEAVING[how]}
            pids.append(pid)

        if {how == "from a reader"}:
            third, fourth = socket.socketpair()
            fourth.send(b"x")
            loop.add_reader(third, lambda: (loop.remove_reader(third), fork()))
        else:
            loop.call_soon(fork)

        def rest():
            if os.getpid() != parent:
                print("the child runs on", flush=True)
            os.waitpid(pids[0], 0)
            theirs.send(b"x")

        try:
            loop.run_forever()
        except RuntimeError as error:
            assert os.getpid() != parent
            print("child:", error, flush=True)
            loop.close()
            sys.exit(8)
        finally:
            if os.getpid() != parent:
                loop.remove_reader(ours)
        print("parent:", seen, flush=True)
        loop.remove_reader(ours)
        loop.close()
    """)
    lines = done.stdout_text.splitlines()
    assert lines[-1] == "parent: [b'x']", done.stderr_text
    assert done.returncode == 0
    if how in ("return", "raise"):
        assert lines[0].startswith("child: This event loop was made before a fork()")
    else:
        assert len(lines) == 1


def test_fork_in_another_thread_while_the_loop_polls(program):
    """The thread that runs the loop is not in the child: there the loop does not run, and can be closed."""
    done = program("""
        import os, pyconc, signal, sys, threading, time
        loop = pyconc.new_event_loop()
        started = threading.Event()
        loop.call_soon(started.set)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        started.wait()
        time.sleep(0.02)
        pid = os.fork()
        if pid == 0:
            signal.alarm(40)
            print(loop.is_running(), flush=True)
            loop.close()
            own = pyconc.new_event_loop()
            own.call_later(0.001, own.stop)
            own.run_forever()
            own.close()
            del loop, own
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        print("fine")
    """, "-W", "ignore")
    assert done.stdout_text == "False\nfine\n", done.stderr_text


def test_child_that_exits_normally(program):
    """The child's interpreter ends with the parent's running loop, task and transport in it."""
    done = program("""
        import asyncio, os, pyconc, signal, sys

        async def main():
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol,
                                                               local_addr=("127.0.0.1", 0))
            received = loop.create_future()

            class Echo(asyncio.DatagramProtocol):
                def datagram_received(self, data, address):
                    received.set_result(data)

            other, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
            await asyncio.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                signal.alarm(40)
                sys.exit(3)             # its Runner fails to cancel what is left
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) > 0
            transport.sendto(b"x", other.get_extra_info("sockname"))
            print(await asyncio.wait_for(received, 40), flush=True)
            transport.close()
            other.close()

        with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
            runner.run(main())
    """, "-W", "ignore")
    assert done.stdout_text == "b'x'\n", done.stderr_text


def test_multiprocessing_fork(program):
    done = program("""
        import asyncio, multiprocessing, pyconc

        def work(number):
            async def main():
                await asyncio.sleep(0.001)
                return number * 2
            with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
                return runner.run(main())

        async def main():
            loop = asyncio.get_running_loop()
            import concurrent.futures
            with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
                print(await asyncio.gather(*[loop.run_in_executor(pool, work, number) for number in range(10)]))

        with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
            runner.run(main())
    """, "-W", "ignore")
    assert done.stdout_text == "[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]\n", done.stderr_text


def test_subprocess_with_preexec_fn(loop):
    """A function of Python between fork() and exec(), in the child, with the parent's loop in sight."""
    ours, theirs, seen = watched(loop)
    subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: loop.remove_reader(ours), check=True)
    theirs.send(b"x")
    run_a_moment(loop)
    assert seen == [b"x"]
    loop.remove_reader(ours)
    ours.close()
    theirs.close()
