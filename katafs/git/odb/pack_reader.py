"""Reading one pack."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Container, Iterator

from katafs.caching import Shared
from katafs.git.beneath import close_quietly, open_beneath
from katafs.git.budget import BYTE, COPIED, DELTA, INSTRUCTION, OBJECT, Budget
from katafs.git.format import index
from katafs.git.format.delta import apply_delta, delta_sizes
from katafs.git.format.pack import ENTRY_HEAD, HEAD, Entry, parse_entry, parse_pack_head
from katafs.git.format.stored import Oid
from katafs.git.odb.loose_files import LargeObjectError

_PIECE = 1 << 12
# with most deltas in it, whole
_FIRST_PIECE = 512
_LARGE_PIECE = 1 << 18
# an index up to this size, in bytes, is compared with its checksum before it is believed: 10,000 objects, 0.3 ms
_CHECKED = 1 << 18
# what is read as a whole, in bytes: two million objects
_LARGEST = 64 << 20
# what an entry of a cache takes beside its data, in bytes
_OVERHEAD = 300
#: Of the whole process: kind and data of delta bases and results, by reader and offset, as who reads the events of a
#: kata one after the other would else begin at the start of a chain each time; and parts of files, as who lists files
#: reads the heads of all their entries, which stand near to each other.
_bases: Shared[tuple[int, int], tuple[int, bytes]] = Shared(
    5 << 20, lambda known: len(known[1]) + _OVERHEAD, name="bases"
)
_parts: Shared[tuple[int, int], bytes] = Shared(4 << 20, lambda part: len(part) + _OVERHEAD, name="parts")
PART = 1 << 15
_keys = itertools.count()


class PartFile:
    """A file at a path without links, opened when it is first read; its parts are kept for a while."""

    __slots__ = ("_fd", "_stays_open", "key", "path")

    def __init__(self, path: str, *, stays_open: bool = True) -> None:
        self.path = path
        self._stays_open = stays_open
        #: another number whenever what was read before does not count
        self.key = next(_keys)
        self._fd = -1

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close it; it is opened again when it is read."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_quietly(fd)

    def discard(self) -> None:
        """What was read may have been damaged: read it again, from the file that has that name now."""
        self.key = next(_keys)
        self.close()

    def size(self) -> int:
        return os.stat(self.path, follow_symlinks=False).st_size

    def __getitem__(self, part: slice) -> bytes:
        return self.read(part.start, part.stop - part.start)

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, or fewer at the end. Raises OSError."""
        at = offset % PART
        if at + size > PART:
            return self._pread(size, offset)
        key = self.key, offset - at
        part = _parts.get(key)
        if part is None:
            part = self._pread(PART, offset - at)
            _parts.keep(key, part)
        return part[at : at + size]

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            if self._fd < 0:
                self._fd = open_beneath(self.path)
            return os.pread(self._fd, size, offset)
        finally:
            if not self._stays_open:
                self.close()


class PackReader:
    """One pack with its index, opened when they are first read. What cannot be read is OSError, ValueError or
    zlib.error; an index that cannot be is never taken for an empty one."""

    __slots__ = ("_budget", "_idx", "_pack", "_shape", "_stem", "_wrong")

    def __init__(self, stem: str, budget: Budget | None = None, files: tuple[str, str] | None = None) -> None:
        """``files`` are the pack and its index where these have other names."""
        self._stem = stem
        pack, idx = files or (f"{stem}.pack", f"{stem}.idx")
        self._pack, self._idx = PartFile(pack), PartFile(idx, stays_open=False)
        self._shape: index.Shape | None = None
        self._wrong = ""
        self._budget = budget or Budget()

    def discard(self) -> None:
        self._pack.discard()
        self._idx.discard()
        self._shape, self._wrong = None, ""

    def close(self) -> None:
        self._pack.close()
        self._idx.close()

    def _index(self) -> index.Shape:
        """The shape of the index, which was looked at as a whole if it is small."""
        if self._shape is None:
            if self._wrong:
                raise ValueError(self._wrong)
            size = self._idx.size()
            self._budget.spend(OBJECT)
            try:
                if size <= _CHECKED:
                    self._shape = index.check(self._idx.read(0, size))
                else:
                    self._shape = index.parse_head(self._idx.read(0, index.HEAD), size)
            except ValueError as error:
                self._wrong = f"{self._idx.path}: {error}"
                raise ValueError(self._wrong) from error
        return self._shape

    def ids(self) -> Iterator[Oid]:
        """The ids of all objects, in order, after the whole index was compared with its checksum."""
        yield from (record.oid for record in self._records())

    def records(self) -> list[index.Record]:
        """All that the index says, by id, after it was compared with its checksum, and its length with the pack."""
        found = self._records()
        if parse_pack_head(self._pack.read(0, HEAD)) != len(found):
            raise ValueError("an index that has not all objects of its pack")
        return found

    def _records(self) -> list[index.Record]:
        if (size := self._idx.size()) > _LARGEST:
            raise ValueError("an index that is too large")
        return index.records(self._idx.read(0, size))

    def find(self, oid: Oid) -> int | None:
        """Where the entry of an object begins; None when it is not in this pack."""
        shape = self._shape or self._index()
        if shape.size > PART:
            return index.find(self._idx, shape, oid)
        return index.find(self._idx.read(0, shape.size), shape, oid)

    def read(self, offset: int, largest: float) -> tuple[int, bytes]:
        """The kind and the data of the entry at ``offset``. Raises `LargeObjectError` for what has more bytes, and for
        deltas that together have."""
        deltas: dict[int, tuple[bytes, tuple[int, int, int]]] = {}
        # of all deltas on the way together
        left = 4 * largest
        while (known := _bases.get((self._pack.key, offset))) is None:
            entry, begun = self.entry(offset)
            if entry.size > left:
                raise LargeObjectError(f"{entry.size} bytes are too many")
            data = self._inflate(entry, begun)
            if not entry.is_delta:
                known = entry.kind, data
                break
            sizes = delta_sizes(data)
            if sizes[1] > largest:
                raise LargeObjectError(f"{sizes[1]} bytes are too many")
            self._budget.spend(DELTA + INSTRUCTION * len(data) + COPIED * sizes[1])
            deltas[offset] = data, sizes
            left -= len(data)
            offset = self._base(entry, deltas)
        kind, data = known
        if len(data) > largest:
            raise LargeObjectError(f"{len(data)} bytes are too many")
        if deltas:
            _bases.keep((self._pack.key, offset), known)
        for at, (delta, sizes) in reversed(deltas.items()):
            data = apply_delta(data, delta, sizes)
            _bases.keep((self._pack.key, at), (kind, data))
        return kind, data

    def size(self, offset: int) -> int:
        """The size of the object at ``offset``, as its entry, or the delta in it, says."""
        entry, begun = self.entry(offset)
        return delta_sizes(self._inflate(entry, begun, 20))[1] if entry.is_delta else entry.size

    def kind(self, offset: int) -> int:
        seen: set[int] = set()
        while (entry := self.entry(offset)[0]).is_delta:
            seen.add(offset)
            offset = self._base(entry, seen)
        return entry.kind

    def _base(self, entry: Entry, seen: Container[int]) -> int:
        """Where the base of a delta begins: in the same pack, as git has it on disk; not at one that was ``seen``."""
        offset = entry.base if isinstance(entry.base, int) else self.find(entry.base)
        if offset is None:
            raise ValueError(f"{self._stem}: the base of a delta is not in the pack")
        if offset in seen:
            raise ValueError(f"{self._stem}: deltas without an end")
        return offset

    def entry(self, offset: int) -> tuple[Entry, bytes]:
        """The head of the entry at ``offset``, and the first bytes of what is stored, maybe all."""
        if offset > 1 << 62:
            raise ValueError(f"{self._stem}: an entry that is nowhere")
        found = self._pack.read(offset, _FIRST_PIECE)
        entry = parse_entry(found[:ENTRY_HEAD], offset)
        self._budget.spend(OBJECT / 3)
        return entry, found[entry.start - offset :]

    def _inflate(self, entry: Entry, begun: bytes, most: int | None = None) -> bytes:
        """What an entry stores, or the first ``most`` bytes of it."""
        wanted = entry.size if most is None else min(entry.size, most)
        self._budget.spend(BYTE * wanted)
        inflater = zlib.decompressobj()
        # one byte more than there should be, to see that there is none
        pieces = [inflater.decompress(begun, wanted + 1)]
        length, at, size = len(pieces[0]), entry.start + len(begun), _PIECE
        while not inflater.eof and (length < wanted or (length == wanted and most is None)):
            if not (stored := self._pack.read(at, size)):
                break
            pieces.append(inflater.decompress(stored, wanted + 1 - length))
            length, at, size = length + len(pieces[-1]), at + len(stored), _LARGE_PIECE
        if length < wanted or (most is None and (length != wanted or not inflater.eof)):
            raise ValueError(f"{self._stem}: an object is cut off, or longer than it says")
        return b"".join(pieces)[:wanted]
