"""Jobs of all kinds, on an executor and a Pool of which a worker is killed each second: every one ends, nothing grows.

    python soak.py SECONDS METHOD [SEED]

Prints a line for each round and one at the end; a failure is a traceback and an exit status of 1.
"""
import asyncio
import ctypes
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, as_completed, wait
from pathlib import Path

import mishaps

from pyconc.concurrent.futures import ProcessPoolExecutor
from pyconc.multiprocessing import TimeoutError as PoolTimeoutError
from pyconc.multiprocessing import get_context

LIMIT = 100     # seconds within which whatever was begun must end
ROUNDS = 6
WORKERS = 2
SUBMITTERS = 3
GROWTH = 96 << 20   # bytes that there may be more than after the second round: each thread may keep some buffers


def add(one, other):
    return one + other


def fail(number):
    raise LookupError(number)


def fail_at(number):
    if number == 50:
        raise LookupError(number)
    return number


def echo(value):
    return value


class Soak:
    """What is submitted, and how it has to end."""

    def __init__(self, method):
        context = get_context(method)
        self.executor = ProcessPoolExecutor(WORKERS, context, on_worker_death="replace")
        self.pool = context.Pool(WORKERS)
        self.ended = Counter()
        self.failures = []

    def check(self, get, expected=None, error=()):
        """Has to return that, or raise that, or tell of a worker that died."""
        try:
            value = get(LIMIT)
        except error as raised:
            self.ended[type(raised).__name__] += 1
        except Exception as raised:
            if type(raised).__name__ != "WorkerDied":
                raise
            self.ended["WorkerDied"] += 1
        else:
            assert not error or expected is not None, f"{value!r} where {error} was due"
            assert value == expected, f"{value!r} is not {expected!r}"
            self.ended["result"] += 1

    # What a thread does.

    def tiny(self, rng):
        for number, future in enumerate([self.executor.submit(add, number, 1) for number in range(rng.randrange(100))]):
            self.check(future.result, number + 1)

    def tiny_in_pool(self, rng):
        calls = [self.pool.apply_async(add, (number, 1)) for number in range(rng.randrange(100))]
        for number, call in enumerate(calls):
            self.check(call.get, number + 1)

    def slow(self, rng):
        self.check(self.executor.submit(mishaps.square, 3).result, 9)
        self.check(self.pool.apply_async(mishaps.square, (3,)).get, 9)

    def large(self, rng):
        data = rng.randbytes(1 << 10) * rng.choice([1, 100, 5000])
        self.check(self.executor.submit(echo, data).result, data)
        self.check(self.pool.apply_async(echo, (data,)).get, data)

    def failing(self, rng):
        self.check(self.executor.submit(fail, 1).result, error=LookupError)
        self.check(self.executor.submit(mishaps.answer_to_arguments, mishaps.Unloadable("it")).result,
                   error=ArithmeticError)
        self.check(self.executor.submit(mishaps.return_what_cannot_be_loaded).result, error=ArithmeticError)
        self.check(self.pool.apply_async(mishaps.return_what_cannot_be_pickled).get, error=Exception)
        self.check(self.pool.apply_async(mishaps.raise_what_cannot_be_loaded).get, error=TypeError)
        self.check(self.pool.apply_async(echo, (threading.Lock(),)).get, error=TypeError)

    def deadly(self, rng):
        if rng.random() < 0.1:
            jobs = [self.executor.submit(os._exit, 1).result, self.pool.apply_async(os._exit, (1,)).get]
            for get in jobs:
                self.check(get, error=())

    def maps(self, rng):
        items = range(rng.randrange(2000))
        self.check(lambda limit: list(self.executor.map(abs, items, timeout=limit)), list(items))
        self.check(self.pool.map_async(abs, items).get, list(items))
        self.check(self.pool.map_async(fail_at, range(100)).get, error=LookupError)

    def imap(self, rng):
        found = self.pool.imap_unordered(abs, range(200))
        for _ in range(200):
            try:
                assert 0 <= found.next(LIMIT) < 200
            except PoolTimeoutError:
                raise
            except Exception as error:
                assert type(error).__name__ == "WorkerDied", error
        assert next(found, None) is None

    def cancelled(self, rng):
        futures = [self.executor.submit(add, number, 1) for number in range(50)]
        cancelled = {future for future in futures if rng.random() < 0.5 and future.cancel()}
        for number, future in enumerate(futures):
            self.check(future.result, number + 1, CancelledError if future in cancelled else ())

    def many(self, rng):
        futures = {self.executor.submit(add, number, 1): number for number in range(50)}
        for future in as_completed(futures, LIMIT):
            self.check(future.result, futures[future] + 1)
        done, left = wait([self.executor.submit(add, 1, 1) for _ in range(20)], LIMIT)
        assert len(done) == 20 and not left

    ACTIONS = (tiny, tiny_in_pool, slow, large, failing, deadly, maps, imap, cancelled, many)

    def submitter(self, seed, until):
        rng = random.Random(seed)
        while time.monotonic() < until and not self.failures:
            rng.choice(self.ACTIONS)(self, rng)

    # What a coroutine does.

    async def awaiting(self, until):
        while time.monotonic() < until:
            async with asyncio.timeout(LIMIT):
                got = await asyncio.gather(*[self.executor.submit(add, number, 1) for number in range(50)],
                                           *[self.pool.apply_async(add, (number, 1)) for number in range(50)],
                                           return_exceptions=True)
            for number, value in enumerate(got):
                assert value == number % 50 + 1 or type(value).__name__ == "WorkerDied", value
            self.ended["awaited"] += len(got)

    def loop(self, until):
        asyncio.run(self.awaiting(until))

    # The killer.

    def kill(self, seed, until, every):
        rng = random.Random(seed)
        while until - time.monotonic() > every:
            time.sleep(every)
            workers = rng.choice([list((self.executor._processes or {}).values()), self.pool._pool])
            if workers and (pid := rng.choice(workers).pid) is not None:
                try:
                    os.kill(pid, rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]))
                except ProcessLookupError:
                    continue
                self.ended["kill"] += 1

    # Rounds.

    def guarded(self, function, *args):
        try:
            function(*args)
        except BaseException as error:
            self.failures.append(error)
            self.tell()

    def tell(self):
        """What the pools have to do, and who does it."""
        for engine in (self.executor._pool, self.pool._engine):
            channel = engine._channel
            print(f"{engine.state}, {len(engine._waiting)} waiting, in flight:", channel.futures(), flush=True)
            for process in engine.processes.values():
                print("   ", process)
            for number in range(WORKERS):
                print("   ", channel.worker(number), channel.running(number), flush=True)

    def round(self, seconds, seed):
        until = time.monotonic() + seconds
        jobs = [(self.submitter, f"{seed} {number}", until) for number in range(SUBMITTERS)]
        jobs += [(self.loop, until), (self.kill, f"{seed} killer", until, min(1, seconds / 4))]
        threads = [threading.Thread(target=self.guarded, args=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 3 * LIMIT)
            if thread.is_alive():
                raise AssertionError(f"{thread} does not end")
        if self.failures:
            raise self.failures[0]

    def holdings(self):
        """Once it holds still: resident bytes, descriptors, threads, children."""
        deadline = time.monotonic() + LIMIT
        while True:
            jobs = [self.executor.submit(mishaps.square, 2) for _ in range(2 * WORKERS)]   # all at once
            assert [job.result(LIMIT) for job in jobs] == [4] * len(jobs)
            assert self.pool.apply_async(add, (1, 1)).get(LIMIT) == 2
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)    # what threads that have ended leave free in their arenas
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
            held = (resident, len(os.listdir("/proc/self/fd")), threading.active_count(),
                    len(self.executor._processes) + len(self.pool._pool))
            if held[-1] == 2 * WORKERS or time.monotonic() > deadline:
                return held
            time.sleep(0.05)

    def close(self):
        self.executor.shutdown(timeout=LIMIT)
        self.pool.close()
        self.pool.join()


def main(seconds, method, seed):
    soak, first = Soak(method), None
    try:
        for number in range(ROUNDS):
            soak.round(seconds / ROUNDS, f"{seed} {number}")
            held = soak.holdings()
            print(f"round {number + 1}: {held[0] >> 20} MiB, {held[1]} descriptors, {held[2]} threads, "
                  f"{held[3]} workers; "
                  f"{dict(soak.ended)}", flush=True)
            if number < 2:      # what is kept to be used again grows at first
                first = held
    finally:
        if not soak.failures:
            soak.close()
    assert held[0] <= first[0] + GROWTH, f"grew from {first[0]} to {held[0]} bytes"
    assert held[1:] == first[1:], f"descriptors, threads, workers: {first[1:]} have become {held[1:]}"
    assert soak.ended["kill"] >= max(seconds / 3, ROUNDS), "too few kills to say anything"
    assert soak.ended["result"] > 0 and soak.ended["awaited"] > 0
    print(f"all ended: {dict(soak.ended)}")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "1")
