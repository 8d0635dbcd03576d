"""Every file of the standard library's asyncio, hashed in C threads while the loop goes on."""
import asyncio
from pathlib import Path

import pyconc
from pyconc import hashing


async def main():
    paths = sorted(Path(asyncio.__file__).parent.glob("*.py"))
    for path, digest in zip(paths, await hashing.file_digest_many_async(paths, "sha256"), strict=True):
        print(digest.hex(), path.name)


pyconc.run(main())
