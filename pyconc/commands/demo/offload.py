# SPDX-License-Identifier: MIT
"""Keys and means over threads."""
import concurrent.futures
import hashlib
import os
import time
from typing import Any

import numpy

import pyconc
from pyconc import hashing
from pyconc.commands.demo.report import Figure

SCRYPT: dict[str, Any] = {"n": 2048, "r": 8, "p": 1}


ROUNDS = 4


def in_turns(ways, parts):
    """What each way makes of all parts, and the seconds it took; in turns, so that all see the same machine."""
    made: list[tuple[list, list[float]]] = [([], [0.0]) for _ in ways]
    for part in parts:
        for way, (results, seconds) in zip(ways, made):
            start = time.perf_counter()
            results += way(part)
            seconds[0] += time.perf_counter() - start
    return [(results, seconds) for results, (seconds,) in made]


def split(items):
    """In as many parts as there are rounds."""
    return [items[i * len(items) // ROUNDS:(i + 1) * len(items) // ROUNDS] for i in range(ROUNDS)]


def scrypt(options, progress):
    """Keys derived from passwords, each with a salt of its own."""
    jobs = [(os.urandom(12).hex().encode(), os.urandom(16)) for _ in range(options.keys)]

    def derive(job):
        key = hashlib.scrypt(job[0], salt=job[1], **SCRYPT)
        progress(1)
        return key

    def pooled(jobs):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(derive, jobs))

    def batch(jobs):
        passwords, salts = zip(*jobs)
        keys = hashing.scrypt_many(passwords, salt=salts, **SCRYPT)
        progress(len(jobs))
        return keys

    serial, threads, ours = in_turns([lambda jobs: list(map(derive, jobs)), pooled, batch], split(jobs))
    equal = serial[0] == threads[0] == ours[0]
    name = f"{options.keys} scrypt keys (n=2048, r=8, p=1)"
    return [Figure(name, "keys/s", options.keys / theirs[1], options.keys / ours[1], equal, way)
            for theirs, way in ((serial, "hashlib.scrypt, one after the other"),
                                (threads, "hashlib.scrypt in a ThreadPoolExecutor"))]


def means(options, progress):
    """The mean of each row of a matrix, a job for each."""
    matrix = numpy.random.default_rng(7).random((options.rows, 512))

    def over(executor):
        def rows(part):
            with executor(os.cpu_count()) as pool:
                made = list(pool.map(numpy.mean, part))
            progress(1)
            return made
        return rows

    standard, ours = in_turns([over(concurrent.futures.ThreadPoolExecutor), over(pyconc.ThreadPoolExecutor)],
                              split(matrix))
    equal = standard[0] == ours[0] and numpy.allclose(ours[0], matrix.mean(axis=1), rtol=1e-12)
    return [Figure(f"numpy means of {options.rows} rows, a job each", "rows/s", options.rows / standard[1],
                   options.rows / ours[1], bool(equal), "the standard ThreadPoolExecutor")]
