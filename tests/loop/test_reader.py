"""add_reader and add_writer, on descriptors in every state: whatever happens to one, the process lives."""
import asyncio
import contextvars
import errno
import gc
import os
import resource
import socket
import tempfile
import threading
import weakref

import pytest

import pyconc


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def wait():
    """wait(loop, true): runs it for a few milliseconds, again and again until true() if that is given."""
    def run(loop, true=None):
        for _ in range(2000):
            # From within: a timer that is due before the first poll would stop the loop too early.
            loop.call_soon(loop.call_later, 0.005, loop.stop)
            loop.run_forever()
            if true is None or true():
                return
        pytest.fail("waited in vain")
    return run


def test_reader(either, pair, wait):
    ours, theirs = pair
    seen = []

    def read(*args):
        seen.append((ours.recv(100), *args))

    assert either.add_reader(ours, read, 1, 2) is None
    wait(either)
    assert seen == []
    theirs.send(b"first")
    wait(either)
    theirs.send(b"second")
    wait(either)
    assert seen == [(b"first", 1, 2), (b"second", 1, 2)]
    assert either.remove_reader(ours) is True
    assert either.remove_reader(ours) is False
    theirs.send(b"third")
    wait(either)
    assert len(seen) == 2


def test_writer(either, pair, wait):
    ours, _ = pair
    seen = []

    def write():
        seen.append("writable")
        assert either.remove_writer(ours) is True

    assert either.add_writer(ours, write) is None
    wait(either)
    assert seen == ["writable"]
    assert either.remove_writer(ours) is False


def test_both_on_one_descriptor(either, pair, wait):
    ours, theirs = pair
    seen = []

    def read():
        seen.append(ours.recv(100))
        either.add_writer(ours.fileno(), write)

    def write():
        seen.append("writable")
        either.remove_writer(ours.fileno())

    either.add_reader(ours.fileno(), read)
    either.add_writer(ours.fileno(), write)
    wait(either)
    theirs.send(b"x")
    wait(either, lambda: len(seen) == 3)
    assert seen == ["writable", b"x", "writable"]
    either.remove_reader(ours)


def test_reader_that_does_not_read_is_called_again(either, pair):
    ours, theirs = pair
    calls = []

    def read():
        calls.append(1)
        if len(calls) == 5:
            either.remove_reader(ours)
            either.stop()

    theirs.send(b"x")
    either.add_reader(ours, read)
    either.run_forever()
    assert len(calls) == 5


def test_replacing_cancels_the_old(either, pair, wait):
    ours, theirs = pair
    seen = []
    old = either._add_reader(ours.fileno(), seen.append, "old")
    new = either._add_reader(ours.fileno(), lambda: seen.append(ours.recv(10)))
    theirs.send(b"new")
    wait(either)
    assert seen == [b"new"]
    assert old.cancelled() and not new.cancelled()
    either.remove_reader(ours)
    assert new.cancelled()


def test_file_objects_and_numbers(either, pair):
    ours, _ = pair

    class File:
        def fileno(self):
            return ours.fileno()

    for one in (ours, ours.fileno(), File()):
        either.add_reader(one, print)
        assert either.remove_reader(ours.fileno()) is True


@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
@pytest.mark.parametrize("fd", [-1, "x", None, object(), 1.5])
def test_no_descriptor(either, method, fd):
    args = (print,) if method.startswith("add") else ()
    with pytest.raises(ValueError, match="nvalid file"):
        getattr(either, method)(fd, *args)


def test_broken_fileno(loop):
    class File:
        def fileno(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.add_reader(File(), print)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_wrong_arguments(either, pair, method):
    for args in ((), (pair[0],)):
        with pytest.raises(TypeError):
            getattr(either, method)(*args)
    with pytest.raises(TypeError):
        getattr(either, method)(pair[0], print, context=None)


def test_by_name(either, pair, wait):
    ours, theirs = pair
    either.add_reader(fd=ours, callback=lambda: ours.recv(10))
    either.add_writer(callback=print, fd=ours)
    assert either.remove_writer(fd=ours) is True
    assert either.remove_reader(fd=ours) is True


def test_closed_descriptor(either):
    number = os.dup(0)
    os.close(number)
    with pytest.raises(OSError) as raised:
        either.add_reader(number, print)
    assert raised.value.errno == errno.EBADF
    assert either.remove_reader(number) is False


@pytest.mark.parametrize("number", [1 << 20, 1 << 28, 2 ** 31 - 1])
def test_huge_descriptor(loop, number):
    """No table of that size is made for a descriptor that is not open."""
    with pytest.raises(OSError) as raised:
        loop.add_reader(number, print)
    assert raised.value.errno == errno.EBADF
    assert loop.remove_reader(number) is False


@pytest.mark.parametrize("number", [2 ** 31, 2 ** 64, -2 ** 40])
def test_descriptor_out_of_range(loop, number):
    with pytest.raises((OverflowError, ValueError)):
        loop.add_reader(number, print)


def test_regular_file(either):
    with tempfile.TemporaryFile() as file:
        with pytest.raises(PermissionError):
            either.add_reader(file, print)
        with pytest.raises(PermissionError):
            either.add_writer(file.fileno(), print)
        assert either.remove_reader(file) is False


def test_closed_before_the_first_poll(loop, wait):
    """libuv would abort: it registers descriptors when it polls."""
    wait(loop)      # which opens the descriptors of the loop itself
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print, "never")
    number = ours.fileno()
    ours.close()
    theirs.close()
    wait(loop)
    assert loop.remove_reader(number) is True


def test_turned_into_a_regular_file_before_the_first_poll(loop, wait):
    wait(loop)      # which opens the descriptors of the loop itself
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print, "never")
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), ours.fileno())
        wait(loop)
        assert loop.remove_reader(ours) is True
        with pytest.raises(PermissionError):
            loop.add_reader(ours, print)
    ours.close()
    theirs.close()


def test_closed_while_watched(either, wait):
    either.run_until_complete(asyncio.sleep(0.1))   # what the loop opens to sleep has its number before
    ours, theirs = socket.socketpair()
    either.add_reader(ours, print, "never")
    wait(either)
    number = ours.fileno()
    ours.close()
    wait(either)
    assert either.remove_reader(number) is True
    theirs.close()


def test_closed_while_watched_then_changed(loop, wait):
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print, "never")
    wait(loop)
    number = ours.fileno()
    ours.close()
    loop.add_writer(number, print)      # asyncio: an OSError; here the next poll finds out
    wait(loop)
    loop.remove_reader(number)
    loop.remove_writer(number)
    theirs.close()


def test_reused_without_remove(loop, wait):
    """A descriptor that was closed while watched, and another one that got its number."""
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print, "never")
    wait(loop)
    number = ours.fileno()
    new_ours, new_theirs = socket.socketpair()
    os.dup2(new_ours.fileno(), number)      # closes the old one
    seen = []
    loop.add_reader(number, lambda: seen.append(os.read(number, 10)))
    new_theirs.send(b"new")
    wait(loop)
    assert seen == [b"new"]
    assert loop.remove_reader(number) is True
    for one in (ours, theirs, new_ours, new_theirs):
        one.close()


def test_reused_after_remove(either, wait):
    """The usual order of things, often: the same number again and again."""
    for turn in range(50):
        ours, theirs = socket.socketpair()
        seen = []
        either.add_reader(ours, lambda seen=seen, ours=ours: seen.append(ours.recv(10)))
        theirs.send(b"x")
        if turn % 3:
            wait(either)
            assert seen == [b"x"]
        either.remove_reader(ours)
        ours.close()
        theirs.close()


def test_reused_by_a_regular_file(loop, wait):
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print, "never")
    wait(loop)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), ours.fileno())
        with pytest.raises(PermissionError):
            loop.add_reader(ours, print)
        wait(loop)
        assert loop.remove_reader(ours) is True
    ours.close()
    theirs.close()


def test_peer_closes(either):
    ours, theirs = socket.socketpair()
    theirs.close()
    either.add_reader(ours, either.stop)
    either.run_forever()
    assert ours.recv(10) == b""
    either.remove_reader(ours)
    ours.close()


def test_pipe_ends(either, wait):
    """The end of the other side: readable for a reader, writable for a writer."""
    seen = []
    read, write = os.pipe()
    os.close(write)
    either.add_reader(read, lambda: (seen.append("read"), either.remove_reader(read)))
    wait(either)
    os.close(read)
    read, write = os.pipe()
    os.close(read)
    either.add_writer(write, lambda: (seen.append("write"), either.remove_writer(write)))
    wait(either)
    os.close(write)
    assert seen == ["read", "write"]


def test_error_of_a_refused_connection(either):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
    with socket.socket() as client:
        client.setblocking(False)
        try:
            client.connect(address)
        except BlockingIOError:
            either.add_writer(client, either.stop)
            either.run_forever()
            either.remove_writer(client)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        except ConnectionRefusedError:
            pass


def test_a_failing_callback_is_reported_and_stays(either, errors, pair):
    ours, theirs = pair
    calls = []

    def fail():
        calls.append(1)
        if len(calls) == 3:
            either.remove_reader(ours)
            either.stop()
        raise ValueError

    theirs.send(b"x")
    either.add_reader(ours, fail)
    either.run_forever()
    assert [type(context["exception"]) for context in errors] == [ValueError] * 3


def test_callbacks_that_close_each_other(loop, wait):
    """Readable in one poll: each callback takes all others away."""
    pairs = [socket.socketpair() for _ in range(50)]
    calls = []

    def close_all():
        calls.append(1)
        for ours, _ in pairs:
            loop.remove_reader(ours)
            ours.close()

    for ours, theirs in pairs:
        loop.add_reader(ours, close_all)
        theirs.send(b"x")
        theirs.close()

    wait(loop)
    assert calls == [1]


def test_callback_that_replaces_itself_by_a_new_descriptor(loop, wait):
    ours, theirs = socket.socketpair()
    seen = []

    def read():
        loop.remove_reader(ours)
        number = ours.fileno()
        new, other = socket.socketpair()
        os.dup2(new.fileno(), number)
        other.send(b"new")
        loop.add_reader(number, lambda: (seen.append(os.read(number, 10)), loop.remove_reader(number)))
        seen.extend([new, other])

    theirs.send(b"x")
    loop.add_reader(ours, read)
    wait(loop, lambda: len(seen) == 3)
    assert seen[2] == b"new"
    for one in (ours, theirs, *seen[:2]):
        one.close()


def test_many_descriptors(loop):
    """The table of descriptors grows while some of them are watched."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(900, soft // 2 - 40)
    pairs, seen = [], []
    for number in range(count // 2):
        ours, theirs = socket.socketpair()
        pairs.append((ours, theirs))
        loop.add_reader(ours, lambda ours=ours: seen.append(ours.recv(10)))
        theirs.send(b"%d" % number)
    while len(seen) < len(pairs):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert sorted(map(int, seen)) == list(range(len(pairs)))
    for ours, theirs in pairs:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()


def test_blocking_mode_is_left_alone(either):
    """The descriptor is the caller's, a terminal shared with others perhaps."""
    ours, theirs = socket.socketpair()
    assert os.get_blocking(ours.fileno())
    either.add_reader(ours, print)
    either.remove_reader(ours)
    assert os.get_blocking(ours.fileno())
    ours.close()
    theirs.close()


def test_left_open_at_close(new_loop, pair):
    """close() forgets what is watched and lets go of the callbacks; the descriptor stays open."""
    class Callback:
        def __call__(self):
            pass

    loop = new_loop()
    callback = Callback()
    loop.add_reader(pair[0], callback)
    loop.add_writer(pair[1], callback)
    ref = weakref.ref(callback)
    del callback
    loop.close()
    assert loop.remove_reader(pair[0]) is False
    with pytest.raises((RuntimeError, ValueError)):
        loop.add_reader(pair[0], print)
    pair[0].send(b"x")
    del loop
    gc.collect()
    assert ref() is None


def test_two_loops_watch_one_descriptor(pair, wait):
    ours, theirs = pair
    loops, seen = [pyconc.new_event_loop() for _ in range(2)], []
    for loop in loops:
        loop.add_reader(ours, seen.append, loop)
    theirs.send(b"x")
    for loop in loops:
        loop.call_soon(loop.remove_reader, ours)
        wait(loop)
    for loop in loops:
        loop.close()
    theirs.send(b"y")


def test_wrong_thread(loop, pair):
    """Without a lock around libuv's tables this would do harm: refused."""
    told = []

    def other_thread():
        for call in (lambda: loop.add_reader(pair[0], print), lambda: loop.add_writer(pair[0], print),
                     lambda: loop.remove_reader(pair[0]), lambda: loop.remove_writer(pair[0])):
            try:
                call()
            except RuntimeError as error:
                told.append(str(error))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other_thread)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert len(told) == 4 and all("Non-thread-safe" in text for text in told)


def test_context_of_a_reader(either, pair):
    variable = contextvars.ContextVar("variable", default="default")
    seen = []

    def read():
        seen.append(variable.get())
        variable.set("changed")         # in the reader's own context: seen by its next call
        pair[0].recv(1)
        if len(seen) == 2:
            either.remove_reader(pair[0])
            either.stop()

    variable.set("at add_reader")
    either.add_reader(pair[0], read)
    variable.set("later")
    pair[1].send(b"xy")
    either.run_forever()
    assert seen == ["at add_reader", "changed"]
    assert variable.get() == "later"


def test_transport_descriptor_is_refused(either):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            transport, _ = await either.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
            for call in (lambda: either.add_reader(sock.fileno(), print),
                         lambda: either.add_writer(sock.fileno(), print),
                         lambda: either.remove_reader(sock.fileno()),
                         lambda: either.remove_writer(sock.fileno())):
                with pytest.raises(RuntimeError, match="is used by transport|used by a transport"):
                    call()
            transport.close()
            await asyncio.sleep(0)

    either.run_until_complete(main())


def test_no_leak(loop, pair, no_leaked_objects, turn):
    ours, theirs = pair

    def use():
        loop.add_reader(ours, lambda: None)
        loop.add_reader(ours, lambda: None)
        loop.add_writer(ours, lambda: None)
        turn(loop)
        loop.remove_writer(ours)
        loop.remove_reader(ours)
        with pytest.raises(OSError):
            loop.add_reader(1 << 20, print)
        with pytest.raises(ValueError):
            loop.add_reader("x", print)

    no_leaked_objects(use)


def test_no_leaked_descriptors(no_leaked_fds):
    for _ in range(20):
        loop = pyconc.new_event_loop()
        ours, theirs = socket.socketpair()
        loop.add_reader(ours, print)
        loop.call_soon(loop.call_later, 0.0001, loop.stop)
        loop.run_forever()
        loop.close()
        ours.close()
        theirs.close()


def test_what_a_callback_adds_is_not_called_for_an_event_of_before(either, pair, wait):
    """Even when the new descriptor has the number of the one that was ready."""
    pairs = [pair, socket.socketpair()]
    kept, seen = [], []

    def ready(first, other):
        seen.append(first.recv(100))
        number = other.fileno()
        either.remove_reader(first)
        either.remove_reader(other)
        other.close()
        kept.extend(socket.socketpair())
        assert number in (kept[0].fileno(), kept[1].fileno())
        either.add_reader(number, seen.append, "nothing there")
        either.stop()

    for i in 0, 1:
        either.add_reader(pairs[i][0], ready, pairs[i][0], pairs[1 - i][0])
    wait(either)
    either.call_soon(lambda: [theirs.send(b"data") for _, theirs in pairs])
    either.run_forever()
    wait(either)
    assert seen == [b"data"]
    for sock in kept:
        either.remove_reader(sock)
        sock.close()
    for sock in pairs[1]:
        sock.close()


def test_a_reader_that_puts_a_writer_in_the_place_of_the_old_one(either, pair, wait):
    ours, theirs = pair
    kept, seen = list(socket.socketpair()), []
    kept[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            kept[0].send(bytes(65536))

    def read():
        number = ours.fileno()
        either.remove_reader(number)
        either.remove_writer(number)
        os.dup2(kept[0].fileno(), number)
        either.add_writer(number, seen.append, "no room there")

    either.add_reader(ours, read)
    either.add_writer(ours, seen.append, "the old writer")
    theirs.send(b"data")
    wait(either)
    seen[:] = [word for word in seen if word != "the old writer"]
    wait(either)
    assert seen == []
    either.remove_writer(ours)
    for sock in kept:
        sock.close()
