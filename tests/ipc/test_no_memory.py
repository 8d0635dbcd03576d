"""Each allocation of an operation fails once: MemoryError, nothing by halves, and it works afterwards."""
import subprocess
import sys
import textwrap

import pytest

OPERATIONS = {
    "channel": """
        def operation():
            _ipc.Channel(1)
    """,
    "value": """
        value, lock = ctypes.c_int(3), RLock()
        def operation():
            _ipc.Value()._bind(value, lock, None, "i", 1)
    """,
    "queue": """
        def operation():
            _ipc.Queue()
    """,
    "pickler": """
        queue, reduced = _ipc.Queue(), (n for n in range(10))
        def prepare():
            for _ in range(4):      # those that are kept go with what cannot be pickled
                with contextlib.suppress(TypeError):
                    queue.put(reduced)
        def operation():
            queue.put([1])
    """,
    "item": """
        queue, large = _ipc.Queue(), bytes(100_000)
        def operation():
            try:
                queue.put(large)
                assert queue.get() == large
            except MemoryError:
                _testcapi.remove_mem_hooks()
                queue.get_nowait() if not queue.empty() else None
                raise
    """,
}
PROGRAM = """
    import _testcapi, contextlib, ctypes
    from pyconc import _ipc
    from pyconc.multiprocessing import RLock
    def prepare():
        pass
    {operation}
    operation()
    refused = 0
    for allowed in range(1000):
        prepare()
        _testcapi.set_nomemory(allowed, allowed + 1)
        try:
            operation()
        except MemoryError:
            refused += 1
        else:
            break
        finally:
            _testcapi.remove_mem_hooks()
        operation()
    print("refused" if refused == allowed > 0 else f"refused {{refused}} of {{allowed}}")
"""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_allocation_fails(operation):
    pytest.importorskip("_testcapi")
    program = textwrap.dedent(PROGRAM).format(operation=textwrap.dedent(OPERATIONS[operation]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n", done.stderr
