"""Reading one pack.

Format: git's Documentation/gitformat-pack, packs and indexes of version 2.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from katafs.caching import Kept, Shared
from katafs.git.budget import BYTE, COPIED, DELTA, INSTRUCTION, Budget
from katafs.git.delta import LargeObjectError, apply_delta, delta_sizes
from katafs.git.inside import open_inside

_IDX_HEAD = b"\xfftOc\0\0\0\2"
_FANOUT = struct.Struct(">256I")
_FIRST_ID = len(_IDX_HEAD) + _FANOUT.size
_LARGEST_IDX = 64 << 20  # bytes: two million objects
# git's own packer makes 50 differences, one upon the other, at most, and can be told to make 4095
_LONGEST_CHAIN = 4095
_OFS_DELTA, _REF_DELTA = 6, 7
# ids that are compared one after the other: Python takes longer for a step of a binary search
_FEW = 256
_PIECE = 1 << 12
# with most differences in it, whole
_FIRST_PIECE = 512
_LARGE_PIECE = 1 << 18
# the type and size of an entry have at most 10 bytes, the place of its base 20
_HEAD = 32
# what is said of us, not of a file
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Entry(NamedTuple):
    """The head of an entry: its type and the size of what is stored, where that starts, and what it is based on: an
    offset or an id."""

    kind: int
    size: int
    start: int
    base: int | bytes
    #: the first bytes of what is stored, maybe all
    begun: bytes


# what an entry takes beside its data, in bytes
_OVERHEAD = 300
#: What differences were from, and what they made, of the whole process: kind and data by reader and offset. Who reads
#: the events of a kata one after the other would else begin at the start of a chain each time.
_bases: Shared[tuple[int, int], tuple[int, bytes]] = Shared(6 << 20, lambda known: len(known[1]) + _OVERHEAD)
#: Parts of packs, of the whole process, by reader and place: who lists files reads all their heads, which stand near to
#: each other.
_parts: Shared[tuple[int, int], bytes] = Shared(4 << 20, lambda part: len(part) + _OVERHEAD)
_PART = 1 << 15
_keys = itertools.count()


def kept() -> dict[str, Kept]:
    """What is in memory, by names for an operator."""
    return {"bases": _bases.kept(), "parts": _parts.kept()}


def forget() -> None:
    """Give up what was kept to be quicker."""
    _bases.clear()
    _parts.clear()


class PackReader:
    """One pack, opened when it is first read."""

    def __init__(self, stem: str, files: tuple[str, str] | None = None, budget: Budget | None = None) -> None:
        """``files`` are the pack and its index where these have other names; ``budget`` pays for what is read."""
        self._stem, self._budget = stem, budget or Budget()
        self._pack_path, self._idx_path = files or (f"{stem}.pack", f"{stem}.idx")
        self._fd = -1
        self._key = next(_keys)
        self._idx: bytes | None = None
        self._fanout: tuple[int, ...] = ()

    def __del__(self) -> None:
        self.close()

    def forget(self) -> None:
        """What was read may have been damaged: read it again."""
        self._key = next(_keys)

    def close(self) -> None:
        """Close the pack; it is opened again when it is read."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- the index

    def _open_idx(self) -> bytes:
        """The index. One that is damaged or gone has nothing in it, like a pack that is not there."""
        if self._idx is None:
            self._fanout = (0,) * 256
            with contextlib.suppress(OSError):
                self._budget.spend(os.lstat(self._idx_path).st_size * BYTE)
            try:
                data = _read_file(self._idx_path, _LARGEST_IDX)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    raise
                return b""
            if data[: len(_IDX_HEAD)] == _IDX_HEAD and len(data) >= _FIRST_ID + 40:
                fanout = _FANOUT.unpack_from(data, len(_IDX_HEAD))
                if list(fanout) == sorted(fanout) and len(data) >= _FIRST_ID + 28 * fanout[-1] + 40:
                    self._idx, self._fanout = data, fanout
        return self._idx or b""

    def ids(self) -> Iterator[bytes]:
        idx = self._open_idx()
        for position in range(self._fanout[-1]):
            yield idx[_FIRST_ID + 20 * position : _FIRST_ID + 20 * position + 20]

    def find(self, oid: bytes) -> int | None:
        """Where the entry of an object begins; None when it is not in this pack."""
        idx = self._open_idx()
        first = oid[0]
        low, high = self._fanout[first - 1] if first else 0, self._fanout[first]
        while high - low > _FEW:
            middle = (low + high) // 2
            at = _FIRST_ID + 20 * middle
            if idx[at : at + 20] <= oid:
                low = middle
            else:
                high = middle
        end = _FIRST_ID + 20 * high
        at = idx.find(oid, _FIRST_ID + 20 * low, end)
        # the end of one id and the start of the next are none
        while at >= 0 and (at - _FIRST_ID) % 20:
            at = idx.find(oid, at + 1, end)
        return self._offset(idx, (at - _FIRST_ID) // 20) if at >= 0 else None

    def _offset(self, idx: bytes, position: int) -> int:
        count = self._fanout[-1]
        offsets = _FIRST_ID + 24 * count
        (offset,) = struct.unpack_from(">I", idx, offsets + 4 * position)
        if offset & 0x80000000:
            far = offsets + 4 * count + 8 * (offset & 0x7FFFFFFF)
            return int.from_bytes(idx[far : far + 8])
        return int(offset)

    # -- entries

    def read(self, offset: int, largest: float) -> tuple[int, bytes]:
        """The kind and the data of the entry at ``offset``."""
        budget = self._budget
        deltas: list[tuple[int, bytes]] = []
        while (known := _bases.get((self._key, offset))) is None:
            entry = self.entry(offset)
            if entry.size > largest:
                raise LargeObjectError(f"{entry.size} bytes are too many")
            data = self._inflate(entry)
            if entry.kind not in (_OFS_DELTA, _REF_DELTA):
                known = entry.kind, data
                break
            deltas.append((offset, data))
            budget.spend(DELTA + len(data) * INSTRUCTION)
            if len(deltas) > _LONGEST_CHAIN:
                raise ValueError(f"{self._stem}: differences without an end")
            offset = self._base(entry)
        kind, data = known
        if len(data) > largest:
            raise LargeObjectError(f"{len(data)} bytes are too many")
        if deltas:
            _bases.keep((self._key, offset), known)
        for at, delta in reversed(deltas):
            data = apply_delta(data, delta, largest)
            budget.spend(len(data) * COPIED)
            _bases.keep((self._key, at), (kind, data))
        return kind, data

    def size(self, offset: int, largest: int) -> int:
        """The size of the object at ``offset``."""
        entry = self.entry(offset)
        if entry.kind not in (_OFS_DELTA, _REF_DELTA):
            return entry.size
        if entry.size > largest:
            raise LargeObjectError(f"{entry.size} bytes are too many")
        return delta_sizes(self._inflate(entry, 20))[1]

    def kind(self, offset: int) -> int:
        """The kind of the object at ``offset``."""
        for _ in range(_LONGEST_CHAIN):
            self._budget.spend(DELTA)
            entry = self.entry(offset)
            if entry.kind not in (_OFS_DELTA, _REF_DELTA):
                return entry.kind
            offset = self._base(entry)
        raise ValueError(f"{self._stem}: differences without an end")

    def _base(self, entry: Entry) -> int:
        """Where the entry begins that another is a difference from: in the same pack, as git has it on disk."""
        if isinstance(entry.base, int):
            return entry.base
        offset = self.find(entry.base)
        if offset is None:
            raise ValueError(f"{self._stem}: what a difference is from is not in the pack")
        return offset

    def _pread(self, size: int, offset: int) -> bytes:
        at = offset % _PART
        if at + size <= _PART:
            key = self._key, offset - at
            part = _parts.get(key)
            if part is None:
                part = self._read(_PART, offset - at)
                _parts.keep(key, part)
            return part[at : at + size]
        return self._read(size, offset)

    def _read(self, size: int, offset: int) -> bytes:
        if self._fd < 0:
            self._fd = open_inside(self._pack_path)
        return os.pread(self._fd, size, offset)

    def entry(self, offset: int) -> Entry:
        """The head at ``offset``: three bits of type, then the size, 4 and 7 bits at a time, lowest first."""
        found = self._pread(_FIRST_PIECE, offset)
        text = found[:_HEAD]
        try:
            kind, size, at = text[0] >> 4 & 7, text[0] & 15, 1
            shift = 4
            while text[at - 1] & 0x80:
                size |= (text[at] & 0x7F) << shift
                shift += 7
                at += 1
            base: int | bytes = b""
            if kind == _REF_DELTA:
                base = text[at : at + 20]
                at += 20
            elif kind == _OFS_DELTA:
                back = text[at] & 0x7F
                while text[at] & 0x80:
                    at += 1
                    back = (back + 1 << 7) | text[at] & 0x7F
                at += 1
                base = offset - back
                if not 0 < base < offset:
                    raise ValueError(f"{self._stem}: a difference from nothing")
        except IndexError as error:
            raise ValueError(f"{self._stem}: the pack is cut off") from error
        if kind in (0, 5):
            raise ValueError(f"{self._stem}: an object of no kind")
        return Entry(kind, size, offset + at, base, found[at:])

    def _inflate(self, entry: Entry, most: int | None = None) -> bytes:
        """What an entry stores, or the first ``most`` bytes of it."""
        wanted = entry.size if most is None else min(entry.size, most)
        inflater = zlib.decompressobj()
        begun = entry.begun
        at, size = entry.start + len(begun), _PIECE
        pieces: list[bytes] = []
        length = 0
        while not inflater.eof:
            # one byte more than there should be, to see that there is none
            stored = inflater.unconsumed_tail or begun
            if not stored:
                stored = self._pread(size, at)
                at, size = at + len(stored), _LARGE_PIECE
            begun = b""
            piece = inflater.decompress(stored, wanted + 1 - length)
            pieces.append(piece)
            length += len(piece)
            if (not piece and not stored) or length > wanted or (most is not None and length == wanted):
                break
        if length < wanted or (most is None and (length != wanted or not inflater.eof)):
            raise ValueError(f"{self._stem}: an object is cut off, or longer than it says")
        return b"".join(pieces)[:wanted]


def _read_file(path: str, limit: int) -> bytes:
    """A whole file. Raises OSError, also when it is larger than ``limit``."""
    with open(path, "rb", opener=open_inside) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"{path} is too large")
    return data
