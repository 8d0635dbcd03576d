"""InterpreterPoolExecutor: threads with an interpreter each."""
import asyncio
import concurrent.futures
import os
import threading

import pytest

import pyconc.concurrent.futures as futures

pytestmark = pytest.mark.usefixtures("no_leaked_threads")

if not hasattr(concurrent.futures, "InterpreterPoolExecutor"):
    def test_it_is_only_where_python_has_it():
        assert not hasattr(futures, "InterpreterPoolExecutor")
        assert "InterpreterPoolExecutor" not in futures.__all__
else:
    @pytest.fixture
    def pool():
        with futures.InterpreterPoolExecutor(2) as pool:
            yield pool

    def test_calls(pool):
        assert isinstance(pool, concurrent.futures.InterpreterPoolExecutor)
        assert isinstance(pool, futures.ThreadPoolExecutor)
        future = pool.submit(pow, 2, exp=10)
        assert isinstance(future, futures.Future)
        assert future.result() == 1024
        assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]
        assert pool.submit(os.getpid).result() == os.getpid()

    def test_another_interpreter(pool):
        from concurrent import interpreters
        number = pool.submit(interpreters.get_current).result().id
        assert number != interpreters.get_current().id

    def test_process_pools_can_be_imported(pool):
        assert pool.submit(exec, "from pyconc.multiprocessing import Pool\n"
                                 "from pyconc.concurrent.futures import ProcessPoolExecutor").result() is None

    def test_awaited(pool):
        async def main():
            loop = asyncio.get_running_loop()
            return await pool.submit(abs, -1), await loop.run_in_executor(pool, abs, -2)

        assert asyncio.run(main()) == (1, 2)

    def test_exceptions(pool):
        with pytest.raises(ValueError, match="invalid literal"):
            pool.submit(int, "x").result()

    def test_scripts_and_what_cannot_be_sent(pool):
        with pytest.raises(TypeError):
            pool.submit("1 + 1")
        with pytest.raises(Exception, match="share|pickle|cross-interpreter"):
            pool.submit(id, threading.Lock()).result()

    def test_initializer():
        with futures.InterpreterPoolExecutor(1, initializer=os.putenv, initargs=("PYCONC_TEST", "1")) as pool:
            assert pool.submit(abs, -1).result() == 1

    def test_initializer_that_fails(caplog):
        with futures.InterpreterPoolExecutor(1, initializer=int, initargs=("x",)) as pool:
            with pytest.raises(concurrent.futures.interpreter.BrokenInterpreterPool, match="initializer failed"):
                pool.submit(abs, -1).result()
            with pytest.raises(concurrent.futures.interpreter.BrokenInterpreterPool, match="initializer failed"):
                pool.submit(abs, -1)

    def test_no_daemons():
        """Python may crash when a daemon thread still runs in another interpreter at exit."""
        with pytest.raises(TypeError, match="daemon"):
            futures.InterpreterPoolExecutor(1, daemon=True)

    def test_the_interpreters_are_closed(pool):
        from concurrent import interpreters
        before = len(interpreters.list_all())
        with futures.InterpreterPoolExecutor(2) as pool:
            assert pool.submit(abs, -1).result() == 1
            assert len(interpreters.list_all()) > before
        assert len(interpreters.list_all()) == before
