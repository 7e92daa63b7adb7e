"""Objects in files of their own."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator

from katafs.git.beneath import GONE, File, open_beneath
from katafs.git.budget import BYTE, LOOSE, NAME, Budget
from katafs.git.format.stored import HEADER, Oid, object_id, parse_header

#: A loose object of 1 MiB can inflate to 1 GiB: the largest that is inflated at all, in a process of its own.
LARGEST = 1 << 30  # bytes
_SMALL = 1 << 16
_PIECE = 1 << 18
# a header, and in front of it the table of codes (RFC 1951), some 300 bytes
_HEAD_STORED = 1024
_NAME = re.compile(r"[0-9a-f]{38}")


class LargeObjectError(ValueError):
    """An object is larger than who wants it can have it."""


class LooseFiles:
    """The loose objects of one repository, below its ``objects``, a path without links. Errors are KeyError for one
    that is not there; OSError, ValueError or zlib.error for one that is damaged."""

    def __init__(self, directory: str, budget: Budget) -> None:
        self._directory = directory
        self._budget = budget

    def path(self, oid: Oid) -> str:
        """Where the file of an object is, or would be."""
        name = oid.hex()
        return f"{self._directory}/{name[:2]}/{name[2:]}"

    def __contains__(self, oid: Oid) -> bool:
        return os.access(self.path(oid), os.F_OK, follow_symlinks=False)

    def __iter__(self) -> Iterator[Oid]:
        """The ids of all objects, by the names of their files. Raises OSError where they cannot be listed."""
        for first in sorted(name for name in os.listdir(self._directory) if re.fullmatch("[0-9a-f]{2}", name)):
            try:
                names = os.listdir(f"{self._directory}/{first}")
            except (FileNotFoundError, NotADirectoryError):
                continue
            self._budget.spend(NAME * len(names))
            yield from (bytes.fromhex(first + name) for name in names if _NAME.fullmatch(name))

    def _open(self, oid: Oid) -> File:
        self._budget.spend(LOOSE)
        try:
            return File(open_beneath(self.path(oid), is_verified=True))
        except OSError as error:
            if error.errno in GONE:
                raise KeyError(oid.hex()) from error
            raise

    def head(self, oid: Oid, largest: float) -> tuple[int, int, bytes | None]:
        """The kind, size and data of an object; the data of a large one is None, and its kind and size only what its
        header says."""
        with self._open(oid) as file:
            stored = file.read(_SMALL)
            kind, size, _ = parse_header(zlib.decompressobj().decompress(stored[:_HEAD_STORED], HEADER))
            if len(stored) == _SMALL or size > min(largest, _PIECE):
                return kind, size, None
            kind, data = self._inflate(oid, stored, file, largest)
        return kind, len(data), data

    def read(self, oid: Oid, largest: float) -> tuple[int, bytes]:
        """The kind and the data of an object of at most ``largest`` bytes; they are those of its id."""
        with self._open(oid) as file:
            return self._inflate(oid, file.read(_SMALL), file, largest)

    def _inflate(self, oid: Oid, stored: bytes, file: File, largest: float) -> tuple[int, bytes]:
        inflater = zlib.decompressobj()
        text = inflater.decompress(stored, _SMALL)
        kind, size, start = parse_header(text)
        if size > largest:
            raise LargeObjectError(f"{size} bytes are too many")
        self._budget.spend(BYTE * size)
        rest = b""
        if len(stored) == _SMALL:
            # nine bits for each byte, and the heads of small blocks, are the worst that a deflater makes
            if os.fstat(file.fileno()).st_size > size + (size >> 2) + _HEAD_STORED:
                raise ValueError("it is longer than it says")
            rest = file.read()
        data = text[start:]
        if not inflater.eof and len(data) <= size:
            # never more than one byte more than the header says
            data += inflater.decompress(inflater.unconsumed_tail + rest, size + 1 - len(data))
        if not inflater.eof or len(data) != size:
            raise ValueError("it is cut short, or longer than it says")
        if object_id(kind, data) != oid:
            raise ValueError("its bytes are not those of its id")
        return kind, data
