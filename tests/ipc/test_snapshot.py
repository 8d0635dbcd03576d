"""Snapshot: never torn, never lost, whoever dies."""
import ctypes
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pyconc import _ipc
from pyconc.multiprocessing.snapshot import Snapshot

STARTS = ["fork", "spawn", "forkserver"]
starts = pytest.mark.parametrize("start", STARTS)


class Position(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double), ("count", ctypes.c_long)]


def test_bytes():
    snapshot = Snapshot(20)
    assert snapshot.read() == b""
    assert (snapshot.capacity, snapshot.version) == (20, 0)
    for data in (b"hello", b"", b"x" * 20, b"12345678", bytearray(b"abc"), memoryview(b"defg")):
        snapshot.write(data)
        assert snapshot.read() == bytes(data)
    assert snapshot.version == 6
    assert Snapshot(5, b"first").read() == b"first"
    with pytest.raises(ValueError, match="21 bytes are more than the 20"):
        snapshot.write(b"x" * 21)
    with pytest.raises(TypeError):
        snapshot.write("text")
    assert snapshot.read() == b"defg"
    assert repr(snapshot) == "<Snapshot of 20, version 6>"


@pytest.mark.parametrize("bad", [0, -1, 2**62])
def test_a_bad_capacity_is_refused(bad):
    with pytest.raises(ValueError, match=f"positive, not {bad}"):
        Snapshot(bad)


def test_structures():
    snapshot = Snapshot(Position)
    assert snapshot.read().x == 0
    snapshot.write(Position(1, 2, 3))
    first = snapshot.read()
    snapshot.write(Position(4, 5, 6))
    assert (first.x, first.y, first.count) == (1, 2, 3)
    assert snapshot.read().count == 6
    assert Snapshot(Position, Position(7)).read().x == 7
    with pytest.raises(TypeError, match="is no Position"):
        snapshot.write(b"123")
    numbers = Snapshot(ctypes.c_int * 3)
    numbers.write((ctypes.c_int * 3)(1, 2, 3))
    assert list(numbers.read()) == [1, 2, 3]


def test_dtypes():
    numpy = pytest.importorskip("numpy")
    number = Snapshot(numpy.dtype("f8"), 1.5)
    assert number.read() == 1.5
    record = Snapshot(numpy.dtype([("x", "f8"), ("name", "S4")]))
    record.write((2.5, b"ab"))
    assert record.read()["x"] == 2.5 and record.read()["name"] == b"ab"
    matrix = Snapshot(numpy.dtype(("i4", (2, 3))))
    matrix.write(numpy.arange(6).reshape(2, 3))
    assert matrix.read().tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="sequence"):
        number.write([1, 2])


@pytest.mark.parametrize("spec, value", [(10, b"12"), (100_000, b"12"), (Position, Position(1)),
                                         (ctypes.c_int * 2, None)])
def test_pickles_share(spec, value):
    snapshot = Snapshot(spec, value)
    other = pickle.loads(pickle.dumps(snapshot))
    assert bytes(other.read()) == bytes(snapshot.read())
    other.write(other.read())
    assert snapshot.version == other.version == snapshot.version


def pattern(n, size):
    """Bytes that say themselves whether they belong together."""
    return n.to_bytes(8, "little") * (size // 8)


def is_whole(data):
    return data == data[:8] * (len(data) // 8)


def write_for_ever(snapshot, begun):
    n = 0
    while True:
        n += 1
        snapshot.write(pattern(n, snapshot.capacity))
        begun.set()


def read_until(snapshot, end):
    last = 0
    while last < end:
        data = snapshot.read()
        assert is_whole(data)
        n = int.from_bytes(data[:8], "little")
        assert n >= last
        last = n


@starts
@pytest.mark.parametrize("size", [64, 80_000])
def test_no_read_is_torn(start, size):
    context = multiprocessing.get_context(start)
    snapshot = Snapshot(size, pattern(0, size))
    readers = [context.Process(target=read_until, args=(snapshot, 3000)) for _ in range(2)]
    thread = threading.Thread(target=read_until, args=(snapshot, 3000))
    for reader in [*readers, thread]:
        reader.start()
    n = 0
    while thread.is_alive() or any(reader.is_alive() for reader in readers):
        n += 1
        snapshot.write(pattern(n, size))
        if n % 100 == 0:
            time.sleep(0.0001)
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0


def test_a_writer_who_dies_leaves_the_last_value():
    context = multiprocessing.get_context("fork")
    size = 40_000
    snapshot = Snapshot(size, pattern(0, size))
    for turn in range(30):
        begun = context.Event()
        child = context.Process(target=write_for_ever, args=(snapshot, begun))
        child.start()
        begun.wait()
        time.sleep(0.001 * (turn % 7))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        before = snapshot.version
        data = snapshot.read()
        assert is_whole(data) and len(data) == size
        snapshot.write(pattern(turn, size))     # the next writer goes on
        assert snapshot.version == before + 1
        assert snapshot.read() == pattern(turn, size)


def write_many(snapshot, first, times):
    for n in range(times):
        snapshot.write(pattern(2 * n + first, snapshot.capacity))


@starts
def test_writers_come_one_after_the_other(start):
    context = multiprocessing.get_context(start)
    snapshot = Snapshot(4000, pattern(0, 4000))
    children = [context.Process(target=write_many, args=(snapshot, first, 2000)) for first in (0, 1)]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        assert is_whole(snapshot.read())
    for child in children:
        child.join()
    assert snapshot.version == 4001


def test_a_writer_killed_in_the_middle_of_a_write():
    """At that very instruction: in builds with asserts."""
    program = textwrap.dedent("""
        import os
        from pyconc.multiprocessing.snapshot import Snapshot
        snapshot = Snapshot(64, b"before")
        if os.fork() == 0:
            os.environ["PYCONC_KILL_AT"] = "snapshot.write"
            snapshot.write(b"x" * 64)
            os._exit(0)
        _, status = os.wait()
        assert snapshot.read() == (b"before" if os.WIFSIGNALED(status) else b"x" * 64)
        snapshot.write(b"after")
        assert snapshot.read() == b"after"
        """)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_memory_with_nonsense_is_refused():
    with pytest.raises(ValueError, match="too small"):
        _ipc.Snapshot(_ipc.Cell(200), 1000)
    with pytest.raises(TypeError, match="no memory"):
        _ipc.Snapshot(b"x" * 1000, 8)
    cell = _ipc.Cell(_ipc.Snapshot.bytes_for(16))
    snapshot = _ipc.Snapshot(cell, 16)
    snapshot._write(b"good")
    assert snapshot._read() == b"good"
    head = memoryview(cell).cast("B")
    size_at = bytes(head).index((4).to_bytes(8, "little"))
    head[size_at:size_at + 8] = (2**40).to_bytes(8, "little")
    with pytest.raises(ValueError, match="does not hold a Snapshot"):
        snapshot._read()
