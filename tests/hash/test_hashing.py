"""pyconc.hashing gives what hashlib gives, item by item, in order."""
import array
import ctypes
import errno
import gc
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyconc import hashing

MIB = 1 << 20
NAMES = sorted(name for name in hashlib.algorithms_available if not name.startswith("shake"))
names = pytest.mark.parametrize("name", NAMES)
# Below and above what is done in the calling thread, and around the blocks of hashes, files and slices.
SIZES = [0, 1, 55, 56, 63, 64, 65, 111, 112, 127, 128, 129, 135, 136, 137, 2047, 2048, 65535, 65536, 262143, 262144,
         262145, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]


def expected(name, buffers):
    return [hashlib.new(name, buffer).digest() for buffer in buffers]


@pytest.fixture(scope="module")
def buffers():
    return [os.urandom(size) for size in SIZES]


@names
def test_digest_many(name, buffers):
    assert hashing.digest_many(name, buffers) == expected(name, buffers)


@names
@pytest.mark.parametrize("size", [0, 64, 5000, 300_000])
def test_digest_of_one(name, size):
    buffer = os.urandom(size)
    assert hashing.digest_many(name, [buffer]) == expected(name, [buffer])


@names
def test_file_digest_many(name, buffers, tmp_path):
    paths = [tmp_path / str(i) for i in range(len(buffers))]
    for path, buffer in zip(paths, buffers, strict=True):
        path.write_bytes(buffer)
    assert hashing.file_digest_many(paths, name) == expected(name, buffers)


@pytest.mark.parametrize("name", ["SHA256", "sha-256", "SHA3-256", "sha512_256", "BLAKE2b512"])
def test_other_names(name):
    assert hashing.digest_many(name, [b"x"]) == expected(name.replace("sha-", "sha"), [b"x"])


@given(st.lists(st.binary(max_size=300), max_size=300), st.sampled_from(NAMES), st.sampled_from([None, 1, 2, 7]))
@settings(deadline=None, max_examples=60)
def test_any_contents(items, name, threads):
    assert hashing.digest_many(name, items, threads=threads) == expected(name, items)


@pytest.mark.parametrize("threads", [None, 1, 2, 16, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 5000, 50_000])
def test_order(threads, count):
    items = [b"%d" % i for i in range(count)]
    assert hashing.digest_many("sha256", items, threads=threads) == expected("sha256", items)


def test_uneven_sizes():
    items = [b"x" * (5 * MIB if i % 1000 == 999 else i % 100) for i in range(4000)]
    assert hashing.digest_many("blake2b", items, threads=3) == expected("blake2b", items)


def test_kinds_of_buffers():
    kinds = [b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview")[2:5], array.array("i", [1, 2, 3]),
             b"bytes again", (ctypes.c_char * 5)(*b"chars"), type("B", (bytes,), {})(b"subclass")]
    assert hashing.digest_many("sha1", kinds) == expected("sha1", kinds)
    assert hashing.digest_many("sha1", tuple(kinds)) == expected("sha1", kinds)
    assert hashing.digest_many("sha1", (kind for kind in kinds)) == expected("sha1", kinds)
    assert hashing.digest_many("sha1", {b"a": 1, b"b": 2}) == expected("sha1", [b"a", b"b"])


def test_numpy_rows():
    numpy = pytest.importorskip("numpy")
    rows = numpy.arange(6000, dtype="f8").reshape(100, 60)
    assert hashing.digest_many("sha256", rows) == expected("sha256", [row.tobytes() for row in rows])


def test_a_buffer_is_locked_while_it_is_hashed():
    buffer = bytearray(64)
    refused = []

    def resize(done, total):
        try:
            buffer.append(1)
        except BufferError as error:
            refused.append(error)

    hashing.digest_many("sha256", [buffer] * 10_000, progress=resize)
    assert refused
    buffer.append(1)


@pytest.mark.parametrize("name", ["nope", "", "sha256\0", "x" * 100, "shake_128", "shake_256", "null",
                                  "\xb5"])
def test_unknown_hash(name):
    with pytest.raises(ValueError, match="unsupported hash type"):
        hashing.digest_many(name, [b"x"])
    with pytest.raises(ValueError, match="unsupported hash type"):
        hashing.digest_many(name, [], out=bytes)
    with pytest.raises(ValueError, match="unsupported hash type"):
        hashing.file_digest_many([], name)
    with pytest.raises(ValueError, match="unsupported hash type"):
        hashing.pbkdf2_many(name, [b"x"], salt=b"s", iterations=1)


def test_wrong_types(tmp_path):
    with pytest.raises(TypeError, match="name must be a string, not 'int'"):
        hashing.digest_many(5, [])
    with pytest.raises(TypeError, match=r"buffers\[1\]: a bytes-like object is required, not 'str'"):
        hashing.digest_many("md5", [b"x", "x", 5])
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        hashing.digest_many("md5", 5)
    with pytest.raises(BufferError):
        hashing.digest_many("md5", [memoryview(b"abcdef")[::2]])
    with pytest.raises(TypeError, match=r"paths\[1\]: expected str, bytes or os.PathLike object, not 'int'"):
        hashing.file_digest_many([tmp_path / "x", 0], "md5")
    with pytest.raises(ValueError, match="null"):
        hashing.file_digest_many(["a\0b"], "md5")
    with pytest.raises(ValueError, match="errors must be 'raise' or 'return', not 'ignore'"):
        hashing.file_digest_many([], "md5", errors="ignore")
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        hashing.digest_many("md5", [], threads=0)
    with pytest.raises(TypeError):
        hashing.digest_many("md5", [], threads="2")
    with pytest.raises(TypeError):
        hashing.digest_many("md5", [b""], progress=5)


def test_an_iterator_that_fails():
    def items():
        yield b"x"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        hashing.digest_many("md5", items())


# Files.

def error_of_open(path):
    try:
        with open(path, "rb"):
            raise AssertionError(f"{path!r} opens")
    except OSError as error:
        return type(error), error.args, error.filename


@pytest.fixture
def bad_paths(tmp_path):
    looping = tmp_path / "loop"
    looping.symlink_to(looping)
    return [str(tmp_path / "missing"), os.fsencode(tmp_path / "missing"), str(tmp_path), str(looping),
            str(tmp_path / ("n" * 300))]


def test_unreadable_files_raise(bad_paths, tmp_path):
    good = tmp_path / "good"
    good.write_bytes(b"good")
    for bad in bad_paths:
        with pytest.raises(OSError) as caught:
            hashing.file_digest_many([good, bad, good], "sha256")
        assert (type(caught.value), caught.value.args, caught.value.filename) == error_of_open(bad)


def test_the_first_of_many_errors(tmp_path):
    good = tmp_path / "good"
    good.write_bytes(bytes(100_000))
    for _ in range(20):
        paths = [good] * 50 + [f"{tmp_path}/missing{i}" for i in range(50)]
        with pytest.raises(FileNotFoundError) as caught:
            hashing.file_digest_many(paths, "md5", threads=4)
        assert caught.value.filename == f"{tmp_path}/missing0"


def test_errors_in_the_result(bad_paths, tmp_path):
    good = tmp_path / "good"
    good.write_bytes(b"good")
    first, *bad, last = hashing.file_digest_many([good, *bad_paths, good], "sha256", errors="return")
    assert first == last == hashlib.sha256(b"good").digest()
    assert [(type(e), e.args, e.filename) for e in bad] == [error_of_open(path) for path in bad_paths]


def test_a_path_like_that_fails():
    class Path:
        def __fspath__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hashing.file_digest_many([Path()], "md5")


def test_library_files(no_leaked_fds):
    files = [path for path in Path(os.__file__).parent.rglob("*.py") if path.is_file()][:1500]
    assert hashing.file_digest_many(files, "sha256") == expected("sha256", [path.read_bytes() for path in files])


# Derived keys.

SCRYPT = {"salt": b"salt", "n": 16, "r": 8, "p": 1}
passwords = [b"%d" % i for i in range(50)]


@pytest.mark.parametrize("changed", [{}, {"n": 2}, {"r": 3, "p": 5}, {"dklen": 1}, {"dklen": 129}, {"salt": b""},
                                     {"maxmem": 2**30, "n": 2**15, "p": 1}])
def test_scrypt_many(changed):
    arguments = SCRYPT | changed
    some = passwords[: 3 if "maxmem" in changed else None] + [b"", bytearray(b"x"), memoryview(b"yz")]
    assert hashing.scrypt_many(some, **arguments) == [hashlib.scrypt(password, **arguments) for password in some]


# Of RFC 7914, section 12.
@pytest.mark.parametrize("password, salt, n, r, p, begin", [
    (b"", b"", 16, 1, 1, "77d6576238657b203b19ca42c18a0497"),
    (b"password", b"NaCl", 1024, 8, 16, "fdbabe1c9d3472007856e7190d01e9fe"),
    (b"pleaseletmein", b"SodiumChloride", 16384, 8, 1, "7023bdcb3afd7348461c06cd81fd38eb"),
])
def test_scrypt_of_the_standard(password, salt, n, r, p, begin):
    keys = hashing.scrypt_many([password, b"other", password], salt=[salt, b"other", salt], n=n, r=r, p=p)
    assert keys[0].hex().startswith(begin)
    assert keys[2] == keys[0] != keys[1]


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=80), st.binary(max_size=80)), max_size=9), st.integers(1, 9),
       st.integers(1, 20), st.integers(1, 5), st.integers(1, 100), st.sampled_from([1, 2, 3]), st.booleans())
def test_scrypt_of_any(items, log, r, p, dklen, threads, one_by_one):
    """Alone or beside another, whatever the cost."""
    cost = {"n": 1 << log, "r": r, "p": p, "dklen": dklen}
    keys = hashing.scrypt_many([password for password, _ in items], salt=[salt for _, salt in items], **cost,
                               threads=threads, memory_limit=threads * 128 * r << log if one_by_one else None)
    assert keys == [hashlib.scrypt(password, salt=salt, **cost) for password, salt in items]


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_salt_each(kind):
    salts = kind(bytearray(b"%d" % (i * i)) for i in range(50))
    result = hashing.scrypt_many(passwords, **SCRYPT | {"salt": salts})
    assert result == [hashlib.scrypt(password, **SCRYPT | {"salt": salt})
                      for password, salt in zip(passwords, salts, strict=True)]
    result = hashing.pbkdf2_many("sha256", passwords, salt=salts, iterations=3)
    assert result == [hashlib.pbkdf2_hmac("sha256", password, salt, 3)
                      for password, salt in zip(passwords, salts, strict=True)]
    one = hashing.scrypt_many([b"x"], **SCRYPT | {"salt": kind([b"y"])})
    assert one == [hashlib.scrypt(b"x", **SCRYPT | {"salt": b"y"})]
    for wrong in (salts[1:], [], [b"x"]):
        with pytest.raises(ValueError, match=f"salt has {len(wrong)} items for 50 passwords"):
            hashing.scrypt_many(passwords, **SCRYPT | {"salt": wrong})


@names
@pytest.mark.parametrize("dklen", [None, 1, 100])
def test_pbkdf2_many(name, dklen):
    assert hashing.pbkdf2_many(name, passwords, salt=b"salt", iterations=7, dklen=dklen) == [
        hashlib.pbkdf2_hmac(name, password, b"salt", 7, dklen) for password in passwords]


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=5),
       st.integers(1, 40), st.none() | st.integers(1, 300))
def test_pbkdf2_of_any(name, items, iterations, dklen):
    """Passwords shorter and longer than a block of the hash, keys of less than one digest and of several."""
    keys = hashing.pbkdf2_many(name, [password for password, _ in items], salt=[salt for _, salt in items],
                               iterations=iterations, dklen=dklen)
    assert keys == [hashlib.pbkdf2_hmac(name, password, salt, iterations, dklen) for password, salt in items]


# Of RFC 6070 (sha1) and RFC 7914 (sha256).
@pytest.mark.parametrize("name, password, salt, iterations, key", [
    ("sha1", b"password", b"salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
    ("sha1", b"passwordPASSWORDpassword", b"saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096,
     "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"),
    ("sha1", b"pass\0word", b"sa\0lt", 4096, "56fa6aa75548099dcc37d7f03425e0c3"),
    ("sha256", b"passwd", b"salt", 1, "55ac046e56e3089fec1691c22544b605"),
])
def test_pbkdf2_of_the_standards(name, password, salt, iterations, key):
    found, = hashing.pbkdf2_many(name, [password], salt=salt, iterations=iterations, dklen=len(key) // 2)
    assert found.hex() == key


def raised(function, *args, **kwargs):
    with pytest.raises((TypeError, ValueError, OverflowError)) as caught:
        function(*args, **kwargs)
    return caught.type, str(caught.value)


@pytest.mark.parametrize("changed", [
    {"n": 0}, {"n": 1}, {"n": 3}, {"n": -2}, {"n": None}, {"n": "16"}, {"n": 2**65}, {"r": None}, {"r": -1}, {"r": 0},
    {"p": 0}, {"p": -1}, {"p": 2.0}, {"r": 2**31}, {"n": 2**40}, {"n": 2**15}, {"maxmem": -1}, {"maxmem": 2**40},
    {"maxmem": "x"}, {"maxmem": 10}, {"dklen": 0}, {"dklen": -1}, {"dklen": 2**31}, {"dklen": "x"},
    {"salt": None}, {"salt": "salt"}], ids=repr)
def test_scrypt_refuses_what_hashlib_refuses(changed):
    standard = raised(hashlib.scrypt, b"x", **SCRYPT | changed)
    ours = raised(hashing.scrypt_many, [b"x"], **SCRYPT | changed, memory_limit=2**60)
    assert ours[0] is standard[0]
    if "salt" not in changed:
        assert ours[1].startswith(standard[1])


@pytest.mark.parametrize("arguments", [(b"s", 0), (b"s", -1), (b"s", 2**31), (b"s", 1, 0), (b"s", 1, -1),
                                       (b"s", 1, 2**31), (b"s", "x"), ("s", 1), (b"s", 2**70)], ids=repr)
def test_pbkdf2_refuses_what_hashlib_refuses(arguments):
    standard = raised(hashlib.pbkdf2_hmac, "sha256", b"x", *arguments)
    named = dict(zip(("salt", "iterations", "dklen"), arguments, strict=False))
    assert raised(hashing.pbkdf2_many, "sha256", [b"x"], **named)[0] is standard[0]


def test_wrong_passwords():
    with pytest.raises(TypeError, match=r"passwords\[1\]: a bytes-like object is required, not 'str'"):
        hashing.scrypt_many([b"x", "x"], **SCRYPT)
    with pytest.raises(TypeError, match=r"salt\[1\]: a bytes-like object is required, not 'int'"):
        hashing.scrypt_many([b"x", b"x"], **SCRYPT | {"salt": [b"s", 1]})
    assert hashing.scrypt_many([], **SCRYPT) == hashing.scrypt_many([], **SCRYPT | {"salt": []}) == []


# From threads, and what is left behind.

def test_from_many_threads(buffers):
    small = [os.urandom(100) for _ in range(5000)]
    wanted = expected("sha256", buffers), expected("sha256", small)
    with ThreadPoolExecutor(8) as pool:
        for one, two in pool.map(lambda _: [hashing.digest_many("sha256", b) for b in (buffers, small)], range(40)):
            assert (one, two) == wanted


def test_a_long_batch_does_not_block_a_short_one():
    """Threads turn to the next batch after each item, also with one thread for both."""
    begun, stop = threading.Event(), threading.Event()

    class Stopped(Exception):
        pass

    def progress(done, total):
        begun.set()
        if stop.is_set():
            raise Stopped

    def long():
        with pytest.raises(Stopped):
            hashing.scrypt_many([b"x"] * 1_000_000, **SCRYPT | {"n": 1024}, threads=1, progress=progress)

    thread = threading.Thread(target=long)
    thread.start()
    begun.wait()
    assert len(hashing.scrypt_many(passwords, **SCRYPT, threads=1)) == 50
    stop.set()
    thread.join()


def test_one_thread_is_enough_to_have_a_turn():
    begun, cut = threading.Event(), threading.Event()

    def long():
        def progress(done, total):
            begun.set()
            if cut.is_set():
                raise InterruptedError

        with pytest.raises(InterruptedError):
            hashing.pbkdf2_many("sha256", [b"x"] * 1_000_000, salt=b"s", iterations=1000, threads=8, progress=progress)

    thread = threading.Thread(target=long)
    thread.start()
    try:
        assert begun.wait(30)
        hashing.pbkdf2_many("sha256", [b"x"], salt=b"s", iterations=1, threads=1)
        assert thread.is_alive()
    finally:
        cut.set()
        thread.join()


def test_no_thread_stays(no_leaked_threads):
    for _ in range(20):
        hashing.scrypt_many(passwords, **SCRYPT)


@pytest.mark.leak
def test_nothing_leaks(no_leaked_objects, flat_memory, no_leaked_fds, tmp_path):
    items = [b"x" * 10, bytearray(10)] * 10
    many = [bytes(4096)] * 200

    def refused(function, *args, **kwargs):
        with pytest.raises((TypeError, ValueError, OSError, ZeroDivisionError)):
            function(*args, **kwargs)

    def everything():
        hashing.digest_many("sha256", items, progress=lambda done, total: None)
        hashing.digest_many("blake2s", many)
        hashing.scrypt_many(items, **SCRYPT | {"salt": [bytearray(1)] * 20})
        hashing.pbkdf2_many("sha256", items, salt=bytearray(4), iterations=1)
        hashing.file_digest_many([__file__, b"/", tmp_path], "md5", errors="return")
        refused(hashing.file_digest_many, [__file__, tmp_path, "/"], "md5")
        refused(hashing.file_digest_many, [__file__, 5], "md5")
        refused(hashing.digest_many, "sha256", [*items, 5])
        refused(hashing.digest_many, "nope", items)
        refused(hashing.digest_many, "sha256", many, progress=lambda done, total: 1 / 0)
        refused(hashing.scrypt_many, items, **SCRYPT | {"salt": [bytearray(1)]})
        refused(hashing.scrypt_many, items, **SCRYPT | {"p": 0})

    no_leaked_objects(everything, 50)
    flat_memory(everything, 200)
    gc.collect()


@pytest.mark.parametrize("make", [lambda: b"abc", lambda: bytearray(b"abc"), lambda: memoryview(b"abc"), lambda: "abc"])
def test_one_item_in_the_place_of_many_is_refused(make):
    with pytest.raises(TypeError, match="buffers: expected an iterable"):
        hashing.digest_many("sha256", make())
    with pytest.raises(TypeError, match="passwords: expected an iterable"):
        hashing.scrypt_many(make(), salt=b"s", n=2, r=1, p=1)
    with pytest.raises(TypeError, match="paths: expected an iterable"):
        hashing.file_digest_many(make(), "sha256")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    fifo, file = tmp_path / "fifo", tmp_path / "file"
    os.mkfifo(fifo)
    file.write_bytes(b"abc")
    with pytest.raises(OSError) as raised:
        hashing.file_digest_many([file, fifo], "sha256")
    assert (raised.value.errno, raised.value.filename) == (errno.EOPNOTSUPP, fifo)
    digest, error = hashing.file_digest_many([file, fifo], "sha256", errors="return")
    assert digest == hashlib.sha256(b"abc").digest()
    assert error.errno == errno.EOPNOTSUPP
