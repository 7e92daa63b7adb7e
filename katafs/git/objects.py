"""Reading objects: loose ones here, packed ones by libgit2. Both ways compare the bytes with the id.

No git repository is opened for it, so that no configuration is read, and no alternates. And libgit2 1.9 never comes
back from a loose object that was cut short (its inflate loop makes no progress while Python's lock is held): one
half-written file would stop the daemon.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from functools import cached_property
from io import FileIO
from pathlib import Path

import pygit2

from katafs.errors import DamagedError, KataError, NotFoundError

Oid = bytes

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
_WORDS = {kind: word.decode() for word, kind in _KINDS.items()}
# A loose object of 1 MiB can unfold to 1 GiB.
LARGEST = 1 << 30  # bytes
_SMALL = 1 << 16
# A head has at most 30 bytes; the table of codes in front of it (RFC 1951) some 300.
_HEAD, _HEAD_STORED = 64, 1024
_LOOSE_NAME = re.compile(r"[0-9a-f]{38}")
_DAMAGE = (pygit2.GitError, OSError, ValueError, zlib.error)


class Objects:
    """The objects of one repository. Belongs to one thread."""

    def __init__(self, git_dir: Path) -> None:
        self._git_dir = git_dir
        self._directory = os.fspath(git_dir / "objects")
        self._packs = pygit2.Odb()
        try:
            if not os.path.isdir(self._directory):
                raise NotADirectoryError(self._directory)
            self._packs.add_backend(pygit2.OdbBackendPack(self._directory), 1)
        except (pygit2.GitError, OSError) as error:
            raise DamagedError(f"{git_dir} is not a readable git repository: {error}") from error

    def missing(self, what: str) -> KataError:
        """What to raise when something is not there: is it that, or the whole repository?"""
        if not self._git_dir.is_dir():
            return NotFoundError(f"{self._git_dir} is gone")
        return DamagedError(f"{self._git_dir}: {what} is missing")

    def read(self, oid: Oid, expected: int) -> bytes:
        """The data of an object of the kind ``expected``. Raises `DamagedError`, or `NotFoundError` when the whole
        repository is gone."""
        kind, data = self.read_any(oid)
        if kind != expected:
            raise DamagedError(f"{self._git_dir}: {oid.hex()} is a {_WORDS.get(kind)}, not a {_WORDS[expected]}")
        return data

    def read_any(self, oid: Oid) -> tuple[int, bytes]:
        """The kind and the data of an object. Raises as `read` does."""
        try:
            return self._read_loose(oid) or self._packs.read(pygit2.Oid(raw=oid))
        except KeyError as error:
            raise self.missing(f"object {oid.hex()}") from error
        except _DAMAGE as error:
            raise DamagedError(f"{self._git_dir}: object {oid.hex()} is damaged: {error}") from error

    def size(self, oid: Oid) -> int:
        """The size of an object in bytes, from its header. Raises as `read` does."""
        return self._head(oid)[1]

    def kind(self, oid: Oid) -> int:
        """The kind of an object, from its header. Raises as `read` does."""
        return self._head(oid)[0]

    def _head(self, oid: Oid) -> tuple[int, int]:
        """Kind and size of an object."""
        try:
            loose = self._open(oid)
            if loose is None:
                kind, size = self._packs.read_header(pygit2.Oid(raw=oid))
                return int(kind), int(size)
            with loose:
                word, size, _ = _parse_head(zlib.decompressobj().decompress(loose.read(_HEAD_STORED), _HEAD))
                return _KINDS[word], size
        except KeyError as error:
            raise self.missing(f"object {oid.hex()}") from error
        except _DAMAGE as error:
            raise DamagedError(f"{self._git_dir}: object {oid.hex()} is damaged: {error}") from error

    def __contains__(self, oid: Oid) -> bool:
        """Whether there is such an object, whole or not."""
        return os.path.lexists(self._loose_path(oid)) or pygit2.Oid(raw=oid) in self._packs

    def check(self, oid: Oid, expected: int) -> None:
        """Read an object in pieces and forget it: a large one takes no memory if it is loose. Raises as `read` does."""
        try:
            file = self._open(oid)
            if file is None:
                self.read(oid, expected)
                return
            with file:
                kind = _check_stored(file, oid)
        except _DAMAGE as error:
            raise DamagedError(f"{self._git_dir}: object {oid.hex()} is damaged: {error}") from error
        if kind != expected:
            raise DamagedError(f"{self._git_dir}: {oid.hex()} is a {_WORDS.get(kind)}, not a {_WORDS[expected]}")

    def loose(self) -> Iterator[Oid]:
        """The ids of all loose objects, by the names of their files."""
        for first in range(256):
            try:
                names = os.listdir(f"{self._directory}/{first:02x}")
            except OSError:
                continue
            yield from (bytes.fromhex(f"{first:02x}{name}") for name in names if _LOOSE_NAME.fullmatch(name))

    def packed(self) -> Iterator[Oid]:
        """The ids of all packed objects."""
        yield from (bytes(oid.raw) for oid in self._packs)

    def read_packed(self, oid: Oid) -> tuple[int, bytes] | None:
        """The kind and the data of an object as a pack has it; None when no pack has it whole."""
        try:
            kind, data = self._packs.read(pygit2.Oid(raw=oid))
        except (KeyError, *_DAMAGE):
            return None
        return int(kind), data

    def loose_file(self, oid: Oid) -> Path:
        """Where the file of a loose object is, or would be."""
        return Path(self._loose_path(oid))

    @cached_property
    def repository(self) -> pygit2.Repository:
        """The same objects as a repository that has nothing else: what libgit2 wants for a diff of trees.

        Only for objects that `read` has found whole.
        """
        odb = pygit2.Odb()
        odb.add_backend(pygit2.OdbBackendPack(self._directory), 1)
        odb.add_backend(pygit2.OdbBackendLoose(self._directory, -1, False, 0, 0), 2)
        repository = pygit2.Repository()
        repository.set_odb(odb)
        return repository

    def _loose_path(self, oid: Oid) -> str:
        name = oid.hex()
        return f"{self._directory}/{name[:2]}/{name[2:]}"

    def _open(self, oid: Oid) -> FileIO | None:
        """The file of a loose object; None when there is none."""
        try:
            fd = os.open(self._loose_path(oid), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileIO(fd)

    def _read_loose(self, oid: Oid) -> tuple[int, bytes] | None:
        """The kind and the data of a loose object; None when there is none. Raises what `_DAMAGE` names."""
        file = self._open(oid)
        if file is None:
            return None
        with file:
            if os.fstat(file.fileno()).st_size > LARGEST:
                raise ValueError("its file is too large")
            stored = file.readall() or b""
        inflater = zlib.decompressobj()
        text = inflater.decompress(stored, 0 if len(stored) <= _SMALL else _SMALL)
        word, size, start = _parse_head(text)
        if size > LARGEST:
            raise ValueError(f"{size} bytes are too many")
        data = text[start:]
        if inflater.unconsumed_tail:
            data += inflater.decompress(inflater.unconsumed_tail, size + 1)
        if not inflater.eof or len(data) != size:
            raise ValueError("it is cut short, or longer than it says")
        if hashlib.sha1(b"%b %d\0" % (word, size) + data).digest() != oid:
            raise ValueError("its bytes are not those of its id")
        return _KINDS[word], data


def _check_stored(file: FileIO, oid: Oid) -> int:
    """Compare the bytes of a loose object with its id, piece by piece: its kind. Raises what `_DAMAGE` names."""
    inflater = zlib.decompressobj()
    text = b""
    while len(text) < _HEAD and (piece := inflater.unconsumed_tail or file.read(_SMALL)):
        text += inflater.decompress(piece, _SMALL)
    word, size, start = _parse_head(text)
    if size > LARGEST:
        raise ValueError(f"{size} bytes are too many")
    digest = hashlib.sha1(b"%b %d\0" % (word, size))
    digest.update(text[start:])
    length = len(text) - start
    while length <= size and not inflater.eof and (piece := inflater.unconsumed_tail or file.read(_SMALL)):
        text = inflater.decompress(piece, _SMALL)
        digest.update(text)
        length += len(text)
    if not inflater.eof or length != size:
        raise ValueError("it is cut short, or longer than it says")
    if digest.digest() != oid:
        raise ValueError("its bytes are not those of its id")
    return _KINDS[word]


def _parse_head(text: bytes) -> tuple[bytes, int, int]:
    """Word, size and length of the head of a loose object: zlib of ``<word> SP <decimal size> NUL <data>``."""
    end = text.index(b"\0", 0, _HEAD)
    word, _, digits = text[:end].partition(b" ")
    if word not in _KINDS or not digits.isdigit():
        raise ValueError("it has no head")
    return word, int(digits), end + 1
