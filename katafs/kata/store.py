"""The store: a directory of katas, each in ``Ab/Cd/Ef``. It has no index; what is there is found by looking."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cachetools

from katafs.caching import CountedCache, Kept, Shared
from katafs.errors import DamagedError, KataError, NotFoundError, StorageError, absent
from katafs.git.beneath import appears, is_shared
from katafs.git.budget import Budget
from katafs.kata.legacy.plain_store import PlainStore
from katafs.kata.model.ids import is_id_part
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata

_MICROSECONDS, _NOTHING = 10_000.0, -1.0
_OPEN_KATAS, _WAITED_SECONDS = 128, 60.0
_DESCRIPTORS_OF_EACH = 16  # that there are to be, stored as git and plain together
_KATA = 18_000  # bytes in memory, with some trees and commits


def budget_of_loop(root: Path) -> Budget:
    """What a request may cost in an event loop that answers for all katas: nothing at all of a network file system, of
    which nobody knows when it answers."""
    return Budget(_NOTHING if is_shared(root) else _MICROSECONDS)


class _Open(CountedCache[str, tuple[Kata, tuple[int, int]]]):
    """Katas, each with the device and inode of its directory: another directory is another kata."""

    def __delitem__(self, kata_id: str) -> None:
        kata, _ = self[kata_id]
        kata.identity = None
        # nodes that were kept may still have it
        kata.repo.objects.packs.close()
        super().__delitem__(kata_id)


class Store:
    """The katas below ``root``. Belongs to one thread. ``spool`` is a directory for temporary files. ``budget`` pays
    for each question, from `new_epoch` to the next; a copy of the store in another process has more."""

    def __init__(self, root: Path, spool: Path | None = None, *, budget: Budget | None = None) -> None:
        self.root = root
        self.read_caches = ReadCaches(budget=budget)
        self.budget = self.read_caches.budget
        #: whether it is not asked in this process, which could not go on if it did not answer
        self.is_remote = self.budget.left < 0
        # each has two packs open, and half of all descriptors are for files in ``.git/`` that somebody has open
        most = min(_OPEN_KATAS, 1 + resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _DESCRIPTORS_OF_EACH)
        self.plain = PlainStore(self.read_caches, spool, most)
        self._open = _Open(most)
        self._waited: cachetools.TTLCache[str, bool] = cachetools.TTLCache(_OPEN_KATAS, _WAITED_SECONDS)
        self._root = os.stat(root)
        #: of the root when it was mounted
        self.device = self._root.st_dev

    def look(self) -> None:
        """Remember the status of the root, for who may not ask for it. In any thread."""
        with suppress(OSError):
            self._root = os.stat(self.root)

    def check_there(self) -> None:
        """Raises `StorageError` (EIO) where the store was unmounted: what is in its place is empty, and to stay so."""
        self.budget.spend(0)
        try:
            if os.stat(self.root).st_dev == self.device or os.listdir(self.root):
                return
        except OSError as error:
            raise StorageError(f"{self.root}: {error.strerror}", error.errno or errno.EIO) from error
        raise StorageError(f"{self.root} was unmounted", errno.EIO)

    def path(self, parts: str) -> Path:
        """The directory of ``""``, ``"Ab"``, ``"AbCd"`` or ``"AbCdEf"``."""
        return Path(self._place(parts))

    def _place(self, parts: str) -> str:
        """The same as a string: it is wanted several times for each look at a kata."""
        return "/".join((str(self.root), *(parts[at : at + 2] for at in range(0, len(parts), 2))))

    def status(self, parts: str) -> os.stat_result:
        """The status of such a directory. Raises `NotFoundError` if there is none; links are not followed."""
        if not parts and self.is_remote:
            return self._root
        self.budget.spend(0)
        place = self._place(parts)
        try:
            status = os.lstat(place)
        except OSError as error:
            raise absent(place, error) from error
        if not stat.S_ISDIR(status.st_mode):
            raise NotFoundError(f"{place} is not a directory")
        return status

    def names(self, parts: str) -> list[str]:
        """The two-character names below such a directory, sorted."""
        self.budget.spend(0)
        try:
            with os.scandir(self._place(parts)) as entries:
                return sorted(
                    entry.name for entry in entries if is_id_part(entry.name) and entry.is_dir(follow_symlinks=False)
                )
        except OSError as error:
            raise absent(self._place(parts), error) from error

    def is_git(self, kata_id: str) -> bool:
        """Whether a kata is stored as git; what is known of one that is not any more is dropped."""
        self.budget.spend(0)
        found = is_git(self._place(kata_id))
        if not found:
            # plain files may be in its place, in the same directory
            self._open.pop(kata_id, None)
        return found

    def is_plain(self, kata_id: str) -> bool:
        self.budget.spend(0)
        place = self._place(kata_id)
        return not is_git(place) and os.path.isfile(f"{place}/manifest.json")

    def kata(self, kata_id: str) -> Kata:
        """A kata, however it is stored. Raises `NotFoundError`, or `DamagedError` when it cannot be opened."""
        self.budget.spend(0)
        known = self._open.get(kata_id)
        if known is not None:
            return known[0]
        status = self.status(kata_id)
        if self.is_plain(kata_id):
            try:
                return self.plain.kata(kata_id, self.path(kata_id), (status.st_uid, status.st_gid))
            except KataError:
                # it may have been migrated meanwhile
                if not self._is_migrated(kata_id):
                    raise
        if not self.is_git(kata_id):
            raise NotFoundError(f"kata {kata_id} has no manifest")
        self.plain.drop(kata_id)
        kata = Kata(kata_id, self.path(kata_id), (status.st_uid, status.st_gid), self.read_caches)
        kata.identity = object()
        self._open[kata_id] = (kata, (status.st_dev, status.st_ino))
        return kata

    def _is_migrated(self, kata_id: str) -> bool:
        """Whether a kata that was plain is none any more; waited for once, where another host may have done it."""
        if self.budget.may_wait and kata_id not in self._waited:
            self._waited[kata_id] = True
            appears(f"{self._place(kata_id)}/.git")
        return self.is_git(kata_id)

    def refresh(self, kata_id: str) -> os.stat_result:
        """The status of a kata's directory; drops what is known of a kata that was replaced or removed."""
        known = self._open.get(kata_id)
        try:
            status = self.status(kata_id)
        except NotFoundError:
            self._open.pop(kata_id, None)
            raise
        if known is not None and known[1] != (status.st_dev, status.st_ino):
            self._open.pop(kata_id, None)
        elif known is not None and known[0].owner != (status.st_uid, status.st_gid):
            known[0].owner = (status.st_uid, status.st_gid)
            known[0].identity = object()
        return status

    def why_no_events(self, kata_id: str) -> KataError | None:
        try:
            self.kata(kata_id).tip()
        except (NotFoundError, DamagedError) as error:
            return error
        return None

    def new_epoch(self) -> None:
        """From now on what is on disk may be something else: to be called for each question from outside, and after
        each wait."""
        self.read_caches.epoch += 1
        self.budget.renew()

    def clear_caches(self) -> None:
        self.read_caches.clear()
        for cache in Shared.named.values():
            cache.clear()

    def kept(self) -> dict[str, Kept]:
        shared = {name: cache.kept() for name, cache in Shared.named.items()}
        return {"katas": Kept.of(self._open, _KATA), **self.read_caches.kept(), **shared}

    def open_repositories(self) -> int:
        """How many are open, with those that were made from plain katas."""
        return len(self._open) + self.plain.conversions

    def close(self) -> None:
        self.plain.close()


def is_git(path: str | Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(os.path.join(path, ".git")).st_mode)
    except OSError as error:
        if isinstance(failure := absent(f"{path}/.git", error), NotFoundError):
            return False
        raise failure from error


def katas_below(path: Path, levels: int = 3) -> Iterator[tuple[Path, OSError | None]]:
    """The directories so many levels below one of a store, and links on the way there; and what cannot be read on the
    way, with why."""
    try:
        mode = os.lstat(path).st_mode
        names = sorted(filter(is_id_part, os.listdir(path))) if levels and stat.S_ISDIR(mode) else []
    except FileNotFoundError:
        return
    except OSError as error:
        yield path, error
        return
    if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and not levels):
        yield path, None
    for name in names:
        yield from katas_below(path / name, levels - 1)
