"""Deltas: how one object is made from another (git's gitformat-pack).

A delta begins with the sizes of its base and of its result, then come instructions: to copy a part of the base, and to
insert bytes that follow.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from katafs.git.format.pack import varint
from katafs.git.format.stored import TREE

# by the bits of an instruction to copy: how far to the left each byte that follows belongs
_SHIFTS = [tuple(8 * bit for bit in range(4) if bits & 1 << bit) for bits in range(16)]
_LONGEST_INSERT, LONGEST_COPY = 127, 0xFFFFFF
# a copy takes some 3 bytes, and begins an insertion after it
_SHORTEST_COPY = 6
# up to so many bytes, comparing as numbers is faster than halving
_SMALL = 512
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")
_TREE_PIECES = re.compile(rb"([^\0]+\0)(.{20})|.+", re.DOTALL)


def delta_sizes(delta: bytes) -> tuple[int, int, int]:
    """The sizes of base and result, and where the instructions start."""
    numbers = []
    at = 0
    for _ in range(2):
        number = shift = 0
        while True:
            if at >= len(delta) or shift > 63:
                raise ValueError("a delta is cut off")
            byte = delta[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        numbers.append(number)
    return numbers[0], numbers[1], at


def apply_delta(base: bytes, delta: bytes, sizes: tuple[int, int, int] | None = None) -> bytes:
    """The result, of the size that the delta says: ``sizes`` are its `delta_sizes`, where they are known."""
    before, after, at = sizes or delta_sizes(delta)
    if before != len(base):
        raise ValueError("a delta from something else")
    pieces: list[bytes] = []
    left = after
    try:
        while at < len(delta):
            code = delta[at]
            at += 1
            if code & 0x80:
                start = size = 0
                for shift in _SHIFTS[code & 15]:
                    start |= delta[at] << shift
                    at += 1
                for shift in _SHIFTS[code >> 4 & 7]:
                    size |= delta[at] << shift
                    at += 1
                size = size or 0x10000
                piece = base[start : start + size]
            else:
                size, start = code, at
                piece = delta[at : at + size]
                at += size
            left -= size
            if not size or len(piece) != size or left < 0:
                raise ValueError("a delta does not fit its base")
            pieces.append(piece)
    except IndexError as error:
        raise ValueError("a delta is cut off") from error
    if left:
        raise ValueError("a delta makes less than it says")
    return b"".join(pieces)


def quick_delta(base: bytes, data: bytes) -> bytes:
    """A delta of what both have in common at their ends; empty when that would save little."""
    most = min(len(base), len(data))
    start = _common(base, data, most)
    end = _common(base, data, most - start, at_end=True)
    if (start + end) * 2 < len(data) or len(data) < 64:
        return b""
    middle = data[start : len(data) - end]
    ends = [*_copies(0, start), *_insertions([middle]), *_copies(len(base) - end, end)]
    return b"".join([varint(len(base)), varint(len(data)), *ends])


def _common(one: bytes, other: bytes, most: int, *, at_end: bool = False) -> int:
    """How many bytes are the same at the start, or at the end, ``most`` at most: by halves, then by the highest bit
    that differs, which takes half the time."""
    low = 0
    while most - low > _SMALL:
        middle = (low + most) // 2
        if at_end:
            is_same = one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]
        else:
            is_same = one[low:middle] == other[low:middle]
        low, most = (middle, most) if is_same else (low, middle)
    if at_end:
        bits = int.from_bytes(one[len(one) - most : len(one) - low], "little")
        bits ^= int.from_bytes(other[len(other) - most : len(other) - low], "little")
    else:
        bits = int.from_bytes(one[low:most], "big") ^ int.from_bytes(other[low:most], "big")
    return most - (bits.bit_length() + 7) // 8


def piecewise_delta(base: bytes, data: bytes, kind: int) -> bytes:
    """A delta by lines, or, of trees, by names and ids: edits in several places are only themselves."""
    parts = [varint(len(base)), varint(len(data))]
    inserted: list[bytes] = []
    for start, size, piece in _runs(base, data, kind):
        if size < _SHORTEST_COPY:
            inserted.append(piece if not size else base[start : start + size])
            continue
        parts += _insertions(inserted)
        inserted = []
        parts += _copies(start, size)
    return b"".join([*parts, *_insertions(inserted)])


def _runs(base: bytes, data: bytes, kind: int) -> Iterator[tuple[int, int, bytes]]:
    """What ``data`` consists of: where it starts in ``base``, and its size; or size 0, and the bytes, which are new."""
    places: dict[bytes, int] = {}
    at = 0
    for piece in _pieces(base, kind):
        places.setdefault(piece, at)
        at += len(piece)
    start = end = 0
    for piece in _pieces(data, kind):
        if end > start and base.startswith(piece, end):
            end += len(piece)
            continue
        if end > start:
            yield start, end - start, b""
        start = places.get(piece, -1)
        end = start + len(piece)
        if start < 0:
            yield 0, 0, piece
            start = end = 0
    if end > start:
        yield start, end - start, b""


def _pieces(data: bytes, kind: int) -> list[bytes]:
    if kind != TREE:
        return _LINES.findall(data)
    pieces = [piece for entry in _TREE_PIECES.findall(data) for piece in entry]
    # what is odd in a hostile tree is one piece
    return pieces if sum(map(len, pieces)) == len(data) else [data]


def _insertions(pieces: list[bytes]) -> list[bytes]:
    data = b"".join(pieces)
    cut = (data[at : at + _LONGEST_INSERT] for at in range(0, len(data), _LONGEST_INSERT))
    return [bytes((len(piece),)) + piece for piece in cut]


def _copies(start: int, size: int) -> list[bytes]:
    return [_copy(at, min(LONGEST_COPY, start + size - at)) for at in range(start, start + size, LONGEST_COPY)]


def _copy(offset: int, size: int) -> bytes:
    """The instruction to copy a part of the base: a byte that says which of 4 + 3 bytes of offset and size follow."""
    low = bool(offset & 0xFF) | bool(offset & 0xFF00) << 1 | bool(offset & 0xFF0000) << 2 | bool(offset >> 24) << 3
    high = bool(size & 0xFF) | bool(size & 0xFF00) << 1 | bool(size >> 16) << 2
    numbers = struct.pack("<IHB", offset, size & 0xFFFF, size >> 16).replace(b"\0", b"")
    return bytes((0x80 | high << 4 | low,)) + numbers
