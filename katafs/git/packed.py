"""Reading packed objects: the packs of a repository.

Not by libgit2, which maps packs into memory: if one is cut off while it is mapped, the next look at it is a SIGBUS, and
the owner of one kata could end the daemon of all.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from katafs.git.budget import Budget
from katafs.git.loose import object_id
from katafs.git.pack_reader import PackReader

_MOST_PACKS = 1000
_MOST_OPEN = 2
# Who merges packs, or packs all, replaces what was found a moment ago. More often than this nobody does it in earnest.
_TRIES = 10
# Kernels give all changes within such a time the same time stamp (before 6.13), so that a listing that is as young may
# have been followed by another change.
_TICK_NS = 20_000_000
_Answer = TypeVar("_Answer")
#: of a directory or a file
_Version = tuple[int, int, int]


class Packs:
    """All packs of one repository. Belongs to one thread.

    Errors are KeyError for an object that no pack has; OSError, ValueError or zlib.error for one that is damaged.
    """

    def __init__(self, objects: str, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        self._directory = f"{objects}/pack"
        self._version: _Version | None = None
        self._packs: dict[str, PackReader] = {}
        self._open: list[PackReader] = []
        self._identities: dict[str, tuple[_Version | None, ...]] = {}

    def read(self, oid: bytes, largest: float, *, look: bool = True) -> tuple[int, bytes]:
        """The kind and the data of an object; they are those of its id.

        Nothing that it is made of may have more than ``largest`` bytes. Without ``look`` only packs that are known
        already are asked.
        """

        def read(pack: PackReader, offset: int) -> tuple[int, bytes]:
            kind, data = pack.read(offset, largest)
            if object_id(kind, data) != oid:
                raise ValueError("its bytes are not those of its id")
            return kind, data

        return self._ask(oid, read, look=look)

    def head(self, oid: bytes, largest: int) -> tuple[int, int]:
        """The kind and the size of an object; a difference that it is made by may have ``largest`` bytes."""
        return self._ask(oid, lambda pack, offset: (pack.kind(offset), pack.size(offset, largest)))

    def size(self, oid: bytes, largest: int, *, look: bool = True) -> int:
        """The size of an object alone, which takes less: nobody looks at what a difference is from."""
        return self._ask(oid, lambda pack, offset: pack.size(offset, largest), look=look)

    def _ask(self, oid: bytes, question: Callable[[PackReader, int], _Answer], *, look: bool = True) -> _Answer:
        """The answer of the pack that has an object; of another one, if that pack is gone or damaged meanwhile."""
        if not look:
            known = self._known(oid)
            if known is None:
                raise KeyError(oid.hex())
            self._use(known[0])
            return question(*known)
        for left in reversed(range(_TRIES)):
            pack, offset = self._find(oid)
            self._use(pack)
            try:
                return question(pack, offset)
            except (OSError, ValueError, zlib.error):
                pack.forget()
                if not self._look() or not left:
                    raise
        raise AssertionError

    def _use(self, pack: PackReader) -> None:
        """Keep open the packs that were read last, and no others: a daemon has many repositories open."""
        if pack in self._open:
            return
        self._open.append(pack)
        if len(self._open) > _MOST_OPEN:
            self._open.pop(0).close()

    def close(self) -> None:
        """Close all files; they are opened again when one is read."""
        for pack in self._packs.values():
            pack.close()

    def knows(self, oid: bytes) -> bool:
        """Whether one of the packs has an object that were there when last it was looked."""
        if not self._packs:
            self._look()
        return self._known(oid) is not None

    def __contains__(self, oid: bytes) -> bool:
        try:
            self._find(oid)
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[bytes]:
        """The ids of all objects, those of each pack in order."""
        self._look()
        for pack in self._packs.values():
            yield from pack.ids()

    def _known(self, oid: bytes) -> tuple[PackReader, int] | None:
        for pack in self._packs.values():
            if (offset := pack.find(oid)) is not None:
                return pack, offset
        return None

    def _find(self, oid: bytes) -> tuple[PackReader, int]:
        """The pack that has an object, and where in it. Raises KeyError."""
        for _ in range(_TRIES):
            found = self._known(oid)
            if found is not None:
                return found
            if not self._look():
                break
        raise KeyError(oid.hex())

    def _reader(self, stem: str) -> PackReader:
        return PackReader(f"{self._directory}/{stem}", budget=self._budget)

    def _look(self) -> bool:
        """Look which packs there are now; whether that is something new."""
        version: _Version | None = None
        try:
            status = os.stat(self._directory, follow_symlinks=False)
            version = _version(status)
            if version == self._version:
                return False
            if time.time_ns() - status.st_ctime_ns < _TICK_NS:
                version = None
            with os.scandir(self._directory) as entries:
                found = {entry.name: entry for entry in entries}
            indexes = (name.removesuffix(".idx") for name in found if name.endswith(".idx"))
            # `git repack` renames a new pack and then its index, which meanwhile is alone
            stems = sorted(stem for stem in indexes if f"{stem}.pack" in found)[:_MOST_PACKS]
            # a pack that was mended has the name that it had
            identities = {
                stem: tuple(map(_identity, map(found.get, (f"{stem}.pack", f"{stem}.idx")))) for stem in stems
            }
        except OSError:
            version, identities = None, {}
        self._version = version
        if identities == self._identities:
            return False
        known = {stem for stem, identity in identities.items() if self._identities.get(stem) == identity}
        self._packs = {
            stem: self._packs[stem] if stem in known else PackReader(f"{self._directory}/{stem}", budget=self._budget)
            for stem in identities
        }
        self._identities = identities
        for pack in self._open:
            if pack not in self._packs.values():
                # its room on the disk is free when nobody has it open
                pack.close()
        self._open = [pack for pack in self._open if pack in self._packs.values()]
        return True


def _version(status: os.stat_result) -> _Version:
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _identity(entry: os.DirEntry[str] | None) -> _Version | None:
    """What is another for each file; None for one that is not there, or no longer. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        return _version(entry.stat(follow_symlinks=False)) if entry is not None else None
    return None
