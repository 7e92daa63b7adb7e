"""What a daemon keeps of what it has read."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import cachetools

from katafs.caching import CountedCache, Newest
from katafs.git import Oid
from katafs.kata.listing import Listing
from katafs.kata.notes import Notes
from katafs.kata.snapshot import Content, Snapshot

if TYPE_CHECKING:
    from katafs.kata.kata import Kata

_DAMAGED_SECONDS = 1.0
_DOCUMENTS = 1 << 20  # bytes; nearly all of them are ids


class ReadCaches:
    """What was read from objects that never change, shared by all katas.

    Each cache is bounded: ``paths`` of all listings (some 300 bytes each), ``snapshots`` (and as many sets of options,
    and twice as many sizes), ``blob_bytes``, and ``rows_bytes`` of the rows of all open katas as they are stored (in
    memory 3.4 times as much; one kata may have more). Belongs to one thread.
    """

    def __init__(
        self,
        paths: int = 200_000,
        snapshots: int = 4_096,
        blob_bytes: int = 16 << 20,
        rows_bytes: int = 8 << 20,
        *,
        defers: bool = False,
    ) -> None:
        #: whether what is large is not read here and now, but a `NotReadYet`
        self.defers = defers
        # the keys begin with the number of a history, see `Kata`
        self.listings: CountedCache[tuple[int, Oid | None], Listing] = CountedCache(paths, getsizeof=len)
        # what was damaged may be mended
        self.damaged: cachetools.TTLCache[tuple[int, Oid | None], Listing] = cachetools.TTLCache(16, _DAMAGED_SECONDS)
        #: why rows or paths cannot be read, which was found out elsewhere
        self.unreadable: cachetools.TTLCache[tuple[int, Oid | None], str] = cachetools.TTLCache(1000, _DAMAGED_SECONDS)
        self.snapshots: CountedCache[tuple[int, int], Snapshot] = CountedCache(snapshots)
        self.options: CountedCache[tuple[int, Oid | None], dict[str, str]] = CountedCache(snapshots)
        self.sizes: Newest[tuple[int, Oid], int] = Newest(snapshots * 2)
        self.documents: CountedCache[tuple[int, Oid], Content] = CountedCache(
            _DOCUMENTS, getsizeof=lambda content: 200 + (len(content) if isinstance(content, bytes) else 0)
        )
        self.blobs: CountedCache[tuple[int, Oid], bytes] = CountedCache(
            blob_bytes, getsizeof=lambda data: len(data) + 200
        )
        self.notes = Notes()
        self.histories = itertools.count()
        #: another number for each question that somebody asks from outside: until then what is on disk is looked at
        #: once. 0 where nobody counts them; then it is looked at each time.
        self.moment = 0
        # the katas whose rows are in memory, those read first in front, and the bytes of their rows as they are stored
        self._held: WeakKeyDictionary[Kata, int] = WeakKeyDictionary()
        self._most_rows = rows_bytes

    def hold(self, kata: Kata, size: int) -> None:
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

    def clear(self) -> None:
        """Forget everything."""
        for cache in vars(self).values():
            if isinstance(cache, (cachetools.Cache, Newest)):
                cache.clear()
        for kata in list(self._held):
            kata.let_go()
        self._held.clear()
