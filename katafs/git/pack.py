"""Writes what git keeps in files of its own format: a pack, its ``.idx``, and the index of a work tree.

A pack is written object by object, from the tip back to the first commit, each as a difference (``OFS_DELTA``) from
the one that was at its path before. So one tip gives the same bytes however its repository stores the objects, and
memory holds only the objects last seen and some 200 bytes for each object. libgit2's own packer does neither, and
takes twice as long.

Formats: git's Documentation/gitformat-pack and Documentation/gitformat-index.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from typing import IO, NamedTuple

import pygit2

from katafs.errors import DamagedError
from katafs.git.repo import MODE_BLOB, MODE_EXECUTABLE, MODE_SYMLINK, MODE_TREE, GitRepo, Oid

# the types of entries in a pack
_COMMIT, _TREE, _BLOB, _OFS_DELTA = 1, 2, 3, 6
_WORDS = {_COMMIT: "commit", _TREE: "tree", _BLOB: "blob"}

_COMMIT_HEAD = re.compile(rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)")
_TREE_ENTRY = re.compile(rb"([0-7]{1,7}) ([^\0]+)\0(.{20})", re.DOTALL)
_FILE_TYPE = 0o170000

# a reader of the last difference in a chain needs all of it; git's own packer stops at 50 too
_LONGEST_CHAIN = 50
# bytes of objects kept in memory, to find differences from them
_BASES_LIMIT = 16 << 20
_LONGEST_COPY = 0xFFFFFF
_LONGEST_INSERT = 127
# below so many bytes, deflating costs more time than it saves space (tens of µs against hundreds of bytes)
_STORED_LIMIT = 512
# below so many bytes, comparing two numbers is faster than halving
_NUMBER_LIMIT = 512
# reading by libgit2 and writing by Python take turns: so many objects at a time are a fifth faster than one
_BATCH = 32


class Pack(NamedTuple):
    """What `write_pack` wrote: the size of the file, the bytes of its ``.idx``, the commits in it.

    `name` (40 hex digits) depends on the ids of the objects only.
    """

    name: str
    size: int
    idx: bytes
    commits: frozenset[Oid]


class IndexEntry(NamedTuple):
    """A file of a work tree: its path from the top, its mode in the tree, its id and its size in bytes."""

    path: bytes
    mode: int
    oid: Oid
    size: int


class _Object(NamedTuple):
    """An object of the history, and the path it was met at (a tree's ends in ``/``, a commit's is empty)."""

    oid: Oid
    kind: int
    path: bytes
    data: bytes


def write_pack(repo: GitRepo, tip: Oid, file: IO[bytes]) -> Pack:
    """Write a pack of all objects that the commit ``tip`` reaches to an empty ``file``; it is left at its end.

    Raises `DamagedError` when one of them cannot be read; an OSError is the file's own.
    """
    writer = _PackWriter(file)
    commits: list[Oid] = []
    objects = _reachable(repo, tip)
    while batch := list(islice(objects, _BATCH)):
        for item in batch:
            writer.add(item)
        commits += [item.oid for item in batch if item.kind == _COMMIT]
    return writer.finish(frozenset(commits))


# -- which objects, in which order


def _reachable(repo: GitRepo, tip: Oid) -> Iterator[_Object]:
    """Every object once: newest commit first, each before what is new in its tree, in the order of the tree."""
    seen: set[Oid] = set()
    commits = [tip]
    while commits:
        oid = commits.pop()
        if oid in seen:
            continue
        seen.add(oid)
        data = _read(repo, oid, _COMMIT)
        head = _COMMIT_HEAD.match(data)
        if head is None:
            raise DamagedError(f"{repo.git_dir}: commit {oid.hex()} is damaged")
        yield _Object(oid, _COMMIT, b"", data)
        commits += [bytes.fromhex(line[7:].decode()) for line in reversed(head[2].splitlines())]
        below = [(_TREE, bytes.fromhex(head[1].decode()), b"/")]
        while below:
            kind, oid, path = below.pop()
            if oid in seen:
                continue
            seen.add(oid)
            item = _Object(oid, kind, path, _read(repo, oid, kind))
            yield item
            if kind == _TREE:
                below += reversed(_new_links(repo, item, seen))


def _new_links(repo: GitRepo, tree: _Object, seen: set[Oid]) -> list[tuple[int, Oid, bytes]]:
    """Kind, id and path of the trees and blobs that a tree refers to and that are not in ``seen``."""
    links = []
    length = 0
    for mode, name, oid in _TREE_ENTRY.findall(tree.data):
        length += len(mode) + len(name) + 22
        if oid not in seen:
            # to git, whatever is neither a tree nor a file is a submodule: nothing to follow
            file_type = int(mode, 8) & _FILE_TYPE
            if file_type == MODE_TREE:
                links.append((_TREE, oid, tree.path + name + b"/"))
            elif file_type in (MODE_BLOB & _FILE_TYPE, MODE_SYMLINK):
                links.append((_BLOB, oid, tree.path + name))
    if length != len(tree.data):
        raise DamagedError(f"{repo.git_dir}: tree {tree.oid.hex()} is damaged")
    return links


def _read(repo: GitRepo, oid: Oid, expected: int) -> bytes:
    try:
        kind, data = repo.raw.read(pygit2.Oid(raw=oid))
    except KeyError as error:
        raise DamagedError(f"{repo.git_dir}: {_WORDS[expected]} {oid.hex()} is missing") from error
    except (pygit2.GitError, OSError, ValueError) as error:
        raise DamagedError(f"{repo.git_dir}: {_WORDS[expected]} {oid.hex()} is damaged: {error}") from error
    if kind != expected:
        raise DamagedError(f"{repo.git_dir}: {oid.hex()} is not a {_WORDS[expected]}")
    return data


# -- the pack


class _PackWriter:
    """A version 2 pack, as it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._offset = file.write(b"\0" * 12)
        # for each object its id, offset (8 bytes) and CRC (4 bytes), so that to sort them is to sort the ids
        self._records: list[bytes] = []
        # by path, what was there last: kind, offset, data, and how many differences away from a whole object
        self._bases: dict[bytes, tuple[int, int, bytes, int]] = {}
        self._bases_size = 0

    def add(self, item: _Object) -> None:
        """Append an object: as a difference from the last one at its path if that is much shorter."""
        oid, kind, path, data = item
        offset = self._offset
        delta, chain = None, 0
        base = self._bases.pop(path, None)
        if base is not None:
            base_kind, base_offset, base_data, chain = base
            self._bases_size -= len(base_data)
            if base_kind == kind and chain < _LONGEST_CHAIN:
                delta = _delta(base_data, data)
        if delta is None:
            chain = 0
            entry = _type_and_size(kind, len(data)) + _deflate(data)
        else:
            chain += 1
            entry = _type_and_size(_OFS_DELTA, len(delta)) + _distance(offset - base_offset) + _deflate(delta)
        self._file.write(entry)
        self._offset += len(entry)
        self._records.append(oid + struct.pack(">QI", offset, zlib.crc32(entry)))
        if path:
            self._remember(path, (kind, offset, data, chain))

    def _remember(self, path: bytes, base: tuple[int, int, bytes, int]) -> None:
        """Keep ``base`` for the next object at ``path``; forget those that have waited longest when it is too much."""
        self._bases[path] = base
        self._bases_size += len(base[2])
        while self._bases_size > _BASES_LIMIT:
            self._bases_size -= len(self._bases.pop(next(iter(self._bases)))[2])

    def finish(self, commits: frozenset[Oid]) -> Pack:
        """Fill in the head of the file, and append its checksum."""
        self._file.seek(0)
        self._file.write(struct.pack(">4sII", b"PACK", 2, len(self._records)))
        self._file.seek(0)
        checksum = hashlib.file_digest(self._file, "sha1").digest()
        self._file.write(checksum)
        self._records.sort()
        name = hashlib.sha1(b"".join([record[:20] for record in self._records])).hexdigest()
        return Pack(name, self._offset + len(checksum), _idx(self._records, checksum), commits)


def _type_and_size(kind: int, size: int) -> bytes:
    """The head of an entry: three bits of type, then the size, 4 and 7 bits at a time, lowest first."""
    first = kind << 4 | size & 15
    return bytes((first,)) if size < 16 else bytes((first | 0x80,)) + _varint(size >> 4)


def _varint(number: int) -> bytes:
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
    return bytes(reversed(groups))


def _deflate(data: bytes) -> bytes:
    """A zlib stream (RFC 1950); small data as the one stored block of it."""
    size = len(data)
    if size > _STORED_LIMIT:
        return zlib.compress(data)
    return b"\x78\x01\x01" + struct.pack("<HH", size, size ^ 0xFFFF) + data + struct.pack(">I", zlib.adler32(data))


def _delta(base: bytes, data: bytes) -> bytes | None:
    """How to make ``data`` from what it has in common with ``base`` at both ends; None when that is less than half."""
    most = min(len(base), len(data))
    start = _common_start(base, data, most)
    end = _common_end(base, data, most - start)
    inserted = len(data) - start - end
    if inserted * 2 > len(data):
        return None
    parts = [_varint(len(base)), _varint(len(data)), _copy(0, start)]
    for at in range(start, start + inserted, _LONGEST_INSERT):
        piece = data[at : min(at + _LONGEST_INSERT, start + inserted)]
        parts += (bytes((len(piece),)), piece)
    parts.append(_copy(len(base) - end, end))
    return b"".join(parts)


def _common_start(one: bytes, other: bytes, most: int) -> int:
    """How many bytes are the same at the start, ``most`` at most: by halves, then by the highest bit that differs."""
    low = 0
    while most - low > _NUMBER_LIMIT:
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
    while most - low > _NUMBER_LIMIT:
        middle = (low + most) // 2
        if one.endswith(other[other_size - middle : other_size - low], 0, size - low):
            low = middle
        else:
            most = middle
    one_end, other_end = one[size - most : size - low], other[other_size - most : other_size - low]
    bits = int.from_bytes(one_end, "little") ^ int.from_bytes(other_end, "little")
    return most - (bits.bit_length() + 7) // 8


def _copy(offset: int, size: int) -> bytes:
    """Instructions to copy a part of the base: a byte that says that all 4 + 3 bytes of offset and size follow."""
    pieces = []
    while size:
        step = min(size, _LONGEST_COPY)
        pieces.append(struct.pack("<BIHB", 0xFF, offset, step & 0xFFFF, step >> 16))
        offset += step
        size -= step
    return b"".join(pieces)


# -- files that go with a pack


def _idx(records: list[bytes], checksum: bytes) -> bytes:
    """The ``.idx`` (version 2) of a pack, from its records sorted by id."""
    counts = [0] * 256
    for record in records:
        counts[record[0]] += 1
    offsets = [record[20:28] for record in records]
    # those that need more than 31 bits are in a table of their own
    far = [offset for offset in offsets if offset >= b"\0\0\0\0\x80"]
    numbers = {offset: struct.pack(">I", 0x80000000 | number) for number, offset in enumerate(far)}
    parts = [
        struct.pack(">4sI256I", b"\xfftOc", 2, *accumulate(counts)),
        *(record[:20] for record in records),
        *(record[28:] for record in records),
        *(numbers.get(offset, offset[4:]) for offset in offsets),
        *far,
        checksum,
    ]
    data = b"".join(parts)
    return data + hashlib.sha1(data).digest()


def index_file(entries: Iterable[IndexEntry], mtime: int) -> bytes:
    """An index (version 2) that says: each file is in the work tree as it is in the tip, last changed at ``mtime``.

    git looks only at sizes and times where ``core.checkStat`` is ``minimal`` and ``core.trustctime`` is false; the
    rest of what stat(2) would say is zero.
    """
    ordered = sorted(entries)
    data = bytearray(struct.pack(">4sII", b"DIRC", 2, len(ordered)))
    for path, mode, oid, size in ordered:
        if mode & _FILE_TYPE == MODE_SYMLINK:
            mode = MODE_SYMLINK
        else:
            mode = MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB
        seconds = mtime & 0xFFFFFFFF
        data += struct.pack(">10I", seconds, 0, seconds, 0, 0, 0, mode, 0, 0, size & 0xFFFFFFFF)
        data += oid + struct.pack(">H", min(len(path), 0xFFF)) + path
        # at least one NUL, to a multiple of eight from the start of the entry
        data += b"\0" * (8 - (62 + len(path)) % 8)
    return bytes(data) + hashlib.sha1(data).digest()
