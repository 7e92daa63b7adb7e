"""Katas that are stored plain, for reading: each is converted into a repository of its own outside the store.

The conversion is the one that migration uses, so what is read from it (events, diffs, downloads) is what will be read
after migration. It is made when it is first needed, and anew when the plain files have changed; some are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import cachetools

from katafs.directories import remove_quietly
from katafs.errors import DamagedError, KataError, NotFoundError, storage_errors
from katafs.git.budget import CONVERSION, STATUS
from katafs.kata.legacy.converting import first_commit, write_repository
from katafs.kata.legacy.plain_files import Signature, mtime_ns, signature
from katafs.kata.legacy.plain_kata import PlainKata
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata

_GENERATIONS = 10_000
_TOLD = 20_000
# for so long, in seconds, it is taken for granted that plain files are as they were
_FRESH_SECONDS = 0.2
_DROPPED_SECONDS = 10.0
_PREFIX = "katafs-plain-"


@dataclass
class Conversion:
    """A conversion made from plain files that were as ``seen`` says: the directory of its ``.git``, or why there is
    none. Once it is kept, what reads it, and when the plain files were last looked at."""

    seen: Signature
    directory: Path | None
    error: KataError | None = None
    kata: Kata | None = None
    looked: float = 0.0


class _Kept(cachetools.LRUCache[str, Conversion]):
    """Conversions by kata."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        # somebody may be about to open one that was dropped this moment
        self._dropped: deque[tuple[float, Path]] = deque()

    def __delitem__(self, kata_id: str) -> None:
        now = time.monotonic()
        if (kata := self[kata_id].kata) is not None:
            # nodes that were kept may still have it
            kata.repo.objects.packs.close()
        if (directory := self[kata_id].directory) is not None:
            self._dropped.append((now, directory))
        while self._dropped and now - self._dropped[0][0] > _DROPPED_SECONDS:
            remove_quietly(self._dropped.popleft()[1])
        super().__delitem__(kata_id)


class PlainStore:
    """Conversions of the plain katas of one store. Belongs to one thread, but for `convert`."""

    def __init__(self, caches: ReadCaches, spool: Path | None, most: int) -> None:
        """``most`` conversions are kept."""
        self._caches = caches
        self._spool = spool
        self._directory: Path | None = None
        self._making_directory = threading.Lock()
        self._kept = _Kept(most)
        # what readers were told of a plain file, its size and mtime in ns: it may be migrated while they have it open
        self.shown: cachetools.LRUCache[Hashable, tuple[int, int]] = cachetools.LRUCache(_TOLD)
        self._generations: cachetools.LRUCache[tuple[str, tuple[int, ...]], int] = cachetools.LRUCache(_GENERATIONS)

    def is_ready(self, kata_id: str, path: Path) -> bool:
        """Whether `kata` can answer without converting."""
        known = self._kept.get(kata_id)
        if known is None:
            return False
        now = time.monotonic()
        if now - known.looked < _FRESH_SECONDS:
            return True
        with contextlib.suppress(NotFoundError):
            if signature(path, self._caches.budget) == known.seen:
                known.looked = now
                return True
        return False

    def kata(self, kata_id: str, path: Path, owner: tuple[int, int]) -> Kata:
        """The kata as it is now. Raises the error that its conversion ended with."""
        if not self.is_ready(kata_id, path):
            self._caches.budget.spend(CONVERSION)
            self.keep(kata_id, path, self.convert(kata_id, path))
        known = self._kept[kata_id]
        if known.kata is None:
            raise known.error or NotFoundError(f"kata {kata_id} cannot be converted")
        known.kata.owner = owner
        return known.kata

    def convert(self, kata_id: str, path: Path) -> Conversion:
        """Convert a kata; in any thread. The result is to be handed to `keep`. Raises `NotFoundError`."""
        seen = signature(path)
        try:
            with storage_errors(f"kata {kata_id} cannot be converted"):
                directory = Path(tempfile.mkdtemp(prefix=f"{kata_id}-", dir=self.directory()))
                try:
                    write_repository(PlainKata(kata_id, path), directory)
                except BaseException:
                    remove_quietly(directory)
                    raise
                return Conversion(seen, directory)
        except KataError as error:
            return Conversion(seen, None, error)

    def keep(self, kata_id: str, path: Path, conversion: Conversion) -> None:
        """Keep a conversion of the kata in ``path`` instead of the one there is."""
        self.drop(kata_id)
        if conversion.directory is not None:
            conversion.kata = Kata(kata_id, conversion.directory, (0, 0), self._caches, home=path)
        conversion.looked = time.monotonic()
        self._kept[kata_id] = conversion

    def drop(self, kata_id: str) -> None:
        self._kept.pop(kata_id, None)

    def generation(self, kata_id: str, path: Path) -> int:
        """What `Kata.generation` will say, from event 0 alone; 0 where that cannot be read."""
        try:
            times = []
            # the files of event 0, and those that say what they are
            for name in (b"manifest.json", b"0.event.json", b"0/event.json"):
                with contextlib.suppress(NotFoundError):
                    times.append(mtime_ns(path, name))
            key = (kata_id, tuple(times))
            if key not in self._generations:
                # all names are looked at, and some 40 bytes of a directory are one
                self._caches.budget.spend(os.stat(path).st_size / 40 * STATUS)
                self._generations[key] = int.from_bytes(first_commit(PlainKata(kata_id, path))[:4])
            return self._generations[key]
        except (DamagedError, NotFoundError):
            return 0

    @property
    def conversions(self) -> int:
        return len(self._kept)

    def directory(self) -> Path:
        """The directory of all conversions, made when it is first needed. Those of daemons that died, whose locks are
        free, are removed."""
        with self._making_directory:
            if self._directory is None:
                parent = Path(self._spool or tempfile.gettempdir())
                for old in parent.glob(f"{_PREFIX}*"):
                    if (fd := _lock(old)) is not None:
                        remove_quietly(old)
                        os.close(fd)
                made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
                _lock(made)
                self._directory = made
            return self._directory

    def close(self) -> None:
        if self._directory is not None:
            remove_quietly(self._directory)


def _lock(directory: Path) -> int | None:
    """Lock a directory, by a file in it: the descriptor that holds the lock, or None when somebody else does."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
