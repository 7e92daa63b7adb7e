"""Differences between packed objects (git's Documentation/gitformat-pack). What is wrong with one is a ValueError."""

from __future__ import annotations

# by the bits of an instruction to copy: how far to the left each byte that follows belongs
_SHIFTS = [tuple(8 * bit for bit in range(4) if bits & 1 << bit) for bits in range(16)]


class LargeObjectError(ValueError):
    """An object is larger than who wants it can have it."""


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


def apply_delta(base: bytes, delta: bytes, largest: float) -> bytes:
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
                raise ValueError("a difference is damaged")
            pieces.append(piece)
    except IndexError as error:
        raise ValueError("a difference is cut off") from error
    if left:
        raise ValueError("a difference is cut off")
    return b"".join(pieces)
