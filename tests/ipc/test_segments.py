"""Memory that processes share: it arrives everywhere, stays as long as somebody has it, and no longer."""
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from pyconc import _ipc
from pyconc.multiprocessing import handover
from pyconc.multiprocessing.queues import Queue

STARTS = ["fork", "spawn", "forkserver"]


def memfds():
    """What this process has open of shared memory."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if "memfd:pyconc" in target:
            found.append(target)
    return found


def put(segment, text):
    memoryview(segment)[:len(text)] = text


def got(segment, length):
    return bytes(memoryview(segment)[:length])


def answer(segment, pipe):
    pipe.send(got(segment, 5))
    put(segment, b"there")


@pytest.mark.parametrize("start", STARTS)
def test_a_child_gets_it_as_an_argument(start):
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    segment = _ipc.Segment(100_000)
    put(segment, b"hello")
    child = context.Process(target=answer, args=(segment, there))
    child.start()
    assert here.recv() == b"hello"
    child.join()
    assert child.exitcode == 0
    assert got(segment, 5) == b"there"


def receive_and_answer(pipe):
    answer(pipe.recv(), pipe)


@pytest.mark.parametrize("start", STARTS)
def test_it_is_sent_at_any_time(start):
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=receive_and_answer, args=(there,))
    child.start()
    segment = _ipc.Segment(100_000)
    put(segment, b"hello")
    here.send(segment)
    assert here.recv() == b"hello"
    child.join()
    assert got(segment, 5) == b"there"


def send_one(pipe):
    segment = _ipc.Segment(50_000)
    put(segment, b"child")
    pipe.send(segment)
    del segment
    gc.collect()
    pipe.send("dropped")
    pipe.recv()


@pytest.mark.parametrize("start", STARTS)
def test_what_is_on_its_way_stays(start):
    """The sender lets go of it before anybody has received it."""
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=send_one, args=(there,))
    child.start()
    pickled = here.recv_bytes()
    assert here.recv() == "dropped"
    segment = pickle.loads(pickled)
    assert got(segment, 5) == b"child"
    here.send("enough")
    child.join()
    assert got(segment, 5) == b"child"


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:pyconc" in line and "arena" not in line for line in maps)


def test_the_memory_goes_with_the_last_object():
    before = len(memfds())
    segment = _ipc.Segment(4096)
    same = _ipc.Segment.receive(segment.send())
    put(segment, b"one")
    assert got(same, 3) == b"one"
    assert len(memfds()) >= before + 1
    del segment, same
    gc.collect()
    assert len(memfds()) <= max(before, 1)


@pytest.mark.parametrize("kind", [_ipc.Segment, _ipc.Queue])
def test_what_arrives_again_is_the_object_that_is_here(kind):
    shared = kind(4096)
    pickled = [pickle.dumps(shared) for _ in range(3)]
    before = mappings()
    assert all(pickle.loads(one) is shared for one in pickled)
    assert mappings() == before
    # Each pickle has arrived, so that nothing is kept for one.
    gone = shared.send()
    kind.receive(gone)
    del shared
    gc.collect()
    assert mappings() < before
    with pytest.raises(FileNotFoundError):
        kind.receive(gone)
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickled[0])


def answer_with_what_arrives(pipe):
    """What it received first, as a pickle, and whether the others are the same object."""
    first = pipe.recv()
    pipe.send(first)
    pipe.send(all(pipe.recv() is first for _ in range(3)))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", [_ipc.Segment, _ipc.Queue])
def test_it_is_one_object_in_each_process(start, kind):
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=answer_with_what_arrives, args=(there,))
    child.start()
    shared = kind(4096)
    here.send(shared)
    assert here.recv() is shared
    for _ in range(3):
        here.send(shared)
    assert here.recv() is True
    child.join(60)
    assert child.exitcode == 0


def test_a_forked_child_knows_its_own():
    segment = _ipc.Segment(4096)
    pickled = pickle.dumps(segment)
    pid = os.fork()
    if pid == 0:
        same = pickle.loads(pickled) is segment
        put(segment, b"child")
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert got(segment, 5) == b"child"


def test_threads_receive_while_the_last_object_goes():
    """Each finds it there or makes another one; none finds one that is going."""
    keeper = _ipc.Segment(4096)
    put(keeper, b"still")
    failures = []

    def receive():
        try:
            for _ in range(300):
                one = handover.receive(_ipc.Segment, keeper.send(), None)
                assert got(one, 5) == b"still"
        except BaseException as error:
            failures.append(error)

    assert keeper not in handover._known.values()
    threads = [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_a_child_that_has_it_already_keeps_no_descriptor():
    """As one that gets it as an argument of a nested pickle, too."""
    segment = _ipc.Segment(4096)
    pickle.dumps(segment)
    block, _, fd = segment.send()
    before = open_files()
    assert handover.receive(_ipc.Segment, (block, 0, os.dup(fd)), None) is segment
    assert handover.receive(_ipc.Segment, (block, 0, fd), None) is segment
    assert open_files() == before


def test_a_view_keeps_it():
    segment = _ipc.Segment(4096)
    view = memoryview(segment)
    del segment
    gc.collect()
    view[0] = 1
    assert view[0] == 1


@pytest.mark.parametrize("start", STARTS)
def test_what_a_killed_process_held_is_used_again(start, tmp_path):
    """A round of 50 objects, each held by a child that is killed, does not need more memory than one."""
    program = textwrap.dedent(f"""
        import multiprocessing, signal, os
        from pyconc import _ipc

        def wait_for_ever(segments, pipe):
            pipe.send(len(segments))
            signal.pause()

        def arenas():
            with open("/proc/self/maps") as maps:
                return sum("memfd:pyconc-arena" in line for line in maps)

        if __name__ == "__main__":
            context = multiprocessing.get_context({start!r})
            for _ in range({60 if start == "fork" else 6}):
                here, there = context.Pipe()
                segments = [_ipc.Segment(1) for _ in range(100)]
                child = context.Process(target=wait_for_ever, args=(segments, there))
                child.start()
                assert here.recv() == 100
                os.kill(child.pid, signal.SIGKILL)
                child.join()
                del segments
            print(arenas())
    """)
    file = tmp_path / "program.py"
    file.write_text(program)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 1


def test_a_forked_child_keeps_what_its_parent_drops():
    segment = _ipc.Segment(4096)
    place = segment.send()[0][3:]
    handover.receive(_ipc.Segment, pickle.loads(pickle.dumps(segment.send())), None)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0 if got(segment, 4) == b"kept" else 1)
    put(segment, b"kept")
    del segment
    gc.collect()
    others = [_ipc.Segment(4096) for _ in range(200)]
    for other in others:
        put(other, b"lost")
    assert place not in [other.send()[0][3:] for other in others]
    os.write(write, b"x")
    _, status = os.waitpid(pid, 0)
    os.close(read), os.close(write)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("size", [0, -1])
def test_no_size(size):
    with pytest.raises(ValueError, match=str(size)):
        _ipc.Segment(size)


def test_too_large():
    with pytest.raises(OSError, match="shared memory of 1152921504606846976 bytes"):
        _ipc.Segment(1 << 60)


@pytest.mark.parametrize("sent", [None, (), (1, 2, 3), ((b"x" * 16, 1, 2, 3, 4), 0), "text"])
def test_what_was_not_sent(sent):
    with pytest.raises((TypeError, ValueError)):
        _ipc.Segment.receive(sent)


def open_files():
    return {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")}


def test_what_fails_closes_no_descriptor_and_leaves_none():
    segment = _ipc.Segment(4096)
    block, pid, fd = segment.send()
    before = open_files()
    for wrong in [((b"?" * 16, *block[1:]), pid, fd), ((*block[:3], 0, 1), pid, fd), (block, pid, 1 << 20),
                  (block, 1, 2), (block, pid, 0)]:
        with pytest.raises((OSError, ValueError)):
            _ipc.Segment.receive(wrong)
    with pytest.raises(OSError):
        _ipc.Segment(1 << 60)
    assert open_files() == before


@pytest.mark.parametrize("kind", [_ipc.Segment, _ipc.Queue])
def test_a_descriptor_that_was_given_is_closed_when_there_is_nothing_to_receive(kind):
    """A spawned child whose parent let go of the object meanwhile."""
    shared = kind(4096)
    block, _, fd = shared.send()
    before = open_files()
    wrong_place, wrong_arena = (*block[:3], 0, 1), (b"?" * 16, 0, *block[2:])
    for wrong in [(*block[:4], block[4] + 1), wrong_place, wrong_arena]:
        with pytest.raises((FileNotFoundError, ValueError)):
            kind.receive((wrong, 0, os.dup(fd)))
    with pytest.raises(ValueError, match="no shared memory"):
        kind.receive((block, 0, os.open(os.devnull, os.O_RDWR)))
    assert open_files() == before
    # None of them has counted as arrived.
    assert isinstance(kind.receive((block, 0, os.dup(fd))), kind)


def test_a_tuple_that_points_elsewhere():
    segment = _ipc.Segment(4096)
    (cookie, pid, fd, offset, generation), *rest = segment.send()
    for wrong in (offset + 64, 0, 4096, 1 << 31):
        with pytest.raises(ValueError, match="no shared object"):
            _ipc.Segment.receive(((cookie, pid, fd, wrong, generation), *rest))
    with pytest.raises(FileNotFoundError):
        _ipc.Segment.receive(((cookie, pid, fd, offset, generation + 1), *rest))
    with pytest.raises((OSError, ValueError)):
        _ipc.Segment.receive(((b"?" * 16, pid, 0, offset, generation), *rest))


def test_a_file_that_can_shrink_is_refused():
    fd = os.memfd_create("mine")
    os.ftruncate(fd, 1 << 20)
    with pytest.raises(ValueError, match="no shared memory"):
        _ipc.adopt(fd)


def test_in_a_subinterpreter():
    program = "from pyconc import _ipc\nsegment = _ipc.Segment(10)\nmemoryview(segment)[0] = 1"
    interpreters = pytest.importorskip("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
    one = interpreters.create()
    try:
        assert not interpreters.run_string(one, program)
    finally:
        interpreters.destroy(one)


@pytest.mark.parametrize("use", [lambda: _ipc.Segment(64 << 20), lambda: Queue().put(bytes(64 << 20))],
                         ids=["segment", "queue"])
def test_signals_do_not_keep_large_memory_from_being_made(use):
    """Before Linux 6.17 each one undoes what is being made."""
    before = signal.signal(signal.SIGALRM, lambda *args: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        use()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
