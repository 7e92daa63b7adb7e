"""How large what a packed object is made of gets: the whole chain of differences, not only the object at its end.

libgit2 unfolds each object of the chain in memory, whatever its size, to make a small one in the end. Here the heads
of the chain are read, and nothing is unfolded. Format: git's Documentation/gitformat-pack (``.idx`` of version 2).
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator

from katafs.git.inside import open_inside

_OFS_DELTA, _REF_DELTA = 6, 7
# the head of an entry, its base, and the deflated start of a difference
_HEAD = 512
# git's own packer makes 50, or 250 when it is asked for the smallest pack
_LONGEST_CHAIN = 4096
_MOST_KNOWN = 100_000
# zlib makes a thousand bytes of one at best
_RATIO = 1032


class Chains:
    """The chains in the packs of one ``objects/pack``. Belongs to one thread."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._packs: list[_Pack] | None = None
        # entries that were found good: what they are made of is in the same pack
        self._known: set[tuple[str, int]] = set()

    def refresh(self) -> None:
        """Look again, when there is something to check, which packs there are."""
        self._packs = None

    def _look(self, largest: int) -> list[_Pack]:
        self._known.clear()
        # small packs cannot hold large objects; so most need not be looked into
        with os.scandir(self._directory) as entries:
            large = [
                entry.path
                for entry in entries
                if entry.name.endswith(".pack") and entry.stat(follow_symlinks=False).st_size * _RATIO > largest
            ]
        return [_Pack(path) for path in sorted(large) if os.path.exists(path.removesuffix(".pack") + ".idx")]

    def check(self, oid: bytes, largest: int) -> None:
        """Raises ValueError when a chain has an object of more than ``largest`` bytes, or is none; OSError."""
        if self._packs is None:
            self._packs = self._look(largest)
        for pack in self._packs:
            if (offset := pack.find(oid)) is not None:
                self._check(pack, offset, largest)

    def _check(self, pack: _Pack, offset: int, largest: int) -> None:
        if (pack.path, offset) in self._known:
            return
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        good = []
        fd = open_inside(pack.path)
        try:
            for entry, size in pack.chain(fd, offset):
                if size > largest:
                    raise ValueError(f"it is made of {size} bytes, which are too many")
                if (pack.path, entry) in self._known:
                    break
                good.append((pack.path, entry))
                if len(good) > _LONGEST_CHAIN:
                    raise ValueError("it is made of too many differences")
        finally:
            os.close(fd)
        self._known.update(good)


class _Pack:
    """A pack and its index."""

    def __init__(self, path: str) -> None:
        self.path = path
        idx = path.removesuffix(".pack") + ".idx"
        fd = open_inside(idx)
        try:
            self._idx = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        if self._idx[:8] != b"\xfftOc\0\0\0\2" or len(self._idx) < 1032:
            raise ValueError(f"{idx} is not an index of version 2")
        self._count = struct.unpack_from(">I", self._idx, 1028)[0]
        if len(self._idx) < 1032 + 28 * self._count:
            raise ValueError(f"{idx} is cut short")

    def find(self, oid: bytes) -> int | None:
        """The offset of an object; None when it is not there."""
        idx, first = self._idx, oid[0]
        low = struct.unpack_from(">I", idx, 4 + 4 * first)[0] if first else 0
        end = high = min(struct.unpack_from(">I", idx, 8 + 4 * first)[0], self._count)
        while low < high:
            middle = (low + high) // 2
            if idx[1032 + 20 * middle : 1052 + 20 * middle] < oid:
                low = middle + 1
            else:
                high = middle
        if low >= end or idx[1032 + 20 * low : 1052 + 20 * low] != oid:
            return None
        offset: int = struct.unpack_from(">I", idx, 1032 + 24 * self._count + 4 * low)[0]
        if offset >> 31:
            at = 1032 + 28 * self._count + 8 * (offset & 0x7FFFFFFF)
            if at + 8 > len(idx):
                raise ValueError("an offset is nowhere")
            offset = struct.unpack_from(">Q", idx, at)[0]
        return offset

    def chain(self, fd: int, offset: int) -> Iterator[tuple[int, int]]:
        """Offset and largest size of each entry that one is made of, itself first. Raises ValueError, zlib.error."""
        while True:
            data = os.pread(fd, _HEAD, offset)
            kind, size, at = _head(data)
            if kind not in (_OFS_DELTA, _REF_DELTA):
                yield offset, size
                return
            if kind == _REF_DELTA:
                base, at = self.find(data[at : at + 20]), at + 20
            else:
                distance, at = _distance(data, at)
                base = offset - distance
            made = zlib.decompressobj().decompress(data[at:], 20)
            _, behind = _varint(made, 0)
            yield offset, max(size, _varint(made, behind)[0])
            if base is None or base < 12 or (kind == _OFS_DELTA and base >= offset):
                raise ValueError("a difference is from nothing")
            offset = base


def _head(data: bytes) -> tuple[int, int, int]:
    """Type and size in the head of an entry, and its length."""
    if not data:
        raise ValueError("an entry is nowhere")
    rest, at = _varint(data, 1) if data[0] & 0x80 else (0, 1)
    return data[0] >> 4 & 7, data[0] & 15 | rest << 4, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, 7 bits at a time, lowest first; and where it ends."""
    number = shift = 0
    while at < len(data):
        number |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return number, at
        shift += 7
    raise ValueError("a number does not end")


def _distance(data: bytes, at: int) -> tuple[int, int]:
    """How far back a base is, 7 bits at a time, highest first, all but the last less one; and where that ends."""
    number = -1
    while at < len(data):
        number = (number + 1) << 7 | data[at] & 0x7F
        at += 1
        if not data[at - 1] & 0x80:
            return number, at
    raise ValueError("a number does not end")
