"""Fixtures for every test: what a test leaves behind is counted here, in one way."""
import contextlib
import gc
import os
import signal
import sys
import threading
import time
import warnings

import pytest

LINES = pytest.StashKey[dict]()
SETTLES = 10    # seconds until what has not gone counts as left

# A shell starts a background job with SIGINT ignored, and so would the programs be that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for_exits():
    """GCC's AddressSanitizer lets a thread that ends keep the allocator's lock through a fork: the child would hang."""
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        known = {thread.native_id for thread in threading.enumerate()}
        if set(map(int, native_threads())) <= known:
            return
        time.sleep(0.001)


if "PYCONC_SANITIZE" in os.environ:
    os.register_at_fork(before=wait_for_exits)


def open_fds():
    """{descriptor: what it is} of this process."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass  # the one that listdir used
    return found


def native_threads():
    """Every thread of the process, those that no Python code started among them."""
    return set(os.listdir("/proc/self/task"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if {"no_leaked_objects", "flat_memory"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("leak")


@pytest.fixture(scope="module", autouse=True)
def small_collections():
    """Leaves what is alive before a module's tests to no further collection: each test collects garbage several times,
    and a look at all of pytest and of what was imported took most of the run."""
    gc.collect()
    gc.freeze()


def settled(count, before):
    """What `count` has now beyond `before`, once it holds still: a thread that was joined may still be in its exit."""
    deadline = time.monotonic() + SETTLES
    while True:
        gc.collect()
        left = {key: value for key, value in count().items() if before.get(key) != value}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


@pytest.fixture
def no_leaked_fds():
    """Fails a test that leaves a file descriptor open."""
    gc.collect()
    before = open_fds()
    yield
    left = settled(open_fds, before)
    assert not left, f"left open: {left}"


@pytest.fixture
def no_leaked_threads():
    """Fails a test that leaves a thread running, a native one or a Python one."""
    def now():
        return {**dict.fromkeys(native_threads(), "native"), **dict.fromkeys(threading.enumerate(), "Python")}

    before = now()
    yield
    left = settled(now, before)
    assert not left, f"left running: {left}"


@pytest.fixture
def no_leaked_objects():
    """check(operation, rounds=200): fails when each round of `operation` leaves memory blocks of Python behind.

    Counts sys.getallocatedblocks() (and references where Python counts them): one block or more a round is a leak,
    fewer are caches that fill. Freelists are warm after the first rounds, which do not count.
    """
    if sys.getallocatedblocks() == 0:
        pytest.skip("PYTHONMALLOC=malloc: Python does not count its blocks")

    def blocks():
        gc.collect()
        return sys.getallocatedblocks() + getattr(sys, "gettotalrefcount", int)()

    def check(operation, rounds=200):
        for _ in range(20):
            operation()
        # A leak is in each measurement; what other threads leave is in one, and a freelist that takes in one object a
        # round (CPython's hold up to 255) in some.
        for _ in range(max(3, 300 // rounds)):
            before = blocks()
            for _ in range(rounds):
                operation()
            left = blocks() - before
            if left < rounds:
                return
        raise AssertionError(f"{left} blocks left by {rounds} rounds")

    return check


@pytest.fixture
def flat_memory():
    """check(operation, rounds, kib=512): fails when `rounds` more rounds of `operation` grow the process by over `kib`.

    Sees what no_leaked_objects cannot: memory of malloc and of libraries. Resident memory, after as many rounds to
    warm up.
    """
    if "PYCONC_SANITIZE" in os.environ:
        pytest.skip("AddressSanitizer keeps what is freed")

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

    def check(operation, rounds, kib=512):
        for _ in range(rounds):
            operation()
        growth = []
        for _ in range(3):  # a leak grows each time, fragmentation once
            before = resident()
            for _ in range(rounds):
                operation()
            growth.append(resident() - before)
        assert min(growth) <= kib, f"grew by {growth} KiB in three times {rounds} rounds"

    return check


@pytest.fixture
def in_child():
    """in_child(function): what it returns in a forked child, as text, or its exception, likewise. It has a minute."""
    def run(function):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)     # of a process with threads, 3.12
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                os.close(reader)
                try:
                    text = str(function())
                except BaseException as error:
                    text = f"{type(error).__name__}: {error}"
                os.write(writer, text.encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with open(reader) as file:
            text = file.read()
        assert os.waitpid(pid, 0)[1] == 0, text
        return text

    return run


def wait_until_asleep(thread):
    """Returns once the thread sleeps where nobody but others' doing wakes it: it has got to what it waits for.

    Who waits for the GIL sleeps, too, but looks again every few milliseconds, which the kernel counts.
    """
    deadline, before = time.monotonic() + 30, None
    while True:
        with open(f"/proc/self/task/{thread.native_id}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        now = [status[name] for name in ("State", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")]
        if now == before and now[0].split()[0] == "S":
            return
        assert time.monotonic() < deadline, f"{thread} does not wait: {now}"
        before = now
        time.sleep(0.01)


@pytest.fixture
def asleep():
    """asleep(*threads): returns once each of them stands where it waits for others, however slow the machine is."""
    def asleep(*threads):
        for thread in threads:
            wait_until_asleep(thread)

    return asleep


@pytest.fixture
def meanwhile():
    """meanwhile(function, *args, **kwargs): a block; once it waits for something, another thread calls the function."""
    @contextlib.contextmanager
    def meanwhile(function, *args, **kwargs):
        blocked = threading.current_thread()
        helper = threading.Thread(target=lambda: (wait_until_asleep(blocked), function(*args, **kwargs)), daemon=True)
        helper.start()
        try:
            yield
        finally:
            helper.join(30)
            assert not helper.is_alive()

    return meanwhile


@pytest.fixture
def interrupted(meanwhile):
    """interrupted(block): calls block() in this thread and Ctrl-C while it waits; KeyboardInterrupt must come of it."""
    def interrupted(block):
        with meanwhile(signal.pthread_kill, threading.main_thread().ident, signal.SIGINT):
            with pytest.raises(KeyboardInterrupt):
                block()

    return interrupted


@pytest.fixture(scope="session")
def times():
    """times(count): how often to do what hits something else each time: `count`, or the part of it that
    PYCONC_TEST_PART says (0.2), where another interpreter does all of it."""
    part = float(os.environ.get("PYCONC_TEST_PART", 1))
    return lambda count: max(round(count * part), min(count, 5))


@pytest.fixture
def reached():
    """reached(attempt): calls attempt() until it says that it got to what is tested, which depends on the threads'
    order; one that never does, fails."""
    def reached(attempt):
        assert any(attempt() for _ in range(20)), "not reached in 20 attempts"

    return reached


class Crowd:
    """Threads that call a function of their number again and again until the block ends, or they are told to stop."""

    def __init__(self, function, count):
        self.over = threading.Event()
        self.failures = []
        self.threads = [threading.Thread(target=self._work, args=(function, number)) for number in range(count)]

    def _work(self, function, number):
        try:
            while not self.over.is_set():
                function(number)
        except BaseException as error:
            self.failures.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures


@pytest.fixture
def crowd():
    return Crowd


@pytest.fixture
def report(request):
    """report(section, line): a line for the end of the run."""
    sections = request.config.stash.setdefault(LINES, {})
    return lambda section, line: sections.setdefault(section, []).append(line)


def pytest_terminal_summary(terminalreporter, config):
    for section, lines in config.stash.get(LINES, {}).items():
        terminalreporter.section(section)
        for line in lines:
            terminalreporter.line(line)
