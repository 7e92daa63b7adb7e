"""Lines 4 and 5: how long a commit takes, and whether a long history makes it longer (`tests.benchmarks.commits`)."""

from __future__ import annotations

from tests.benchmarks import commits
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Bar, Figure


def at_100(bench: Bench) -> list[Figure]:
    """Commits at event 100, with and without an edit that comes before them; in packs of one event each, and compacted.

    The bars are those of a kata as katafs writes it.
    """
    figures = []
    for state in ("as written", "compacted"):
        work = bench.directory(f"commits-{state.split()[0]}")
        writes = bench.rounds * bench.choose(6, 3)
        for what, sides in commits.line_4(work, writes=writes, compacted=state == "compacted").items():
            others = {side: value / 1e3 for side, value in sides.items()}
            ours = others.pop("katafs")
            bars = [Bar(0.7, "pygit2"), Bar(0.35, "git")]
            figures.append(Figure(4, f"ran_tests at event 100, {what}", "ms", ours, others, bars, state))
    return figures


def growth(bench: Bench) -> list[Figure]:
    """Commits at event 1,000 beside those at event 10 and 100."""
    last = bench.choose(1000, 500)
    found = commits.line_5(bench.directory("counts"), (10, 100, last), bench.choose(50, 20))
    times = {name: value / 1e3 for name, value in found.items()}
    ours = times.pop(f"event {last}")
    return [Figure(5, f"ran_tests at event {last}", "ms", ours, times, [Bar(2.0, "event 10")], "as written")]
