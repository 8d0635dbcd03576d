"""Every object is handed over under every start method: as an argument, as an item, at any time."""
import asyncio
import subprocess
import sys
import textwrap

import pytest
from process_children import Everything, add_up, use_all, use_all_received

import pyconc
import pyconc.multiprocessing as mp


def test_as_arguments(context):
    everything = Everything(context)
    ours, theirs = context.Pipe()
    with ours, theirs:
        child = context.Process(target=use_all, args=[theirs, everything])
        child.start()
        assert ours.recv() == "done"
        everything.check()
        child.join()
        assert child.exitcode == 0


def test_as_items(context):
    """The child runs already, and gets them by a queue, a pipe and a shared pipe."""
    ours, theirs = context.Pipe()
    one, other = mp.SharedPipe()
    carrying = context.Queue()
    with ours, theirs, one, other:
        child = context.Process(target=use_all_received, args=[theirs, [carrying, theirs, other]])
        child.start()
        for carrier in (carrying.put, ours.send, one.send):
            everything = Everything(context)
            carrier(everything)
            assert ours.recv() == "done"
            everything.check()
        child.join()
        assert child.exitcode == 0


def test_as_jobs_of_a_pool(context):
    value, lock = context.Value("i"), context.Lock()
    with context.Pool(2) as pool:
        assert pool.starmap(add_up, [(value, lock, number) for number in range(10)]) == list(range(10))
        pool.close()
        pool.join()
    assert value.value == 45


def test_waiting_for_another_process(context):
    """A coroutine waits for what a child does."""
    everything = Everything(context)
    ours, theirs = context.Pipe()

    async def main():
        child = context.Process(target=use_all, args=[theirs, everything])
        child.start()
        async with asyncio.timeout(60):
            await everything.event.wait_async()
            assert await everything.queue.get_async() == "put by the child"
            async with everything.lock:
                assert everything.value.value == 1
            assert await ours.recv_async() == "done"
        child.join()
    with ours, theirs:
        pyconc.run(main())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_program(tmp_path, method):
    """All of it in the program's main module, only its import line being pyconc's."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(f"""
        from pyconc import multiprocessing

        class Item:
            pass

        def work(queue, lock, array):
            item = Item()
            with lock:
                array[0] = 1.5
            item.value = array[0]
            queue.put(item)

        if __name__ == "__main__":
            multiprocessing.set_start_method("{method}")
            queue, array = multiprocessing.Queue(), multiprocessing.Array("d", 3)
            child = multiprocessing.Process(target=work, args=(queue, multiprocessing.Lock(), array))
            child.start()
            print(queue.get().value)
            child.join()
    """))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.5\n", "")
