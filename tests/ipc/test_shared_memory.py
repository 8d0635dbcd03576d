"""SharedMemory beside the standard library's: the same memory, without its defects."""
import errno
import gc
import multiprocessing
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from multiprocessing import resource_tracker
from multiprocessing import shared_memory as standard
from pathlib import Path

import pytest

from pyconc.multiprocessing import shared_memory
from pyconc.multiprocessing.shared_memory import SharedMemory

STARTS = ["fork", "spawn", "forkserver"]
starts = pytest.mark.parametrize("start", STARTS)
modules = [pytest.param(standard, id="standard"), pytest.param(shared_memory, id="pyconc")]


@pytest.fixture
def memory():
    """4096 bytes, whose name goes afterwards if it is still there."""
    memory = SharedMemory(create=True, size=4096)
    yield memory
    memory.close()
    if path_of(memory).exists():
        memory.unlink()


def path_of(memory):
    return Path("/dev/shm", memory.name)


def python(program, *args, **kwargs):
    """Runs a program of its own, with a resource tracker of its own."""
    return subprocess.run([sys.executable, "-c", textwrap.dedent(program), *args], capture_output=True, text=True,
                          timeout=60, **kwargs)


def test_creation():
    memory = SharedMemory(create=True, size=10)
    try:
        assert memory.size == len(memory.buf) == 10
        assert memory.name.startswith("psm_") and "/" not in memory.name
        assert path_of(memory).stat().st_size == 10
        assert stat.S_IMODE(path_of(memory).stat().st_mode) == 0o600
        assert repr(memory) == f"SharedMemory({memory.name!r}, size=10)"
        assert bytes(memory.buf) == b"\0" * 10
        memory.buf[:5] = b"hello"
        assert bytes(memory.buf) == b"hello" + b"\0" * 5
    finally:
        memory.close()
        memory.unlink()
    assert memory.buf is None
    assert not path_of(memory).exists()


def test_names_cannot_be_guessed():
    names = {shared_memory._make_filename() for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) == len("/psm_") + 32 for name in names)


@pytest.mark.parametrize("bad", [{"size": -1}, {"create": True, "size": -5}, {"create": True},
                                 {"create": True, "size": 0}, {}, {"name": None, "create": False}])
def test_bad_arguments_are_refused_as_the_standard_ones(bad):
    with pytest.raises(ValueError) as theirs:
        standard.SharedMemory(**bad)
    with pytest.raises(ValueError, match=str(theirs.value).split(",")[0].replace("(", r"\(")):
        SharedMemory(**bad)


def test_a_null_in_a_name(memory):
    for create in (True, False):
        with pytest.raises(ValueError, match="embedded null"):
            SharedMemory(memory.name + "\0a", create=create, size=10)
    name = memory._name
    memory._name += "\0a"
    with pytest.raises(ValueError, match="embedded null"):
        memory.unlink()
    memory._name = name


def test_names_that_are_taken_or_missing(memory):
    with pytest.raises(FileExistsError):
        SharedMemory(memory.name, create=True, size=10)
    assert path_of(memory).stat().st_size == 4096
    with pytest.raises(FileNotFoundError):
        SharedMemory("psm_nobody_has_this")
    memory.unlink()
    with pytest.raises(FileNotFoundError):
        memory.unlink()


@pytest.mark.parametrize("attacher", modules)
@pytest.mark.parametrize("creator", modules)
def test_either_side_may_be_the_standard_librarys(creator, attacher):
    created = creator.SharedMemory(create=True, size=8)
    try:
        attached = attacher.SharedMemory(created.name)
        assert attached.size == created.size == 8
        created.buf[0] = 1
        attached.buf[1] = 2
        assert bytes(attached.buf[:2]) == bytes(created.buf[:2]) == b"\1\2"
        attached.close()
    finally:
        created.close()
        created.unlink()


def test_a_size_is_of_no_account_when_attaching(memory):
    attached = SharedMemory(memory.name, size=100_000)
    assert attached.size == 4096
    attached.close()


def test_memory_without_a_size_is_refused():
    path = Path(f"/dev/shm/psm_pyconc_{os.getpid()}")
    path.touch()
    try:
        with pytest.raises(ValueError, match="empty"):
            SharedMemory(path.name)
        assert path.exists()    # who could not attach does not remove it
    finally:
        path.unlink()


def test_a_class_of_ones_own(memory):
    class Optional(SharedMemory):
        _flags = os.O_CREAT | os.O_RDWR

    attached = Optional(memory.name)
    assert attached.size == 4096
    attached.close()


def test_pickles(memory):
    memory.buf[:3] = b"abc"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        other = pickle.loads(pickle.dumps(memory, protocol))
        assert bytes(other.buf[:3]) == b"abc"
        assert other.size == memory.size
        other.close()
    sent = pickle.dumps(memory)
    memory.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(sent)


def write(memory, text):
    if isinstance(memory, str):
        memory = SharedMemory(memory)
    memory.buf[:len(text)] = text
    memory.close()


@starts
def test_a_child_gets_it_as_an_argument_or_by_name(start, memory):
    for argument, text in ((memory, b"first"), (memory.name, b"again")):
        child = multiprocessing.get_context(start).Process(target=write, args=(argument, text))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert bytes(memory.buf[:5]) == text
        assert path_of(memory).exists()


def test_it_needs_no_descriptor(memory):
    files = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert path_of(memory) not in files


# Views.

def test_close_with_views_changes_nothing(memory):
    view = memory.buf[10:20]
    for _ in range(2):
        with pytest.raises(BufferError, match=f"{memory.name}.*cannot be closed.*views"):
            memory.close()
        memory.buf[10] = 5
        assert view[0] == 5
    view.release()
    memory.close()
    memory.close()
    assert memory.buf is None


def test_close_with_a_view_of_buf_itself(memory):
    numpy = pytest.importorskip("numpy")
    array = numpy.frombuffer(memory.buf, numpy.uint8)
    with pytest.raises(BufferError, match="numpy"):
        memory.close()
    memory.buf[0] = 9
    assert array[0] == 9
    del array
    memory.close()


def test_an_array_without_a_buffer_keeps_the_memory():
    """numpy.ndarray(buffer=) holds a reference and no Py_buffer: nobody can know of it."""
    numpy = pytest.importorskip("numpy")
    memory = SharedMemory(create=True, size=4096)
    array = numpy.ndarray((4096,), numpy.uint8, buffer=memory.buf)
    array[:] = 7
    memory.close()
    memory.unlink()
    assert array.sum() == 7 * 4096
    array[0] = 1
    assert array[0] == 1


def test_one_that_is_forgotten_with_views_says_nothing(capfd):
    memory = SharedMemory(create=True, size=4096)
    view = memory.buf[:10]
    memory.unlink()
    view[0] = 3
    del memory
    gc.collect()
    assert view[0] == 3
    assert capfd.readouterr().err == ""


def test_the_memory_goes_with_close(memory):
    inode = path_of(memory).stat().st_ino

    def mapped():
        return f" {inode} " in Path("/proc/self/maps").read_text()

    assert mapped()
    memory.close()
    assert not mapped()


# Its name.

def links_of(memory):
    return os.stat(memory._fd).st_nlink


def test_it_has_a_name_when_somebody_asks():
    memory = SharedMemory(create=True, size=10)
    memory.buf[0] = 5
    assert links_of(memory) == 0
    memory.close()
    assert path_of(memory).exists()     # it is there, though closed, until it is unlinked
    other = SharedMemory(memory.name)
    assert other.buf[0] == 5
    other.close()
    memory.unlink()
    assert not path_of(memory).exists()


def test_it_may_never_have_one():
    memory = SharedMemory(create=True, size=10)
    memory.unlink()
    memory.buf[0] = 5
    assert memory.name.startswith("psm_")
    with pytest.raises(FileNotFoundError):
        SharedMemory(memory.name)
    with pytest.raises(FileNotFoundError):
        memory.unlink()
    memory.close()


def test_threads_agree_on_it():
    memory = SharedMemory(create=True, size=10)
    names = set()
    threads = [threading.Thread(target=lambda: names.add(memory.name)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 1
    memory.close()
    memory.unlink()


def test_parent_and_child_agree_on_it():
    memory = SharedMemory(create=True, size=10)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=lambda: there.send(memory.name))
    child.start()
    assert here.recv() == memory.name
    child.join()
    memory.close()
    memory.unlink()


def test_a_fork_while_it_is_created():
    class Interrupted(SharedMemory):
        def _map(self, fd, size):
            child = os.fork()   # as another thread might
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            return super()._map(fd, size)

    memory = Interrupted(create=True, size=10)
    memory.buf[0] = 5
    assert links_of(memory) == 0
    memory.close()
    memory.unlink()


def test_a_fork_names_none_that_another_thread_drops():
    memory = SharedMemory(create=True, size=10)
    memory.__del__()        # it is not gone from the set of those without a name yet
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_memory, "_tell_tracker", lambda *words: told.append(words))
        shared_memory._before_fork()
        shared_memory._after_fork_in_parent()
    assert told == []
    assert memory._path is None


def test_the_tracker_forgets_a_name_that_could_not_be_given(monkeypatch):
    memory = SharedMemory(create=True, size=10)
    told = []

    def link(*args, **kwargs):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(shared_memory, "_tell_tracker", lambda command, name: told.append((command, name)))
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(PermissionError):
        memory.name  # noqa: B018
    (first, name), (second, same) = told
    assert (first, second) == ("REGISTER", "UNREGISTER") and name == same
    memory.close()
    memory.unlink()
    assert len(told) == 2


def test_where_memory_cannot_be_without_one(monkeypatch):
    monkeypatch.setattr(os, "O_TMPFILE", 1 << 30)
    memory = SharedMemory(create=True, size=10)
    assert os.path.exists("/dev/shm" + memory._path)
    free = f"psm_pyconc_{os.getpid()}"
    monkeypatch.setattr(shared_memory, "_make_filename", iter([memory._path, "/" + free]).__next__)
    other = SharedMemory(create=True, size=10)
    assert other.name == free
    for one in (memory, other):
        one.close()
        one.unlink()


def test_a_name_that_is_taken(monkeypatch, memory):
    free = f"psm_pyconc_{os.getpid()}"
    monkeypatch.setattr(shared_memory, "_make_filename", iter([memory._name, "/" + free]).__next__)
    other = SharedMemory(create=True, size=10)
    assert other.name == free
    other.close()
    other.unlink()


# The resource tracker.

CREATE = """
    import sys
    from pyconc.multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=10)
    print(memory.name, flush=True)
    """


@pytest.mark.parametrize("end", ["", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_is_not_unlinked_goes_with_the_program(end):
    done = python(CREATE + end)
    name = done.stdout.strip()
    assert name.startswith("psm_")
    # stderr is at its end when the tracker has done its work.
    assert "There appear to be 1 leaked shared_memory objects to clean up at shutdown" in done.stderr
    assert not Path("/dev/shm", name).exists()


def test_what_is_unlinked_goes_quietly():
    done = python(CREATE + "memory.close(); memory.unlink()")
    assert (done.returncode, done.stderr) == (0, "")


def test_untracked_memory_stays():
    done = python(CREATE.replace("size=10", "size=10, track=False"))
    assert (done.returncode, done.stderr) == (0, "")
    memory = SharedMemory(done.stdout.strip())
    memory.unlink()
    memory.close()


def test_who_attaches_may_come_and_go(memory):
    done = python("""
        import sys
        from pyconc.multiprocessing.shared_memory import SharedMemory
        memory = SharedMemory(sys.argv[1])
        memory.buf[0] = 5
        """, memory.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert memory.buf[0] == 5
    SharedMemory(memory.name).close()


def test_who_attaches_and_tracks_takes_it_along(memory):
    done = python("""
        import sys
        from pyconc.multiprocessing.shared_memory import SharedMemory
        memory = SharedMemory(sys.argv[1], track=True)
        """, memory.name)
    assert "1 leaked shared_memory" in done.stderr
    assert not path_of(memory).exists()
    resource_tracker.unregister("/" + memory.name, "shared_memory")


UNLINK = """
    import multiprocessing, sys
    from pyconc.multiprocessing.shared_memory import SharedMemory

    def unlink(name):
        memory = SharedMemory(name)
        memory.close()
        memory.unlink()

    if __name__ == "__main__":
        memory = SharedMemory(create=True, size=10)
        child = multiprocessing.get_context(sys.argv[1]).Process(target=unlink, args=(memory.name,))
        child.start()
        child.join()
        assert child.exitcode == 0
    """


@starts
def test_a_child_may_unlink(start, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(UNLINK))
    done = subprocess.run([sys.executable, program, start], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unrelated_process_may_unlink(memory):
    done = python("""
        import sys
        from pyconc.multiprocessing.shared_memory import SharedMemory
        other = SharedMemory(create=True, size=5)
        assert other.name       # its tracker runs
        memory = SharedMemory(sys.argv[1])
        memory.close()
        memory.unlink()
        other.close()
        other.unlink()
        """, memory.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert not path_of(memory).exists()
    resource_tracker.unregister("/" + memory.name, "shared_memory")


def test_a_tracker_that_died_is_started_again():
    done = python("""
        import os, signal, warnings
        from multiprocessing import resource_tracker
        from pyconc.multiprocessing.shared_memory import SharedMemory
        warnings.simplefilter("ignore")
        first = SharedMemory(create=True, size=10)
        assert first.name
        os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
        os.waitid(os.P_PID, resource_tracker._resource_tracker._pid, os.WEXITED | os.WNOWAIT)
        second = SharedMemory(create=True, size=10)
        assert second.name
        second.close()
        second.unlink()
        first.close()
        os.unlink("/dev/shm/" + first.name)
        """)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["psm_pyconc_ü", "psm_pyconc_a:b"])
def test_names_the_tracker_may_not_like(name):
    """Which ones depends on the release; what is refused leaves nothing behind."""
    track = False if ":" in name and sys.version_info < (3, 14) else None   # up to then it would stumble over it
    try:
        memory = SharedMemory(name, create=True, size=10, track=track)
    except (UnicodeEncodeError, ValueError):
        assert not os.path.exists(f"/dev/shm/{name}")
        memory = SharedMemory(name, create=True, size=10, track=False)
    assert memory.name == name
    memory.close()
    memory.unlink()


# Where there is little memory, or no /dev/shm.

def in_namespace(setup, program):
    """A program with a file system of its own, as far as this system allows."""
    prefix = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    if subprocess.run([*prefix, f"{setup} && exit 0"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces here")
    return subprocess.run([*prefix, f'{setup} && exec "$@"', "sh", sys.executable, "-c", textwrap.dedent(program)],
                          capture_output=True, text=True, timeout=60)


SMALL = "mount -t tmpfs -o size=4m tmpfs /dev/shm"
GONE = "mount -t tmpfs tmpfs /dev"


def test_a_lack_of_memory_is_an_error_at_creation():
    done = in_namespace(SMALL, """
        import errno, os
        from pyconc.multiprocessing.shared_memory import SharedMemory
        for _ in range(3):
            try:
                SharedMemory(create=True, size=8 << 20)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                assert "/dev/shm has no room for 8388608 bytes" in str(error), error
            else:
                raise AssertionError
        assert os.listdir("/dev/shm") == []
        memory = SharedMemory(create=True, size=3 << 20)
        memory.buf[:] = bytes([1]) * len(memory.buf)
        memory.close()
        memory.unlink()
        """)
    assert (done.returncode, done.stderr) == (0, "")


def test_more_than_the_machine_has_is_an_error_at_once():
    """Not when all of it has been given out and the kernel kills somebody: /dev/shm may be larger than that."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent("""
        import errno, os, resource
        from pyconc.multiprocessing.shared_memory import SharedMemory
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))     # if it is tried all the same
        name = f"pyconc_test_{os.getpid()}"
        for size in (1 << 50, 1 << 62, (1 << 63) - 1):
            for given in (None, name):
                try:
                    SharedMemory(given, create=True, size=size)
                except OSError as error:
                    assert error.errno == errno.ENOMEM, error
                    assert f"no shared memory of {size} bytes" in str(error), error
                else:
                    raise AssertionError
        assert not os.path.exists(f"/dev/shm/{name}")
        """)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_dev_shm():
    done = in_namespace(GONE, """
        from pyconc.multiprocessing.shared_memory import SharedMemory
        from pyconc.multiprocessing.sharedctypes import Value
        for name in (None, "psm_given"):
            try:
                SharedMemory(name, create=True, size=10)
            except OSError as error:
                assert "/dev/shm" in str(error), error
            else:
                raise AssertionError
        Value("i", 5).value += 1
        """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_does_not_keep_large_memory_from_being_created():
    before = signal.signal(signal.SIGALRM, lambda *args: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        memory = SharedMemory(create=True, size=64 << 20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert path_of(memory).stat().st_blocks * 512 >= 64 << 20
    memory.close()
    memory.unlink()


def test_an_interrupted_creation_leaves_nothing():
    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        with pytest.raises((Stop, OSError)) as raised:
            while True:
                memory = SharedMemory(create=True, size=64 << 20)
                memory.unlink()
                memory.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised.type is Stop or raised.value.errno == errno.ENOSPC
