"""The memory of a queue: large buffers are not copied, blocks are used again, and nonsense in it is an error."""
import ctypes
import errno
import gc
import mmap
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from pyconc.multiprocessing.queues import Queue

MIB = 1 << 20


def address_of(array):
    return array.__array_interface__["data"][0]


def is_shared(array):
    address = address_of(array)
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if start <= address < end:
                return "memfd:pyconc" in line
    return False


def test_what_no_memory_has_room_for_is_refused():
    """Before any is taken: the kernel would kill somebody for it. Here a view of a file that is all hole."""
    fd = os.memfd_create("hole")
    os.ftruncate(fd, 1 << 43)
    hole = np.frombuffer(mmap.mmap(fd, 1 << 43, prot=mmap.PROT_READ), "u1")
    os.close(fd)
    queue = Queue()
    for _ in range(2):
        with pytest.raises(OSError, match=f"no shared memory of {1 << 43} bytes: [0-9]+ are available") as raised:
            queue.put(hole)
        assert raised.value.errno == errno.ENOMEM
    queue.put(hole[:MIB])
    assert len(queue.get()) == MIB


def test_an_array_arrives_in_shared_memory_and_can_be_written():
    queue = Queue()
    array = np.arange(100_000)
    queue.put(array)
    array[:] = 0
    got = queue.get()
    assert is_shared(got)
    got += 1
    assert (got == np.arange(1, 100_001)).all()


def test_a_small_array_is_its_own():
    queue = Queue()
    queue.put(np.arange(10))
    assert not is_shared(queue.get())


def test_an_array_that_is_not_writable_stays_so():
    queue = Queue()
    array = np.arange(100_000)
    array.flags.writeable = False
    queue.put(array)
    assert not queue.get().flags.writeable


def test_fortran_order_and_structures():
    queue = Queue()
    for array in (np.asfortranarray(np.random.rand(200, 300)), np.zeros(50_000, dtype=[("a", "i4"), ("b", "f8")]),
                  np.arange(100_000)[::2], np.arange(100_000).reshape(100, 10, 100).transpose(2, 0, 1)):
        queue.put({"it": array, "again": array})
        got = queue.get()
        assert (got["it"] == array).all()
        assert got["again"] is got["it"]
        if array.flags.contiguous or array.flags.f_contiguous:
            assert got["it"].strides == array.strides


def test_a_view_stays_as_long_as_somebody_has_it():
    queue = Queue()
    arrays = [np.full(20_000, i) for i in range(8)]
    queue.put_many(arrays)
    got = queue.get_many()
    parts = [array[5:10] for array in got]
    del got, queue
    gc.collect()
    assert [list(part) for part in parts] == [[i] * 5 for i in range(8)]


def test_memory_is_used_again():
    queue = Queue()
    array = np.zeros(MIB // 8)
    queue.put(array)
    queue.get()
    size = queue.memory_size
    for _ in range(50):
        queue.put(array)
        queue.get()
    for _ in range(50):
        queue.put(b"x" * MIB)
        queue.get()
    assert queue.memory_size <= 2 * size + MIB


def test_sizes_may_be_mixed_for_long():
    queue, kept, numbers = Queue(), [], random.Random(1)
    for i in range(3000):
        size = numbers.choice([10, 1000, 17_000, 70_000, 300_000])
        queue.put(np.full(size, i % 256, dtype="u1"))
        if numbers.random() < 0.5 or queue.qsize() > 20:
            kept += queue.get_many(numbers.randrange(1, 10))
        numbers.shuffle(kept)
        del kept[20:]
        for array in kept[:3]:
            assert (array == array[0]).all()
    assert queue.memory_size < 64 * MIB


def memories():
    """{inode: bytes that are there} of the memory of the queues of this process."""
    sizes = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "pyconc-queue" in os.readlink(f"/proc/self/fd/{fd}"):
                status = os.stat(f"/proc/self/fd/{fd}")
                sizes[status.st_ino] = status.st_blocks * 512
        except FileNotFoundError:
            pass
    return sizes


def test_a_backlog_arrives_and_its_memory_is_given_back():
    others = set(memories())
    queue = Queue()
    for i in range(100):
        queue.put(np.full(MIB, i % 256, dtype="u1"))
    for i in range(100):
        array = queue.get()
        assert array[0] == array[-1] == i % 256
    del array

    def resident():
        return max(size for inode, size in memories().items() if inode not in others)

    assert queue.memory_size > 100 * MIB
    deadline = time.monotonic() + 30
    while resident() > 80 * MIB and time.monotonic() < deadline:
        time.sleep(0.3)
        queue.put(1)
        queue.get()
    assert resident() <= 80 * MIB
    for _ in range(2):
        queue.put_many([np.full(MIB, i, dtype="u1") for i in range(100)])
        assert [array[77] for array in queue.get_many()] == list(range(100))


def hold(queue, pipe):
    array = queue.get()
    pipe.send(int(array[0]))
    time.sleep(60)


def test_the_memory_of_the_dead_is_used_again():
    context = multiprocessing.get_context("fork")
    queue = Queue()
    here, there = context.Pipe()
    sizes = []
    for i in range(12):
        child = context.Process(target=hold, args=(queue, there))
        child.start()
        queue.put(np.full(MIB, i))
        assert here.recv() == i
        child.kill()
        child.join()
        sizes.append(queue.memory_size)
    assert sizes[-1] <= 40 * MIB


def read_later(array, pipe):
    pipe.recv()
    pipe.send((int(array[0]), bool((array == array[0]).all())))


def test_a_forked_child_keeps_what_its_parent_lets_go():
    context = multiprocessing.get_context("fork")
    queue = Queue()
    queue.put(np.full(MIB, 5, dtype="u1"))
    array = queue.get()
    here, there = context.Pipe()
    child = context.Process(target=read_later, args=(array, there))
    child.start()
    del array
    gc.collect()
    for _ in range(10):
        queue.put(np.full(MIB, 9, dtype="u1"))
    here.send("now")
    assert here.recv() == (5, True)
    child.join()
    queue.get_many()
    size = queue.memory_size
    for _ in range(100):
        queue.put(np.full(MIB, 9, dtype="u1"))
        queue.get()
    assert queue.memory_size <= size + 2 * MIB


# A process takes a view, forks and ends, with the child in its fork still for `pause` seconds; the child reads the view
# after its memory could have been used again: "1" when it is as it was.
HEIR = """
    import os, pickle, signal, time
    PAUSE = 0
    os.register_at_fork(after_in_child=lambda: time.sleep(PAUSE))   # before pyconc's
    from pyconc.multiprocessing.queues import Queue

    SIZE = 1 << 20
    kept = Queue()      # from now on each process that is forked has a place

    class Buffer:
        def __init__(self, fill):
            self.data = fill * SIZE

        def __reduce_ex__(self, protocol):
            return memoryview, (pickle.PickleBuffer(self.data),)

    def heir_reads(pause):
        global PAUSE
        queue = Queue()
        queue.put(Buffer(b"a"))
        (begun, begins), (go, goes), (result, says) = os.pipe(), os.pipe(), os.pipe()
        owner = os.fork()
        if owner == 0:
            view = queue.get()
            PAUSE = pause
            if os.fork() == 0:
                os.write(begins, b"1")
                os.read(go, 1)
                os.write(says, b"1" if bytes(view) == b"a" * SIZE else b"0")
            elif not pause:
                os.read(begun, 1)
            os._exit(0)
        os.waitpid(owner, 0)
        for _ in range(12):
            queue.put(Buffer(b"b"))
        os.write(goes, b"1")
        return os.read(result, 1).decode()
"""


def heirs_read(program):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(HEIR) + textwrap.dedent(program)],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("others", range(40, 47))
def test_a_forked_child_has_what_its_dead_parent_had_whatever_its_place(others):
    """In the table of processes, of which the first ones have a bit each."""
    assert heirs_read(f"""
        others = [os.fork() or signal.pause() for _ in range({others})]
        print(heir_reads(0))
        for other in others:
            os.kill(other, signal.SIGKILL)
        """) == "1"


def test_a_forked_child_has_what_its_parent_had_who_died_at_once():
    assert heirs_read("print(heir_reads(1))") == "1"


def test_no_memory_is_an_error(tmp_path):
    """Under a limit of file sizes, which is met by what grows."""
    script = """
        import resource, signal
        from pyconc.multiprocessing.queues import Queue
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        queue = Queue()
        queue.put("before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            queue.put(bytes(8 << 20))
        except OSError as error:
            print(error)
        print(queue.get())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot grow" in done.stdout
    assert done.stdout.endswith("before\n")


GARBAGE = """
    import mmap, os, random, sys
    import numpy as np
    from pyconc.multiprocessing.queues import Queue
    numbers = random.Random(int(sys.argv[1]))
    queue = Queue()
    items = [1, b"abc" * 100, "text", (1, 2), b"x" * 100_000, np.zeros(50_000), [np.ones(10_000)] * 3] * 3
    queue.put_many(items)
    memory = mmap.mmap(queue.descriptors()[1], 0)
    for _ in range(numbers.choice([1, 5, 100, 5000])):
        at = numbers.randrange(len(memory) - 8)
        if numbers.random() < 0.7:
            at = at & ~7 if numbers.random() < 0.5 else numbers.randrange(2000)
        memory[at:at + 8] = numbers.choice([os.urandom(8), bytes(8), b"\\xff" * 8, b"\\1" + bytes(7)])
    for _ in range(100):
        try:
            numbers.choice([queue.get_nowait, lambda: queue.put(items[numbers.randrange(7)]),
                            lambda: queue.get_many(3, False), lambda: queue.put(b"y" * 200_000)])()
        except Exception as error:
            kinds = type(error).__name__
    print("alive")
"""


@pytest.mark.parametrize("seed", range(30))
def test_garbage_is_an_error_and_no_crash(seed):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(GARBAGE), str(seed)], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alive\n"


def test_a_corrupt_record_is_an_os_error():
    queue = Queue()
    queue.put(b"first")
    with mmap.mmap(queue.descriptors()[1], 0) as memory:
        at = memory.find(b"first")
        memory[at - 24:at] = b"\xff" * 24
    for get in (queue.get, queue.get_many):
        with pytest.raises(OSError, match="corrupt"):
            get()


def test_memory_that_can_shrink_is_refused():
    queue = Queue()
    block, pid, fd = queue.send()
    other = os.memfd_create("other")
    os.ftruncate(other, MIB)
    with pytest.raises(ValueError):
        Queue.receive((block, os.getpid(), other))
    os.close(other)
    assert Queue.receive((block, pid, fd)).qsize() == 0


def test_the_memory_is_private_to_the_user():
    queue = Queue()
    assert os.stat(f"/proc/self/fd/{queue.descriptors()[1]}").st_mode & 0o777 == 0o600


def test_a_memoryview_goes_as_a_pickle_buffer_only():
    queue = Queue()
    data = bytearray(range(256)) * 1000
    with pytest.raises(TypeError, match="memoryview"):
        queue.put(memoryview(data))
    queue.put(pickle.PickleBuffer(memoryview(data)[256:]))
    queue.put(pickle.PickleBuffer(memoryview(bytes(data)).toreadonly()))
    got, constant = memoryview(queue.get()), memoryview(queue.get())
    assert (got, constant) == (data[256:], data)
    assert (got.readonly, constant.readonly) == (False, True)
    got[0] = 7
    assert data[256] == 0


def test_ctypes_memory_and_memoryviews_of_an_array():
    queue = Queue()
    numbers = (ctypes.c_double * 20_000)(*range(20_000))
    queue.put(np.frombuffer(numbers))
    got = queue.get()
    assert memoryview(got)[19_999] == 19_999.0
    assert signal.getsignal(signal.SIGBUS) in (signal.SIG_DFL, None)
