# SPDX-License-Identifier: MIT
"""Keys and means over threads."""
import concurrent.futures
import hashlib
import os
import time

import numpy

import pyconc
from pyconc import hashing
from pyconc.commands.demo.report import Figure

SCRYPT = {"n": 2048, "r": 8, "p": 1}


def timed(call):
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def scrypt(options, progress):
    """Keys derived from passwords, each with a salt of its own."""
    passwords = [os.urandom(12).hex().encode() for _ in range(options.keys)]
    salts = [os.urandom(16) for _ in passwords]

    def derive(password, salt):
        key = hashlib.scrypt(password, salt=salt, **SCRYPT)
        progress(1)
        return key

    def pooled():
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(derive, passwords, salts))

    def batch():
        before = [0]

        def advance(done, total):
            progress(done - before[0])
            before[0] = done

        return hashing.scrypt_many(passwords, salt=tuple(salts), **SCRYPT, progress=advance)

    serial, threads, ours = timed(lambda: list(map(derive, passwords, salts))), timed(pooled), timed(batch)
    equal = serial[0] == threads[0] == ours[0]
    name = f"{options.keys} scrypt keys (n=2048, r=8, p=1)"
    return [Figure(name, "keys/s", options.keys / theirs[1], options.keys / ours[1], equal, way)
            for theirs, way in ((serial, "hashlib.scrypt, one after the other"),
                                (threads, "hashlib.scrypt in a ThreadPoolExecutor"))]


def means(options, progress):
    """The mean of each row of a matrix, a job for each."""
    matrix = numpy.random.default_rng(7).random((options.rows, 512))

    def rows(executor):
        with executor(os.cpu_count()) as pool:
            return list(pool.map(numpy.mean, matrix))

    standard = timed(lambda: rows(concurrent.futures.ThreadPoolExecutor))
    progress(1)
    ours = timed(lambda: rows(pyconc.ThreadPoolExecutor))
    progress(1)
    equal = standard[0] == ours[0] and numpy.allclose(ours[0], matrix.mean(axis=1), rtol=1e-12)
    return [Figure(f"numpy means of {options.rows} rows, a job each", "rows/s", options.rows / standard[1],
                   options.rows / ours[1], bool(equal), "concurrent.futures.ThreadPoolExecutor")]
