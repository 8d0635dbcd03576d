# SPDX-License-Identifier: MIT
"""Many digests or derived keys at once, in C threads that never take the GIL.

Each function takes a whole batch and returns its results in order, equal to what hashlib returns item by item:

====================  ==========================  ==============================================
``digest_many``       ``digest_many_async``       ``hashlib.new(name, item).digest()``
``file_digest_many``  ``file_digest_many_async``  ``hashlib.file_digest(file, name).digest()``
``scrypt_many``       ``scrypt_many_async``       ``hashlib.scrypt(password, ...)``
``pbkdf2_many``       ``pbkdf2_many_async``       ``hashlib.pbkdf2_hmac(name, password, ...)``
``verify_many``       ``verify_many_async``       ``hmac.compare_digest(key, hashlib.scrypt(...))``
====================  ==========================  ==============================================

The plain functions block their thread, the others are coroutine functions for any asyncio loop. A batch costs one take
of the GIL, however large it is, so that it keeps its speed beside threads that run Python code. Ctrl-C, an exception
from the progress callback, or the cancellation of the awaiting task end a batch after the items that are being worked
on.

Arguments that all of them take:

``threads``
    How many threads work on the batch at most; by default as many as there are CPUs for this process.
``progress``
    Called as ``progress(done, total)`` about every 50 ms and when all is done, in the calling thread (the loop's, for
    the coroutine functions).
"""

import atexit
import contextlib
import operator
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

from pyconc import _hash
from pyconc._bells import bell_of
from pyconc._limits import available_cores, available_memory

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Buffer

    Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Progress: TypeAlias = Callable[[int, int], object] | None
    Salt: TypeAlias = Buffer | list[Buffer] | tuple[Buffer, ...]
    _Out = TypeVar("_Out", bytes, bytearray)
    _Writable = TypeVar("_Writable", bound=Buffer)

__all__ = (
    "digest_many", "digest_many_async", "file_digest_many", "file_digest_many_async",
    "pbkdf2_many", "pbkdf2_many_async", "scrypt_many", "scrypt_many_async", "verify_many", "verify_many_async",
)

_PROGRESS_SECONDS = 0.05
_INT_MAX = 2**31 - 1

# Threads inside libcrypto would crash when the C library tears it down at the process's exit.
atexit.register(_hash.stop)


@overload
def digest_many(name: str, buffers: "Iterable[Buffer]", *, offsets: None = None, out: None = None,
                threads: int | None = None, progress: "Progress" = None) -> list[bytes]: ...
@overload
def digest_many(name: str, buffers: "Buffer", *, offsets: "Buffer", out: None = None,
                threads: int | None = None, progress: "Progress" = None) -> list[bytes]: ...
@overload
def digest_many(name: str, buffers: "Iterable[Buffer] | Buffer", *, offsets: "Buffer | None" = None,
                out: "type[_Out]", threads: int | None = None, progress: "Progress" = None) -> "_Out": ...
@overload
def digest_many(name: str, buffers: "Iterable[Buffer] | Buffer", *, offsets: "Buffer | None" = None,
                out: "_Writable", threads: int | None = None, progress: "Progress" = None) -> "_Writable": ...
def digest_many(name, buffers, *, offsets=None, out=None, threads=None, progress=None):
    """The digests of many buffers, in order.

    ``name`` is a hash that ``hashlib.new`` knows and whose digests have a fixed size; ``buffers`` yields bytes-like
    objects, which must not be resized before the end. Like ``[hashlib.new(name, b).digest() for b in buffers]``.

    ``offsets`` cuts items out of a single bytes-like ``buffers``, as Arrow's string and binary arrays have them: n + 1
    integers of 32 or 64 bits in a buffer (a numpy array, an ``array.array``, a cast memoryview), item i being the bytes
    from ``offsets[i]`` to ``offsets[i + 1]``.

    ``out`` says where the digests go: None, a list of bytes objects; ``bytes`` or ``bytearray``, a new object of that
    type with one digest after the other; or a writable contiguous buffer of exactly n times the digest's size in bytes
    (a numpy array of n rows, say), which is returned. If an item fails it has been written to in part.

    Raises ValueError for an unknown hash, for offsets that do not ascend or lead out of the buffer and for an ``out``
    of the wrong size; TypeError for what is not bytes-like (with the index), not of integers or not writable.
    """
    return _run(_hash.digest_batch(name, buffers, offsets, out), threads, progress)


@overload
async def digest_many_async(name: str, buffers: "Iterable[Buffer]", *, offsets: None = None, out: None = None,
                            threads: int | None = None, progress: "Progress" = None) -> list[bytes]: ...
@overload
async def digest_many_async(name: str, buffers: "Buffer", *, offsets: "Buffer", out: None = None,
                            threads: int | None = None, progress: "Progress" = None) -> list[bytes]: ...
@overload
async def digest_many_async(name: str, buffers: "Iterable[Buffer] | Buffer", *, offsets: "Buffer | None" = None,
                            out: "type[_Out]", threads: int | None = None, progress: "Progress" = None) -> "_Out": ...
@overload
async def digest_many_async(name: str, buffers: "Iterable[Buffer] | Buffer", *, offsets: "Buffer | None" = None,
                            out: "_Writable", threads: int | None = None,
                            progress: "Progress" = None) -> "_Writable": ...
async def digest_many_async(name, buffers, *, offsets=None, out=None, threads=None, progress=None):
    """``digest_many`` for coroutines."""
    return await _run_async(_hash.digest_batch(name, buffers, offsets, out), threads, progress)


@overload
def file_digest_many(paths: "Iterable[Path]", name: str, *, threads: int | None = None, progress: "Progress" = None,
                     errors: Literal["raise"] = "raise") -> list[bytes]: ...
@overload
def file_digest_many(paths: "Iterable[Path]", name: str, *, threads: int | None = None, progress: "Progress" = None,
                     errors: Literal["return"]) -> list[bytes | OSError]: ...
def file_digest_many(paths, name, *, threads=None, progress=None, errors="raise"):
    """The digests of whole files, in order.

    ``paths`` yields str, bytes or path-like objects; ``name`` is as in ``digest_many``. A file that cannot be read
    raises the OSError that ``open`` would raise (of several, that of the first), or, with ``errors="return"``, has it
    in the place of its digest; so does a FIFO (EOPNOTSUPP), which may make whoever opens it wait for ever. Like
    ``hashlib.file_digest`` with each file opened in turn.
    """
    return _run(_file_batch(paths, name, errors), threads, progress)


@overload
async def file_digest_many_async(paths: "Iterable[Path]", name: str, *, threads: int | None = None,
                                 progress: "Progress" = None, errors: Literal["raise"] = "raise") -> list[bytes]: ...
@overload
async def file_digest_many_async(paths: "Iterable[Path]", name: str, *, threads: int | None = None,
                                 progress: "Progress" = None, errors: Literal["return"]) -> list[bytes | OSError]: ...
async def file_digest_many_async(paths, name, *, threads=None, progress=None, errors="raise"):
    """``file_digest_many`` for coroutines."""
    return await _run_async(_file_batch(paths, name, errors), threads, progress)


def scrypt_many(passwords: "Iterable[Buffer]", *, salt: "Salt", n: int, r: int, p: int, maxmem: int = 0,
                dklen: int = 64, threads: int | None = None, memory_limit: int | None = None,
                progress: "Progress" = None) -> list[bytes]:
    """Keys of ``dklen`` bytes derived from many passwords by scrypt, in order.

    ``salt`` is one bytes-like object for all, or a list or tuple of one each. A password needs 128·r·(n + p + 2) bytes
    of memory while it is worked on, and only as many are at once as fit into ``memory_limit`` bytes (half of the memory
    that is available, by default): two in each thread if they fit and there are more than threads, since a core mixes
    two side by side in little more time than one. ``maxmem`` is libcrypto's own limit for a single one (0: 32 MiB).
    Raises what ``hashlib.scrypt`` raises, and ValueError when not even one fits into the limit or when there are more
    or fewer salts than passwords. Source: RFC 7914.
    """
    return _run(*_scrypt_batch(passwords, salt, n, r, p, maxmem, dklen, threads, memory_limit), progress)


async def scrypt_many_async(passwords: "Iterable[Buffer]", *, salt: "Salt", n: int, r: int, p: int, maxmem: int = 0,
                            dklen: int = 64, threads: int | None = None, memory_limit: int | None = None,
                            progress: "Progress" = None) -> list[bytes]:
    """``scrypt_many`` for coroutines."""
    return await _run_async(*_scrypt_batch(passwords, salt, n, r, p, maxmem, dklen, threads, memory_limit), progress)


def pbkdf2_many(name: str, passwords: "Iterable[Buffer]", *, salt: "Salt", iterations: int, dklen: int | None = None,
                threads: int | None = None, progress: "Progress" = None) -> list[bytes]:
    """Keys of ``dklen`` bytes (the digest's size, by default) derived from many passwords by PBKDF2-HMAC, in order.

    ``name`` is the hash, ``salt`` as in ``scrypt_many``. Raises what ``hashlib.pbkdf2_hmac`` raises (for an unknown
    hash a plain ValueError).
    """
    return _run(_pbkdf2_batch(name, passwords, salt, iterations, dklen), threads, progress)


async def pbkdf2_many_async(name: str, passwords: "Iterable[Buffer]", *, salt: "Salt", iterations: int,
                            dklen: int | None = None, threads: int | None = None,
                            progress: "Progress" = None) -> list[bytes]:
    """``pbkdf2_many`` for coroutines."""
    return await _run_async(_pbkdf2_batch(name, passwords, salt, iterations, dklen), threads, progress)


@overload
def verify_many(kdf: Literal["scrypt"], passwords: "Iterable[Buffer]", keys: "Iterable[Buffer]", *, salt: "Salt",
                n: int, r: int, p: int, maxmem: int = 0, threads: int | None = None, memory_limit: int | None = None,
                progress: "Progress" = None) -> list[bool]: ...
@overload
def verify_many(kdf: Literal["pbkdf2_hmac"], passwords: "Iterable[Buffer]", keys: "Iterable[Buffer]", *, salt: "Salt",
                name: str, iterations: int, threads: int | None = None,
                progress: "Progress" = None) -> list[bool]: ...
def verify_many(kdf, passwords, keys, *, threads=None, progress=None, **parameters):
    """Whether each key is the one derived from its password, in order.

    ``kdf`` is the function of hashlib that derived the keys, ``"scrypt"`` or ``"pbkdf2_hmac"``; ``keys`` yields a
    bytes-like object for each password, as many bytes of the derived key as are to be compared; the other arguments are
    those of ``scrypt_many`` and ``pbkdf2_many``. The time taken does not tell where a key differs, and the keys that
    were derived are wiped. Raises what those functions raise, and ValueError for an empty key or when there are more or
    fewer keys than passwords. Like ``[hmac.compare_digest(key, hashlib.scrypt(...)) for ...]``.
    """
    return _run(*_verify_batch(kdf, passwords, keys, threads, **parameters), progress)


@overload
async def verify_many_async(kdf: Literal["scrypt"], passwords: "Iterable[Buffer]", keys: "Iterable[Buffer]", *,
                            salt: "Salt", n: int, r: int, p: int, maxmem: int = 0, threads: int | None = None,
                            memory_limit: int | None = None, progress: "Progress" = None) -> list[bool]: ...
@overload
async def verify_many_async(kdf: Literal["pbkdf2_hmac"], passwords: "Iterable[Buffer]", keys: "Iterable[Buffer]", *,
                            salt: "Salt", name: str, iterations: int, threads: int | None = None,
                            progress: "Progress" = None) -> list[bool]: ...
async def verify_many_async(kdf, passwords, keys, *, threads=None, progress=None, **parameters):
    """``verify_many`` for coroutines."""
    return await _run_async(*_verify_batch(kdf, passwords, keys, threads, **parameters), progress)


def _verify_batch(kdf: str, passwords: "Iterable[Buffer]", keys: "Iterable[Buffer]", threads: int | None,
                  **parameters: Any) -> tuple[_hash.Batch, int | None]:
    if kdf == "scrypt":
        return _verify_scrypt(passwords, keys, threads, **parameters)
    if kdf == "pbkdf2_hmac":
        return _verify_pbkdf2(passwords, keys, threads, **parameters)
    raise ValueError(f"kdf must be 'scrypt' or 'pbkdf2_hmac', not {kdf!r}")


def _verify_scrypt(passwords: "Iterable[Buffer]", keys: "Iterable[Buffer]", threads: int | None, *, salt: "Salt",
                   n: int, r: int, p: int, maxmem: int = 0,
                   memory_limit: int | None = None) -> tuple[_hash.Batch, int | None]:
    return _scrypt_batch(passwords, salt, n, r, p, maxmem, 64, threads, memory_limit, keys)


def _verify_pbkdf2(passwords: "Iterable[Buffer]", keys: "Iterable[Buffer]", threads: int | None, *, salt: "Salt",
                   name: str, iterations: int) -> tuple[_hash.Batch, int | None]:
    return _pbkdf2_batch(name, passwords, salt, iterations, None, keys), threads


def _file_batch(paths: "Iterable[Path]", name: str, errors: str) -> _hash.Batch:
    if errors not in ("raise", "return"):
        raise ValueError(f"errors must be 'raise' or 'return', not {errors!r}")
    return _hash.file_batch(paths, name, errors == "return")


def _scrypt_batch(passwords: "Iterable[Buffer]", salt: "Salt", n: int, r: int, p: int, maxmem: int, dklen: int,
                  threads: int | None, memory_limit: int | None,
                  keys: "Iterable[Buffer] | None" = None) -> tuple[_hash.Batch, int]:
    numbers = {"n": n, "r": r, "p": p, "maxmem": maxmem, "dklen": dklen}
    if not (_are_within(1, 2**64 - 1, n, r, p) and n > 1 and n & (n - 1) == 0
            and _are_within(0, _INT_MAX, maxmem) and _are_within(1, _INT_MAX, dklen)):
        _let_hashlib_judge("scrypt", b"", salt=b"", **numbers)
    need = 128 * n * r
    if memory_limit is None:
        available = available_memory()
        memory_limit = available // 2 if available is not None else need
    memory_limit = operator.index(memory_limit)
    at_once = 0 if memory_limit < need else max(1, memory_limit // (128 * r * (n + p + 2)))
    threads = min(_threads(threads), max(at_once, 1))
    batch = _hash.scrypt_batch(passwords, salt, n, r, p, maxmem, dklen, keys, at_once >= 2 * threads)
    if at_once < 1:
        raise ValueError(f"scrypt with n={n}, r={r} needs {need} bytes a password, the memory limit is {memory_limit}")
    return batch, threads


def _pbkdf2_batch(name: str, passwords: "Iterable[Buffer]", salt: "Salt", iterations: int,
                  dklen: int | None, keys: "Iterable[Buffer] | None" = None) -> _hash.Batch:
    if not _are_within(1, _INT_MAX, iterations, 1 if dklen is None else dklen):
        _let_hashlib_judge("pbkdf2_hmac", "sha256", b"", b"", iterations=iterations, dklen=dklen)
    return _hash.pbkdf2_batch(name, passwords, salt, iterations, dklen, keys)


def _are_within(least: int, most: int, *numbers: object) -> bool:
    return all(isinstance(number, int) and least <= number <= most for number in numbers)


def _let_hashlib_judge(function: str, *args: Any, **numbers: Any) -> None:
    """Raises what hashlib raises for these numbers (it differs from Python to Python), with the numbers named."""
    import hashlib
    try:
        getattr(hashlib, function)(*args, **numbers)
    except (TypeError, ValueError, OverflowError) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in numbers.items() if name != "salt")
        raise type(error)(f"{error} ({given})") from None


def _threads(asked: int | None) -> int:
    if asked is None:
        return available_cores()
    if (threads := operator.index(asked)) < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    return threads


def _workers(asked: int | None) -> tuple[int, int]:
    """How many threads a batch has at most, and how many there may be for all of them."""
    width = _threads(asked)
    return width, width if asked is None else max(width, available_cores())


def _run(batch: _hash.Batch, threads: int | None, progress: "Progress") -> Any:
    return batch.run(*_workers(threads), progress)


async def _run_async(batch: _hash.Batch, threads: int | None, progress: "Progress") -> Any:
    if batch.short:
        return batch.run(*_workers(threads), progress)
    import asyncio  # who hashes without coroutines does not pay for it
    try:
        with bell_of(asyncio.get_running_loop(), _hash.Bell) as bell:
            batch.start(*_workers(threads))
            await _watch(batch, bell.watch(batch), progress)
        return batch.result()
    finally:
        batch.close()   # nothing to do unless the coroutine was closed half-way


async def _watch(batch: _hash.Batch, over: "asyncio.Future[None]", progress: "Progress") -> None:
    import asyncio
    try:
        while True:
            await asyncio.wait((over,), timeout=None if progress is None else _PROGRESS_SECONDS)
            if progress is not None:
                progress(batch.done, batch.total)
            if over.done():
                return
    except GeneratorExit:
        raise
    except BaseException:
        batch.cancel()
        while not over.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((over,))
        raise
