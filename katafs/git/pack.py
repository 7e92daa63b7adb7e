"""Writes what git keeps in files of its own format: a pack, its ``.idx``, and the index of a work tree.

A pack is written object by object, from the tip back to the first commit, each as a difference (``OFS_DELTA``) from
the last one at its path. So one tip gives the same bytes however its repository stores the objects, and memory holds
only the last objects and some 200 bytes for each. libgit2's own packer does neither, and takes twice as long.

Formats: git's Documentation/gitformat-pack, gitformat-index and gitrepository-layout.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BufferedRandom
from itertools import accumulate
from typing import NamedTuple

from katafs.git.objects import BLOB, COMMIT, TREE, Oid
from katafs.git.repo import MODE_BLOB, MODE_EXECUTABLE, MODE_SYMLINK, TREE_ENTRY, GitRepo, commit_links

_OFS_DELTA = 6

_OFFSET_AND_CRC = struct.Struct(">QI").pack

_LONGEST_INSERT = 127
# bytes of objects kept in memory, to make differences from; also the most that one instruction copies
_BASES_LIMIT = 0xFFFFFF
# up to so many bytes, deflating takes more time than it is worth, and comparing as numbers is faster than halving
_SMALL = 512
# to read so many bytes, then to write them, is a fifth faster than to take turns (the caches of the processor)
_BATCH = 1 << 16

# id, type, the path it was met at (a tree's ends in "/", a commit's is empty), data
_Object = tuple[Oid, int, bytes, bytes]


class Pack(NamedTuple):
    """What `write_pack` wrote: `name` is 40 hex digits made of the ids in it, `size` is in bytes, `commits` are those
    that are in it."""

    name: str
    size: int
    idx: bytes
    commits: frozenset[Oid]


def write_pack(repo: GitRepo, tip: Oid, file: BufferedRandom) -> Pack:
    """Write a pack of all objects that the commit ``tip`` reaches to an empty ``file``; it is left at its end.

    Raises `DamagedError` when one of them cannot be read; an OSError is the file's own.
    """
    writer = PackWriter(file)
    objects = reachable(repo, tip)
    while batch := list(_some(objects)):
        for item in batch:
            writer.add(*item)
    return writer.finish()


def _some(objects: Iterator[_Object]) -> Iterator[_Object]:
    size = 0
    for item in objects:
        yield item
        size += len(item[3])
        if size > _BATCH:
            return


def reachable(repo: GitRepo, tip: Oid) -> Iterator[_Object]:
    """Every object once: newest commit first, each before what is new in its tree, in the order of the tree."""
    read = repo.objects.read
    seen: set[Oid] = set()
    waiting = [(tip, COMMIT, b"")]
    while waiting:
        oid, kind, path = waiting.pop()
        if oid not in seen:
            seen.add(oid)
            data = read(oid, kind)
            yield oid, kind, path, data
            if kind == TREE:
                waiting += reversed(_new_links(data, path, seen))
            elif kind == COMMIT:
                waiting += reversed(_commit_links(data))


def _commit_links(commit: bytes) -> list[tuple[Oid, int, bytes]]:
    """Id, type and path of the tree and of the parents of a commit."""
    tree, parents = commit_links(commit)
    return [(tree, TREE, b"/"), *((parent, COMMIT, b"") for parent in parents)]


def _new_links(tree: bytes, path: bytes, seen: set[Oid]) -> list[tuple[Oid, int, bytes]]:
    """Id, type and path of the trees and blobs that a tree refers to and that are not in ``seen``."""
    links = []
    for mode, name, oid in TREE_ENTRY.findall(tree):
        if oid not in seen:
            # to git, whatever is neither a tree nor a file is a submodule: nothing to follow
            bits = int(mode, 8)
            if stat.S_ISDIR(bits):
                links.append((oid, TREE, path + name + b"/"))
            elif stat.S_ISREG(bits) or stat.S_ISLNK(bits):
                links.append((oid, BLOB, path + name))
    return links


class PackWriter:
    """A version 2 pack, as it is written."""

    #: of differences, all of which are needed to read the last; the same in git's own packer
    longest_chain = 50

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._offset = file.write(b"\0" * 12)
        # for each object its id, offset (8 bytes) and CRC (4 bytes), so that to sort them is to sort the ids
        self._records: list[bytes] = []
        self._commits: set[Oid] = set()
        # by path, what was there last: type, offset, data, and how many differences away from a whole object
        self._bases: dict[bytes, tuple[int, int, bytes, int]] = {}
        self._bases_size = 0

    def add(self, oid: Oid, kind: int, path: bytes, data: bytes) -> None:
        """Append an object: as a difference from the last one at its path if that is much shorter."""
        if kind == COMMIT:
            self._commits.add(oid)
        offset = self._offset
        entry, chain = b"", 0
        base = self._bases.pop(path, None)
        if base is not None:
            base_kind, base_offset, base_data, base_chain = base
            self._bases_size -= len(base_data)
            is_base = base_kind == kind and base_chain < self.longest_chain
            if is_base and (delta := self._difference(kind, base_data, data)):
                chain = base_chain + 1
                head = _type_and_size(_OFS_DELTA, len(delta)) + _distance(offset - base_offset)
                entry = head + self._deflate(delta)
        self.add_entry(oid, entry or _type_and_size(kind, len(data)) + self._deflate(data))
        if path and len(data) <= _BASES_LIMIT:
            self._bases[path] = (kind, offset, data, chain)
            self._bases_size += len(data)
        while self._bases_size > _BASES_LIMIT:
            oldest = next(iter(self._bases))
            self._bases_size -= len(self._bases.pop(oldest)[2])

    def add_entry(self, oid: Oid, entry: bytes) -> None:
        """Append an object as another pack has it, which is no difference."""
        self._file.write(entry)
        self._records.append(record_of(oid, self._offset, zlib.crc32(entry)))
        self._offset += len(entry)

    def _deflate(self, data: bytes) -> bytes:
        """A zlib stream (RFC 1950); of small data one stored block."""
        size = len(data)
        if size > _SMALL:
            return zlib.compress(data)
        return struct.pack("<3sHH", b"\x78\x01\x01", size, size ^ 0xFFFF) + data + zlib.adler32(data).to_bytes(4, "big")

    def _difference(self, kind: int, base: bytes, data: bytes) -> bytes:  # noqa: ARG002 - others look at it
        """How to make an object from another; empty when that would save little."""
        return _delta(base, data)

    def finish(self) -> Pack:
        """Fill in the head of the file, and append its checksum."""
        self._file.seek(0)
        self._file.write(struct.pack(">4sII", b"PACK", 2, len(self._records)))
        self._file.seek(0)
        checksum = hashlib.file_digest(self._file, "sha1").digest()
        self._file.write(checksum)
        self._records.sort()
        ids = [record[:20] for record in self._records]
        idx = idx_of(self._records, checksum)
        return Pack(hashlib.sha1(b"".join(ids)).hexdigest(), self._offset + 20, idx, frozenset(self._commits))


def record_of(oid: Oid, offset: int, checksum: int) -> bytes:
    """What an index says of an object; to sort such records is to sort the ids."""
    return oid + _OFFSET_AND_CRC(offset, checksum)


def _type_and_size(kind: int, size: int) -> bytes:
    """The head of an entry: three bits of type, then the size, 4 and 7 bits at a time, lowest first."""
    first = kind << 4 | size & 15
    return bytes((first,)) if size < 16 else bytes((first | 0x80,)) + varint(size >> 4)


def varint(number: int) -> bytes:
    """7 bits at a time, lowest first; the top bit says that more follow."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _distance(distance: int) -> bytes:
    """How far back the base of an OFS_DELTA begins: 7 bits at a time, highest first, all but the last less one."""
    groups = [distance & 0x7F]
    while distance := distance >> 7:
        distance -= 1
        groups.append(0x80 | distance & 0x7F)
    return bytes(groups[::-1])


def _delta(base: bytes, data: bytes) -> bytes:
    """How to make ``data`` from what it has in common with ``base`` at both ends; empty when that would save little."""
    most = min(len(base), len(data))
    start = _common_start(base, data, most)
    end = _common_end(base, data, most - start)
    if (start + end) * 2 < len(data) or len(data) < 64:
        return b""
    middle = data[start : len(data) - end]
    pieces = [middle[at : at + _LONGEST_INSERT] for at in range(0, len(middle), _LONGEST_INSERT)]
    inserts = b"".join([bytes((len(piece),)) + piece for piece in pieces])
    return varint(len(base)) + varint(len(data)) + _copy(0, start) + inserts + _copy(len(base) - end, end)


def _common_start(one: bytes, other: bytes, most: int) -> int:
    """How many bytes are the same at the start, ``most`` at most: by halves, then by the highest bit that differs."""
    low = 0
    while most - low > _SMALL:
        middle = (low + most) // 2
        if one.startswith(other[low:middle], low):
            low = middle
        else:
            most = middle
    bits = int.from_bytes(one[low:most], "big") ^ int.from_bytes(other[low:most], "big")
    return most - (bits.bit_length() + 7) // 8


def _common_end(one: bytes, other: bytes, most: int) -> int:
    """How many bytes are the same at the end, ``most`` at most."""
    low, size, other_size = 0, len(one), len(other)
    while most - low > _SMALL:
        middle = (low + most) // 2
        if one.endswith(other[other_size - middle : other_size - low], 0, size - low):
            low = middle
        else:
            most = middle
    one_end, other_end = one[size - most : size - low], other[other_size - most : other_size - low]
    bits = int.from_bytes(one_end, "little") ^ int.from_bytes(other_end, "little")
    return most - (bits.bit_length() + 7) // 8


def _copy(offset: int, size: int) -> bytes:
    """The instruction to copy a part of the base: a byte that says that all 4 + 3 bytes of offset and size follow."""
    return struct.pack("<BIHB", 0xFF, offset, size & 0xFFFF, size >> 16) if size else b""


def idx_of(records: list[bytes], checksum: bytes) -> bytes:
    """The ``.idx`` (version 2) of a pack, from its records sorted by id."""
    counts = Counter(record[0] for record in records)
    offsets = [record[20:28] for record in records]
    # those of more than 31 bits have a table of their own
    far = [offset for offset in offsets if offset >= b"\0\0\0\0\x80"]
    places = {offset: struct.pack(">I", 0x80000000 | place) for place, offset in enumerate(far)}
    parts = [
        struct.pack(">4sI256I", b"\xfftOc", 2, *accumulate(counts[first] for first in range(256))),
        *[record[:20] for record in records],
        *[record[28:] for record in records],
        *[places.get(offset, offset[4:]) for offset in offsets],
        *far,
        checksum,
    ]
    data = b"".join(parts)
    return data + hashlib.sha1(data).digest()


def index_file(entries: Iterable[tuple[bytes, int, Oid, int]], mtime: int) -> bytes:
    """An index (version 2) that says: each file is in the work tree as it is in the tip, last changed at ``mtime``.

    Each has its path from the top, its mode in the tree, id and size. What git does not look at is zero, with
    ``core.checkStat=minimal`` and ``core.trustctime=false``.
    """
    ordered = sorted(entries)
    seconds = mtime & 0xFFFFFFFF
    data = bytearray(struct.pack(">4sII", b"DIRC", 2, len(ordered)))
    for path, mode, oid, size in ordered:
        kept = MODE_SYMLINK if stat.S_ISLNK(mode) else MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB
        data += struct.pack(">10I", seconds, 0, seconds, 0, 0, 0, kept, 0, 0, size & 0xFFFFFFFF)
        data += oid + struct.pack(">H", min(len(path), 0xFFF)) + path
        # at least one NUL, to a multiple of eight from the start of the entry
        data += b"\0" * (8 - (62 + len(path)) % 8)
    return bytes(data) + hashlib.sha1(data).digest()
