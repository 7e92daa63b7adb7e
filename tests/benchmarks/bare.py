"""The floor: a bare pyfuse3 mount of a directory's files, in the no-OPEN mode, that does nothing but answer.

``python -m tests.benchmarks.bare DIRECTORY MOUNTPOINT`` reads the directory into memory and serves until it is ended.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from pathlib import Path

import trio

from katafs.fuse import fastopen

fastopen.load()

import pyfuse3  # noqa: E402 - only after the library

_FOREVER = 86400.0


class Bare(pyfuse3.Operations):
    """Files and directories by number; everything is immutable."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.contents: dict[int, bytes] = {}
        self.children: dict[int, dict[bytes, int]] = {}
        self._add(os.fsencode(root), pyfuse3.ROOT_INODE)

    def _add(self, path: bytes, number: int) -> None:
        if not os.path.isdir(path):
            with open(path, "rb") as file:
                self.contents[number] = file.read()
            return
        children = self.children[number] = {}
        for name in sorted(os.listdir(path)):
            if not os.path.islink(path + b"/" + name):
                children[name] = 2 + len(self.contents) + len(self.children) * 100_000
                self._add(path + b"/" + name, children[name])

    def attributes(self, number: int) -> pyfuse3.EntryAttributes:
        answer = pyfuse3.EntryAttributes()
        answer.st_ino = number
        is_directory = number in self.children
        answer.st_mode = stat.S_IFDIR | 0o555 if is_directory else stat.S_IFREG | 0o444
        answer.st_nlink = 1
        answer.st_size = 0 if is_directory else len(self.contents[number])
        answer.st_blocks = (answer.st_size + 511) // 512
        answer.attr_timeout = answer.entry_timeout = _FOREVER
        return answer

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        number = self.children[parent_inode].get(name)
        if number is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.attributes(number)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self.attributes(inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        entries = list(self.children[fh].items())
        for position in range(start_id, len(entries)):
            name, number = entries[position]
            if not pyfuse3.readdir_reply(token, name, self.attributes(number), position + 1):
                return

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self.contents[fh][off : off + size]


async def _end_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            pyfuse3.terminate()


async def _main() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main() -> None:
    """Mount and serve."""
    pyfuse3.init(Bare(Path(sys.argv[1])), sys.argv[2], {"fsname=bare", "ro", "default_permissions"})
    try:
        trio.run(_main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
