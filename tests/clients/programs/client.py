"""python3 client.py FIRST NAME COUNT MOST PATH…: see tests/clients/senders.py"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from io import BytesIO

SIZE = 3000


async def in_threads(path: str, data: bytes, flags: int = os.O_TRUNC) -> None:
    """Each piece by whichever thread of the loop's pool is free."""
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        at = 0
        while at < len(data):
            at += await asyncio.to_thread(os.write, fd, data[at : at + SIZE])
    finally:
        os.close(fd)


async def appended(path: str, data: bytes) -> None:
    await in_threads(path, data, os.O_APPEND)


async def at_positions(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        at = 0
        while at < len(data):
            at += await asyncio.to_thread(os.pwrite, fd, data[at : at + SIZE], at)
    finally:
        os.close(fd)


async def copied(path: str, data: bytes) -> None:
    def copy() -> None:
        with open(path, "wb", buffering=0) as file:
            shutil.copyfileobj(BytesIO(data), file, SIZE)

    await asyncio.to_thread(copy)


async def through_a_process(path: str, data: bytes) -> None:
    """A pipe, of which a process that inherited the file writes what it gets."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=fd, stderr=pipe)
    _, said = await process.communicate(data)
    os.close(fd)
    if process.returncode:
        raise OSError(0, said.decode().rpartition(": ")[2].strip())


Way = Callable[[str, bytes], Awaitable[None]]
WAYS: list[Way] = [in_threads, appended, at_positions, copied, through_a_process]


async def sender(way: Way, name: str, count: int, most: int, path: str) -> None:
    for n in range(count):
        who, said = f"{name}-{n}", "ok"
        content = f"{who} " * (1 + n * 37 % most)
        text = json.dumps({"files": {"a.txt": {"content": content}}, "summary": {"colour": "red", "who": who}})
        try:
            await way(path, text.encode())
        except OSError as error:
            said = error.strerror or ""
        sys.stdout.write(f"{who} {said}\n")


async def main() -> None:
    first, name, count, most, *paths = sys.argv[1:]
    senders = (
        sender(WAYS[(int(first) + at) % len(WAYS)], f"{name}-{at}", int(count), int(most), path)
        for at, path in enumerate(paths)
    )
    await asyncio.gather(*senders)


asyncio.run(main())
