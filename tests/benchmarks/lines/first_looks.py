"""Line 14: the first document, diff and page of a daemon that has just been started."""

from __future__ import annotations

import statistics

from tests.benchmarks.bench import KATA, Bench
from tests.benchmarks.data import compact, make_history
from tests.benchmarks.figures import Bar, Figure
from tests.benchmarks.lines.downloads import timed

_LOOKS = {"events/20.json": 1.0, "diff/19..20.json": 1.5, "html/19..20.html": 15.0}


def measure(bench: Bench) -> list[Figure]:
    """In ms, each of a fresh mount; beside it the next one of the same kind."""
    store = bench.directory("store")
    compact(make_history(store, KATA, bench.choose(100, 30)))
    figures = []
    for name, most in _LOOKS.items():
        firsts, nexts = [], []
        for _ in range(bench.rounds):
            with bench.katafs(store) as mount:
                kata = mount.kata(KATA)
                # what is known of the kata is not what is measured
                (kata / "diff/latest").readlink()
                firsts.append(timed(kata / name)[0])
                nexts.append(timed(kata / name.replace("20", "22").replace("19", "21"))[0])
        others = {"the next": statistics.median(nexts)}
        figures.append(Figure(14, f"first {name}", "ms", statistics.median(firsts), others, [Bar(most)], "compacted"))
    return figures
