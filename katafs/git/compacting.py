"""Packing a whole repository anew, beside everybody who reads and writes it: one pack with differences, packed tags.

Nothing is ever dropped: every object that was in a pack or in a file of its own is in the new pack, whether something
refers to it or not, since somebody may be about to refer to it. The new pack is read back before the old ones go, and
only those go that were read. So it does not matter who writes meanwhile, and what is left by one who dies is a file
that nobody looks at, or objects that are there twice.

Readers look again for an object whose pack has gone (`katafs.git.packed`), and so do git and libgit2.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from katafs.errors import DamagedError, StorageError
from katafs.git.mending import RefMender
from katafs.git.new_pack import NewPack, remove_left_behind
from katafs.git.objects import COMMIT, IN_MEMORY, Oid, object_id
from katafs.git.old_packs import PackFile, pack_files, remove_packs
from katafs.git.pack import reachable
from katafs.git.pack_reader import PackReader
from katafs.git.ref_locks import STALE_TAG
from katafs.git.references import read_reference
from katafs.git.repo import GitRepo
from katafs.git.tight import TightWriter

# bytes; larger ones are packed well enough, and would make much work of little
_LARGEST_PACK = 64 << 20
_TAGS = "refs/tags"


class Parts(NamedTuple):
    """What a repository is stored in: packs that may be replaced, objects and tags in files of their own."""

    packs: int
    loose: int
    tags: int


def parts(repo: GitRepo) -> Parts:
    """Count the parts of a repository. Raises OSError."""
    packs = [pack for pack in pack_files(repo.objects.pack_directory) if pack.size <= _LARGEST_PACK]
    return Parts(len(packs), sum(1 for _ in repo.objects.loose()), len(_loose_tags(repo)))


def _loose_tags(repo: GitRepo) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(repo.git_dir / _TAGS) as entries:
        return sorted(
            f"{_TAGS}/{entry.name}"
            for entry in entries
            if entry.is_file(follow_symlinks=False) and not entry.name.endswith(".lock")
        )
    return []


class Repack:
    """All objects of a repository on their way into one pack. To be used in a ``with`` statement; for one thread.

    Raises OSError, and `DamagedError` when an object cannot be read: then nothing has changed.
    """

    def __init__(self, repo: GitRepo) -> None:
        self._repo = repo
        self._directory = repo.objects.pack_directory
        self._packs = [pack for pack in pack_files(self._directory) if pack.size <= _LARGEST_PACK]
        # an object that is in no memory but this process's stays where it is
        self._loose = [oid for oid in repo.objects.loose() if _is_small(repo, oid)]
        self._new: NewPack | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._new is not None:
            self._new.__exit__(kind, error, trace)

    def write(self) -> bool:
        """Write the new pack under a temporary name, and read it back; False when there is nothing to be done.

        Takes long, and changes nothing that others see.
        """
        wanted = set(self._loose).union(*(_ids(pack) for pack in self._packs))
        if not wanted or (not self._loose and len(self._packs) < 2):
            return False
        if self._directory.is_dir():
            remove_left_behind(self._directory)
        self._new = NewPack(self._directory, TightWriter)
        for oid, kind, path, data in _ordered(self._repo, wanted):
            self._new.writer.add(oid, kind, path, data)
        self._new.finish()
        _check(self._new, wanted)
        return True

    def swap(self) -> None:
        """Let others see the new pack, and remove what it was made from. A matter of milliseconds."""
        if self._new is None:
            return
        made = self._new.install()
        remove_packs(self._packs, made)
        for oid in self._loose:
            with contextlib.suppress(FileNotFoundError):
                self._repo.objects.loose_file(oid).unlink()
        for directory in {self._repo.objects.loose_file(oid).parent for oid in self._loose}:
            # somebody may just have put an object there; one who wants to and finds no directory makes it
            with contextlib.suppress(OSError):
                directory.rmdir()


def _is_small(repo: GitRepo, oid: Oid) -> bool:
    try:
        return repo.blob_size(oid) <= IN_MEMORY
    except DamagedError:
        # a pack may have it whole; if not, `write` says so
        return True


def _ids(pack: PackFile) -> Iterator[Oid]:
    return PackReader(os.path.splitext(pack.path)[0]).ids()


def _ordered(repo: GitRepo, wanted: set[Oid]) -> Iterator[tuple[Oid, int, bytes, bytes]]:
    """All objects that are wanted: those of the history from the newest on, so that the newest are whole, and each
    after the one that is like it."""
    left = set(wanted)
    tip = repo.main()
    if tip is not None:
        for item in reachable(repo, tip):
            if item[0] in left:
                left.discard(item[0])
                yield item
    for oid in sorted(left):
        kind, data = repo.objects.read_any(oid)
        yield oid, kind, b"", data


def _check(new: NewPack, wanted: Iterable[Oid]) -> None:
    """Read the new pack, by its index. Raises `DamagedError`."""
    pack, idx = new.temporary
    reader = PackReader(pack, (pack, idx))
    try:
        for oid in wanted:
            offset = reader.find(oid)
            if offset is None or object_id(*reader.read(offset, IN_MEMORY)) != oid:
                raise DamagedError(f"{pack}: object {oid.hex()} was not written as it is")
    except (ValueError, zlib.error) as error:
        raise DamagedError(f"{pack} was not written as it should be: {error}") from error
    finally:
        reader.close()


class TagPacker(RefMender):
    """Moves tags into ``packed-refs``, as ``git pack-refs`` does: under git's lock of that file; then each file of a
    tag is removed under the lock of that tag, if it still says the same. Heads, which move, stay files."""

    def pack_tags(self) -> int:
        """Pack the tags of commits; how many files are gone. Raises OSError, `StorageError` (EBUSY for a lock)."""
        found: dict[bytes, Oid] = {}
        for tag in _loose_tags(self._repo):
            reference = read_reference(self._git_dir, tag)
            # of another object ``packed-refs`` would have to say what that stands for
            if reference is not None and reference.oid is not None and self._is_commit(reference.oid):
                found[os.fsencode(tag)] = reference.oid
        if not found:
            return 0
        self._pack(found, replacing=True)
        gone = 0
        for name, oid in found.items():
            # somebody else has it in hand: another time
            with contextlib.suppress(StorageError):
                gone += self._prune(os.fsdecode(name), oid)
        return gone

    def _is_commit(self, oid: Oid) -> bool:
        try:
            return self._repo.objects.kind(oid) == COMMIT
        except DamagedError:
            return False

    def _prune(self, name: str, oid: Oid) -> bool:
        path = Path(self._git_dir, name)
        with self._locked(name, STALE_TAG):
            reference = read_reference(self._git_dir, name)
            if reference is None or reference.oid != oid:
                return False
            path.unlink()
            return True
