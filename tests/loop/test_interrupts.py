"""Ctrl-C in every phase of a program: the same happens on pyconc's loop as on asyncio's, and nothing is lost."""
import sys

import pytest

START = """
import asyncio, contextlib, gc, os, signal, sys, threading, time
import pyconc

new_loop = pyconc.new_event_loop if os.environ["LOOP"] == "pyconc" else asyncio.SelectorEventLoop

def ctrl_c():
    signal.raise_signal(signal.SIGINT)

def ctrl_c_later():
    thread = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    thread.start()
    return thread

def ctrl_c_asleep():    # not before the task that asks for it waits, and its loop runs on
    asyncio.get_running_loop().call_soon(ctrl_c_later)

def main_sleeps():      # for another thread: waits until the main one waits
    seen = 0
    while seen < 3:     # it may wait for the GIL, once
        time.sleep(0.005)
        with open("/proc/self/task/%d/stat" % os.getpid()) as file:
            seen = seen + 1 if file.read().rpartition(")")[2].split()[0] == "S" else 0

@contextlib.contextmanager
def told(where):
    try:
        yield
        print(where, "goes on")
    except BaseException as error:
        print(where, "sees", type(error).__name__, *error.args)
        raise
    finally:
        print(where, "ends")
"""

RUN = """
try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: print("reported", context))
        print("result", runner.run(main()))
except BaseException as error:
    print("out", type(error).__name__)
for thread in threading.enumerate()[1:]:
    thread.join(60)     # who sent the signal may still be on its way out
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.set_wakeup_fd(-1), threading.active_count())
"""

IN_RUNNER = {
    "in the coroutine": """
async def main():
    with told("main"):
        ctrl_c()
        print("still there")
        await asyncio.sleep(60)
""",
    "in the coroutine, which never waits again": """
async def main():
    ctrl_c()
    return 5
""",
    "in a blocking callback": """
def block():
    with told("callback"):
        ctrl_c_later().join()

async def main():
    with told("main"):
        asyncio.get_running_loop().call_soon(block)
        await asyncio.sleep(60)
""",
    "in a timer": """
async def main():
    with told("main"):
        asyncio.get_running_loop().call_later(0.001, ctrl_c)
        await asyncio.sleep(60)
""",
    "while the loop sleeps": """
async def main():
    with told("main"):
        ctrl_c_later()
        await asyncio.get_running_loop().create_future()
""",
    "while the loop spins": """
async def main():
    with told("main"):
        ctrl_c_later()
        while True:
            await asyncio.sleep(0)
""",
    "in a done callback": """
async def main():
    with told("main"):
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: ctrl_c())
        future.add_done_callback(lambda _: print("the next one runs"))
        future.set_result(None)
        await asyncio.sleep(60)
""",
    "in a done callback of a task": """
async def child():
    pass

async def main():
    with told("main"):
        task = asyncio.create_task(child())
        task.add_done_callback(lambda _: ctrl_c())
        await asyncio.sleep(60)
""",
    "in a handler of another signal": """
async def main():
    with told("main"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ctrl_c)
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(60)
""",
    "with a handler of its own": """
async def main():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.add_signal_handler(signal.SIGINT, done.set_result, "handled")
    ctrl_c_later()
    with told("main"):
        result = await done
    return result, loop.remove_signal_handler(signal.SIGINT)
""",
    "in another task": """
async def child():
    with told("child"):
        ctrl_c()
        await asyncio.sleep(60)

async def main():
    with told("main"):
        task = asyncio.create_task(child(), name="child")
        await asyncio.sleep(60)
""",
    "in a task group": """
async def child():
    with told("child"):
        await asyncio.sleep(0.001)
        ctrl_c()
        await asyncio.sleep(60)

async def main():
    with told("main"):
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
""",
    "in a timeout": """
async def main():
    with told("main"):
        async with asyncio.timeout(60):
            ctrl_c()
            await asyncio.sleep(60)
""",
    "while a thread works": """
async def main():
    with told("main"):
        ctrl_c_later()
        told_to_end = threading.Event()
        try:
            await asyncio.to_thread(lambda: (told_to_end.wait(60), time.sleep(0.05)))
        finally:
            told_to_end.set()
""",
    "in a protocol": """
class Interrupted(asyncio.Protocol):
    def data_received(self, data):
        with told("protocol"):
            ctrl_c()

async def main():
    with told("main"):
        server = await asyncio.get_running_loop().create_server(Interrupted, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        try:
            await asyncio.sleep(60)
        finally:
            writer.close()
            server.close()
""",
    "from a thread, many": """
async def main():
    with told("main"):
        for number in range(5):
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
""",
    "twice in a row": """
async def main():
    with told("main"):
        ctrl_c()
        try:
            await asyncio.sleep(60)
        finally:
            ctrl_c()
            print("never here")
""",
    "twice, the second while the loop sleeps": """
async def main():
    with told("main"):
        ctrl_c()
        try:
            await asyncio.sleep(60)
        finally:
            print("takes its time")
            ctrl_c_asleep()
            with told("cleaning"):
                await asyncio.sleep(60)
""",
    "with a task that suppresses it": """
async def main():
    with contextlib.suppress(asyncio.CancelledError):
        with told("main"):
            ctrl_c()
            await asyncio.sleep(60)
    await asyncio.sleep(0.001)
    return 5
""",
    "with a task that uncancels": """
async def main():
    try:
        with told("main"):
            ctrl_c()
            await asyncio.sleep(60)
    except asyncio.CancelledError:
        print(asyncio.current_task().uncancel())
        raise
""",
    "with a task that raises something else": """
async def main():
    try:
        ctrl_c()
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise ValueError("instead") from None
""",
    "beside a task that suppresses it": """
async def child():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("child will not")
            return 7

async def main():
    task = asyncio.create_task(child())
    with told("main"):
        await asyncio.sleep(0.001)
        ctrl_c()
        await asyncio.sleep(60)
""",
    "during the end of async generators": """
async def generate():
    with told("generator"):
        try:
            yield 1
        finally:
            await asyncio.sleep(0.001)
            ctrl_c()
            print("never here")

async def main():
    global generator
    generator = generate()
    return await anext(generator)
""",
    "during the end of async generators, while the loop sleeps": """
async def generate():
    with told("generator"):
        try:
            yield 1
        finally:
            ctrl_c_asleep()
            await asyncio.sleep(60)

async def main():
    global generator
    generator = generate()
    return await anext(generator)
""",
    "during the end of the default executor": """
def work(loop):
    while not loop._executor_shutdown_called:
        time.sleep(0.01)
    main_sleeps()       # the loop waits for this thread
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)

async def main():
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, work, loop)
    return 1
""",
    "during the cancelling of what is left": """
async def child():
    with told("child"):
        try:
            await asyncio.sleep(60)
        finally:
            ctrl_c()
            print("never here")

async def main():
    global task
    task = asyncio.create_task(child())
    await asyncio.sleep(0.001)
    return 1
""",
    "raised by the coroutine": """
async def main():
    raise KeyboardInterrupt
""",
    "raised by a child": """
async def child():
    raise KeyboardInterrupt

async def main():
    with told("main"):
        await asyncio.create_task(child())
""",
    "raised by a callback": """
def callback():
    raise KeyboardInterrupt

async def main():
    with told("main"):
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(60)
""",
    "exit of the coroutine": """
async def main():
    with told("main"):
        sys.exit(3)
""",
    "exit of a callback": """
async def main():
    with told("main"):
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(60)
""",
    "debug mode": """
async def main():
    with told("main"):
        asyncio.get_running_loop().set_debug(True)
        asyncio.get_running_loop().slow_callback_duration = 3600
        ctrl_c()
        await asyncio.sleep(60)
""",
}

BY_ITSELF = {
    "before the first turn": """
async def main():
    with told("main"):
        await asyncio.sleep(60)

try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().call_soon(ctrl_c)
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
""",
    "before the run": """
async def main():
    return 1

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.get_loop()
    try:
        ctrl_c()
    except KeyboardInterrupt:
        print("interrupted")
    print(runner.run(main()))
""",
    "a runner is used again": """
async def main(number):
    with told(number):
        if number % 2:
            ctrl_c()
        await asyncio.sleep(0.001)
        return number

with asyncio.Runner(loop_factory=new_loop) as runner:
    for number in range(5):
        try:
            print(runner.run(main(number)))
        except KeyboardInterrupt:
            print("interrupted")
""",
    "another handler stays": """
async def main():
    with told("main"):
        ctrl_c()
        await asyncio.sleep(0.01)
        return 1

handler = lambda *args: print("mine", args[0])
signal.signal(signal.SIGINT, handler)
with asyncio.Runner(loop_factory=new_loop) as runner:
    print(runner.run(main()))
print(signal.getsignal(signal.SIGINT) is handler)
""",
    "ignored": """
async def main():
    with told("main"):
        ctrl_c()
        await asyncio.sleep(0.01)
        return 1

signal.signal(signal.SIGINT, signal.SIG_IGN)
with asyncio.Runner(loop_factory=new_loop) as runner:
    print(runner.run(main()))
""",
    "run_until_complete goes on": """
async def main():
    with told("main"):
        for _ in range(3):
            await asyncio.sleep(0.03)
    return "all of it"

loop = new_loop()
task = loop.create_task(main())
loop.call_later(0.02, ctrl_c)
loop.call_later(0.02, print, "a timer of the same time")
try:
    loop.run_until_complete(task)
except KeyboardInterrupt:
    print("interrupted", loop.is_running(), loop.is_closed(), task.done())
print(loop.run_until_complete(task))
loop.close()
""",
    "run_until_complete in its poll": """
loop = new_loop()
future = loop.create_future()
loop.call_soon(ctrl_c_later)
try:
    loop.run_until_complete(future)
except KeyboardInterrupt:
    print("interrupted", loop.is_running(), future.done())
loop.call_soon(future.set_result, 3)
print(loop.run_until_complete(future))
loop.close()
""",
    "no callback is lost": """
loop = new_loop()
seen = []

def callback(number):
    seen.append(number)
    if number in (3, 4, 8):
        ctrl_c()
    if number == 9:
        loop.stop()

for number in range(10):
    loop.call_soon(callback, number)
for _ in range(4):
    try:
        loop.run_forever()
        print("stopped", seen)
    except KeyboardInterrupt:
        print("interrupted", seen)
        if len(seen) > 8:
            loop.call_soon(loop.stop)
loop.close()
""",
    "no event is lost": """
import socket
loop = new_loop()
ours, theirs = socket.socketpair()

def read():
    print("read", ours.recv(1))
    ctrl_c()

loop.add_reader(ours, read)
theirs.send(b"abc")
for _ in range(3):
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted")
loop.remove_reader(ours)
loop.close()
""",
    "no call from a thread is lost": """
loop = new_loop()
loop.call_soon(ctrl_c_later)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
thread = threading.Thread(target=lambda: [loop.call_soon_threadsafe(print, n) for n in range(3)])
thread.start()
thread.join()
loop.call_soon_threadsafe(loop.stop)
loop.run_forever()
loop.close()
""",
    "the result of a child that exits": """
async def child():
    sys.exit(3)

async def main():
    with told("main"):
        task = asyncio.create_task(child())
        await task

loop = new_loop()
task = loop.create_task(main())
try:
    loop.run_until_complete(task)
except SystemExit as error:
    print("exit", error.code, task.done())
try:
    loop.run_until_complete(task)
except BaseException as error:
    print(type(error).__name__, error)
loop.close()
""",
    "in a loop of a thread": """
done = threading.Event()

async def main():
    with told("main"):
        while not done.is_set():
            await asyncio.sleep(0.001)
        return 1

def run():
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print(runner.run(main()))

thread = threading.Thread(target=run)
thread.start()
try:
    ctrl_c_later()
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
done.set()
thread.join()
""",
}


def outcomes(program, source, *options):
    """(exit status, output, last line of the errors) on pyconc's loop and on asyncio's."""
    for loop in "pyconc", "asyncio":
        done = program(START + source, *options, LOOP=loop)
        yield done.returncode, done.stdout_text, done.stderr_text.splitlines()[-1:], done.stderr_text


def same(program, source, *options):
    ours, theirs = outcomes(program, source, *options)
    assert ours[:3] == theirs[:3], ours[3]
    return ours[1]


@pytest.mark.parametrize("phase", IN_RUNNER)
def test_in_a_runner(program, phase):
    assert "\nTrue -1 " in same(program, IN_RUNNER[phase] + RUN)


@pytest.mark.parametrize("case", BY_ITSELF)
def test_by_itself(program, case):
    assert same(program, BY_ITSELF[case])


@pytest.mark.parametrize("phase", ["in the coroutine", "while the loop sleeps", "twice in a row"])
def test_uncaught(program, phase):
    """The process ends by the signal."""
    ours, theirs = outcomes(program, IN_RUNNER[phase] + "\nwith asyncio.Runner(loop_factory=new_loop) as runner:\n"
                            "    runner.run(main())\n")
    assert ours[:3] == theirs[:3]
    assert ours[0] == -2
    assert ours[2] == ["KeyboardInterrupt"]


@pytest.mark.parametrize("phase", IN_RUNNER)
def test_pyconc_run(program, phase):
    """Says what a Runner says."""
    run = START + IN_RUNNER[phase] + """
try:
    print({})
except BaseException as error:
    print("out", type(error).__name__)
"""
    ours = program(run.format("pyconc.run(main())"), LOOP="pyconc")
    theirs = program("""
def run(coroutine):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(coroutine)
""" + run.format("run(main())"), LOOP="asyncio")
    assert (ours.returncode, ours.stdout_text) == (theirs.returncode, theirs.stdout_text), ours.stderr_text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_in_an_eager_task(program):
    same(program, """
async def child():
    with told("child"):
        ctrl_c()
        await asyncio.sleep(60)

async def main():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    with told("main"):
        task = asyncio.create_task(child())
        print("child waits")
        await task
""" + RUN)
