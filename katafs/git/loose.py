"""Reading loose objects.

Not by libgit2, which never comes back from one that was cut short (1.9: its inflate loop makes no progress while
Python's lock is held): one half-written file would stop the daemon.

Format: zlib of ``<word> SP <decimal size> NUL <data>``, in a file named after the id.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from io import FileIO

from katafs.git.delta import LargeObjectError
from katafs.git.inside import open_inside

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
WORDS = {kind: word.decode() for word, kind in KINDS.items()}
# A loose object of 1 MiB can unfold to 1 GiB: the largest that is unfolded at all.
LARGEST = 1 << 30  # bytes
_SMALL = 1 << 16
_PIECE = 1 << 18
# A head has at most 30 bytes; the table of codes in front of it (RFC 1951) some 300.
_HEAD, _HEAD_STORED = 64, 1024
_NAME = re.compile(r"[0-9a-f]{38}")


class Loose:
    """The loose objects of one repository, below its ``objects``, a path without links.

    Errors are KeyError for an object that is not there; OSError, ValueError or zlib.error for one that is damaged.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def path(self, oid: bytes) -> str:
        """Where the file of an object is, or would be."""
        name = oid.hex()
        return f"{self._directory}/{name[:2]}/{name[2:]}"

    def __contains__(self, oid: bytes) -> bool:
        """Whether there is such a file."""
        return os.path.lexists(self.path(oid))

    def __iter__(self) -> Iterator[bytes]:
        """The ids of all objects, by the names of their files."""
        try:
            found = set(os.listdir(self._directory))
        except OSError:
            return
        for first in range(256):
            if f"{first:02x}" not in found:
                continue
            try:
                names = os.listdir(f"{self._directory}/{first:02x}")
            except OSError:
                continue
            yield from (bytes.fromhex(f"{first:02x}{name}") for name in names if _NAME.fullmatch(name))

    def _open(self, oid: bytes) -> FileIO:
        try:
            return FileIO(open_inside(self.path(oid)))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise KeyError(oid.hex()) from error

    def head(self, oid: bytes) -> tuple[int, int]:
        """The kind and the size of an object."""
        with self._open(oid) as file:
            word, size, _ = _parse_head(zlib.decompressobj().decompress(file.read(_HEAD_STORED) or b"", _HEAD))
        return KINDS[word], size

    def read(self, oid: bytes, largest: float) -> tuple[int, bytes]:
        """The kind and the data of an object of at most ``largest`` bytes; they are those of its id."""
        with self._open(oid) as file:
            inflater = zlib.decompressobj()
            text = inflater.decompress(stored := file.read(_SMALL) or b"", _SMALL)
            word, size, start = _parse_head(text)
            if size > largest:
                raise LargeObjectError(f"{size} bytes are too many")
            rest = b""
            if len(stored) == _SMALL:
                # what cannot be deflated takes a little more than its size
                if os.fstat(file.fileno()).st_size > size + (size >> 6) + _HEAD_STORED:
                    raise ValueError("it is longer than it says")
                rest = file.readall() or b""
        data = text[start:]
        # never more than one byte more than the head says
        while not inflater.eof and len(data) <= size:
            more = inflater.decompress(inflater.unconsumed_tail + rest, size + 1 - len(data))
            data, rest = data + more, b""
            if not more:
                break
        if not inflater.eof or len(data) != size:
            raise ValueError("it is cut short, or longer than it says")
        kind = KINDS[word]
        if object_id(kind, data) != oid:
            raise ValueError("its bytes are not those of its id")
        return kind, data

    def kind_and_pieces(self, oid: bytes) -> Iterator[tuple[int, bytes]]:
        """The data of an object, however large, with little memory: pieces of it, each with the kind of the object.

        What is wrong with it is found at the end.
        """
        with self._open(oid) as file:
            inflater = zlib.decompressobj()
            text = inflater.decompress(file.read(_HEAD_STORED) or b"", _HEAD)
            word, size, start = _parse_head(text)
            if size > LARGEST:
                raise LargeObjectError(f"{size} bytes are too many")
            digest = hashlib.sha1(text)
            left = size - len(text) + start
            yield KINDS[word], text[start:]
            stored = inflater.unconsumed_tail
            while not inflater.eof and left >= 0:
                stored = stored or file.read(_PIECE) or b""
                piece = inflater.decompress(stored, _PIECE)
                if not piece and not stored:
                    break
                stored = inflater.unconsumed_tail
                digest.update(piece)
                left -= len(piece)
                yield KINDS[word], piece
        if left or not inflater.eof:
            raise ValueError("it is cut short, or longer than it says")
        if digest.digest() != oid:
            raise ValueError("its bytes are not those of its id")


def object_id(kind: int, data: bytes) -> bytes:
    """The id of an object: the SHA-1 of its head and its data."""
    return hashlib.sha1(f"{WORDS[kind]} {len(data)}\0".encode() + data).digest()


def _parse_head(text: bytes) -> tuple[bytes, int, int]:
    """Word, size and length of the head of a loose object."""
    end = text.index(b"\0", 0, _HEAD)
    word, _, digits = text[:end].partition(b" ")
    if word not in KINDS or not digits.isdigit():
        raise ValueError("it has no head")
    return word, int(digits), end + 1
