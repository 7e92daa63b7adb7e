"""Writes packs object by object, each as a delta from the last one at its path.

So one tip, met from the newest commit back to the first, gives the same bytes however its repository stores the
objects, and memory holds only the last objects and some 300 bytes for each. libgit2's own packer does neither, and
takes twice as long.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from io import BufferedRandom
from typing import NamedTuple

from katafs.errors import DamagedError
from katafs.git.format import index
from katafs.git.format.delta import LONGEST_COPY, piecewise_delta, quick_delta
from katafs.git.format.index import Record
from katafs.git.format.pack import HEAD, OFS_DELTA, entry_head, pack_head
from katafs.git.format.stored import COMMIT, Oid, every_entry, links
from katafs.git.repo import GitRepo

# bytes of objects kept in memory, to make deltas from; also the most that one instruction copies
_BASES_LIMIT = LONGEST_COPY
# up to so many bytes, deflating takes more time than it is worth
_SMALL = 512
# less is written faster than deflated, and takes one block of the disk in any case
_TINY = 256

# id, kind, the path it was met at (a tree's ends in "/", a commit's is empty), data
_Object = tuple[Oid, int, bytes, bytes]


class Pack(NamedTuple):
    """What was written: `name` is 40 hex digits made of the ids in it, `size` in bytes, `commits` those that are in
    it."""

    name: str
    size: int
    idx: bytes
    commits: frozenset[Oid]


def write_pack(repo: GitRepo, tip: Oid, file: BufferedRandom) -> Pack:
    """Write a pack of all objects that the commit ``tip`` reaches to an empty ``file``; it is left at its end. Raises
    `DamagedError` when one of them cannot be read; an OSError is the file's own."""
    writer = PackWriter(file)
    for item in reachable(repo, tip):
        writer.add(*item)
    return writer.finish()


def reachable(repo: GitRepo, tip: Oid) -> Iterator[_Object]:
    """Every object once: newest commit first, each before what is new in its tree, in order. Raises `DamagedError`."""
    seen: set[Oid] = set()
    waiting = [(tip, COMMIT, b"")]
    while waiting:
        oid, kind, path = waiting.pop()
        if oid not in seen:
            seen.add(oid)
            data = repo.objects.read(oid, kind)
            yield oid, kind, path, data
            try:
                new = [(oid, kind, path + name) for oid, kind, name in links(kind, data, seen, every_entry)]
            except ValueError as error:
                raise DamagedError(f"{repo.git_dir}: {oid.hex()} is damaged: {error}") from error
            waiting += reversed(new)


class PackWriter:
    #: of deltas, all of which are needed to read the last; the same in git's own packer
    longest_chain = 50

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._offset = file.write(b"\0" * HEAD)
        self._records: list[Record] = []
        self._commits: set[Oid] = set()
        # by path, what was there last: kind, offset, data, and how many deltas away from a whole object
        self._bases: dict[bytes, tuple[int, int, bytes, int]] = {}
        self._bases_size = 0

    def add(self, oid: Oid, kind: int, path: bytes, data: bytes) -> None:
        """Append an object: as a delta from the last one at its path if that is much shorter."""
        if kind == COMMIT:
            self._commits.add(oid)
        offset = self._offset
        entry, chain = b"", 0
        base = self._bases.pop(path, None)
        if base is not None:
            base_kind, base_offset, base_data, base_chain = base
            self._bases_size -= len(base_data)
            is_base = base_kind == kind and base_chain < self.longest_chain
            if is_base and (delta := self._delta(kind, base_data, data)):
                chain = base_chain + 1
                entry = entry_head(OFS_DELTA, len(delta), offset - base_offset) + self._deflate(delta)
        self.add_entry(oid, entry or entry_head(kind, len(data)) + self._deflate(data))
        if path and len(data) <= _BASES_LIMIT:
            self._bases[path] = (kind, offset, data, chain)
            self._bases_size += len(data)
        while self._bases_size > _BASES_LIMIT:
            oldest = next(iter(self._bases))
            self._bases_size -= len(self._bases.pop(oldest)[2])

    def add_entry(self, oid: Oid, entry: bytes) -> None:
        """Append an object as another pack has it, which is no delta."""
        self._file.write(entry)
        self._records.append(Record(oid, self._offset, zlib.crc32(entry)))
        self._offset += len(entry)

    def _deflate(self, data: bytes) -> bytes:
        """A zlib stream (RFC 1950); of small data one stored block."""
        size = len(data)
        if size > _SMALL:
            return zlib.compress(data)
        return struct.pack("<3sHH", b"\x78\x01\x01", size, size ^ 0xFFFF) + data + zlib.adler32(data).to_bytes(4, "big")

    def _delta(self, kind: int, base: bytes, data: bytes) -> bytes:  # noqa: ARG002 - others look at it
        """How to make an object from another; empty when that would save little."""
        return quick_delta(base, data)

    def finish(self) -> Pack:
        """Fill in the head of the file, and append its checksum."""
        self._file.seek(0)
        self._file.write(pack_head(len(self._records)))
        self._file.seek(0)
        checksum = hashlib.file_digest(self._file, "sha1").digest()
        self._file.write(checksum)
        ids = b"".join(sorted(record.oid for record in self._records))
        idx = index.build(self._records, checksum)
        return Pack(hashlib.sha1(ids).hexdigest(), self._offset + 20, idx, frozenset(self._commits))


class QuickWriter(PackWriter):
    """Writes what is packed anew later, without deltas."""

    def _deflate(self, data: bytes) -> bytes:
        return zlib.compress(data, 1 if len(data) > _TINY else 0)

    def _delta(self, kind: int, base: bytes, data: bytes) -> bytes:  # noqa: ARG002
        return b""


class TightWriter(PackWriter):
    """Writes what is to be small, not quick to write: for what was left alone."""

    # Half of git's: it takes 4% more room, and half the time to read one event of a long history.
    longest_chain = 24

    def _deflate(self, data: bytes) -> bytes:
        return zlib.compress(data, 9)

    def _delta(self, kind: int, base: bytes, data: bytes) -> bytes:
        delta = piecewise_delta(base, data, kind)
        return delta if len(self._deflate(delta)) < len(self._deflate(data)) - 4 else b""
