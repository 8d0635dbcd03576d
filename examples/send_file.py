"""A server that sends itself: the kernel copies the file into the connection, Python never reads it."""
import asyncio
from pathlib import Path

import pyconc

FILE = Path(__file__)


async def serve(reader, writer):
    writer.write(b"%d\n" % FILE.stat().st_size)
    with FILE.open("rb") as file:
        await asyncio.get_running_loop().sendfile(writer.transport, file)
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    size = int(await reader.readline())
    print("the same" if await reader.readexactly(size) == FILE.read_bytes() else "another", "file")
    writer.close()
    server.close()


pyconc.run(main())
