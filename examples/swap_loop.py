"""An ordinary asyncio program; pyconc.run() in the place of asyncio.run() is all that changes."""
import asyncio

import pyconc


async def echo(reader, writer):
    writer.write(await reader.readline())
    writer.close()


async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\n")
    print(await reader.readline(), "echoed by", type(asyncio.get_running_loop()).__module__)
    writer.close()
    server.close()


pyconc.run(main())
