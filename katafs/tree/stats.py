"""``.katafs/stats``: what the daemon has counted, in Prometheus' text format.

The library writes the text, and knows the figures of the process; ours are handed to it when the file is asked for.
Names and units are those of https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from katafs import __version__
from katafs.tree.context import BOUNDS, HELD, Context

# The next reader gets the same text for so long, in seconds: what is read in two requests is to be of one text.
_FRESH_SECONDS = 0.1
_PROCESS = ProcessCollector(registry=None)


def stats_text(ctx: Context, *, fresh: bool) -> tuple[bytes, int]:
    """The text and its time in ns, by which the kernel sees that there is another; a new text if it is to be fresh, or
    there is none.

    A path is looked up before each open, which makes a new one. While the file is open, its text stays.
    """
    text, made_ns, until = ctx.stats
    now = time.monotonic()
    if not text or (fresh and now > until):
        text, made_ns = generate_latest(_Figures(ctx)), max(time.time_ns(), made_ns + 1)
        ctx.stats = text, made_ns, now + _FRESH_SECONDS
    return text, made_ns


class _Figures(Collector):
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def collect(self) -> Iterator[Metric]:
        yield from self._about()
        yield from self._requests()
        yield from self._recorded()
        yield from self._kept()
        yield from _PROCESS.collect()

    def _about(self) -> Iterator[Metric]:
        about, python = self._ctx.about, platform.python_version()
        store = str(self._ctx.store.root).encode("utf-8", "replace").decode()
        mount = (store, "fast" if about.is_fast() else "slower", str(about.read_only).lower())
        yield _family(Gauge, "katafs_build_info", "The code that runs.", "version python", {(__version__, python): 1})
        yield _family(Gauge, "katafs_mount_info", "What is mounted.", "store mode read_only", {mount: 1})
        yield Gauge("katafs_unsafe_store", "1: the file system of the store may lose events.", int(about.is_unsafe))
        yield Gauge("katafs_daemon_pid", "The number of the process that answers.", os.getpid())
        yield Counter("katafs_daemon_deaths", "Daemons of this mount that have died and were replaced.", about.deaths())

    def _requests(self) -> Iterator[Metric]:
        counters = self._ctx.counters
        text = "Requests that reached the daemon and how long it took to answer them. What the kernel answers itself"
        text += " is not among them."
        durations = HistogramMetricFamily("katafs_request_duration_seconds", text, labels=("operation",))
        bounds = [*map(floatToGoString, BOUNDS), "+Inf"]
        for operation, latency in sorted(counters.latencies.items()):
            if any(latency.counts):
                buckets = [*zip(bounds, itertools.accumulate(latency.counts), strict=True)]
                durations.add_metric((operation,), buckets, latency.sum)
        yield durations
        text = "Requests that were answered with an errno. ENOENT of lookup is what every search for a name gets."
        yield _family(Counter, "katafs_request_errors", text, "operation errno", dict(sorted(counters.errors.items())))
        text = "Requests that wait for something slow to be made, or for their commit."
        yield Gauge("katafs_requests_waiting", text, counters.waiting())
        text = "The longest time for which nobody was answered."
        yield Gauge("katafs_loop_held_seconds_max", text, counters.held_most)
        yield Counter("katafs_holds", f"Times when nobody was answered for more than {HELD:g} s.", counters.held_often)
        yield Counter("katafs_elsewhere", "Questions that took too long for the daemon itself.", counters.elsewhere)

    def _recorded(self) -> Iterator[Metric]:
        counters = self._ctx.counters
        commits = {written: counters.commits[written] for written in ("control", "option", "plain")}
        yield _family(Counter, "katafs_commits", "Commits of this mount, by what was written to.", "written", commits)
        text = "Writes that were refused because somebody else was first (EEXIST)."
        yield Counter("katafs_conflicts", text, counters.conflicts)
        yield Counter("katafs_repetitions", "Messages that had been recorded before.", counters.repetitions)
        text = "Requests that had their answers before they came, and are not counted among the others."
        yield _family(Counter, "katafs_read_ahead", text, "operation", counters.ahead())
        yield Counter("katafs_compactions", "Repositories whose packs were made one.", counters.compactions)

    def _kept(self) -> Iterator[Metric]:
        ctx = self._ctx
        kept = ctx.kept()
        for kind, name, text, place in (
            (Gauge, "entries", "Entries of a cache.", 0),
            (Gauge, "bytes", "Bytes in memory of a cache, about.", 1),
            (Gauge, "bytes_max", "Bytes that it may have, about.", 2),
            (Counter, "hits", "Questions that a cache answered.", 3),
            (Counter, "misses", "Questions that it did not answer.", 4),
        ):
            samples = {cache: number for cache, one in kept.items() if (number := one[place]) is not None}
            yield _family(kind, f"katafs_cache_{name}", text, "cache", samples)
        yield Gauge("katafs_open_repositories", "Repositories that are open.", ctx.store.open_repositories())
        text = "Bytes in temporary files: large contents and downloads."
        yield Gauge("katafs_temporary_bytes", text, ctx.spool.taken)
        yield Gauge("katafs_unfinished_messages", "Messages that were begun and not finished.", len(ctx.controls.inbox))


def _family(
    kind: type[Gauge | Counter], name: str, text: str, labels: str, samples: Mapping[Any, float]
) -> Gauge | Counter:
    """A metric with a sample for each value of its label, or for each tuple of those of several."""
    family = kind(name, text, labels=labels.split())
    for values, number in samples.items():
        family.add_metric((values,) if isinstance(values, str) else values, number)
    return family
