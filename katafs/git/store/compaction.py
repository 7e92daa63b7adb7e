"""Packing a whole repository anew, beside everybody who reads and writes it: one pack with deltas, packed tags.

Nothing is ever dropped: every object that was in a pack or in a file of its own is in the new pack, whether something
refers to it or not, since somebody may be about to refer to it. The new pack is read back before the old ones go, and
only those go that were read. So it does not matter who writes meanwhile, and what is left by one who dies is a file
that nobody looks at, or objects that are there twice.

Readers look again for an object whose pack has gone (`katafs.git.odb.packs`), and so do git and libgit2.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from katafs.errors import DamagedError
from katafs.git.budget import Budget
from katafs.git.format.loose import Oid, object_id
from katafs.git.odb.objects import IN_MEMORY
from katafs.git.odb.pack_reader import PackReader
from katafs.git.refs.writing import loose_tags
from katafs.git.repo import GitRepo
from katafs.git.store.new_pack import NewPack
from katafs.git.store.old_packs import PackFile, pack_files, remove_packs
from katafs.git.store.pack_writer import TightWriter, reachable
from katafs.git.store.storing import sync_path

# bytes; larger ones are packed well enough, and would make much work of little
_LARGEST_PACK = 64 << 20


class Parts(NamedTuple):
    """What a repository is stored in: packs that may be replaced, objects and tags in files of their own."""

    packs: int
    loose: int
    tags: int


def parts(repo: GitRepo) -> Parts:
    """Count the parts of a repository. Raises OSError."""
    packs = [pack for pack in pack_files(repo.objects.pack_directory) if _may_go(pack)]
    return Parts(len(packs), sum(1 for _ in repo.objects.loose), len(loose_tags(repo.git_dir)))


def _may_go(pack: PackFile) -> bool:
    return pack.size <= _LARGEST_PACK and not pack.is_marked


class Repack:
    """All objects of a repository on their way into one pack. To be used in a ``with`` statement; for one thread.

    Raises OSError, and `DamagedError` when an object, or the index of a pack, cannot be read: then nothing has changed.
    """

    def __init__(self, repo: GitRepo) -> None:
        self._repo = repo
        self._directory = repo.objects.pack_directory
        packs = pack_files(self._directory)
        self._packs = [pack for pack in packs if _may_go(pack)]
        loose = {oid: _is_small(repo, oid) for oid in repo.objects.loose}
        self._listed = [pack.path for pack in packs] + [Path(repo.objects.loose.path(oid)) for oid in loose]
        # an object that is in no memory but this process's stays where it is
        self._loose = [oid for oid, is_small in loose.items() if is_small]
        self._left = [Path(repo.objects.loose.path(oid)) for oid, is_small in loose.items() if not is_small]
        self._left += [
            path for pack in packs if not _may_go(pack) for path in (pack.path, pack.path.with_suffix(".idx"))
        ]
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
        if not self._loose and len(self._packs) < 2:
            return False
        wanted = set(self._loose).union(*(_ids(pack) for pack in self._packs))
        if not wanted:
            return False
        self._new = NewPack(self._directory, TightWriter)
        for oid, kind, path, data in _ordered(self._repo, wanted):
            self._new.writer.add(oid, kind, path, data)
        self._new.finish()
        _check(self._new, wanted)
        # What commits in a pack of ours reach is on disk (`katafs.git.store.durable`): also what git made while its
        # objects were listed, of which the commit may be in the list, and the tree not.
        came = [Path(self._repo.objects.loose.path(oid)) for oid in self._repo.objects.loose if oid not in wanted]
        for left in (*self._left, *came):
            with contextlib.suppress(FileNotFoundError):
                sync_path(left)
        return True

    def is_overtaken(self) -> bool:
        """Whether others have packed anew meanwhile what is to be packed here: what `write` misses may be elsewhere."""
        return not all(os.path.lexists(path) for path in self._listed)

    def swap(self) -> None:
        """Let others see the new pack, and remove what it was made from. A matter of milliseconds."""
        if self._new is None:
            return
        self._new.install()
        remove_packs(self._directory, self._packs)
        files = [Path(self._repo.objects.loose.path(oid)) for oid in self._loose]
        for path in files:
            path.unlink(missing_ok=True)
        for directory in {path.parent for path in files}:
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
    try:
        yield from (record.oid for record in PackReader(pack.stem, Budget()).records())
    except ValueError as error:
        raise DamagedError(f"{pack.path.with_suffix('.idx')}: {error}") from error


def _ordered(repo: GitRepo, wanted: Collection[Oid]) -> Iterator[tuple[Oid, int, bytes, bytes]]:
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


def _check(new: NewPack, wanted: Collection[Oid]) -> None:
    """Read the new pack, by its index. Raises `DamagedError`."""
    pack, idx = new.temporary
    reader = PackReader(os.path.splitext(pack)[0], Budget(), (pack, idx))
    try:
        for oid in wanted:
            offset = reader.find(oid)
            if offset is None or object_id(*reader.read(offset, IN_MEMORY)) != oid:
                raise DamagedError(f"{pack}: object {oid.hex()} was not written as it is")
    except (ValueError, zlib.error) as error:
        raise DamagedError(f"{pack} was not written as it should be: {error}") from error
    finally:
        reader.close()
