"""Lines 1, 2 and 3: reading ``events/`` of one kata, warm and cold, beside plain files and a bare mount of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.bench import KATA, Bench, files_below, read_all, shell, stat_walk
from tests.benchmarks.data import copies, make_history
from tests.benchmarks.figures import Bar, Figure, Side, compare

EVENTS = f"{KATA[:2]}/{KATA[2:4]}/{KATA[4:]}/events"
_LIST = "ls -lR --time-style=+ . | awk '$6 != \"latest\" && /^-/ {print $5, $6}'"
_GREP = "grep -r --exclude-dir=latest 'set_one(1' . | sort"
_CAT = "find . -type f -print0 | sort -z | xargs -0 cat"

#: measures one directory whose files are known by name
Measure = Callable[[Path, list[str]], tuple[float, str]]


def grep(root: Path, names: list[str]) -> tuple[float, str]:
    """``grep -r``: µs a file, and a digest of what it found."""
    return shell(root, _GREP, len(names))


def cat(root: Path, names: list[str]) -> tuple[float, str]:
    """``find | xargs cat``: µs a file, and a digest of all bytes."""
    return shell(root, _CAT, len(names))


def prepare(bench: Bench, events: int) -> tuple[dict[str, Path], Path, list[str]]:
    """Stores by how they are stored, the plain files of ``events/``, and the names of these."""
    made = make_history(bench.directory("made"), KATA, events)
    stores = copies(made, bench.work / "store")
    plain = bench.expand(stores["compacted"], EVENTS)
    return stores, plain, files_below(plain)


def warm(bench: Bench) -> list[Figure]:
    """Lines 1 and 2: what the kernel has in its caches."""
    stores, plain, names = prepare(bench, bench.choose(100, 30))
    tests: list[tuple[int, str, Measure, float]] = [
        (1, "warm open+read+close", read_all, 1.5),
        (2, "warm find | xargs cat", cat, 1.3),
        (2, "warm grep -r", grep, 1.3),
        (2, "warm ls -lR", lambda root, names: shell(root, _LIST, len(names)), 1.3),
    ]
    figures = []
    with bench.katafs(stores["compacted"]) as mount:
        roots = {"katafs": mount.path / EVENTS, "ext4": plain}
        for line, name, measure, most in tests:
            sides = {side: _side(measure, root, names) for side, root in roots.items()}
            found = compare(sides, bench.rounds * 2, warm_up=True)
            others = {"ext4": found["ext4"]}
            figures.append(Figure(line, name, "µs/file", found["katafs"], others, [Bar(most, "ext4")], "compacted"))
    return figures


def cold(bench: Bench) -> list[Figure]:
    """Line 3: the first time that a fresh mount is asked."""
    stores, plain, names = prepare(bench, bench.choose(100, 30))
    tests: dict[str, Measure] = {
        "cold open+read+close": read_all,
        "cold grep -r": grep,
        "cold stat walk": lambda root, names: stat_walk(root),
    }
    figures = []
    for name, measure in tests.items():
        sides: dict[str, Side] = {state: _katafs(bench, store, measure, names) for state, store in stores.items()}
        sides |= {"bare": _bare(bench, plain, measure, names), "ext4": _side(measure, plain, names)}
        found = compare(sides, bench.rounds)
        others = {side: found[side] for side in ("bare", "ext4")}
        for state, most in (("compacted", 1.5), ("loose", 2.0)):
            figures.append(Figure(3, name, "µs/file", found[state], others, [Bar(most, "bare")], state))
    return figures


def _side(measure: Measure, root: Path, names: list[str]) -> Side:
    return lambda: measure(root, names)


def _katafs(bench: Bench, store: Path, measure: Measure, names: list[str]) -> Side:
    def side() -> tuple[float, str]:
        with bench.katafs(store) as mount:
            return measure(mount.path / EVENTS, names)

    return side


def _bare(bench: Bench, plain: Path, measure: Measure, names: list[str]) -> Side:
    def side() -> tuple[float, str]:
        with bench.bare(plain) as path:
            return measure(path, names)

    return side
