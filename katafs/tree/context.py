"""What all nodes share; and what the daemon counts of itself: plain numbers, since every request counts something."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cachetools

from katafs.caching import CountedCache, Kept, Newest
from katafs.git import Oid
from katafs.kata.groups import Group
from katafs.kata.read.kata import Kata
from katafs.kata.store import Store
from katafs.kata.views.download import Download
from katafs.kata.views.spool import Spool
from katafs.tree.controls import Controls
from katafs.tree.git_files import HeldFiles
from katafs.tree.made import MadeCache
from katafs.tree.nodes import Owner

#: upper bounds of the buckets of `Latency`, in seconds; one more bucket is for what takes longer
BOUNDS = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
#: so long, in seconds, no request is to keep the others waiting
HELD = 0.02


class Latency:
    def __init__(self) -> None:
        #: requests in each bucket, those of no other bucket
        self.counts = [0] * (len(BOUNDS) + 1)
        #: seconds, of all together
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Counters:
    """What happened since the daemon was started. Belongs to the event loop; what a thread does is counted after it."""

    def __init__(self) -> None:
        #: by the name of the request
        self.latencies: defaultdict[str, Latency] = defaultdict(Latency)
        #: how many requests wait, for something slow to be made or for a commit; the adapter knows
        self.waiting: Callable[[], int] = lambda: 0
        #: by the name of the request, and of the errno
        self.errors: Counter[tuple[str, str]] = Counter()
        #: commits, by what was written to: ``control``, ``option``, ``plain``
        self.commits: Counter[str] = Counter()
        # what each of the others is `katafs.tree.stats` says
        self.repetitions = self.conflicts = self.compactions = self.elsewhere = 0
        #: how long the event loop was held at most at a time, in seconds, and how often longer than `HELD`
        self.held_most, self.held_often = 0.0, 0
        #: until when what is numbered below such a part of a number is asked elsewhere, on the clock of the adapter
        self.heavy: dict[int, float] = {}
        #: by the name of the request: those that were answered without Python; the adapter knows
        self.ahead: Callable[[], dict[str, int]] = dict

    def held(self, seconds: float) -> None:
        self.held_most = max(self.held_most, seconds)
        self.held_often += seconds > HELD


# members of downloads, of all together; one may have more
_MEMBERS = 10_000
_MEMBER = 410  # bytes in memory
_SLOW_SECONDS = 60.0  # for whoever reads one for long, after the tip has moved
_MOST_PROMISED, _PROMISE = 1_000, 400  # bytes in memory of each
# groups as they were found; bytes in memory of one with 64 members
_GROUPS, _GROUP = 48, 32_000
# many nodes have the same
_owner = lru_cache(1024)(Owner)


class DownloadCache(CountedCache[tuple[str, int], Download]):
    """Downloads of some katas, by id and the number of their archives; their contents are in unlinked temporary
    files."""

    def __init__(self) -> None:
        super().__init__(_MEMBERS, getsizeof=lambda download: min(len(download.members), _MEMBERS))
        #: the tips of archives that somebody was told of, and that are not made yet
        self.promised: Newest[tuple[str, int], Oid] = Newest(_MOST_PROMISED)

    def at(self, kata_id: str, tip: Oid) -> Download | None:
        """One of a tip, the newest if there are several."""
        found = (known for key, known in self.items() if key[0] == kata_id and known.tip == tip and not known.closed)
        return next(found, None)

    def numbered(self, kata_id: str, number: int) -> tuple[Oid | None, Download | None]:
        """The tip of an archive that somebody was told of, and that is there or was not made yet; and what is there."""
        known = self.get((kata_id, number))
        if known is not None and not known.closed:
            return known.tip, known
        return self.promised.get((kata_id, number)), None

    def put(self, kata_id: str, download: Download) -> None:
        """Keep it; those of other tips go, unless somebody reads them."""
        key = kata_id, download.number
        for other in [other for other in self if other[0] == kata_id]:
            if other == key or self[other].is_idle(_SLOW_SECONDS):
                self.pop(other).close()
        self.promised.pop(key, None)
        self[key] = download

    def popitem(self) -> tuple[tuple[str, int], Download]:
        key, download = super().popitem()
        download.close()
        return key, download


@dataclass(frozen=True)
class About:
    """What the adapter knows of the mount and the daemon. Questions have answers once the tree can be read."""

    read_only: bool = False
    #: whether events have extended attributes
    xattr: bool = False
    #: whether the kernel opens files by itself
    is_fast: Callable[[], bool] = lambda: False
    #: how many daemons before this one have died
    deaths: Callable[[], int] = lambda: 0
    #: whether the store is on a file system that may lose events
    is_unsafe: bool = False
    #: when the daemon was started, in ns
    began_ns: int = field(default_factory=time.time_ns)


@dataclass
class Context:
    """The store, the caches of what was computed, and the options of the mount."""

    store: Store
    uid: int | None = None
    gid: int | None = None
    #: the directory of cyber-dojo's groups, a path without links; None where they are not shown
    groups: Path | None = None
    #: its status once, where it is not looked at in this process, which could not go on if nobody answered for it
    groups_status: os.stat_result | None = None
    spool: Spool = field(default_factory=Spool)
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        self.controls, self.counters = Controls(), Counters()
        self.downloads = DownloadCache()
        #: katas with events that wait for their rows
        self.waiting: set[str] = set()
        #: options whose files were created and that have no value yet, by kata
        self.begun_options: cachetools.LRUCache[tuple[str, str], bool] = cachetools.LRUCache(1000)
        #: groups by id and version: as they were found, and until when that is fresh (time.monotonic)
        self.seen_groups: cachetools.LRUCache[tuple[str, int], tuple[float, Group]] = cachetools.LRUCache(_GROUPS)
        self.made = MadeCache(self.spool)
        #: the text of ``.katafs/stats``, its time in ns, and until when it is fresh (time.monotonic)
        self.stats: tuple[bytes, int, float] = (b"", 0, 0.0)
        #: what else is kept in memory, by names for an operator
        self.keepers: dict[str, Callable[[], Kept]] = {}
        self.git_files = HeldFiles(self.store)

    def kept(self) -> dict[str, Kept]:
        own = {"downloads": Kept.of(self.downloads, _MEMBER), "groups": Kept.of(self.seen_groups, _GROUP)}
        own["promised archives"] = self.downloads.promised.kept(_PROMISE)
        others = {name: keeper() for name, keeper in self.keepers.items()}
        return {**self.store.kept(), **self.made.kept(), **own, **others}

    def clear_caches(self) -> None:
        self.store.clear_caches()
        self.made.clear_caches()
        self.seen_groups.clear()

    def owner(self, kata: Kata) -> Owner:
        """Whose the files of a kata are: its directory's owner, unless the mount says otherwise."""
        return self.owner_of(*kata.owner)

    def owner_of(self, uid: int, gid: int) -> Owner:
        return _owner(uid if self.uid is None else self.uid, gid if self.gid is None else self.gid)
