"""Reading objects: loose ones here, packed ones by libgit2. Both ways compare the bytes with the id.

No git repository is opened for it, so that no configuration is read, and no alternates. And libgit2 1.9 never comes
back from a loose object that was cut short (its inflate loop makes no progress while Python's lock is held): one
half-written file would stop the daemon.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from io import FileIO
from pathlib import Path

import pygit2

from katafs.errors import DamagedError, HeavyError, KataError, NotFoundError, unreadable
from katafs.git.chains import Chains
from katafs.git.inside import open_inside, real_path

Oid = bytes

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
_WORDS = {kind: word.decode() for word, kind in _KINDS.items()}
# A loose object of 1 MiB can unfold to 1 GiB: the largest that is unfolded at all, and the largest in the memory of
# the daemon itself. A message that katafs accepts makes none that is larger.
LARGEST = 1 << 30  # bytes
IN_MEMORY = 17 << 20
_SMALL = 1 << 16
_PIECE = 1 << 18
# A head has at most 30 bytes; the table of codes in front of it (RFC 1951) some 300.
_HEAD, _HEAD_STORED = 64, 1024
_DAMAGE = (pygit2.GitError, OSError, ValueError, zlib.error, MemoryError)


class Objects:
    """The objects of one repository. Belongs to one thread.

    ``largest`` is the size, in bytes, of the largest object that is read into memory. ``budget`` is that of all that
    are read; where there is one, more is a `HeavyError`.
    """

    def __init__(self, git_dir: Path, *, largest: int = IN_MEMORY, budget: int | None = None) -> None:
        self._git_dir = git_dir
        self._largest, self._budget = largest, budget
        self._packs = pygit2.Odb()
        self._packs_seen = (0, 0)
        try:
            #: without symbolic links on the way
            self.real_git_dir = real_path(git_dir.parent) + "/.git"
            self._directory = self.real_git_dir + "/objects"
            self._chains = Chains(self._directory + "/pack")
            self._check_packs(real_path(self._directory))
            self._packs.add_backend(pygit2.OdbBackendPack(self._directory), 1)
        except (pygit2.GitError, OSError, ValueError) as error:
            raise unreadable(f"{git_dir} is not a readable git repository", error) from error

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
            return self._read_loose(oid) or self._read_packed(oid)
        except KeyError as error:
            raise self.missing(f"object {oid.hex()}") from error
        except _DAMAGE as error:
            raise unreadable(f"{self._git_dir}: object {oid.hex()} is damaged", error) from error

    def size(self, oid: Oid) -> int:
        """The size of an object in bytes, from its header. Raises as `read` does; also for a size that nobody can mean,
        for which a reader would make room."""
        try:
            size = self._size(oid)
        except KeyError as error:
            raise self.missing(f"object {oid.hex()}") from error
        except _DAMAGE as error:
            raise unreadable(f"{self._git_dir}: object {oid.hex()} is damaged", error) from error
        if size > LARGEST:
            raise DamagedError(f"{self._git_dir}: object {oid.hex()} is damaged: {size} bytes are too many")
        return size

    def _size(self, oid: Oid) -> int:
        loose = self._open(oid)
        if loose is None:
            return int(self._packs.read_header(pygit2.Oid(raw=oid))[1])
        with loose:
            return _parse_head(zlib.decompressobj().decompress(loose.read(_HEAD_STORED), _HEAD))[1]

    def unfold_loose(self, oid: Oid, write: Callable[[bytes], object]) -> bool:
        """Hand the data of a loose blob to ``write`` in small pieces; False when it is not a loose one.

        Raises as `read` does, maybe after some pieces; what ``write`` raises goes through.
        """
        try:
            file = self._open(oid)
            if file is None:
                return False
            with file:
                for piece in _pieces(file, oid):
                    write(piece)
        except KataError:
            raise
        except _DAMAGE as error:
            raise unreadable(f"{self._git_dir}: object {oid.hex()} is damaged", error) from error
        return True

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

    def _open(self, oid: Oid) -> FileIO | None:
        """The file of a loose object; None when there is none."""
        name = oid.hex()
        try:
            return FileIO(open_inside(f"{self._directory}/{name[:2]}/{name[2:]}"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _allow(self, size: int) -> None:
        """Raises ValueError for an object that is too large; `HeavyError` where the budget is used up."""
        if self._budget is not None:
            self._budget -= size
            if self._budget < 0 or size > self._largest:
                raise HeavyError(f"{self._git_dir}: more is to be read than the daemon does itself")
        if size > self._largest:
            raise ValueError(f"{size} bytes are too many")

    def _check_packs(self, real: str | None = None) -> None:
        """Raises ValueError when packs, which libgit2 opens, or all objects, are links to somewhere else."""
        if real not in (None, self._directory):
            raise ValueError("a symbolic link leads to other objects")
        directory = f"{self._directory}/pack"
        try:
            status = os.lstat(directory)
        except FileNotFoundError:
            return
        seen = status.st_ino, status.st_mtime_ns
        if seen == self._packs_seen:
            return
        if not stat.S_ISDIR(status.st_mode):
            raise ValueError("a symbolic link leads to other packs")
        with os.scandir(directory) as entries:
            if any(entry.is_symlink() for entry in entries):
                raise ValueError("a symbolic link leads to another pack")
        self._chains.refresh()
        self._packs_seen = seen

    def _read_packed(self, oid: Oid) -> tuple[int, bytes]:
        """The kind and the data of a packed object. Raises KeyError, and what `_DAMAGE` names."""
        self._check_packs()
        # libgit2 makes room for what the headers say before it looks any further
        self._chains.check(oid, self._largest)
        self._allow(self._packs.read_header(pygit2.Oid(raw=oid))[1])
        kind, data = self._packs.read(pygit2.Oid(raw=oid))
        return int(kind), data

    def _read_loose(self, oid: Oid) -> tuple[int, bytes] | None:
        """The kind and the data of a loose object; None when there is none. Raises what `_DAMAGE` names."""
        file = self._open(oid)
        if file is None:
            return None
        with file:
            inflater = zlib.decompressobj()
            text = inflater.decompress(stored := file.read(_SMALL) or b"", _SMALL)
            word, size, start = _parse_head(text)
            self._allow(size)
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
        if hashlib.sha1(b"%b %d\0" % (word, size) + data).digest() != oid:
            raise ValueError("its bytes are not those of its id")
        return _KINDS[word], data


def _pieces(file: FileIO, oid: Oid) -> Iterator[bytes]:
    """The data of a loose blob, however large, with little memory. Raises what `_DAMAGE` names."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(file.read(_HEAD_STORED) or b"", _HEAD)
    word, size, start = _parse_head(text)
    if size > LARGEST or word != b"blob":
        raise ValueError(f"it is not a blob of at most {LARGEST} bytes")
    digest = hashlib.sha1(text)
    left = size - len(text) + start
    yield text[start:]
    stored = inflater.unconsumed_tail
    while not inflater.eof and left >= 0:
        stored = stored or file.read(_PIECE) or b""
        piece = inflater.decompress(stored, _PIECE)
        if not piece and not stored:
            break
        stored = inflater.unconsumed_tail
        digest.update(piece)
        left -= len(piece)
        yield piece
    if left or not inflater.eof:
        raise ValueError("it is cut short, or longer than it says")
    if digest.digest() != oid:
        raise ValueError("its bytes are not those of its id")


def _parse_head(text: bytes) -> tuple[bytes, int, int]:
    """Word, size and length of the head of a loose object: zlib of ``<word> SP <decimal size> NUL <data>``."""
    end = text.index(b"\0", 0, _HEAD)
    word, _, digits = text[:end].partition(b" ")
    if word not in _KINDS or not digits.isdigit():
        raise ValueError("it has no head")
    return word, int(digits), end + 1
