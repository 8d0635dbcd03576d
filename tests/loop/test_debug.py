"""Debug mode: what is slow, where things were made, which thread calls."""
import asyncio
import gc
import logging
import socket
import sys
import threading
import time

import pytest

import pyconc


@pytest.fixture
def debugged(either):
    either.set_debug(True)
    return either


def test_set_debug(either):
    either.set_debug(True)
    assert either.get_debug() is True
    either.set_debug(False)
    assert either.get_debug() is False


@pytest.mark.parametrize("value,expected", [("1", True), ("", False)])
def test_environment(program, value, expected):
    done = program("""
        import pyconc
        loop = pyconc.new_event_loop()
        print(loop.get_debug())
        loop.close()
    """, PYTHONASYNCIODEBUG=value, PYTHONDEVMODE="")
    assert done.stdout_text == f"{expected}\n", done.stderr_text


def test_dev_mode(program):
    done = program("import pyconc\nloop = pyconc.new_event_loop()\nprint(loop.get_debug())\nloop.close()", "-X", "dev")
    assert done.stdout_text == "True\n"


def test_slow_callback_is_told(debugged, turn, caplog):
    debugged.slow_callback_duration = 0.01

    def slow():
        time.sleep(0.02)

    debugged.call_soon(slow)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turn(debugged)
    record, = caplog.records
    assert record.getMessage().startswith("Executing <Handle ")
    assert "slow" in record.getMessage() and " seconds" in record.getMessage()


def test_slow_task_is_told_by_its_name(debugged, caplog):
    debugged.slow_callback_duration = 0.01

    async def slow():
        time.sleep(0.02)

    with caplog.at_level(logging.WARNING, "asyncio"):
        debugged.run_until_complete(slow())
    assert any("Executing <Task " in record.getMessage() for record in caplog.records)


def test_fast_callbacks_are_not_told(debugged, turn, caplog):
    assert debugged.slow_callback_duration == 0.1
    debugged.slow_callback_duration = 60    # a machine that stalls makes any callback slow
    debugged.call_soon(int)
    turn(debugged)
    assert not caplog.records


def test_slow_reader_and_timer_are_told(debugged, caplog):
    debugged.slow_callback_duration = 0.01
    ours, theirs = socket.socketpair()
    with ours, theirs:
        def read():
            time.sleep(0.02)
            debugged.remove_reader(ours)
            debugged.call_soon(debugged.call_later, 0.001, timer)

        def timer():
            time.sleep(0.02)
            debugged.stop()

        theirs.send(b"x")
        debugged.add_reader(ours, read)
        debugged.run_forever()
    text = caplog.text
    assert "read" in text and "timer" in text


def test_not_in_ordinary_mode(either, turn, caplog):
    either.set_debug(False)
    either.slow_callback_duration = 0
    either.call_soon(int)
    turn(either)
    assert not caplog.records


def source_line(traceback):
    return traceback[-1].line


def test_source_traceback_of_handles(debugged):
    handle = debugged.call_soon(int)  # here
    assert source_line(handle._source_traceback) == "handle = debugged.call_soon(int)  # here"
    handle = debugged.call_later(1, int)  # there
    assert source_line(handle._source_traceback).endswith("# there")
    handle = debugged.call_at(1, int)  # at
    assert source_line(handle._source_traceback).endswith("# at")
    handle = debugged.call_soon_threadsafe(int)  # everywhere
    assert source_line(handle._source_traceback).endswith("# everywhere")
    debugged.set_debug(False)
    assert not debugged.call_soon(int)._source_traceback


def test_source_traceback_in_the_report(debugged, errors, turn):
    debugged.call_soon(int, "x")
    turn(debugged)
    assert source_line(errors[0]["source_traceback"]) == 'debugged.call_soon(int, "x")'


def test_source_traceback_of_futures(loop):
    loop.set_debug(True)
    future = loop.create_future()  # future
    assert source_line(future._source_traceback).endswith("# future")


def test_source_traceback_of_tasks(debugged):
    async def main():
        pass

    task = debugged.create_task(main())  # task
    assert source_line(task._source_traceback).endswith("# task")
    debugged.run_until_complete(task)


def test_wrong_thread(debugged):
    told = []

    def other():
        for call in (lambda: debugged.call_soon(int), lambda: debugged.call_later(1, int),
                     lambda: debugged.call_at(1, int)):
            try:
                call()
            except RuntimeError as error:
                told.append(str(error))
        debugged.call_soon_threadsafe(debugged.stop)

    thread = threading.Thread(target=other)
    debugged.call_soon(thread.start)
    debugged.run_forever()
    thread.join()
    assert len(told) == 3 and all(text.startswith("Non-thread-safe operation") for text in told)


def test_coroutines_are_no_callbacks(debugged):
    async def coroutine():
        pass

    made = coroutine()
    for method, *args in (("call_soon",), ("call_soon_threadsafe",), ("call_later", 1), ("call_at", 1),
                          ("run_in_executor", None)):
        for wrong in (coroutine, made):
            with pytest.raises(TypeError, match="coroutines cannot be used"):
                getattr(debugged, method)(*args, wrong)
    made.close()
    for wrong in (None, 3, "x"):
        with pytest.raises(TypeError, match="a callable object was expected"):
            debugged.call_soon(wrong)


def test_what_is_no_function_is_reported_when_it_runs(either, errors, turn):
    either.set_debug(False)
    either.call_soon(3)
    turn(either)
    assert isinstance(errors[0]["exception"], TypeError)


def test_coroutine_origin_is_tracked_while_it_runs(debugged):
    inside = []

    async def main():
        inside.append(sys.get_coroutine_origin_tracking_depth())

    before = sys.get_coroutine_origin_tracking_depth()
    debugged.run_until_complete(main())
    assert inside[0] > 0
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_debug_switched_while_running(either):
    seen = []

    async def main():
        either.set_debug(True)
        seen.append(either.call_soon(int)._source_traceback)
        await asyncio.sleep(0)
        either.set_debug(False)
        seen.append(either.call_soon(int)._source_traceback)
        await asyncio.sleep(0)

    either.set_debug(False)
    either.run_until_complete(main())
    assert seen[0] and not seen[1]


def test_switched_by_the_callback_itself(loop, turn):
    loop.set_debug(True)
    loop.call_soon(loop.set_debug, False)
    turn(loop)
    loop.call_soon(loop.set_debug, True)
    turn(loop)
    assert loop.get_debug()


@pytest.mark.parametrize("how", ["dropped", "collected"])
def test_async_generator_finalised_by_the_collector(either, how):
    """uvloop crashes here in debug mode: the finaliser schedules from inside a deallocation."""
    either.set_debug(True)
    closed = []

    async def generate():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    async def main():
        for _ in range(20):
            generator = generate()
            await anext(generator)
            if how == "collected":
                cycle = [generator]
                cycle.append(cycle)
                del cycle
            del generator
            gc.collect()
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    either.run_until_complete(main())
    assert len(closed) == 20


DROPS_GENERATORS = """
import asyncio, gc, sys, threading
import pyconc

closed = []
rounds = 50

async def generate():
    try:
        while True:
            yield 1
    finally:
        await asyncio.sleep(0)
        closed.append(asyncio.current_task() is not None)

async def start():
    generator = generate()
    await anext(generator)
    return generator

def collect():
    for _ in range(5):
        gc.collect()

async def main():
    assert asyncio.get_running_loop().get_debug()
    asyncio.get_running_loop().slow_callback_duration = 3600
    gc.disable()
    for number in range(rounds):
        cycle = [await start()]
        cycle.append(cycle)
        del cycle
        WHERE
    while len(closed) < rounds:
        await asyncio.sleep(0.001)

pyconc.run(main())
print(len(closed), all(closed))
"""
COLLECTS = {
    "by hand": "gc.collect()",
    "of itself": "gc.enable(); gc.set_threshold(1); [[] for _ in range(2000)]; gc.disable(); gc.collect()",
    "in a callback": "asyncio.get_running_loop().call_soon(gc.collect); await asyncio.sleep(0)",
    "in another thread": "await asyncio.to_thread(gc.collect)",
    "in another thread while this one waits":
        "thread = threading.Thread(target=gc.collect); thread.start(); thread.join()",
    "while call_soon() makes a handle":
        "gc.enable(); gc.set_threshold(1); [asyncio.get_running_loop().call_soon(lambda: []) for _ in range(50)]; "
        "gc.disable(); gc.collect()",
}


@pytest.mark.parametrize("options,environment", [([], {"PYTHONASYNCIODEBUG": "1"}), (["-X", "dev"], {})],
                         ids=["PYTHONASYNCIODEBUG=1", "-X dev"])
@pytest.mark.parametrize("where", COLLECTS)
def test_async_generators_collected_in_a_debugged_program(program, options, environment, where):
    """No crash, and every generator's aclose() runs as a task of the loop."""
    done = program(DROPS_GENERATORS.replace("WHERE", COLLECTS[where]), *options, **environment)
    assert (done.returncode, done.stdout_text) == (0, "50 True\n"), done.stderr_text
    assert done.stderr_text == ""


def test_never_awaited_coroutine_is_told(debugged):
    async def main():
        async def forgotten():
            pass

        forgotten()
        gc.collect()

    with pytest.warns(RuntimeWarning, match="was never awaited"):
        debugged.run_until_complete(main())


def test_failing_debug_hooks_end_the_run():
    """Something is very wrong with the loop's own Python part: said, not swallowed."""
    class Broken(pyconc.Loop):
        def _callback_took(self, handle, seconds):
            raise ZeroDivisionError

    broken = Broken()
    broken.set_debug(True)
    broken.call_soon(int)
    with pytest.raises(ZeroDivisionError):
        broken.run_forever()
    broken.close()
