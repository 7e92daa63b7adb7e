"""Differences between packed objects (git's Documentation/gitformat-pack). What is wrong with one is a ValueError."""

from __future__ import annotations

import cachetools

#: what others were made from, by the number of the pack and the place in it: kind and data, not compared with an id
Bases = cachetools.LRUCache[tuple[int, int], tuple[int, bytes]]
# by the bits of an instruction: for each byte that they announce its position among these, and how far it is shifted
_PLACE = [
    tuple((position, 8 * bit) for position, bit in enumerate(bit for bit in range(4) if code >> bit & 1))
    for code in range(16)
]


class LargeObjectError(ValueError):
    """An object is larger than who wants it can have it."""


def new_bases(limit: int = 4 << 20) -> Bases:
    """Room for ``limit`` bytes of what differences were from; used by one thread.

    A file that changes at each event is a row of differences, each from the next: without, the oldest would be made
    through all the others, and the second oldest again.
    """
    return cachetools.LRUCache(limit, getsizeof=lambda found: len(found[1]) + 200)


def delta_sizes(delta: bytes) -> tuple[int, int, int]:
    """The sizes that a difference is from and makes, and where its instructions start."""
    numbers = []
    at = 0
    for _ in range(2):
        number = shift = 0
        while True:
            if at >= len(delta) or shift > 63:
                raise ValueError("a difference is cut off")
            byte = delta[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        numbers.append(number)
    return numbers[0], numbers[1], at


def apply_delta(base: bytes, delta: bytes, largest: int) -> bytes:
    """What a difference makes of its base: instructions to copy from it, and bytes to insert."""
    before, after, at = delta_sizes(delta)
    if after > largest:
        raise LargeObjectError(f"{after} bytes are too many")
    if before != len(base):
        raise ValueError("a difference from something else")
    pieces: list[bytes] = []
    left = after
    try:
        while at < len(delta):
            code = delta[at]
            at += 1
            if code & 0x80:
                # a bit for each byte that is there, of four of the place and three of the size
                start = size = 0
                for bit, shift in _PLACE[code & 0x0F]:
                    start |= delta[at + bit] << shift
                at += len(_PLACE[code & 0x0F])
                for bit, shift in _PLACE[code >> 4 & 7]:
                    size |= delta[at + bit] << shift
                at += len(_PLACE[code >> 4 & 7])
                size = size or 0x10000
                piece = base[start : start + size]
            else:
                size, start = code, at
                piece = delta[at : at + size]
                at += size
            left -= size
            if not size or len(piece) != size or left < 0:
                raise ValueError("a difference is damaged")
            pieces.append(piece)
    except IndexError as error:
        raise ValueError("a difference is cut off") from error
    if left:
        raise ValueError("a difference is cut off")
    return b"".join(pieces)
