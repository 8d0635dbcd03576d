"""Python 3.14's view into a running program: who waits for whom, from inside and from another process."""
import asyncio
import io
import subprocess
import sys

import pytest

# Python 3.14 looks into one thread of a program alone, on asyncio's own loop too.
THREADS = ("main", "thread")[:1 if sys.version_info < (3, 15) else 2]

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs came with Python 3.14")


async def leaf(look):
    await asyncio.sleep(0)
    return look()


async def branch(look):
    return await leaf(look)


async def root(look):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(branch(look), name="branch")
    return task.result()


def test_capture(new_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        graph = runner.run(root(asyncio.capture_call_graph))
    assert graph.future.get_name() == "branch"
    assert [entry.frame.f_code.co_name for entry in graph.call_stack][-2:] == ["leaf", "branch"]
    (waiting,) = graph.awaited_by
    assert [entry.frame.f_code.co_name for entry in waiting.call_stack][-1] == "root"


def test_capture_of_a_waiting_task(new_loop):
    async def main():
        future = asyncio.get_running_loop().create_future()
        tasks = [asyncio.create_task(wait(future), name=f"waiter {number}") for number in range(3)]
        await asyncio.sleep(0)
        graph = asyncio.capture_call_graph(future)
        future.set_result(None)
        await asyncio.gather(*tasks)
        after = asyncio.capture_call_graph(future)
        return sorted(entry.future.get_name() for entry in graph.awaited_by), len(after.awaited_by)

    async def wait(future):
        await future

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(main()) == ([f"waiter {number}" for number in range(3)], 0)


def test_format_and_print(new_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        text = runner.run(root(asyncio.format_call_graph))
        file = io.StringIO()
        runner.run(root(lambda: asyncio.print_call_graph(file=file)))
    for shown in text, file.getvalue():
        assert "Task(name='branch'" in shown
        assert shown.index("async leaf()") < shown.index("async branch()") < shown.index("Awaited by:")
        assert shown.index("Awaited by:") < shown.index("async root()")


def test_in_a_callback(new_loop):
    """There is no task to show."""
    seen = []

    async def main():
        asyncio.get_running_loop().call_soon(lambda: seen.append(asyncio.capture_call_graph()))
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert seen == [None]


@pytest.fixture
def serving(program):
    """A program on pyconc's loop that stands still, with tasks of known names, in an idle poll."""
    process = program(f"""
        import asyncio, os, threading, pyconc

        async def leaf(future):
            await future

        async def branch(future):
            await leaf(future)

        async def main(name):
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, lambda: os.write(1, b"ready\\n"))
            async with asyncio.TaskGroup() as group:
                group.create_task(branch(loop.create_future()), name=f"branch of {{name}}")
                group.create_task(asyncio.sleep(60), name=f"sleeper of {{name}}")

        for name in {THREADS[1:]}:
            threading.Thread(target=lambda: pyconc.run(main(name)), daemon=True).start()
        pyconc.run(main("main"))
    """, wait=False)
    assert [process.stdout.readline() for _ in THREADS] == ["ready\n"] * len(THREADS)
    yield process.pid
    process.kill()
    process.communicate()


@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_from_another_process(serving, command):
    done = subprocess.run([sys.executable, "-m", "asyncio", command, str(serving)], capture_output=True, text=True,
                          timeout=60)
    if done.returncode != 0 and ("Permission" in done.stderr or "permitted" in done.stderr or "CAP_SYS" in done.stderr):
        pytest.skip("this system forbids to read the memory of another process (ptrace)")
    assert done.returncode == 0, done.stderr
    for name in THREADS:
        assert f"branch of {name}" in done.stdout
        assert f"sleeper of {name}" in done.stdout
    assert done.stdout.count("leaf") >= len(THREADS)
    assert "TaskGroup._aexit" in done.stdout


def test_tasks_of_the_loop_are_seen(loop):
    """all_tasks() of a loop that does not run."""
    task = loop.create_task(asyncio.sleep(60), name="here")
    assert {task.get_name() for task in asyncio.all_tasks(loop)} == {"here"}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
