"""ShareableList: the standard library's layout, read in C."""
import multiprocessing
import os
import pickle
import struct
import threading
from multiprocessing import shared_memory as standard

import pytest

from pyconc import _ipc
from pyconc.multiprocessing import shared_memory
from pyconc.multiprocessing.shared_memory import ShareableList, SharedMemory

STARTS = ["fork", "spawn", "forkserver"]
starts = pytest.mark.parametrize("start", STARTS)
CONTENT = ["howdy", b"HoWdY", -273.154, 100, None, True, 42, "", b"", False, 2**63 - 1, -2**63, float("inf"), "é",
           "x" * 7, "x" * 8, "x" * 9]
modules = [pytest.param(standard, id="standard"), pytest.param(shared_memory, id="pyconc")]


@pytest.fixture
def make():
    """Lists whose memory goes afterwards."""
    made = []

    def one(*args, of=shared_memory, **kwargs):
        made.append(of.ShareableList(*args, **kwargs))
        return made[-1]

    yield one
    for one in made:
        one.shm.close()
        if os.path.exists(f"/dev/shm/{one.shm.name}"):
            one.shm.unlink()


def test_what_it_holds(make):
    items = make(CONTENT)
    assert list(items) == CONTENT
    assert [type(item) for item in items] == [type(item) for item in CONTENT]
    assert len(items) == len(CONTENT)
    assert items[-1] == CONTENT[-1] and items[-len(CONTENT)] == CONTENT[0]
    assert repr(items) == f"ShareableList({CONTENT!r}, name={items.shm.name!r})"
    assert items.count(42) == 1 and items.count("nothing") == 0
    assert items.index(100) == 3
    assert 42 in items and "nothing" not in items
    with pytest.raises(ValueError, match="'nothing'"):
        items.index("nothing")
    assert ShareableList[int].__origin__ is ShareableList


def test_its_memory_is_byte_for_byte_the_standard_librarys(make):
    ours, theirs = make(CONTENT), make(CONTENT, of=standard)
    assert bytes(ours.shm.buf) == bytes(theirs.shm.buf)
    assert ours.format == theirs.format
    for position, value in ((3, 5), (0, "other"), (1, b"ab"), (2, 7), (6, None), (4, 1.5), (5, False), (8, "text"),
                            (9, 8)):
        ours[position] = theirs[position] = value
        assert bytes(ours.shm.buf) == bytes(theirs.shm.buf), (position, value)
        assert ours[position] == theirs[position] == value
        assert ours._get_packing_format(position) == theirs._get_packing_format(position)


@pytest.mark.parametrize("attacher", modules)
@pytest.mark.parametrize("creator", modules)
def test_either_side_may_be_the_standard_librarys(make, creator, attacher):
    created = make(CONTENT, of=creator)
    attached = attacher.ShareableList(name=created.shm.name)
    assert list(attached) == CONTENT
    attached[0] = "x"
    created[6] = 1.5
    assert created[0] == "x" and attached[6] == 1.5
    attached.shm.close()


def test_empty(make):
    for items in (make(), make([]), make(())):
        assert len(items) == 0 and list(items) == [] and items.format == ""
        with pytest.raises(IndexError):
            items[0]


def test_anything_iterable(make):
    assert list(make(range(3))) == [0, 1, 2]
    assert list(make(n * n for n in range(3))) == [0, 1, 4]
    assert list(make(make("ab"))) == ["a", "b"]


@pytest.mark.parametrize("position", [17, -18, 2**70, -2**70])
def test_positions_out_of_range(make, position):
    items = make(CONTENT)
    with pytest.raises(IndexError):
        items[position]
    with pytest.raises(IndexError):
        items[position] = 1
    with pytest.raises(IndexError):
        items._get_packing_format(position)


def test_bad_positions(make):
    items = make(CONTENT)
    for bad in ("x", 1.0, None, slice(0, 1)):
        with pytest.raises(TypeError):
            items[bad]
        with pytest.raises(TypeError):
            items[bad] = 1
    with pytest.raises(TypeError, match="length"):
        del items[0]


def test_what_it_cannot_hold(make):
    items = make([1, "text", b"data"])
    for bad in ([], {}, object(), 1j):
        with pytest.raises(KeyError, match="ShareableList holds"):
            items[0] = bad
        with pytest.raises(KeyError):
            ShareableList([1, bad])
    for bad in (2**63, -2**63 - 1):
        with pytest.raises(struct.error, match=str(bad)):
            items[0] = bad
        with pytest.raises(struct.error):
            ShareableList([bad])
    with pytest.raises(ValueError, match="exceeds available storage: 9 bytes, there are 8"):
        items[1] = "encodées"
    with pytest.raises(ValueError, match="exceeds available storage"):
        items[2] = b"123456789"
    with pytest.raises(UnicodeEncodeError):
        items[1] = "\ud800"
    assert list(items) == [1, "text", b"data"]


def test_a_list_that_is_not_made_leaves_no_memory():
    with pytest.raises(KeyError):
        ShareableList([1, []], name="psm_pyconc_bad_list")
    assert not os.path.exists("/dev/shm/psm_pyconc_bad_list")


def test_a_string_of_many_bytes_a_character(make):
    text = "é" * 100    # the standard library reserves too little for it
    items = make([text, 1])
    assert list(items) == [text, 1]
    theirs = standard.ShareableList(name=items.shm.name)
    assert list(theirs) == [text, 1]
    theirs.shm.close()


def test_subclasses_of_what_it_holds(make):
    class Text(str):
        pass

    class Number(int):
        pass

    assert list(make([Text("a"), Number(5)])) == ["a", 5]


def test_after_close(make):
    items = make([1, 2])
    items.shm.close()
    for use in (lambda: items[0], lambda: len(items), lambda: items.__setitem__(0, 1), lambda: list(items)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_it_does_not_keep_the_memory_from_being_closed(make):
    items = make(CONTENT)
    items[0]
    items.shm.close()
    with open("/proc/self/maps") as maps:
        assert items.shm.name not in maps.read()


@pytest.mark.parametrize("offset, value", [(0, -1), (0, 2**62), (0, 1000), (8, -8), (8, 4), (16, 2**40), (16, -5),
                                           (32, 2**62), (32, -1)])
def test_a_corrupt_list_is_an_error(make, offset, value):
    items = make([1, "abc", 2.5])
    struct.pack_into("q", items.shm.buf, offset, value)
    for use in (lambda: ShareableList(name=items.shm.name), lambda: items[0], lambda: items.__setitem__(0, 1)):
        try:
            use()
        except ValueError as error:
            assert "does not hold a ShareableList" in str(error)


def test_memory_that_is_too_small_for_a_list():
    memory = SharedMemory(create=True, size=4)
    try:
        with pytest.raises(ValueError, match="does not hold a ShareableList"):
            ShareableList(name=memory.name)
    finally:
        memory.close()
        memory.unlink()


def test_memory_that_is_too_small_for_the_list_before():
    """What was attached last holds no list: nothing is read behind its end."""
    items, memory = ShareableList([0] * 400_000), SharedMemory(create=True, size=4)
    first = items.shm
    try:
        with pytest.raises(ValueError, match="does not hold a ShareableList"):
            items.__init__(name=memory.name)
        for use in (lambda: items[399_999], lambda: items.__setitem__(399_999, 1)):
            with pytest.raises(ValueError, match="does not hold a ShareableList"):
                use()
    finally:
        items.shm.close()
        for one in (first, memory):
            one.close()
            one.unlink()


@pytest.mark.parametrize("format", [b"99999999", b"9999999s", b"s", b"-1s", b"zzz", b"P", b"", b"40s"])
def test_a_corrupt_format_is_an_error(make, format):
    items = make([1, "abc"])
    struct.pack_into("8s", items.shm.buf, len(items.shm.buf) - 2 - 16, format)
    with pytest.raises(ValueError, match="does not hold a ShareableList"):
        items[0]
    items[0] = 5    # it can be written again
    assert items[0] == 5


def test_pickles(make):
    items = make(CONTENT)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        other = pickle.loads(pickle.dumps(items, protocol))
        assert type(other) is ShareableList and list(other) == CONTENT
        other[3] = protocol
        assert items[3] == protocol
        items[3] = 100
        other.shm.close()
    sent = pickle.dumps(items)
    items.shm.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(sent)


def change(items):
    items[0] = "changed"
    items[1] += 1
    items.shm.close()


@starts
def test_a_child_gets_it_as_an_argument(make, start):
    items = make(["original", 5])
    child = multiprocessing.get_context(start).Process(target=change, args=(items,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert list(items) == ["changed", 6]


def test_threads_read_while_one_closes(make):
    items = make(range(100))

    def read():
        try:
            while True:
                assert list(items) == list(range(100))
        except ValueError:
            pass

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    items.shm.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_attaching_to_what_is_no_memory():
    with pytest.raises(TypeError, match="no SharedMemory"):
        _ipc.ShareableList()._attach(5)
    with pytest.raises(IndexError):
        _ipc.ShareableList()[0]
    assert len(_ipc.ShareableList()) == 0
