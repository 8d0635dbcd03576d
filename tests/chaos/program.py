"""Everything that threads and coroutines share, used at random by all of them at once.

    python program.py SEED SECONDS settle     stops and checks that nothing was lost, duplicated or left locked
    python program.py SEED SECONDS exit       the interpreter exits in the middle of it

Prints one line; anything on stderr is a failure, as is an exit status but 0.
"""
import asyncio
import collections
import faulthandler
import gc
import itertools
import logging
import os
import random
import sys
import threading
import time
import traceback

import pyconc
import pyconc.queue
from pyconc import threading as shared
from pyconc.concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed, wait

LOOPS = (pyconc.new_event_loop, asyncio.SelectorEventLoop)
QUEUES = (pyconc.queue.Queue, pyconc.queue.LifoQueue, pyconc.queue.PriorityQueue, pyconc.queue.SimpleQueue)


class Chaos:
    def __init__(self, seed):
        self.seed = seed
        self.stop = threading.Event()
        self.put, self.got = collections.Counter(), collections.Counter()
        self.count = threading.Lock()
        self.number = itertools.count()
        self.queues = [kind() if kind is QUEUES[-1] else kind(size) for kind in QUEUES for size in (0, 1, 3)]
        self.locks = [shared.Lock(), shared.RLock(), shared.Semaphore(2), shared.BoundedSemaphore(1)]
        self.inside = [0] * len(self.locks)
        self.conditions = [shared.Condition(), shared.Condition(shared.Lock())]
        self.events = [shared.Event() for _ in range(3)]
        self.barrier = shared.Barrier(3, self.act)
        self.pool = ThreadPoolExecutor(3, daemon=True)
        self.fired = 0

    # ---- what a thread does

    def put_one(self, rng):
        queue, item = rng.choice(self.queues), next(self.number)
        try:
            queue.put(item, timeout=rng.choice([0, 0.001, 0.01]))
        except pyconc.queue.Full:
            return
        with self.count:
            self.put[item] += 1

    def get_one(self, rng):
        try:
            item = rng.choice(self.queues).get(timeout=rng.choice([0, 0.001, 0.01]))
        except pyconc.queue.Empty:
            return
        with self.count:
            self.got[item] += 1

    def lock(self, rng):
        number = rng.randrange(len(self.locks))
        lock = self.locks[number]
        if lock.acquire(timeout=rng.choice([0.001, 0.01])):
            self.enter(number)
            if rng.random() < 0.1:
                time.sleep(0.0005)
            self.leave(number)
            lock.release()

    def enter(self, number):
        with self.count:
            self.inside[number] += 1
            assert self.inside[number] <= (2 if number == 2 else 1), self.locks[number]

    def leave(self, number):
        with self.count:
            self.inside[number] -= 1

    def condition(self, rng):
        with (condition := rng.choice(self.conditions)):
            if rng.random() < 0.5:
                condition.wait(rng.choice([0.001, 0.01]))
            else:
                condition.notify(rng.randrange(3))

    def event(self, rng):
        event = rng.choice(self.events)
        rng.choice([event.set, event.clear, lambda: event.wait(0.002)])()

    def act(self):
        """What the last one at the barrier does, while others already come for the next round."""
        time.sleep(random.choice([0, 0, 0.0005]))
        if random.random() < 0.01 and not self.stop.is_set():
            raise ZeroDivisionError

    def meet(self, rng):
        try:
            assert self.barrier.wait(0.002) in range(3)
        except (shared.BrokenBarrierError, ZeroDivisionError):
            self.barrier.reset()
        if rng.random() < 0.01:
            self.barrier.abort()

    def timer(self, rng):
        timer = shared.Timer(rng.choice([0, 0.001, 5]), self.fire)
        timer.daemon = True
        timer.start()
        if rng.random() < 0.8:
            timer.cancel()

    def fire(self):
        self.fired += 1

    def submit(self, rng):
        jobs = [self.pool.submit(self.job, rng.random(), 2) for _ in range(rng.randrange(5))]
        for job in jobs:
            if rng.random() < 0.2:
                job.cancel()
        rng.choice([wait, lambda jobs: list(as_completed(jobs)), lambda jobs: None])(jobs)

    def job(self, number, depth):
        if number < 0.1:
            raise ZeroDivisionError
        if depth and number < 0.4:
            try:
                return self.pool.submit(self.job, number * 2, depth - 1).result()
            except CancelledError:
                return None
        return number

    def map(self, rng):
        results = self.pool.map(abs, range(rng.randrange(30)))
        for _ in range(rng.randrange(30)):
            try:
                next(results, None)
            except CancelledError:      # the program ends, and with it the pool
                break
        if rng.random() < 0.5:
            results.close()

    def abandon(self, rng):
        """A loop is closed while its coroutine waits, or after it was told and before it looks."""
        loop = rng.choice(LOOPS)()
        loop.set_exception_handler(lambda loop, context: None)      # of its task, which is pending
        task = loop.create_task(rng.choice(self.queues).get_async())
        loop.run_until_complete(asyncio.sleep(rng.choice([0, 0.001])))
        loop.close()
        if task.done():
            with self.count:
                self.got[task.result()] += 1
        del task, loop
        if rng.random() < 0.2:
            gc.collect()

    ACTIONS = (put_one, put_one, get_one, get_one, lock, condition, event, meet, timer, submit, map, abandon)

    def thread(self, seed):
        rng = random.Random(seed)
        while not self.stop.is_set():
            try:
                rng.choice(self.ACTIONS)(self, rng)
            except RuntimeError as error:       # by then the program has ended
                if "interpreter shutdown" not in str(error):
                    raise

    # ---- what a coroutine does

    async def put_async(self, rng):
        queue, item = rng.choice(self.queues), next(self.number)
        await queue.put_async(item)
        with self.count:        # who is cancelled cannot tell whether the item is in by then
            self.put[item] += 1

    async def get_async(self, rng):
        item = await rng.choice(self.queues).get_async()
        with self.count:
            self.got[item] += 1

    async def lock_async(self, rng):
        number = rng.randrange(len(self.locks))
        async with self.locks[number]:
            self.enter(number)
            try:
                await asyncio.sleep(0)
            finally:
                self.leave(number)

    async def condition_async(self, rng):
        async with (condition := rng.choice(self.conditions)):
            if rng.random() < 0.5:
                await condition.wait_async()
            else:
                condition.notify_all()

    async def event_async(self, rng):
        await rng.choice(self.events).wait_async()

    async def meet_async(self, rng):
        try:
            assert await self.barrier.wait_async() in range(3)
        except (shared.BrokenBarrierError, ZeroDivisionError):
            self.barrier.reset()

    async def submit_async(self, rng):
        try:
            await self.pool.submit(self.job, rng.random(), 1)
        except (ZeroDivisionError, CancelledError):
            pass
        except RuntimeError as error:
            if "interpreter shutdown" not in str(error):
                raise

    COROUTINES = (put_async, get_async, lock_async, condition_async, event_async, meet_async, submit_async)

    async def coroutine(self, rng):
        while not self.stop.is_set():
            task = asyncio.ensure_future(rng.choice(self.COROUTINES)(self, rng))
            await asyncio.wait([task], timeout=rng.choice([0, 0, 0.001, 0.01]))
            if not task.done():
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()

    def loop(self, seed, new_loop):
        async def main():
            await asyncio.gather(*[self.coroutine(random.Random(f"{seed} {number}")) for number in range(8)])

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    # ---- the end

    def start(self):
        jobs = [(self.thread, (f"{self.seed} {number}",)) for number in range(5)]
        jobs += [(self.loop, (f"{self.seed} loop {number}", new_loop))
                 for number, new_loop in enumerate(LOOPS)]
        threads = [threading.Thread(target=target, args=args, daemon=True) for target, args in jobs]
        for thread in threads:
            thread.start()
        return threads

    def settle(self, threads):
        self.stop.set()
        deadline = time.monotonic() + 60
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), threads
        self.pool.shutdown()
        gc.collect()        # abandoned loops pass on what their coroutines were told
        for queue in self.queues:
            while True:
                try:
                    self.got[queue.get_nowait()] += 1
                except pyconc.queue.Empty:
                    break
        twice = [item for item, times in self.got.items() if times > 1]
        lost = [item for item, times in self.put.items() if times and not self.got[item]]
        assert not twice and not lost, (twice, lost)
        for lock in self.locks:
            assert lock.acquire(timeout=5), lock
            lock.release()
        for condition in self.conditions:
            assert condition.acquire(timeout=5), condition
            condition.release()
        self.still_work()
        return len(self.got)

    def still_work(self):
        """The barrier and the events, for threads that come now, and a timer."""
        assert self.barrier.n_waiting == 0, self.barrier
        self.barrier.reset()
        for event in self.events:
            event.clear()
        numbers = []
        jobs = [lambda: numbers.append(self.barrier.wait(20))] * 3 + [event.wait for event in self.events]
        threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        shared.Timer(0.01, lambda: [event.set() for event in self.events]).start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads), (threads, self.barrier, self.events)
        assert sorted(numbers) == [0, 1, 2], numbers


def report(args):
    """In one write, which the exit does not cut off in the middle."""
    os.write(2, "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)).encode())


def main(seed, seconds, how):
    threading.excepthook = report
    faulthandler.dump_traceback_later(float(seconds) + 90, exit=True)
    random.seed(seed)
    logging.getLogger("asyncio").setLevel(logging.ERROR)   # slow callbacks are no surprise here
    sys.setswitchinterval(random.choice([1e-5, 1e-3, 5e-3]))
    chaos = Chaos(seed)
    threads = chaos.start()
    time.sleep(float(seconds) * (random.random() if how == "exit" else 1))
    if how == "exit":
        print("exits", flush=True)
        return
    print(chaos.settle(threads), "items,", chaos.fired, "timers")
    del chaos
    gc.collect()


main(*sys.argv[1:])
