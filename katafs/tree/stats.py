"""``.katafs/stats``: what the daemon has counted, in Prometheus' text format.

The library writes the text, and knows the figures of the process; ours are handed to it when the file is asked for.
Names and units are those of https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from katafs import __version__
from katafs.tree.counters import BOUNDS, HELD, Latency
from katafs.tree.nodes import BytesFile, Owner
from katafs.tree.numbers import Key

if TYPE_CHECKING:
    from katafs.tree.context import Context

# The next reader gets the same text for so long, in seconds: what is read in two requests is to be of one text.
_FRESH_SECONDS = 0.1


class Stats:
    """The text, and the moment it was made. Belongs to the event loop."""

    def __init__(self, ctx: Context) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(ctx))
        ProcessCollector(registry=self._registry)
        self._text = b""
        self._made_ns = 0
        self._until = 0.0

    def text(self, *, fresh: bool) -> tuple[bytes, int]:
        """The text and its time in ns; a new text if it is to be fresh, or there is none.

        A path is looked up before each open, which makes a new one. While the file is open, its text stays.
        """
        now = time.monotonic()
        if not self._text or (fresh and now > self._until):
            self._text = generate_latest(self._registry)
            self._made_ns = max(time.time_ns(), self._made_ns + 1)
            self._until = now + _FRESH_SECONDS
        return self._text, self._made_ns


class StatsFile(BytesFile):
    """``stats``. The kernel sees by the time that there is another text."""

    def __init__(self, key: Key, owner: Owner, stats: Stats, *, fresh: bool) -> None:
        text, made_ns = stats.text(fresh=fresh)
        super().__init__(key, owner, made_ns, text)


class _Collector(Collector):
    """The figures of one mount."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def collect(self) -> Iterator[Metric]:
        yield from self._about()
        yield from self._requests()
        yield from self._recorded()
        yield from self._caches()
        yield from self._held()

    def _about(self) -> Iterator[Metric]:
        build = Gauge("katafs_build_info", "The code that runs.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        about = self._ctx.about
        mount = Gauge("katafs_mount_info", "What is mounted.", labels=("store", "mode", "read_only"))
        mode = "fast" if about.is_fast() else "slower"
        store = str(self._ctx.store.root).encode("utf-8", "replace").decode()
        mount.add_metric((store, mode, str(about.read_only).lower()), 1)
        yield from (build, mount)
        yield Gauge("katafs_unsafe_store", "1: the file system of the store may lose events.", int(about.is_unsafe))
        yield Gauge("katafs_daemon_pid", "The number of the process that answers.", os.getpid())
        yield Counter("katafs_daemon_deaths", "Daemons of this mount that have died and were replaced.", about.deaths())

    def _requests(self) -> Iterator[Metric]:
        counters = self._ctx.counters
        durations = HistogramMetricFamily(
            "katafs_request_duration_seconds",
            "Requests that reached the daemon and how long it took to answer them. What the kernel answers itself"
            " is not among them.",
            labels=("operation",),
        )
        for operation, latency in sorted(counters.latencies.items()):
            if any(latency.counts):
                durations.add_metric((operation,), _buckets(latency), latency.sum)
        errors = Counter(
            "katafs_request_errors",
            "Requests that were answered with an errno. ENOENT of lookup is what every search for a name gets.",
            labels=("operation", "errno"),
        )
        for names, count in sorted(counters.errors.items()):
            errors.add_metric(names, count)
        yield from (durations, errors)
        yield Gauge(
            "katafs_requests_waiting",
            "Requests that wait for something slow to be made, or for their commit.",
            counters.waiting(),
        )
        yield Gauge(
            "katafs_loop_held_seconds_max", "The longest time for which nobody was answered.", counters.held_most
        )
        yield Counter("katafs_holds", f"Times when nobody was answered for more than {HELD:g} s.", counters.held_often)
        yield Counter("katafs_elsewhere", "Questions that took too long for the daemon itself.", counters.elsewhere)

    def _recorded(self) -> Iterator[Metric]:
        counters = self._ctx.counters
        commits = Counter("katafs_commits", "Commits of this mount, by what was written to.", labels=("written",))
        for written in ("control", "option", "plain"):
            commits.add_metric((written,), counters.commits[written])
        yield commits
        yield Counter(
            "katafs_conflicts", "Writes that were refused because somebody else was first (EEXIST).", counters.conflicts
        )
        yield Counter("katafs_repetitions", "Messages that had been recorded before.", counters.repetitions)
        ahead = Counter(
            "katafs_read_ahead",
            "Requests that had their answers before they came, and are not counted among the others.",
            labels=("operation",),
        )
        for operation, count in counters.ahead().items():
            ahead.add_metric((operation,), count)
        yield ahead
        yield Counter("katafs_compactions", "Repositories whose packs were made one.", counters.compactions)

    def _caches(self) -> Iterator[Metric]:
        entries = Gauge("katafs_cache_entries", "Entries of a cache.", labels=("cache",))
        sizes = Gauge("katafs_cache_bytes", "Bytes in memory of a cache, about.", labels=("cache",))
        most = Gauge("katafs_cache_bytes_max", "Bytes that it may have, about.", labels=("cache",))
        hits = Counter("katafs_cache_hits", "Questions that a cache answered.", labels=("cache",))
        misses = Counter("katafs_cache_misses", "Questions that it did not answer.", labels=("cache",))
        ctx = self._ctx
        for name, cache in {**ctx.store.caches(), **ctx.made.caches(), "downloads": ctx.downloads}.items():
            hits.add_metric((name,), cache.hits)
            misses.add_metric((name,), cache.misses)
        for name, kept in ctx.kept().items():
            entries.add_metric((name,), kept.entries)
            sizes.add_metric((name,), kept.size)
            most.add_metric((name,), kept.most)
        yield from (entries, sizes, most, hits, misses)

    def _held(self) -> Iterator[Metric]:
        ctx = self._ctx
        yield Gauge("katafs_open_repositories", "Repositories that are open.", ctx.store.open_repositories())
        yield Gauge(
            "katafs_temporary_bytes", "Bytes in temporary files: large contents and downloads.", ctx.spool.taken
        )
        yield Gauge("katafs_unfinished_messages", "Messages that were begun and not finished.", len(ctx.controls.inbox))


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, BOUNDS), "+Inf"]
    return list(zip(bounds, itertools.accumulate(latency.counts), strict=True))
