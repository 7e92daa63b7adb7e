"""What a daemon keeps of what it has read, and which katas its log has said something of."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

import cachetools

from katafs.caching import CountedCache, Kept, Newest
from katafs.git import Oid
from katafs.git.budget import Budget
from katafs.kata.model.trees import Listing
from katafs.kata.read.snapshot import Content, Snapshot
from katafs.text import visible

log = logging.getLogger(__name__)

_MOST_AN_HOUR, _HOUR = 100, 3600.0
_MOST_KATAS = 100_000


class Notes:
    """Lines about katas, one for each kata and daemon: at most 100 an hour, then how many more there were. Belongs to
    one thread."""

    def __init__(self) -> None:
        self._told: Newest[str, None] = Newest(_MOST_KATAS)
        self._hour = time.monotonic()
        self._lines = self._left_out = 0

    def note(self, kata_id: str, why: str, *, of: str = "kata") -> None:
        """Something is to be said of a kata (or what else it is of), unless something was."""
        self.expire()
        name = f"{of} {kata_id}"
        if name in self._told:
            return
        self._told.keep(name, None)
        if self._lines < _MOST_AN_HOUR:
            self._lines += 1
            log.info("%s: %s", name, visible(why, kept=""))
        else:
            self._left_out += 1

    def expire(self) -> None:
        """To be called from time to time: says how many were left out in an hour that has passed."""
        if time.monotonic() - self._hour < _HOUR:
            return
        if self._left_out:
            log.info("and %d more katas within an hour", self._left_out)
        self._hour = time.monotonic()
        self._lines = self._left_out = 0


_DAMAGED_SECONDS = 1.0
_DOCUMENTS = 1 << 20  # bytes; nearly all of them are ids
# bytes in memory of a path in a listing, a snapshot, a set of options, a size; of a byte of rows, with their texts
_PATH, _SNAPSHOT, _OPTIONS, _SIZE, _ROWS = 350, 2_750, 480, 165, 4.4


class Holder(Protocol):
    """A kata, which has something in memory that it can read again."""

    def let_go(self) -> None:
        """Forget it."""


class ReadCaches:
    """What was read from objects that never change, shared by all katas.

    Each cache is bounded: ``paths`` of all listings, ``snapshots`` (and as many sets of options, and twice as many
    sizes), ``blob_bytes``, and ``rows_bytes`` of the rows of all open katas as they are stored (one kata may have
    more). ``budget`` pays for all reading. Belongs to one thread.
    """

    def __init__(
        self,
        paths: int = 20_000,
        snapshots: int = 2_048,
        blob_bytes: int = 3 << 20,
        rows_bytes: int = 3 << 19,
        *,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget()
        # the keys begin with the number of a history, see `Kata`
        self.listings: CountedCache[tuple[int, Oid | None], Listing] = CountedCache(paths, getsizeof=len)
        # what was damaged may be mended
        self.damaged: cachetools.TTLCache[tuple[int, Oid | None], Listing] = cachetools.TTLCache(4, _DAMAGED_SECONDS)
        self.snapshots: CountedCache[tuple[int, int], Snapshot] = CountedCache(snapshots, getsizeof=_weight)
        self.options: CountedCache[tuple[int, Oid | None], dict[str, str]] = CountedCache(
            snapshots, getsizeof=lambda options: 1 + sum(map(len, options.values())) // 256
        )
        self.sizes: Newest[tuple[int, Oid], int] = Newest(snapshots * 2)
        self.documents: CountedCache[tuple[int, Oid], Content] = CountedCache(
            _DOCUMENTS, getsizeof=lambda content: 200 + (len(content) if isinstance(content, bytes) else 0)
        )
        self.blobs: CountedCache[tuple[int, Oid], bytes] = CountedCache(
            blob_bytes, getsizeof=lambda data: len(data) + 200
        )
        self.notes = Notes()
        #: called with the id of a kata of which nothing that was read before may hold (`Kata.identity`)
        self.on_change: Callable[[str], None] = lambda _kata_id: None
        self.incarnations = itertools.count()
        #: another number for each question that somebody asks from outside: until then what is on disk is looked at
        #: once. 0 where nobody counts them; then it is looked at each time.
        self.epoch = 0
        # the katas whose rows are in memory, those read first in front, and the bytes of their rows as they are stored
        self._held: WeakKeyDictionary[Holder, int] = WeakKeyDictionary()
        self._most_rows = rows_bytes

    def hold(self, kata: Holder, size: int) -> None:
        """The rows of a kata are in memory now, ``size`` bytes as they are stored: others may have to go for them."""
        self._held.pop(kata, None)
        self._held[kata] = size
        for other in list(self._held):
            if other is kata or self.held <= self._most_rows:
                return
            del self._held[other]
            other.let_go()

    @property
    def held(self) -> int:
        """The bytes of all rows that are in memory, as they are stored."""
        return sum(self._held.values())

    def kept(self) -> dict[str, Kept]:
        """What is in memory, by names for an operator."""
        return {
            "listings": Kept.of(self.listings, _PATH),
            "snapshots": Kept.of(self.snapshots, _SNAPSHOT),
            "options": Kept.of(self.options, _OPTIONS),
            "blobs": Kept.of(self.blobs, 1),
            "documents": Kept.of(self.documents, 1),
            "sizes": self.sizes.kept(_SIZE),
            "rows": Kept(len(self._held), round(self.held * _ROWS), round(self._most_rows * _ROWS)),
        }

    def clear(self) -> None:
        for cache in vars(self).values():
            if isinstance(cache, (cachetools.Cache, Newest)):
                cache.clear()
        for kata in list(self._held):
            kata.let_go()
        self._held.clear()


def _weight(snapshot: Snapshot) -> int:
    """1 for a snapshot as most are, more for one that takes more memory."""
    return 1 + len(snapshot.root.entries) // 16 + len(snapshot.commit.message) // 1024
