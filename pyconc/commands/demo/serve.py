# SPDX-License-Identifier: MIT
"""An echo server under load, alone and while the same process hashes files."""
import asyncio
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import asynccontextmanager

from pyconc import hashing, new_event_loop
from pyconc.commands.demo.report import Figure

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "standard": asyncio.SelectorEventLoop, "pyconc": new_event_loop}


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


@asynccontextmanager
async def client(connections, size, pause):
    """A server with a client at work on it; the dictionary gets what the client tells at the end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    command = [sys.executable, "-m", "pyconc.commands.demo.client", *map(str, (port, connections, size, pause))]
    told: dict[str, float] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            if await loop.run_in_executor(None, child.stdout.readline) != "ready\n":
                raise RuntimeError("the client could not reach the echo server")
            yield told
            out, _ = await loop.run_in_executor(None, child.communicate)
            told.update(json.loads(out))
        finally:
            child.kill()
            server.close()


def run(which, main):
    with asyncio.Runner(loop_factory=LOOPS[which]) as runner:
        return runner.run(main)


def echo(options, progress):
    """Requests a second."""
    async def main():
        async with client(options.connections, options.size, 0) as told:
            for _ in range(20):
                await asyncio.sleep(options.seconds / 20)
                progress(1)
        return told

    standard, pyconc = run("standard", main()), run("pyconc", main())
    return [Figure(f"TCP echo, {options.size} bytes, {options.connections} connections", "req/s",
                   standard["requests"] / standard["seconds"], pyconc["requests"] / pyconc["seconds"],
                   not standard["wrong"] + pyconc["wrong"], "asyncio's event loop")]


def digest_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


async def hash_standard(paths, progress):
    """A thread of the default executor for each file, as the documentation of asyncio has it."""
    async def one(path):
        digest = await asyncio.to_thread(digest_file, path)
        progress(1)
        return digest

    return await asyncio.gather(*map(one, paths))


async def hash_pyconc(paths, progress):
    before = 0

    def advance(done, total):
        nonlocal before
        progress(done - before)
        before = done

    return await hashing.file_digest_many_async(paths, "sha256", progress=advance)


def hash_files(options, progress):
    """Files hashed a second by coroutines, and the time of the slowest answer that a client gets meanwhile."""
    async def main(hash_all):
        async with client(4, options.size, 0.001) as told:
            start = time.perf_counter()
            digests = await hash_all(options.files, progress)
            seconds = time.perf_counter() - start
        return digests, seconds, told

    hashing.file_digest_many(options.files, "sha256")   # nobody is to wait for the disk
    standard, pyconc = run("standard", main(hash_standard)), run("pyconc", main(hash_pyconc))
    equal = standard[0] == pyconc[0] and not standard[2]["wrong"] + pyconc[2]["wrong"]
    size = sum(path.stat().st_size for path in options.files) / 1e6
    way = "hashlib.file_digest in asyncio.to_thread()"
    return [
        Figure(f"SHA-256 of {len(options.files)} files while that server answers", "MB/s", size / standard[1],
               size / pyconc[1], equal, way),
        Figure("slowest answer of the server meanwhile", "ms", standard[2]["worst"] * 1e3, pyconc[2]["worst"] * 1e3,
               equal, way, less_is_better=True),
    ]
