"""The packs of one repository."""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

from katafs.errors import EXHAUSTED
from katafs.git.beneath import GONE
from katafs.git.budget import NAME, OBJECT, Budget
from katafs.git.format.stored import Oid, object_id
from katafs.git.odb.pack_reader import PackReader

#: how the names of packs begin that katafs wrote; no two of them have had the same name
OURS = f"pack-{b'kata'.hex()}"
_MOST_PACKS = 1000
_MOST_OPEN = 2
# Who merges packs, or packs all, replaces what was found a moment ago. More often than this nobody does it in earnest.
_TRIES = 10
#: what is raised for an object, or an index, that cannot be read
DAMAGE = (OSError, ValueError, zlib.error)
_Answer = TypeVar("_Answer")
#: of a file
_Version = tuple[int, int, int]


class Packs:
    """All packs of one repository. Belongs to one thread. Errors are KeyError for an object that no pack has; OSError,
    ValueError or zlib.error (`DAMAGE`) for one that is damaged, and for one that may be in a pack whose index cannot be
    read."""

    def __init__(self, objects: str, budget: Budget) -> None:
        self._directory = f"{objects}/pack"
        self._budget = budget
        self._packs: dict[str, PackReader] = {}
        self._open: list[PackReader] = []
        self._identities: dict[str, tuple[_Version | None, ...]] = {}
        self._unseen = ""

    def read(self, oid: Oid, largest: float, *, look: bool = True) -> tuple[int, bytes]:
        """The kind and the data of an object; they are those of its id. Nothing that it is made of may have more than
        ``largest`` bytes. Without ``look`` only packs that are known already are asked."""

        def read(pack: PackReader, offset: int) -> tuple[int, bytes]:
            kind, data = pack.read(offset, largest)
            if object_id(kind, data) != oid:
                raise ValueError("its bytes are not those of its id")
            return kind, data

        return self._ask(oid, read, look=look)

    def head(self, oid: Oid) -> tuple[int, int]:
        """The kind and the size of an object, as its entry says."""
        return self._ask(oid, lambda pack, offset: (pack.kind(offset), pack.size(offset)))

    def size(self, oid: Oid, *, look: bool = True) -> int:
        """The size of an object alone, which takes less: nobody looks at what a delta is from."""
        return self._ask(oid, PackReader.size, look=look)

    def holders(self, oid: Oid) -> list[str]:
        """The names, without a suffix, of the known packs that have an object, and can be read."""
        if not self._packs:
            self._look()
        found = []
        for stem, pack in self._packs.items():
            with contextlib.suppress(*DAMAGE):
                if pack.find(oid) is not None:
                    found.append(stem)
        return found

    def __len__(self) -> int:
        """How many packs there were when last it was looked."""
        return len(self._packs)

    def _ask(self, oid: Oid, question: Callable[[PackReader, int], _Answer], *, look: bool = True) -> _Answer:
        """The answer of a pack that has an object: of another one, if that is damaged or gone meanwhile."""
        failure: Exception | None = None
        for _ in range(_TRIES):
            failure = None
            failed: list[PackReader] = []
            # what is asked for next is often where the last object was; of one that is all there is nothing to order
            first = tuple(self._open) if len(self._packs) > 1 else ()
            others = (pack for pack in self._packs.values() if pack not in first) if first else self._packs.values()
            for pack in chain(first, others):
                try:
                    if (offset := pack.find(oid)) is None:
                        continue
                    if pack not in self._open:
                        # those that were read last, and no others: a daemon has many repositories open
                        self._open.insert(0, pack)
                        if len(self._open) > _MOST_OPEN:
                            self._open.pop().close()
                    answer = question(pack, offset)
                except DAMAGE as error:
                    if isinstance(error, OSError) and error.errno in EXHAUSTED:
                        raise
                    # without the frames, which hold what was read
                    failure = failure or error.with_traceback(None)
                    failed.append(pack)
                else:
                    # what lies about one object may lie about many, and is asked last from now on
                    for stem in [stem for stem, known in self._packs.items() if known in failed]:
                        self._packs[stem] = self._packs.pop(stem)
                        self._packs[stem].close()
                    self._open = [known for known in self._open if known not in failed]
                    return answer
            # nothing but a list of them says that there is no other pack: a directory's times may be old ones
            if not look or not self._look(failed):
                break
        if failure is not None:
            try:
                raise failure
            finally:
                # it has this frame, which must not have it
                failure = None
        if self._unseen and look:
            raise OSError(errno.EIO, self._unseen)
        raise KeyError(oid.hex())

    def close(self) -> None:
        """Close all files; they are opened again when one is read."""
        for pack in self._packs.values():
            pack.close()

    def discard(self) -> None:
        self.close()
        self._packs, self._open, self._identities = {}, [], {}

    def __contains__(self, oid: Oid) -> bool:
        """Whether a pack has it, whole or not. Raises `DAMAGE` where that cannot be told."""
        try:
            return self._ask(oid, lambda _pack, _offset: True)
        except KeyError:
            return False

    def refresh(self) -> int:
        """List the packs that there are now: how many are looked through."""
        self._look()
        return len(self._packs)

    def state(self) -> bytes:
        """What is another when there are other packs than before; in every process the same."""
        self._look()
        return repr(sorted(self._identities.items())).encode()

    def __iter__(self) -> Iterator[Oid]:
        """The ids of all objects in the packs that are there now, those of each in order. Raises `DAMAGE`."""
        self._look()
        if self._unseen:
            raise OSError(errno.EIO, self._unseen)
        for pack in list(self._packs.values()):
            yield from pack.ids()

    def _look(self, failed: Iterable[PackReader] = ()) -> bool:
        """List the packs; whether that is something new. What was read of those that ``failed`` is forgotten."""
        for pack in failed:
            pack.discard()
        before, self._unseen = self._identities, ""
        try:
            self._identities = self._list()
        except OSError as error:
            self._identities = {}
            if error.errno not in GONE:
                self._unseen = f"{self._directory}: {error.strerror}"
        if self._identities == before:
            return False
        known = {stem for stem, identity in self._identities.items() if before.get(stem) == identity}
        for stem in self._packs.keys() - known:
            # its room on the disk is free when nobody has it open
            self._packs[stem].close()
        self._packs = {
            stem: self._packs[stem] if stem in known else PackReader(f"{self._directory}/{stem}", self._budget)
            for stem in self._identities
        }
        self._open = [pack for pack in self._open if pack in self._packs.values()]
        return True

    def _list(self) -> dict[str, tuple[_Version | None, ...]]:
        """What is another for each pack with its index: a pack that was mended has the name that it had."""
        with os.scandir(self._directory) as entries:
            found = {}
            for entry in entries:
                self._budget.spend(NAME)
                if entry.name.endswith((".idx", ".pack")):
                    found[entry.name] = entry
        indexes = (name.removesuffix(".idx") for name in found if name.endswith(".idx"))
        # `git repack` renames a new pack and then its index, which meanwhile is alone
        stems = [stem for stem in indexes if f"{stem}.pack" in found]
        # the newest first, whose objects are wanted most: as a rule it has the highest number, and to ask for the times
        # of all would be a request each
        stems.sort(key=lambda stem: (-found[f"{stem}.pack"].inode(), stem))
        if len(stems) > _MOST_PACKS:
            self._unseen = f"{self._directory} has more than {_MOST_PACKS} packs"
        self._budget.spend(OBJECT / 3 * len(stems))
        return {
            stem: tuple(_identity(found[f"{stem}{suffix}"]) for suffix in (".pack", ".idx"))
            for stem in stems[:_MOST_PACKS]
        }


def _identity(entry: os.DirEntry[str]) -> _Version | None:
    """What is another for each file; None for one that is there no longer. Raises OSError."""
    if entry.name.startswith(OURS):
        # a name that no other pack gets; an index that was mended is another file
        return entry.inode(), 0, 0
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
