"""Batches of hashes and derived keys: hashlib item by item, and pyconc.hashing.

    pytest benchmarks/bench_hashing.py -o python_files='bench_*.py' --benchmark-group-by=group

A group is one job; the results of both ways are compared before they are timed. In the groups "busy: ..." a thread of
the same process runs Python code all the while, and the idle group of the same name is what to compare with.
"""
import array
import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyconc import hashing

SMALL = [os.urandom(64) for _ in range(200_000)]
MEDIUM = [os.urandom(1024) for _ in range(100_000)]
PACKED = b"".join(SMALL)
OFFSETS = memoryview(array.array("i", range(0, len(PACKED) + 1, 64)))
LARGE = [memoryview(os.urandom(1 << 24))] * 16
BLOCKS = [os.urandom(1 << 16) for _ in range(4096)]
FILES = [path for path in Path(os.__file__).parent.rglob("*.py") if path.is_file()]
PASSWORDS = [b"%d" % i for i in range(200)]
SCRYPT = {"salt": b"salt", "n": 2048, "r": 8, "p": 1}
KEY = hashlib.scrypt(PASSWORDS[5], **SCRYPT)


def file_digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


JOBS = {
    "sha256, 200 000 x 64 B": {
        "hashlib": lambda: [hashlib.sha256(item).digest() for item in SMALL],
        "pyconc": lambda: hashing.digest_many("sha256", SMALL),
        "pyconc, 1 thread": lambda: hashing.digest_many("sha256", SMALL, threads=1),
        "pyconc, one buffer": lambda: hashing.digest_many("sha256", PACKED, offsets=OFFSETS),
    },
    "sha256, 200 000 x 64 B into one buffer": {
        "hashlib": lambda: b"".join([hashlib.sha256(item).digest() for item in SMALL]),
        "pyconc": lambda: hashing.digest_many("sha256", PACKED, offsets=OFFSETS, out=bytes),
    },
    "sha256, 100 000 x 1 KiB": {
        "hashlib": lambda: [hashlib.sha256(item).digest() for item in MEDIUM],
        "pyconc": lambda: hashing.digest_many("sha256", MEDIUM),
    },
    "blake2b, 100 000 x 1 KiB": {
        "hashlib": lambda: [hashlib.blake2b(item).digest() for item in MEDIUM],
        "pyconc": lambda: hashing.digest_many("blake2b", MEDIUM),
    },
    "sha256, 16 x 16 MiB": {
        "hashlib": lambda: [hashlib.sha256(item).digest() for item in LARGE],
        "pyconc": lambda: hashing.digest_many("sha256", LARGE),
    },
    "md5, 200 000 x 64 B": {
        "hashlib": lambda: [hashlib.md5(item).digest() for item in SMALL],
        "pyconc": lambda: hashing.digest_many("md5", SMALL),
    },
    "sha256, 4 096 x 64 KiB": {
        "hashlib": lambda: [hashlib.sha256(item).digest() for item in BLOCKS],
        "pyconc": lambda: hashing.digest_many("sha256", BLOCKS),
        "pyconc, 1 thread": lambda: hashing.digest_many("sha256", BLOCKS, threads=1),
    },
    "sha256, the standard library's files": {
        "hashlib": lambda: [file_digest(path) for path in FILES],
        "hashlib, threads": lambda: list(ThreadPoolExecutor(2).map(file_digest, FILES)),
        "pyconc": lambda: hashing.file_digest_many(FILES, "sha256"),
    },
    "scrypt, 200 x n=2048": {
        "hashlib": lambda: [hashlib.scrypt(password, **SCRYPT) for password in PASSWORDS],
        "pyconc": lambda: hashing.scrypt_many(PASSWORDS, **SCRYPT),
    },
    "scrypt, 200 keys verified": {
        "hashlib": lambda: [hmac.compare_digest(hashlib.scrypt(password, **SCRYPT), KEY) for password in PASSWORDS],
        "pyconc": lambda: hashing.verify_many("scrypt", PASSWORDS, [KEY] * len(PASSWORDS), **SCRYPT),
    },
    "pbkdf2, 200 x 10 000": {
        "hashlib": lambda: [hashlib.pbkdf2_hmac("sha256", password, b"salt", 10_000) for password in PASSWORDS],
        "pyconc": lambda: hashing.pbkdf2_many("sha256", PASSWORDS, salt=b"salt", iterations=10_000),
    },
}


@pytest.mark.parametrize("job, way", [(job, way) for job, ways in JOBS.items() for way in ways])
def bench_idle(benchmark, job, way):
    benchmark.group = job
    benchmark.extra_info["way"] = way
    assert benchmark.pedantic(JOBS[job][way], rounds=5, warmup_rounds=1) == JOBS[job]["hashlib"]()


BUSY = "sha256, 4 096 x 64 KiB"


@pytest.mark.parametrize("way", ["hashlib", "pyconc, 1 thread"])
def bench_busy(benchmark, way, busy_thread):
    """One hashing thread, since the busy one has the other core. hashlib hashes fewer: 5 ms each is what it takes."""
    benchmark.group = "busy: " + BUSY
    if way == "hashlib":
        blocks = BLOCKS[:200]
        benchmark.extra_info["items"] = len(blocks)
        benchmark.pedantic(lambda: [hashlib.sha256(item).digest() for item in blocks], rounds=2)
    else:
        benchmark.extra_info["items"] = len(BLOCKS)
        benchmark.pedantic(JOBS[BUSY][way], rounds=5, warmup_rounds=1)
