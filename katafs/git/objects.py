"""Reading objects, loose and packed ones. All bytes are compared with the id.

No git repository is opened for it, so that no configuration is read, and no alternates; and libgit2 opens no file of
it: see `katafs.git.loose` and `katafs.git.packed`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import pygit2

from katafs.errors import DamagedError, KataError, NotFoundError, unreadable
from katafs.git.budget import BYTE, OBJECT, Budget
from katafs.git.delta import LargeObjectError
from katafs.git.inside import real_path
from katafs.git.loose import BLOB, COMMIT, LARGEST, TAG, TREE, WORDS, Loose, object_id
from katafs.git.packed import Packs

__all__ = ["BLOB", "COMMIT", "IN_MEMORY", "LARGEST", "TAG", "TREE", "Objects", "Oid", "object_id"]

Oid = bytes

# The largest in the memory of the daemon itself, in bytes. A message that katafs accepts makes none that is larger.
IN_MEMORY = 17 << 20
_DAMAGE = (pygit2.GitError, OSError, ValueError, zlib.error, MemoryError)


class Objects:
    """The objects of one repository. Belongs to one thread.

    ``largest`` is the size, in bytes, of the largest object that is read into memory. All that is read is paid for from
    ``budget``: beyond it is a `HeavyError`.
    """

    def __init__(self, git_dir: Path, *, largest: int = IN_MEMORY, budget: Budget | None = None) -> None:
        self._git_dir = git_dir
        self._largest, self.budget = largest, budget or Budget()
        try:
            #: without symbolic links on the way
            self.real_git_dir = real_path(git_dir.parent) + "/.git"
            directory = real_path(git_dir / "objects")
        except OSError as error:
            raise unreadable(f"{git_dir} is not a readable git repository", error) from error
        if directory != self.real_git_dir + "/objects":
            raise DamagedError(f"{git_dir} is not a readable git repository: a symbolic link leads to other objects")
        #: kind and data of objects that are to be stored (`katafs.git.write`), which all that read here see already
        self.pending: dict[Oid, tuple[int, bytes]] = {}
        self._reader = _Reader(directory, self.pending, self.budget)

    @property
    def pack_directory(self) -> Path:
        """Where the packs are, or will be."""
        return Path(self._reader.directory, "pack")

    def close(self) -> None:
        """Close the packs; they are opened again when one is read."""
        self._reader.packs.close()

    def missing(self, what: str) -> KataError:
        """What to raise when something is not there: is it that, or the whole repository?"""
        if not self._git_dir.is_dir():
            return NotFoundError(f"{self._git_dir} is gone")
        return DamagedError(f"{self._git_dir}: {what} is missing")

    def _wrong(self, oid: Oid, error: BaseException) -> KataError:
        """What to raise for an object that cannot be read."""
        if isinstance(error, KeyError):
            return self.missing(f"object {oid.hex()}")
        return unreadable(f"{self._git_dir}: object {oid.hex()} is damaged", error)

    def read(self, oid: Oid, expected: int, *, strictly: bool = False) -> bytes:
        """The data of an object of the kind ``expected``. Raises `DamagedError`, or `NotFoundError` when the whole
        repository is gone.

        Where a loose object is damaged a packed one will do, but ``strictly``.
        """
        kind, data = self.read_any(oid, strictly=strictly)
        if kind != expected:
            raise DamagedError(f"{self._git_dir}: {oid.hex()} is a {WORDS.get(kind)}, not a {WORDS[expected]}")
        return data

    def read_any(self, oid: Oid, *, strictly: bool = False) -> tuple[int, bytes]:
        """The kind and the data of an object. Raises as `read` does."""
        budget = self.budget
        budget.spend(OBJECT)
        # no more is inflated than can be paid for
        limit = min(self._largest, budget.bytes)
        try:
            kind, data = self._reader.read(oid, limit, strictly=strictly)
        except LargeObjectError as error:
            if limit < IN_MEMORY:
                raise budget.exceeded() from error
            raise self._wrong(oid, error) from error
        except (KeyError, *_DAMAGE) as error:
            raise self._wrong(oid, error) from error
        budget.spend(len(data) * BYTE)
        return kind, data

    def size(self, oid: Oid) -> int:
        """The size of an object in bytes, from its header. Raises as `read` does; also for a size that nobody can mean,
        for which a reader would make room."""
        self.budget.spend(OBJECT)
        try:
            size = self._reader.size(oid, self._largest)
        except (KeyError, *_DAMAGE) as error:
            raise self._wrong(oid, error) from error
        if size > LARGEST:
            raise DamagedError(f"{self._git_dir}: object {oid.hex()} is damaged: {size} bytes are too many")
        return size

    def kind(self, oid: Oid) -> int:
        """The kind of an object, from its header. Raises as `read` does."""
        self.budget.spend(OBJECT)
        try:
            return self._reader.head(oid, self._largest)[0]
        except (KeyError, *_DAMAGE) as error:
            raise self._wrong(oid, error) from error

    def unfold_loose(self, oid: Oid, write: Callable[[bytes], object]) -> bool:
        """Hand the data of a loose blob to ``write`` in small pieces; False when it is not a loose one.

        Raises as `read` does, maybe after some pieces; what ``write`` raises goes through, if it is a `KataError`.
        """
        if oid not in self._reader.loose:
            return False
        try:
            for kind, piece in self._reader.loose.kind_and_pieces(oid):
                if kind != BLOB:
                    raise DamagedError(f"{self._git_dir}: {oid.hex()} is not a blob")
                write(piece)
        except KataError:
            raise
        except (KeyError, *_DAMAGE) as error:
            raise self._wrong(oid, error) from error
        return True

    def check(self, oid: Oid, expected: int) -> None:
        """Read an object in pieces and forget it: a large one takes no memory if it is loose. Raises as `read` does."""
        if oid not in self._reader.loose:
            self.read(oid, expected)
            return
        try:
            kinds = {kind for kind, _ in self._reader.loose.kind_and_pieces(oid)}
        except (KeyError, *_DAMAGE) as error:
            raise self._wrong(oid, error) from error
        if kinds != {expected}:
            raise DamagedError(f"{self._git_dir}: {oid.hex()} is a {WORDS[kinds.pop()]}, not a {WORDS[expected]}")

    def __contains__(self, oid: Oid) -> bool:
        """Whether there is such an object, whole or not."""
        return oid in self._reader

    def loose(self) -> Iterator[Oid]:
        """The ids of all loose objects, by the names of their files."""
        return iter(self._reader.loose)

    def packed(self) -> Iterator[Oid]:
        """The ids of all packed objects."""
        return iter(self._reader.packs)

    def read_packed(self, oid: Oid) -> tuple[int, bytes] | None:
        """The kind and the data of an object as a pack has it; None when no pack has it whole."""
        try:
            return self._reader.read_packed(oid, self._largest)
        except (KeyError, *_DAMAGE):
            return None

    def loose_file(self, oid: Oid) -> Path:
        """Where the file of a loose object is, or would be."""
        return Path(self._reader.loose.path(oid))

    @cached_property
    def repository(self) -> pygit2.Repository:
        """The same objects as a repository that has nothing else: what libgit2 wants for a diff of trees."""
        repository = pygit2.Repository()
        repository.set_odb(self.odb())
        return repository

    def odb(self) -> pygit2.Odb:
        """The same objects for libgit2, which reads them through us."""
        odb = pygit2.Odb()
        odb.add_backend(_Backend(self._reader, self._largest), 1)
        return odb

    def has(self, oid: Oid) -> bool:
        """Whether there is such an object, and whole; what came to be packed by others since it was last looked is not
        seen."""
        reader = self._reader
        if oid not in self.pending and oid not in reader.loose and not reader.packs.knows(oid):
            return False
        try:
            reader.read(oid, self._largest)
        except (KeyError, *_DAMAGE):
            return False
        return True


class _Reader:
    """Pending, loose and packed objects together. Errors are those of `Loose` and `Packs`."""

    def __init__(self, directory: str, pending: Mapping[Oid, tuple[int, bytes]], budget: Budget) -> None:
        self.directory = directory
        self.loose = Loose(directory)
        self.packs = Packs(directory, budget)
        self._pending = pending

    def __contains__(self, oid: Oid) -> bool:
        return oid in self._pending or oid in self.loose or oid in self.packs

    def read(self, oid: Oid, largest: float, *, strictly: bool = False) -> tuple[int, bytes]:
        if (known := self._pending.get(oid)) is not None:
            return known
        # what is packed is found sooner, and hardly ever loose too
        if not strictly:
            try:
                return self.packs.read(oid, largest, look=False)
            except LargeObjectError:
                raise
            except (KeyError, OSError, ValueError, zlib.error):
                pass
        try:
            return self.loose.read(oid, largest)
        except KeyError:
            return self.read_packed(oid, largest)
        except (OSError, ValueError, zlib.error):
            if strictly or oid not in self.packs:
                raise
            return self.read_packed(oid, largest)

    def read_packed(self, oid: Oid, largest: float) -> tuple[int, bytes]:
        return self.packs.read(oid, largest)

    def size(self, oid: Oid, largest: int) -> int:
        if (known := self._pending.get(oid)) is not None:
            return len(known[1])
        try:
            return self.packs.size(oid, largest, look=False)
        except (KeyError, OSError, ValueError, zlib.error):
            return self.head(oid, largest)[1]

    def head(self, oid: Oid, largest: int) -> tuple[int, int]:
        if (known := self._pending.get(oid)) is not None:
            return known[0], len(known[1])
        try:
            return self.loose.head(oid)
        except KeyError:
            return self.packs.head(oid, largest)
        except (OSError, ValueError, zlib.error):
            if oid in self.packs:
                return self.packs.head(oid, largest)
            raise


class _Backend(pygit2.OdbBackend):
    """What libgit2 asks when it compares trees. A KeyError is its "not found"."""

    def __init__(self, reader: _Reader, largest: int) -> None:
        super().__init__()
        self._reader, self._largest = reader, largest

    def read_cb(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        return self._reader.read(bytes(oid.raw), self._largest)

    def read_prefix_cb(self, digits: str) -> tuple[int, bytes, pygit2.Oid]:
        """pygit2 asks for whole ids in this way, and for nothing else."""
        oid = bytes.fromhex(digits)
        kind, data = self._reader.read(oid, self._largest)
        return kind, data, pygit2.Oid(raw=oid)

    def read_header_cb(self, oid: pygit2.Oid) -> tuple[int, int]:
        return self._reader.head(bytes(oid.raw), self._largest)

    def exists_cb(self, oid: pygit2.Oid) -> bool:
        return bytes(oid.raw) in self._reader

    def exists_prefix_cb(self, digits: str) -> pygit2.Oid:
        raise KeyError(digits)

    def refresh_cb(self) -> None:
        """`Packs` looks again by itself."""
