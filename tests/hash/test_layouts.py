"""One buffer cut by offsets, and digests in one piece of memory."""
import array
import hashlib
import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyconc import hashing

DATA = os.urandom(100_000)


def digests(parts, name="sha256"):
    return [hashlib.new(name, part).digest() for part in parts]


@given(st.lists(st.integers(0, len(DATA)), min_size=1, max_size=200), st.sampled_from("iIlLqQ"))
@settings(deadline=None, max_examples=60)
def test_offsets(cuts, code):
    cuts.sort()
    parts = [DATA[a:b] for a, b in zip(cuts, cuts[1:])]
    assert hashing.digest_many("sha256", DATA, offsets=array.array(code, cuts)) == digests(parts)


@pytest.mark.parametrize("dtype", ["i4", "i8", "u4", "u8"])
def test_offsets_of_numpy(dtype):
    numpy = pytest.importorskip("numpy")
    offsets = numpy.arange(0, len(DATA) + 1, 1000).astype(dtype)
    wanted = digests([DATA[at:at + 1000] for at in range(0, len(DATA), 1000)])
    data = numpy.frombuffer(DATA, dtype="u1")
    assert hashing.digest_many("sha256", data, offsets=offsets) == wanted
    found = numpy.empty((100, 32), dtype="u1")
    assert hashing.digest_many("sha256", data, offsets=offsets, out=found) is found
    assert [row.tobytes() for row in found] == wanted


def test_offsets_as_arrow_has_them():
    """Offsets need not begin at 0 nor lead to the end: a slice of an array has those of the whole."""
    offsets = memoryview(array.array("i", [0, 3, 3, 10, 12])).cast("B")[4:].cast("i")
    assert hashing.digest_many("md5", b"abcdefghijklmnop", offsets=offsets) == digests([b"", b"defghij", b"kl"], "md5")


def test_offsets_of_a_large_buffer():
    """From 2 GiB on those of 32 bits are told from negative ones by their type alone."""
    first = 1 << 31
    with mmap.mmap(-1, first + 64) as data:     # without memory of its own
        data[first:first + 3] = b"abc"
        for code in "IqQ":
            offsets = array.array(code, [first, first + 3, first + 3])
            assert hashing.digest_many("md5", data, offsets=offsets) == digests([b"abc", b""], "md5")
        with pytest.raises(ValueError, match=r"offsets\[0\] is -2147483648"):
            hashing.digest_many("md5", data, offsets=array.array("i", [-first, 0]))


@pytest.mark.parametrize("offsets, error, match", [
    ([], ValueError, "offsets is empty: n parts have n \\+ 1 offsets"),
    ([0, 5, 4], ValueError, r"offsets\[2\] is 4: not from the one before it \(5\) to the 6 bytes"),
    ([0, 7], ValueError, r"offsets\[1\] is 7"),
    ([-1, 5], ValueError, r"offsets\[0\] is -1"),
    ([0, 2**62], ValueError, r"offsets\[1\] is 4611686018427387904"),
])
def test_wrong_offsets(offsets, error, match):
    with pytest.raises(error, match=match):
        hashing.digest_many("md5", b"abcdef", offsets=array.array("q", offsets))


@pytest.mark.parametrize("offsets", [b"\0\0\0\0", array.array("h", [0, 1]), array.array("d", [0, 1]),
                                     memoryview(bytes(16)).cast("q", [1, 2])])
def test_offsets_that_are_no_integers(offsets):
    with pytest.raises(TypeError, match="offsets must be one row of 32-bit or 64-bit integers"):
        hashing.digest_many("md5", b"abcdef", offsets=offsets)


def test_offsets_with_what_is_no_buffer():
    with pytest.raises(TypeError, match="buffers: a bytes-like object is required, not 'list'"):
        hashing.digest_many("md5", [b"abc"], offsets=array.array("i", [0, 3]))
    with pytest.raises(TypeError):
        hashing.digest_many("md5", b"abc", offsets=[0, 3])


@pytest.mark.parametrize("count", [0, 1, 9, 20_000])
@pytest.mark.parametrize("name", ["md5", "sha256", "blake2b"])
def test_out(name, count):
    items = [b"%d" % i for i in range(count)]
    wanted = b"".join(digests(items, name))
    assert hashing.digest_many(name, items, out=bytes) == wanted
    made = hashing.digest_many(name, items, out=bytearray)
    assert type(made) is bytearray
    assert made == wanted
    given = bytearray(len(wanted) + 2)
    with memoryview(given)[1:-1] as view:
        assert hashing.digest_many(name, items, out=view) is view
    assert given == b"\0" + wanted + b"\0"


def test_out_is_held_while_it_is_written_to_and_not_longer():
    out = bytearray(10_000 * 32)
    refused = []

    def resize(done, total):
        try:
            out.append(1)
        except BufferError as error:
            refused.append(error)

    hashing.digest_many("sha256", [b"x"] * 10_000, out=out, progress=resize)
    assert refused
    out.append(1)


@pytest.mark.parametrize("out, error, match", [
    (bytearray(31), ValueError, "out has 31 bytes where 1 digests of 32 bytes make 32"),
    (bytearray(33), ValueError, "out has 33 bytes"),
    (5, TypeError, "out must be a writable buffer, bytes or bytearray, not 'int'"),
    (list, TypeError, "out must be a writable buffer, bytes or bytearray, not 'type'"),
    (bytes(32), BufferError, "not writable"),
    (memoryview(bytearray(64))[::2], BufferError, "contiguous"),
])
def test_wrong_out(out, error, match):
    with pytest.raises(error, match=match):
        hashing.digest_many("sha256", [b"x"], out=out)


@pytest.mark.leak
def test_nothing_leaks(no_leaked_objects, flat_memory):
    offsets = array.array("i", range(0, 1000, 10))

    def everything():
        hashing.digest_many("sha256", DATA, offsets=offsets)
        hashing.digest_many("sha256", bytearray(DATA), offsets=offsets, out=bytes)
        hashing.digest_many("blake2s", [b"x"] * 20, out=bytearray)
        hashing.digest_many("md5", [b"x"] * 20, out=bytearray(16 * 20))
        for wrong in ({"offsets": array.array("i", [3, 1])}, {"out": bytearray(3)}, {"out": 5}):
            with pytest.raises((TypeError, ValueError)):
                hashing.digest_many("sha256", b"abc" if "offsets" in wrong else [b"abc"], **wrong)

    no_leaked_objects(everything, 50)
    flat_memory(everything, 200)
