"""What a daemon counts of itself: plain numbers, since every request counts something, and reads are to stay cheap."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable

#: upper bounds of the buckets of `Latency`, in seconds; one more bucket is for what takes longer
BOUNDS = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


#: so long, in seconds, no request is to keep the others waiting
HELD = 0.02


class Latency:
    """How long requests of one kind took."""

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
        #: messages that had been recorded before, and were answered for once more
        self.repetitions = 0
        #: writes that were refused because somebody else was first (EEXIST)
        self.conflicts = 0
        #: repositories whose packs were made one
        self.compactions = 0
        #: how long the event loop was held at most at a time, in seconds, and how often longer than `HELD`
        self.held_most, self.held_often = 0.0, 0
        #: until when what is numbered below such a part of a number is asked elsewhere, on the clock of the adapter
        self.heavy: dict[int, float] = {}
        #: questions that were answered by another process
        self.elsewhere = 0
        #: by the name of the request: those that were answered without Python; the adapter knows
        self.ahead: Callable[[], dict[str, int]] = dict

    def requests(self) -> int:
        """How many there were, but for those that were answered without Python."""
        return sum(sum(latency.counts) for latency in self.latencies.values())

    def held(self, seconds: float) -> None:
        self.held_most = max(self.held_most, seconds)
        self.held_often += seconds > HELD
