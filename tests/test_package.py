# SPDX-License-Identifier: MIT
"""import pyconc, and the ways in: run(), install(), EventLoopPolicy, Runner."""
import asyncio
import importlib.metadata
import subprocess
import sys

import pytest

import pyconc

HAS_POLICIES = sys.version_info < (3, 16)


def python(text, *options):
    done = subprocess.run([sys.executable, *options, "-c", text], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


async def which_loop():
    return type(asyncio.get_running_loop())


def test_version():
    assert pyconc.__version__ == importlib.metadata.version("pyconc")


def test_names():
    for name in pyconc.__all__:
        assert getattr(pyconc, name) is not None
        assert name in dir(pyconc)
    with pytest.raises(AttributeError, match="module 'pyconc' has no attribute 'nothing'"):
        pyconc.nothing  # noqa: B018
    assert hasattr(pyconc, "EventLoopPolicy") == HAS_POLICIES


def test_nothing_is_imported_before_it_is_used():
    text = "import sys, pyconc; print([m for m in ('asyncio', 'pyconc.loop', 'pyconc._core') if m in sys.modules])"
    assert python(text, "-W", "error") == (0, "[]\n", "")


def test_a_loop_needs_no_more_than_asyncio_does():
    text = ("import sys, asyncio; before = set(sys.modules)\n"
            "import pyconc; pyconc.new_event_loop().close()\n"
            "new = set(sys.modules) - before\n"
            "print(sorted(m for m in new if not m.startswith(('pyconc', 'concurrent.futures.'))))")
    assert python(text) == (0, "['_queue', 'queue']\n", "")


WITHOUT_ASYNCIO = """
import sys
from pyconc import hashing, native, parallel, queue, threading
from pyconc.concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor, as_completed, wait

def imported(name):
    return name in sys.modules

if __name__ == "__main__":
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(pow, 2, n) for n in range(3)]
        futures[0].add_done_callback(lambda future: None)
        assert wait(futures).not_done == set()
        assert sorted(future.result() for future in as_completed(futures)) == [1, 2, 4]
        assert list(pool.map(abs, [-1])) == [1]
    assert len(hashing.digest_many("sha256", [b"a", b"b"])) == 2 and native.run and parallel.probe
    lock, condition, items = threading.RLock(), threading.Condition(), queue.Queue()
    with lock, condition:
        threading.Thread(target=items.put, args=(7,)).start()
        assert items.get() == 7 and not condition.wait(0.01)
    for method in ("fork", "spawn"):
        context = __import__("pyconc.multiprocessing").multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(imported, "asyncio").result(), end=" ")
    print(imported("asyncio"))
"""


def test_who_has_no_loop_imports_no_asyncio(tmp_path):
    """Pools, locks and queues need none of it, their workers neither."""
    program = tmp_path / "program.py"
    program.write_text(WITHOUT_ASYNCIO)
    text = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    assert python(text) == (0, "False False False\n", "")


def test_asyncio_may_be_imported_last():
    """What was used without it knows the loop that runs afterwards, and its tasks."""
    text = ("from pyconc import threading\n"
            "from pyconc.concurrent.futures import ThreadPoolExecutor\n"
            "pool, lock = ThreadPoolExecutor(1), threading.RLock()\n"
            "with lock: assert pool.submit(pow, 2, 3).result() == 8\n"
            "import asyncio\n"
            "async def hold():\n"
            "    async with lock: await asyncio.sleep(0.01)\n"
            "async def main():\n"
            "    task = asyncio.create_task(hold())\n"
            "    await asyncio.sleep(0)\n"
            "    assert lock.locked() and not lock.acquire(blocking=False)\n"     # another task of this thread has it
            "    await task\n"
            "    with pool: return await pool.submit(pow, 3, 3)\n"
            "print(asyncio.run(main()))\n")
    assert python(text, "-W", "error") == (0, "27\n", "")


def test_asyncio_may_be_half_imported():
    """No loop runs while that lasts: a lock neither waits for it nor takes what is there for the whole."""
    text = ("import sys, types\n"
            "from pyconc import threading\n"
            "from pyconc.concurrent.futures import Future\n"
            "sys.modules['asyncio'] = types.ModuleType('asyncio')\n"
            "sys.modules['asyncio']._get_running_loop = lambda: 1 / 0\n"
            "with threading.RLock(): pass\n"
            "try: Future().__await__()\n"
            "except RuntimeError as error: print(error)\n"
            "del sys.modules['asyncio']\n"
            "import asyncio\n"
            "future = Future(); future.set_result(5)\n"
            "async def main(): return await future\n"
            "print(asyncio.run(main()))\n")
    assert python(text) == (0, "a Future is awaited in a running event loop\n5\n", "")


def test_no_warning_from_any_way_in():
    text = ("import asyncio, pyconc\n"
            "async def main(): return type(asyncio.get_running_loop())\n"
            "assert pyconc.run(main()) is pyconc.Loop\n"
            "pyconc.install()\n"
            "assert asyncio.run(main()) is pyconc.Loop\n"
            "with asyncio.Runner() as runner: assert runner.run(main()) is pyconc.Loop\n"
            "loop = asyncio.new_event_loop(); assert type(loop) is pyconc.Loop; loop.close()\n"
            "from pyconc import *\n")
    assert python(text, "-W", "error") == (0, "", "")


def test_install_before_asyncio_is_imported():
    text = ("import pyconc; pyconc.install()\n"
            "import asyncio\n"
            "async def main(): print(type(asyncio.get_running_loop()) is pyconc.Loop)\n"
            "asyncio.run(main())\n")
    assert python(text, "-W", "error") == (0, "True\n", "")


def test_install_where_python_has_no_policies():
    text = ("import asyncio, pyconc\n"
            "from pyconc.loop import policy\n"
            "policy._Base = None\n"
            "vars(policy).pop('EventLoopPolicy', None)\n"
            "assert not hasattr(pyconc, 'EventLoopPolicy')\n"
            "pyconc.install()\n"
            "async def main(): print(type(asyncio.get_running_loop()) is pyconc.Loop)\n"
            "asyncio.run(main())\n"
            "loop = asyncio.new_event_loop(); print(type(loop) is pyconc.Loop); loop.close()\n")
    assert python(text, "-W", "error") == (0, "True\nTrue\n", "")


@pytest.mark.skipif(not HAS_POLICIES, reason="this Python has no event loop policies")
def test_policy():
    policy = pyconc.EventLoopPolicy()
    loop = policy.new_event_loop()
    assert type(loop) is pyconc.Loop
    policy.set_event_loop(loop)
    assert policy.get_event_loop() is loop
    loop.close()


@pytest.mark.parametrize("debug", [None, True, False])
def test_run(debug):
    async def main(value):
        loop = asyncio.get_running_loop()
        assert type(loop) is pyconc.Loop
        if debug is not None:
            assert loop.get_debug() is debug
        return value

    assert pyconc.run(main(5), debug=debug) == 5
    assert pyconc.run(which_loop(), loop_factory=asyncio.SelectorEventLoop) is asyncio.SelectorEventLoop
    with pytest.raises(ZeroDivisionError):
        pyconc.run(main(1 / 0))


def test_run_inside_a_running_loop():
    async def main():
        inner = which_loop()
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            pyconc.run(inner)
        inner.close()

    pyconc.run(main())


def test_run_takes_coroutines():
    with pytest.raises((TypeError, ValueError)):    # ValueError before 3.14, as in asyncio
        pyconc.run(5)


def test_runner():
    with asyncio.Runner(loop_factory=pyconc.new_event_loop) as runner:
        assert runner.run(which_loop()) is pyconc.Loop
        loop = runner.get_loop()
    assert loop.is_closed()


def test_isolated_asyncio_test_case():
    import unittest

    class Case(unittest.IsolatedAsyncioTestCase):
        loop_factory = staticmethod(pyconc.new_event_loop)

        async def test(self):
            self.kind = await which_loop()

    case = Case("test")
    assert case.run().wasSuccessful()
    if sys.version_info >= (3, 13):
        assert case.kind is pyconc.Loop
