"""All objects of one repository: those to be stored, loose ones, packed ones. All bytes are compared with the id.

No git repository is opened for it, so that no configuration is read, and no alternates.
"""

from __future__ import annotations

import contextlib
import errno
import time
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import pygit2

from katafs.errors import DamagedError, HeavyError, KataError, NotFoundError, unreadable
from katafs.git.beneath import appears, is_shared, real_path
from katafs.git.budget import Budget
from katafs.git.format.stored import COMMIT, EMPTY_BLOB, WORDS, Oid
from katafs.git.odb.loose_files import LARGEST, LargeObjectError, LooseFiles
from katafs.git.odb.packs import DAMAGE, Packs

# The largest in the memory of the daemon itself, in bytes. A message that katafs accepts makes none that is larger.
IN_MEMORY = 17 << 20
# How long it may take until what another host has stored is seen on this one, and how often it is looked for.
_PATIENCE, _PAUSE, _IN_VAIN = 2.5, 0.05, 10.0
_WRONG = (KeyError, pygit2.GitError, MemoryError, *DAMAGE)
_Answer = TypeVar("_Answer")
#: objects in memory: kind and data by id
Made = Mapping[Oid, tuple[int, bytes]]


class Objects:
    """The objects of one repository. Belongs to one thread. ``largest`` is the size, in bytes, of the largest object
    that is read into memory. What is read is paid for with ``budget``; whoever may wait does so for what other hosts
    have just stored, where there may be such."""

    def __init__(self, git_dir: Path, *, largest: int = IN_MEMORY, budget: Budget | None = None) -> None:
        self._git_dir = git_dir
        self._largest = largest
        #: what libgit2 was refused since somebody cleared it: it makes "not found" of everything
        self.too_heavy: HeavyError | None = None
        self.budget = budget or Budget()
        try:
            #: without symbolic links on the way
            self.real_git_dir = real_path(git_dir.parent) + "/.git"
            if self.budget.may_wait and not appears(git_dir):
                raise FileNotFoundError(errno.ENOENT, "it is not there")
            self.directory = real_path(git_dir / "objects")
        except OSError as error:
            raise unreadable(f"{git_dir} is not a readable git repository", error) from error
        if self.directory != self.real_git_dir + "/objects":
            raise DamagedError(f"{git_dir} is not a readable git repository: a symbolic link leads to other objects")
        self._patience = _PATIENCE if self.budget.may_wait and is_shared(self.directory) else 0.0
        # what is damaged in earnest is not waited for each time
        self._in_vain_until = 0.0
        #: kind and data of objects that are to be stored, which all that read here see already
        self.pending: dict[Oid, tuple[int, bytes]] = {}
        #: those that were stored last, by whomever, which need not be looked for in a new pack
        self.at_hand: Made = {}
        self.loose = LooseFiles(self.directory, self.budget)
        self.packs = Packs(self.directory, self.budget)
        # a small loose object whose size was asked for is read next
        self._last: tuple[Oid, int, bytes] | None = None

    @property
    def pack_directory(self) -> Path:
        return Path(self.directory, "pack")

    def bytes_at_hand(self) -> int:
        return sum(len(data) for _, data in self.at_hand.values())

    def missing(self, what: str) -> KataError:
        """What to raise when something is not there: is it that, or the whole repository?"""
        if not self._git_dir.is_dir():
            return NotFoundError(f"{self._git_dir} is gone")
        return DamagedError(f"{self._git_dir}: {what} is missing")

    def _ask(self, oid: Oid, question: Callable[[], _Answer], limit: float = LARGEST) -> _Answer:
        """The answer, or what is wrong with the object: `DamagedError`, or `NotFoundError` when the whole repository is
        gone, or `HeavyError` when it is more than can be paid for."""
        deadline = 0.0
        while True:
            try:
                return question()
            except LargeObjectError as error:
                if limit < IN_MEMORY:
                    raise self.budget.exceeded() from _bare(error)
                raise unreadable(f"{self._git_dir}: object {oid.hex()} cannot be read", error) from _bare(error)
            except _WRONG as error:
                now = time.monotonic()
                deadline = deadline or (now + self._patience if now >= self._in_vain_until else now)
                if now >= deadline:
                    self._in_vain_until = now + _IN_VAIN
                    if isinstance(error, KeyError):
                        raise self.missing(f"object {oid.hex()}") from _bare(error)
                    raise unreadable(f"{self._git_dir}: object {oid.hex()} is damaged", error) from _bare(error)
            time.sleep(_PAUSE)
            self.packs.discard()

    def read(self, oid: Oid, expected: int, *, strictly: bool = False) -> bytes:
        """The data of an object of the kind ``expected``; where a loose one is damaged a packed one will do, but
        ``strictly``. Raises `DamagedError`, or `NotFoundError` when the whole repository is gone."""
        kind, data = self.read_any(oid, strictly=strictly)
        if kind != expected:
            raise self.wrong_kind(oid, kind, expected)
        return data

    def wrong_kind(self, oid: Oid, kind: int, expected: int) -> DamagedError:
        return DamagedError(
            f"{self._git_dir}: {oid.hex()} is a {WORDS[kind].decode()}, not a {WORDS[expected].decode()}"
        )

    def read_any(self, oid: Oid, *, strictly: bool = False) -> tuple[int, bytes]:
        """The kind and the data of an object. Raises as `read` does."""
        if (known := self.pending.get(oid) or self.at_hand.get(oid)) is not None:
            return known
        last, self._last = self._last, None
        if last is not None and last[0] == oid:
            return last[1:]
        # no more is inflated than can be paid for
        limit = min(self._largest, self.budget.bytes)
        if not strictly:
            # what is packed is found sooner, and hardly ever loose too
            try:
                return self.packs.read(oid, limit, look=False)
            except (KeyError, *DAMAGE):
                pass
        return self._ask(oid, lambda: self._read(oid, limit, strictly=strictly), limit)

    def _read(self, oid: Oid, largest: float, *, strictly: bool = False) -> tuple[int, bytes]:
        try:
            return self.loose.read(oid, largest)
        except KeyError:
            return self.packs.read(oid, largest)
        except DAMAGE:
            if not strictly:
                with contextlib.suppress(KeyError, *DAMAGE):
                    return self.packs.read(oid, largest)
            raise

    def size(self, oid: Oid) -> int:
        """The size of an object in bytes: its own where it is a small loose one, or stands in several places, of which
        one may lie; of others what is said of it. Raises as `read` does; also for a size that nobody can mean, for
        which a reader would make room, and for an object that is said to be empty and is not."""
        if (known := self.pending.get(oid) or self.at_hand.get(oid)) is not None:
            return len(known[1])
        try:
            size = self.packs.size(oid, look=False)
            is_alone = len(self.packs) == 1 and oid not in self.loose
        except (KeyError, *DAMAGE):
            size = self._ask(oid, lambda: self._head(oid)[1])
            is_alone = self._last is not None and self._last[0] == oid
        if not is_alone and (oid in self.loose) + len(self.packs.holders(oid)) > 1:
            size = self._ask(oid, partial(self._size_of_whole, oid, size))
        if size > LARGEST:
            raise DamagedError(f"{self._git_dir}: object {oid.hex()} is damaged: {size} bytes are too many")
        if not size and oid != EMPTY_BLOB:
            # nobody would read it, and hear of it
            size = len(self.read_any(oid)[1])
        return size

    def _size_of_whole(self, oid: Oid, said: int) -> int:
        """The size of what is read; what is said of it where it is too large for that."""
        try:
            return len(self._read(oid, self._largest)[1])
        except LargeObjectError:
            return said

    def _head(self, oid: Oid) -> tuple[int, int]:
        try:
            kind, size, data = self.loose.head(oid, self._largest)
        except KeyError:
            return self.packs.head(oid)
        except DAMAGE:
            with contextlib.suppress(KeyError, *DAMAGE):
                return self.packs.head(oid)
            raise
        if data is not None:
            self._last = oid, kind, data
        return kind, size

    def kind(self, oid: Oid) -> int:
        """The kind of an object, from its header. Raises as `read` does."""
        return self._ask(oid, lambda: self._head(oid)[0])

    def is_commit(self, oid: Oid) -> bool:
        try:
            return self.kind(oid) == COMMIT
        except KataError:
            return False

    def __contains__(self, oid: Oid) -> bool:
        """Whether there is such an object, whole or not. Raises `DamagedError` where that cannot be told."""
        return oid in self.pending or oid in self.loose or self._ask(oid, lambda: oid in self.packs)

    def read_packed(self, oid: Oid, *, look: bool = True) -> tuple[int, bytes] | None:
        """An object as a pack has it; None when no pack has it whole."""
        with contextlib.suppress(*_WRONG):
            return self.packs.read(oid, self._largest, look=look)
        return None

    def has(self, oid: Oid) -> bool:
        """Whether there is such an object, and whole; what others packed since packs were last listed is not seen."""
        # the packs sooner, as in `read_any`
        if oid in self.pending or self.read_packed(oid, look=False) is not None:
            return True
        with contextlib.suppress(*_WRONG):
            return bool(self.loose.read(oid, self._largest))
        return False

    @cached_property
    def repository(self) -> pygit2.Repository:
        """The same objects as a repository that has nothing else: what libgit2 wants for a diff of trees."""
        odb = pygit2.Odb()
        odb.add_backend(_Backend(self), 1)
        repository = pygit2.Repository()
        repository.set_odb(odb)
        return repository


def _bare(error: BaseException) -> BaseException:
    """An error without the frames it came through: they hold what was read, and errors are kept."""
    return error.with_traceback(None)


class _Backend(pygit2.OdbBackend):
    """What libgit2 asks when it compares trees. A KeyError is its "not found"."""

    def __init__(self, objects: Objects) -> None:
        super().__init__()
        # the garbage collector does not see through libgit2: a cycle through it would be there for ever
        self._objects = weakref.ref(objects)

    def read_cb(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        if (objects := self._objects()) is None:
            raise KeyError(str(oid))
        try:
            return objects.read_any(bytes(oid.raw))
        except KataError as error:
            if isinstance(error, HeavyError):
                objects.too_heavy = error.with_traceback(None)
            raise KeyError(str(error)) from error

    def read_header_cb(self, oid: pygit2.Oid) -> tuple[int, int]:
        kind, data = self.read_cb(oid)
        return kind, len(data)

    def refresh_cb(self) -> None:
        """`Packs` looks again by itself."""
