"""Packs (version 2): the head of the file, and the heads of its entries (git's gitformat-pack)."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

from katafs.git.format.stored import Oid, is_whole

#: kinds of an entry that are a delta: from another at an offset, from another by its id
OFS_DELTA, REF_DELTA = 6, 7
HEAD = 12
#: the type and size of an entry have at most 10 bytes, the place of its base 20
ENTRY_HEAD = 32
_HEAD = struct.Struct(">4sII")
_MIDX = b"MIDX"


class Entry(NamedTuple):
    """The head of an entry: its kind and the size of what is stored (of a delta, not of the object), where that starts,
    and what it is based on: an offset, or an id."""

    kind: int
    size: int
    start: int
    base: int | bytes

    @property
    def is_delta(self) -> bool:
        return self.kind in (OFS_DELTA, REF_DELTA)


def pack_head(count: int) -> bytes:
    """The first 12 bytes of a pack of so many objects."""
    return _HEAD.pack(b"PACK", 2, count)


def parse_pack_head(data: bytes) -> int:
    if len(data) < HEAD:
        raise ValueError("it is cut off")
    magic, version, count = _HEAD.unpack_from(data)
    if magic != b"PACK" or version not in (2, 3):
        raise ValueError("it is no pack")
    return int(count)


def parse_entry(text: bytes, offset: int) -> Entry:
    """The head of the entry at ``offset``, whose first bytes, up to `ENTRY_HEAD`, are ``text``."""
    try:
        kind, size, at = text[0] >> 4 & 7, text[0] & 15, 1
        shift = 4
        while text[at - 1] & 0x80:
            size |= (text[at] & 0x7F) << shift
            shift += 7
            at += 1
        base: int | bytes = b""
        if kind == REF_DELTA:
            base = text[at : at + 20]
            at += 20
        elif kind == OFS_DELTA:
            back = text[at] & 0x7F
            while text[at] & 0x80:
                at += 1
                back = (back + 1 << 7) | text[at] & 0x7F
            at += 1
            base = offset - back
            if not 0 < base < offset:
                raise ValueError("a delta from nothing")
    except IndexError as error:
        raise ValueError("the pack is cut off") from error
    if kind in (0, 5):
        raise ValueError("an object of no kind")
    return Entry(kind, size, offset + at, base)


def entry_head(kind: int, size: int, back: int = 0) -> bytes:
    """The head of an entry: three bits of kind, then the size, 4 and 7 bits at a time, lowest first. ``back`` is how
    far before it the base of an `OFS_DELTA` begins: 7 bits at a time, highest first, all but the last less one."""
    first = kind << 4 | size & 15
    head = bytes((first,)) if size < 16 else bytes((first | 0x80,)) + varint(size >> 4)
    if not back:
        return head
    groups = [back & 0x7F]
    while back := back >> 7:
        back -= 1
        groups.append(0x80 | back & 0x7F)
    return head + bytes(groups[::-1])


def varint(number: int) -> bytes:
    """7 bits at a time, lowest first; the top bit says that more follow."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


# -- files of chunks, as far as it is to be known whether what they speak of is still there
#
# Multi-pack-indexes and commit-graphs begin with four bytes of magic, a version, the version of the hash (1: SHA-1),
# and how many chunks there are (one byte, in a commit-graph before, in a multi-pack-index after the number of files
# they build on). Then comes a table of chunks: four bytes of name, eight of offset; the last one ends the file, but for
# its checksum (git's gitformat-chunk).


def _chunk(data: bytes, magic: bytes, wanted: bytes, otherwise: str) -> bytes:
    if data[:6] != magic + b"\1\1" or not is_whole(data):
        raise ValueError("it does not go with its checksum, or is of another version")
    start = 12 if magic == _MIDX else 8
    try:
        table = [struct.unpack_from(">4sQ", data, start + 12 * place) for place in range(data[6] + 1)]
        return {name: data[at:end] for (name, at), (_, end) in pairwise(table)}[wanted]
    except (KeyError, struct.error) as error:
        raise ValueError(otherwise) from error


def midx_packs(data: bytes) -> list[str]:
    """The packs, by the names of their indexes, that a multi-pack-index speaks of."""
    names = _chunk(data, _MIDX, b"PNAM", "a multi-pack-index without packs")
    return [name.decode("ascii") for name in names.rstrip(b"\0").split(b"\0") if name]


def graph_commits(data: bytes) -> list[Oid]:
    ids = _chunk(data, b"CGPH", b"OIDL", "a commit-graph without commits")
    return [ids[at : at + 20] for at in range(0, len(ids), 20)]
