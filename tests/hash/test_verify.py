"""verify_many says of each key what hashlib and a comparison would say."""
import asyncio
import hashlib
import hmac

import pytest

import pyconc
from pyconc import hashing

SCRYPT = {"n": 16, "r": 8, "p": 1}
PASSWORDS = [b"%d" % i for i in range(40)]
SALTS = [b"salt%d" % i for i in range(40)]
KDFS = {
    "scrypt": (SCRYPT, lambda password, salt, size: hashlib.scrypt(password, salt=salt, dklen=size, **SCRYPT)),
    "pbkdf2_hmac": ({"name": "sha1", "iterations": 5},
                    lambda password, salt, size: hashlib.pbkdf2_hmac("sha1", password, salt, 5, size)),
}
kdfs = pytest.mark.parametrize("kdf", KDFS)


def stored(kdf):
    """Keys of many sizes, every third of them wrong in one bit, and what is to be said of them."""
    keys = [bytearray(KDFS[kdf][1](password, salt, 1 + i * 5))
            for i, (password, salt) in enumerate(zip(PASSWORDS, SALTS))]
    for i, key in enumerate(keys):
        if i % 3 == 0:
            key[i // 3 % len(key)] ^= 1 << i % 8
    said = [hmac.compare_digest(key, KDFS[kdf][1](password, salt, len(key)))
            for key, password, salt in zip(keys, PASSWORDS, SALTS)]
    assert said == [i % 3 != 0 for i in range(40)]
    return keys, said


@kdfs
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_verify_many(kdf, threads):
    keys, said = stored(kdf)
    assert hashing.verify_many(kdf, PASSWORDS, keys, salt=SALTS, threads=threads, **KDFS[kdf][0]) == said


@kdfs
@pytest.mark.parametrize("run", [asyncio.run, pyconc.run], ids=["asyncio", "pyconc"])
def test_awaited(kdf, run):
    keys, said = stored(kdf)
    assert run(hashing.verify_many_async(kdf, PASSWORDS, keys, salt=SALTS, **KDFS[kdf][0])) == said


@kdfs
def test_one_salt_for_all(kdf):
    keys = [KDFS[kdf][1](b"right", b"salt", 20)] * 2
    found = hashing.verify_many(kdf, [b"right", b"wrong"], keys, salt=b"salt", **KDFS[kdf][0])
    assert found == [True, False]
    assert [type(answer) for answer in found] == [bool, bool]
    assert hashing.verify_many(kdf, [], [], salt=b"salt", **KDFS[kdf][0]) == []


@kdfs
def test_refused(kdf):
    def verify(*args, **changed):
        return hashing.verify_many(kdf, *args, **{"salt": b"s"} | KDFS[kdf][0] | changed)

    with pytest.raises(ValueError, match="keys has 1 items for 2 passwords"):
        verify([b"x", b"y"], [b"x"])
    with pytest.raises(ValueError, match=r"keys\[1\] is empty"):
        verify([b"x", b"y"], [b"x", b""])
    with pytest.raises(TypeError, match=r"keys\[0\]: a bytes-like object is required, not 'str'"):
        verify([b"x"], ["x"])
    with pytest.raises(TypeError, match="keys: expected an iterable of them"):
        verify([b"x"], b"x")
    with pytest.raises(ValueError, match="salt has 3 items for 1 passwords"):
        verify([b"x"], [b"x"], salt=[b"x"] * 3)
    with pytest.raises(TypeError, match="dklen"):
        verify([b"x"], [b"x"], dklen=5)
    with pytest.raises(ValueError, match="kdf must be 'scrypt' or 'pbkdf2_hmac', not 'bcrypt'"):
        hashing.verify_many("bcrypt", [b"x"], [b"x"], salt=b"")


def test_the_memory_limit_holds_here_too():
    with pytest.raises(ValueError, match="needs 16384 bytes a password, the memory limit is 100"):
        hashing.verify_many("scrypt", [b"x"], [b"x"], salt=b"", memory_limit=100, **SCRYPT)


@pytest.mark.leak
def test_nothing_leaks(no_leaked_objects, flat_memory):
    keys, _ = stored("scrypt")

    def everything():
        hashing.verify_many("scrypt", PASSWORDS, keys, salt=SALTS, **SCRYPT)
        for wrong in (keys[1:], [b""] * 40, [5] * 40):
            with pytest.raises((TypeError, ValueError)):
                hashing.verify_many("scrypt", PASSWORDS, wrong, salt=SALTS, **SCRYPT)

    no_leaked_objects(everything, 100)
    flat_memory(everything, 60)
