"""The index of a pack, ``.idx``, of versions 1 and 2 (git's gitformat-pack).

Both have a fan-out table of 256 numbers: how many ids begin with at most that byte. Version 1 goes on with an offset
and an id for each object; version 2 with all ids, all CRC-32s, all offsets, and offsets of more than 31 bits. Both end
with the checksum of the pack, and their own.
"""

from __future__ import annotations

import struct
from collections import Counter
from itertools import accumulate
from typing import NamedTuple, Protocol

from katafs.git.format.stored import Oid, checksummed, is_whole

#: of the table at the start, with what is in front of it
HEAD = 8 + 256 * 4
_MAGIC = b"\xfftOc\0\0\0\2"
_TRAILER = 40
_PAIR = struct.Struct(">2I")
_FAR = 0x80000000
# ids that are compared one after the other: Python takes longer for a step of a binary search
_FEW = 256


class Sliced(Protocol):
    """The bytes of an index, of which parts are read: from an offset to another, or fewer at its end."""

    def __getitem__(self, part: slice, /) -> bytes: ...


class Shape(NamedTuple):
    """Where things are in an index: of so many objects, the first id, and how far it is from one to the next."""

    version: int
    objects: int
    first_id: int
    stride: int
    size: int  # of the whole, in bytes


class Record(NamedTuple):
    """One object of an index: where its entry begins, and the CRC-32 of that, which version 1 does not have."""

    oid: Oid
    offset: int
    crc: int | None


def parse_head(head: bytes, size: int) -> Shape:
    """The shape of an index of ``size`` bytes that begins with ``head`` (`HEAD` bytes)."""
    is_second = head[: len(_MAGIC)] == _MAGIC
    table = head[8 if is_second else 0 :][:1024]
    if len(table) < 1024 or (head[:4] == _MAGIC[:4] and not is_second):
        raise ValueError("an index of another version")
    fanout = struct.unpack(">256I", table)
    count = fanout[-1]
    if list(fanout) != sorted(fanout):
        raise ValueError("an index whose table is not in order")
    shape = Shape(2, count, HEAD, 20, size) if is_second else Shape(1, count, 1024 + 4, 24, size)
    far = size - (HEAD + 28 * count if is_second else 1024 + 24 * count) - _TRAILER
    if not 0 <= far <= 8 * count * is_second or far % 8:
        raise ValueError("an index of another size")
    return shape


def find(data: Sliced, shape: Shape, oid: Oid) -> int | None:
    """Where the entry of an object begins; None when it is not in this index, of which only some parts are read."""
    version, high, start, stride, _ = shape
    table, first = 8 if version == 2 else 0, oid[0]
    at = table + 4 * first
    low, high = _PAIR.unpack(data[at - 4 : at + 4] if first else bytes(4) + data[at : at + 4])
    while high - low > _FEW:
        middle = start + stride * ((low + high) // 2)
        if data[middle : middle + 20] <= oid:
            low = (low + high) // 2
        else:
            high = (low + high) // 2
    ids = data[start + stride * low : start + stride * high]
    at = ids.find(oid)
    # the end of one id and the start of the next are none
    while at >= 0 and at % stride:
        at = ids.find(oid, at + 1)
    return _offset(data, shape, low + at // stride) if at >= 0 else None


def _offset(data: Sliced, shape: Shape, position: int) -> int:
    if shape.version == 1:
        return int.from_bytes(data[1024 + 24 * position : 1024 + 24 * position + 4])
    offsets = HEAD + 24 * shape.objects
    offset = int.from_bytes(data[offsets + 4 * position : offsets + 4 * position + 4])
    if not offset & _FAR:
        return offset
    at = offsets + 4 * shape.objects + 8 * (offset & ~_FAR)
    far = data[at : at + 8]
    if len(far) < 8 or far[0] & 0x80:
        raise ValueError("an index with an offset that is none")
    return int.from_bytes(far)


def check(data: bytes) -> Shape:
    """The shape of a whole index that is as it was written: it ends in its own checksum."""
    shape = parse_head(data[:HEAD], len(data))
    if not is_whole(data):
        raise ValueError("an index that does not go with its checksum")
    return shape


def pack_checksum(data: bytes) -> bytes:
    """The checksum of the pack that an index belongs to."""
    return data[-_TRAILER:-20]


def records(data: bytes) -> list[Record]:
    """All objects of a whole index, by id."""
    shape = check(data)
    version, count, start, stride, _ = shape
    crcs = struct.unpack_from(f">{count}I", data, HEAD + 20 * count) if version == 2 else [None] * count
    ids = [data[at : at + 20] for at in range(start, start + stride * count, stride)]
    return [Record(oid, _offset(data, shape, place), crcs[place]) for place, oid in enumerate(ids)]


def build(entries: list[Record], checksum: bytes) -> bytes:
    """The index (version 2) of a pack with this checksum, from the records of its objects, in any order."""
    ordered = sorted(entries)
    counts = Counter(record.oid[0] for record in ordered)
    # those of more than 31 bits have a table of their own
    far = [record.offset for record in ordered if record.offset >= _FAR]
    places = {offset: _FAR | place for place, offset in enumerate(far)}
    numbers = [record.crc or 0 for record in ordered] + [places.get(record.offset, record.offset) for record in ordered]
    data = b"".join(
        [
            _MAGIC,
            struct.pack(">256I", *accumulate(counts[first] for first in range(256))),
            *[record.oid for record in ordered],
            struct.pack(f">{len(numbers)}I{len(far)}Q", *numbers, *far),
            checksum,
        ]
    )
    return checksummed(data)
