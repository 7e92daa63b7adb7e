"""Lines 4 and 5: how long a commit takes, and whether a long history makes it longer (`tests.benchmarks.commits`)."""

from __future__ import annotations

from tests.benchmarks import commits
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Bar, Figure


def measure(bench: Bench) -> list[Figure]:
    """Commits at event 100, and at event 1,000 beside event 10."""
    found = {}
    last = bench.choose(1000, 200)
    for events in (10, 100, last):
        (found[events],) = commits.measure(bench.directory(f"commits{events}"), events, bench.rounds).values()
    at_100 = {side: value / 1e3 for side, value in found[100].items()}
    ours = at_100.pop("katafs")
    bars = [Bar(1.0, "pygit2"), Bar(0.3, "git")]
    early, late = found[10]["katafs"] / 1e3, found[last]["katafs"] / 1e3
    return [
        Figure(4, "ran_tests, kata of 100 events", "ms", ours, at_100, bars, "as written"),
        Figure(5, f"the same at event {last}", "ms", late, {"event 10": early}, [Bar(2.0, "event 10")], "as written"),
    ]
