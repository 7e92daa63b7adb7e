"""Packs made by hand that lie about objects of a kata: what no disk does, but a hostile owner.

Each is the first that is asked, beside what git has stored.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

Objects = dict[bytes, tuple[int, bytes]]
_OFS, _REF = 6, 7
_MIB = 1 << 20


def _number(value: int) -> bytes:
    """7 bits at a time, lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))


def _head(kind: int, size: int) -> bytes:
    first = kind << 4 | size & 15
    return bytes((first,)) if size < 16 else bytes((first | 0x80,)) + _number(size >> 4)


def _entry(kind: int, data: bytes, base: bytes = b"", size: int | None = None) -> bytes:
    return _head(kind, len(data) if size is None else size) + base + zlib.compress(data, 1)


def _back(distance: int) -> bytes:
    """How far back a base is: 7 bits at a time, highest first, all but the last less one."""
    groups = [distance & 0x7F]
    while distance := distance >> 7:
        distance -= 1
        groups.append(0x80 | distance & 0x7F)
    return bytes(groups[::-1])


def _copy(offset: int, size: int) -> bytes:
    return struct.pack("<BIHB", 0xFF, offset, size & 0xFFFF, size >> 16)


def _delta(before: int, after: int, instructions: bytes) -> bytes:
    return _number(before) + _number(after) + instructions


def _inserts(data: bytes) -> bytes:
    pieces = [data[at : at + 127] for at in range(0, len(data), 127)]
    return b"".join(bytes((len(piece),)) + piece for piece in pieces)


class Forged:
    """A pack whose entries are whatever one likes."""

    def __init__(self) -> None:
        self._entries: list[tuple[bytes, bytes]] = []
        self.offset = 12

    def add(self, oid: bytes, entry: bytes) -> int:
        """Append an entry that the index has under an id: its offset."""
        self._entries.append((oid, entry))
        self.offset += len(entry)
        return self.offset - len(entry)

    def write(self, git_dir: Path) -> None:
        """Write pack and index (version 2), both with the right checksums; not by way of a link that damage made."""
        offset, records, data = 12, [], bytearray(struct.pack(">4sII", b"PACK", 2, len(self._entries)))
        for oid, entry in self._entries:
            records.append((oid, offset, zlib.crc32(entry)))
            offset += len(entry)
            data += entry
        data += hashlib.sha1(data).digest()
        records.sort()
        ids = [oid for oid, _, _ in records]
        fanout = [bisect.bisect_left(ids, bytes((first + 1,))) if first < 255 else len(ids) for first in range(256)]
        index = bytearray(struct.pack(">4sI256I", b"\xfftOc", 2, *fanout) + b"".join(ids))
        index += struct.pack(f">{len(ids)}I", *[crc for _, _, crc in records])
        index += struct.pack(f">{len(ids)}I", *[at for _, at, _ in records]) + data[-20:]
        stem = git_dir / f"objects/pack/pack-{'0' * 40}"
        if not stem.parent.resolve().is_relative_to(git_dir.resolve()):
            return
        stem.parent.mkdir(exist_ok=True)
        for suffix, content in ((".pack", data), (".idx", index + hashlib.sha1(index).digest())):
            stem.with_suffix(suffix).unlink(missing_ok=True)
            stem.with_suffix(suffix).write_bytes(content)


Forger = Callable[[Forged, bytes, int, bytes, random.Random], None]


def cycle(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    """Two deltas, each from the other, or one from itself."""
    copy = _delta(len(data), len(data), _copy(0, len(data)) if data else b"")
    other = dice.choice((oid, dice.randbytes(20)))
    pack.add(oid, _entry(_REF, copy, other))
    if other != oid:
        pack.add(other, _entry(_REF, copy, oid))


def no_base(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    bases = (dice.randbytes(20), _back(pack.offset), _back(pack.offset - 12 or 1), _back(1), _back(1 << 40), _back(0))
    base = dice.choice(bases)
    pack.add(oid, _entry(_REF if len(base) == 20 else _OFS, _delta(len(data), len(data), _copy(0, 1)), base))


def bad_delta(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    """A delta that copies from beyond its base, makes too much or too little, or has no sense."""
    start = pack.add(dice.randbytes(20), _entry(kind, data))
    size = len(data)
    wrong = (
        _delta(size, size, _copy(size, 1)),
        _delta(size, size, _copy(0, size + 1)),
        _delta(size, size, _copy(0xFFFFFFFF, 0xFFFFFF)),
        _delta(size, 1 << 40, _copy(0, size)),
        _delta(1 << 40, size, _copy(0, size)),
        _delta(size, size, b"\0"),
        _delta(size, size, b"\xff"),
        _delta(size, size, b"\x7fshort"),
        _delta(size, size * 2, _copy(0, size) * 2),
        _delta(size, 0, b""),
        _delta(size, size, _inserts(bytes(size))),
        b"\xff" * 30,
        b"",
    )
    pack.add(oid, _entry(_OFS, dice.choice(wrong), _back(pack.offset - start)))


def long_chain(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    """More deltas, one upon the other, than git ever makes; of a good size each."""
    size = dice.choice((0, 1000, 100_000))
    whole = data + bytes(size)
    start = pack.add(dice.randbytes(20), _entry(kind, whole))
    copy = zlib.compress(delta := _delta(len(whole), len(whole), _copy(0, len(whole))), 1)
    for _ in range(dice.choice((3000, 4094, 4100, 20_000))):
        start = pack.add(dice.randbytes(20), _head(_OFS, len(delta)) + _back(pack.offset - start) + copy)
    pack.add(oid, _entry(_OFS, _delta(len(whole), len(data), _inserts(data)), _back(pack.offset - start)))


def doubling(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    """Each delta makes twice what the one before made."""
    size = 1 << 16
    start = pack.add(dice.randbytes(20), _entry(kind, bytes(size)))
    while size < 64 * _MIB:
        piece = min(size, 0xFFFFFF)
        copies = b"".join(_copy(at, min(piece, size - at)) for at in range(0, size, piece)) * 2
        here = oid if size == 32 * _MIB else dice.randbytes(20)
        start = pack.add(here, _entry(_OFS, _delta(size, size * 2, copies), _back(pack.offset - start)))
        size *= 2


@functools.cache
def _zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 1)


def bomb(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    """Much more is inflated than is stored, or said to be."""
    size = dice.choice((16, 18, 100)) * _MIB
    said = dice.choice((size, len(data), 16 * _MIB, 1 << 62))
    kind = dice.choice((kind, kind, _OFS, _REF))
    base = {_OFS: _back(pack.offset - 12 or 1), _REF: dice.randbytes(20)}.get(kind, b"")
    pack.add(oid, _head(kind, said) + base + _zeros(size))


def size_lies(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    sizes = (0, max(len(data) - 1, 0), len(data) + 1, 2 * len(data), 10 * _MIB, 1 << 31, 1 << 63, 1 << 200)
    lie(pack, oid, kind, data, dice.choice(sizes))


def lie(pack: Forged, oid: bytes, kind: int, data: bytes, size: int) -> None:
    """An object that is said to have another size than is stored."""
    pack.add(oid, _entry(kind, data, size=size))


def other_bytes(pack: Forged, oid: bytes, kind: int, data: bytes, dice: random.Random) -> None:
    """Well stored, but not what the id says; or of another kind, or of none."""
    kind = dice.choice((0, 1, 2, 3, 4, 5))
    changed = dice.choice((data, data + b"x", bytes(len(data)), b"", data[::-1]))
    pack.add(oid, _entry(kind, changed))


FORGERS: tuple[Forger, ...] = (cycle, no_base, bad_delta, long_chain, doubling, bomb, size_lies, other_bytes)


def forge(git_dir: Path, objects: Objects, dice: random.Random) -> str:
    """Put a forged pack into a repository; what is stored otherwise may be there as well, or not."""
    forger = dice.choice(FORGERS)
    pack = Forged()
    some = dice.sample(sorted(objects), min(len(objects), 2 if forger is long_chain else dice.choice((1, 3, 30))))
    for oid in some:
        forger(pack, oid, *objects[oid], dice)
    is_alone = dice.random() < 0.7
    if is_alone:
        for oid in some:
            (git_dir / f"objects/{oid.hex()[:2]}/{oid.hex()[2:]}").unlink(missing_ok=True)
    pack.write(git_dir)
    return f"{forger.__name__} of {len(some)}, {'alone' if is_alone else 'beside the right ones'}"
