# SPDX-License-Identifier: MIT
"""In-process cases:  python micro.py LOOP CASE SECONDS   prints one JSON line.

Each case is an async function that does n operations and returns n; it is repeated until SECONDS have passed; the
median rate is reported, and the median of the process's CPU time per operation, which says more on a busy machine.
The *_latency cases return a list of seconds; their median is reported in microseconds. CASE@1GiB runs CASE in a
process that large. bench_loop.py runs the cases too."""
import asyncio
import json
import mmap
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from time import perf_counter as clock

from loopspec import new_loop

CASES = {}


def case(fn):
    CASES[fn.__name__] = fn
    return fn


async def nothing():
    pass


@case
async def call_soon_chain(loop, n=20000):
    fut, left = loop.create_future(), n

    def step():
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            fut.set_result(None)
    loop.call_soon(step)
    await fut
    return n


@case
async def call_soon_batch(loop, n=20000):
    fut = loop.create_future()

    def step(x):
        pass
    for i in range(n):
        loop.call_soon(step, i)
    loop.call_soon(fut.set_result, None)
    await fut
    return n


@case
async def timer_insert_cancel(loop, n=100000):
    hs = [loop.call_later(10 + (i * 7919 % n) / 1000, nothing) for i in range(n)]
    for h in hs:
        h.cancel()
    await asyncio.sleep(0)
    return n


@case
async def timer_fire(loop, n=20000):
    """n timers, all due within 5 ms, in mixed order."""
    fut, left = loop.create_future(), n

    def step():
        nonlocal left
        left -= 1
        if not left:
            fut.set_result(None)
    at = loop.time()
    for i in range(n):
        loop.call_at(at + (i * 7919 % n) / n * 0.005, step)
    await fut
    return n


@case
async def threadsafe_throughput(loop, n=20000):
    fut, left = loop.create_future(), n

    def step():
        nonlocal left
        left -= 1
        if not left:
            fut.set_result(None)

    def thread():
        for _ in range(n):
            loop.call_soon_threadsafe(step)
    t = threading.Thread(target=thread)
    t.start()
    await fut
    t.join()
    return n


@case
async def threadsafe_latency(loop, n=1000):
    """Seconds from call_soon_threadsafe in a thread to the callback, loop asleep."""
    out, gate, fut = [], threading.Lock(), loop.create_future()

    def cb(t0):
        out.append(clock() - t0)
        gate.release()

    def thread():
        gate.acquire()
        for _ in range(n):
            time.sleep(0.00005)              # let the loop go to sleep
            loop.call_soon_threadsafe(cb, clock())
            gate.acquire()
        loop.call_soon_threadsafe(fut.set_result, None)
    t = threading.Thread(target=thread)
    t.start()
    await fut
    t.join()
    return out


@case
async def task_create_await(loop, n=20000):
    for _ in range(n):
        await loop.create_task(nothing())
    return n


@case
async def task_batch(loop, n=20000):
    for t in [loop.create_task(nothing()) for _ in range(n)]:
        await t
    return n


@case
async def gather_sleep0(loop, n=10000):
    await asyncio.gather(*[asyncio.sleep(0) for _ in range(n)])
    return n


@case
async def sleep0(loop, n=20000):
    for _ in range(n):
        await asyncio.sleep(0)
    return n


@case
async def sleep_1us(loop, n=2000):
    """A real timer each time: call_later, poll, fire."""
    for _ in range(n):
        await asyncio.sleep(1e-6)
    return n


@case
async def wait_for(loop, n=10000):
    for _ in range(n):
        await asyncio.wait_for(nothing(), 10)
    return n


@case
async def future_pingpong(loop, n=20000):
    for _ in range(n):
        fut = loop.create_future()
        loop.call_soon(fut.set_result, None)
        await fut
    return n


@case
async def event_pingpong(loop, n=10000):
    a, b = asyncio.Event(), asyncio.Event()

    async def other():
        for _ in range(n):
            await a.wait()
            a.clear()
            b.set()
    t = loop.create_task(other())
    for _ in range(n):
        a.set()
        await b.wait()
        b.clear()
    await t
    return n


@case
async def lock_contended(loop, n=10000):
    lock = asyncio.Lock()

    async def user():
        for _ in range(n // 10):
            async with lock:
                await asyncio.sleep(0)
    await asyncio.gather(*[user() for _ in range(10)])
    return n


@case
async def queue_pingpong(loop, n=10000):
    a, b = asyncio.Queue(1), asyncio.Queue(1)

    async def other():
        for _ in range(n):
            await b.put(await a.get())
    t = loop.create_task(other())
    for i in range(n):
        await a.put(i)
        await b.get()
    await t
    return n


@case
async def run_in_executor(loop, n=2000):
    f = int
    for _ in range(n):
        await loop.run_in_executor(None, f)
    return n


@case
async def subprocess_exec(loop, n=40):
    for _ in range(n):
        p = await asyncio.create_subprocess_exec("/bin/true")
        await p.wait()
    return n


@case
async def subprocess_stdout(loop, n=40):
    for _ in range(n):
        p = await asyncio.create_subprocess_exec("/bin/true", stdout=asyncio.subprocess.PIPE)
        await p.communicate()
    return n


@case
async def subprocess_pipe(loop, n=20):
    """cat 64 KiB through stdin and stdout."""
    data = b"x" * 65536
    for _ in range(n):
        p = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        out, _ = await p.communicate(data)
        assert len(out) == len(data)
    return n


@case
async def getaddrinfo(loop, n=500):
    for _ in range(n):
        await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    return n


@case
async def reader_callback(loop, n=20000):
    """add_reader: one byte sent to ourselves per callback."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    fut, left = loop.create_future(), n

    def readable():
        nonlocal left
        b.recv(64)
        left -= 1
        if left:
            a.send(b"x")
        else:
            fut.set_result(None)
    loop.add_reader(b.fileno(), readable)
    a.send(b"x")
    await fut
    loop.remove_reader(b.fileno())
    a.close()
    b.close()
    return n


@case
async def reader_add_remove(loop, n=5000):
    a, b = socket.socketpair()
    for _ in range(n):
        loop.add_reader(b.fileno(), nothing)
        loop.remove_reader(b.fileno())
    a.close()
    b.close()
    return n


@case
async def connect_close(loop, n=300):
    """create_connection to our own create_server and close, both ends on this loop."""
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    for _ in range(n):
        tr, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        tr.abort()
        await asyncio.sleep(0)
    server.close()
    return n


def ballast(size=1 << 30):
    """Memory of which a fork() must copy every page's entry, so not in huge pages."""
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, size, mmap.PAGESIZE):
        held[page] = 1
    return held


def run_in_new_loop(name):
    """What asyncio.run() costs: a loop, one step, close."""
    with asyncio.Runner(loop_factory=lambda: new_loop(name)) as runner:
        runner.run(nothing())


def cold_start_ms(name):
    """A whole process: import, a loop, one step, exit."""
    took = []
    for _ in range(5):
        start = clock()
        subprocess.run([sys.executable, __file__, name, "one_step", "0"], check=True)
        took.append((clock() - start) * 1e3)
    return {"value": statistics.median(took), "unit": "ms"}


def repeat(operation, secs):
    """Runs operation(), which says how many it did (or a list of latencies), for at least secs and 3 times."""
    rates, cpu, end = [], [], clock() + secs
    while clock() < end or len(rates) < 3:
        start, start_cpu = clock(), time.process_time()
        done = operation()
        took, took_cpu = clock() - start, time.process_time() - start_cpu
        if isinstance(done, list):
            rates.append(statistics.median(done) * 1e6)
        else:
            rates.append(done / took)
            cpu.append(took_cpu / done * 1e6)
    if not cpu:
        return {"value": statistics.median(rates), "unit": "us"}
    return {"value": statistics.median(rates), "unit": "op/s", "cpu_us": statistics.median(cpu)}


def measure(name, case, secs):
    if case == "cold_start_ms":
        return cold_start_ms(name)
    if case == "loop_start_stop":
        def start_stop(n=50):
            for _ in range(n):
                run_in_new_loop(name)
            return n
        return repeat(start_stop, secs)
    loop = new_loop(name)
    asyncio.set_event_loop(loop)
    case, _, large = case.partition("@")
    held = ballast() if large else None  # noqa: F841
    size = (10,) if large else ()            # some need 90 ms for each
    function = CASES[case]
    loop.run_until_complete(function(loop, *size or (50,)))  # warm up
    return repeat(lambda: loop.run_until_complete(function(loop, *size)), secs)


def main(name, case, secs):
    if case == "one_step":
        run_in_new_loop(name)
    else:
        print(json.dumps(measure(name, case, float(secs))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
