"""What a benchmark measures, and how it is shown: as a table, or as JSON."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import pygit2


@dataclass(frozen=True)
class Bar:
    """What a figure is to stay within: ``most`` times the figure of the side ``of``, or ``most`` itself."""

    most: float
    of: str = ""


@dataclass(frozen=True)
class Figure:
    """One measured thing: ours and, in the same unit, that of each other side of the same run."""

    line: int
    name: str
    unit: str
    ours: float
    others: Mapping[str, float] = field(default_factory=dict)
    bars: Sequence[Bar] = ()
    state: str = ""  # how the kata is stored: loose or compacted

    def ratio(self, side: str) -> float:
        """Ours as a multiple of another side's."""
        return self.ours / self.others[side] if self.others[side] else float("inf")

    def is_met(self, bar: Bar) -> bool:
        """Whether ours is within a bar."""
        return (self.ratio(bar.of) if bar.of else self.ours) <= bar.most

    def as_json(self) -> dict[str, Any]:
        """The figure as JSON has it."""
        bars = [{"most": bar.most, "of": bar.of or None, "met": self.is_met(bar)} for bar in self.bars]
        ratios = {side: round(self.ratio(side), 3) for side in self.others}
        values = {"ours": self.ours, "others": dict(self.others), "ratios": ratios, "bars": bars}
        return {"line": self.line, "name": self.name, "state": self.state, "unit": self.unit, **values}


#: one side of a comparison, measured once: the figure, and a digest of what was read
Side = Callable[[], tuple[float, str]]


def compare(sides: Mapping[str, Side], rounds: int, *, warm_up: bool = False) -> dict[str, float]:
    """The median of each side's figures; the sides take turns, in another order each round.

    Raises AssertionError when the sides have not read the same bytes.
    """
    times: dict[str, list[float]] = {side: [] for side in sides}
    names = list(sides)
    for number in range(rounds + warm_up):
        seen = {}
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            took, seen[name] = sides[name]()
            if number >= warm_up:
                times[name].append(took)
        assert len(set(seen.values())) == 1, f"the sides have not read the same: {seen}"
    return {name: statistics.median(values) for name, values in times.items()}


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """The lines of a table: a row for each figure and each bar."""
    head = ("line", "figure", "stored", "ours", "other sides (ours as a multiple)", "bar", "")
    return in_columns([head, *(row for figure in figures for row in _rows(figure))])


def in_columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table with these cells."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _rows(figure: Figure) -> Iterator[tuple[str, ...]]:
    ours = f"{number(figure.ours)} {figure.unit}"
    others = ", ".join(f"{side} {number(value)} ({figure.ratio(side):.2f}x)" for side, value in figure.others.items())
    first = (str(figure.line), figure.name, figure.state, ours, others)
    bars = [(_bar(bar), "met" if figure.is_met(bar) else "MISSED") for bar in figure.bars] or [("", "")]
    yield (*first, *bars[0])
    for bar in bars[1:]:
        yield (*[""] * len(first), *bar)


def _bar(bar: Bar) -> str:
    return f"<= {bar.most:g} x {bar.of}" if bar.of else f"<= {bar.most:g}"


def number(value: float) -> str:
    """With three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def surroundings() -> dict[str, str]:
    """What the figures depend on: machine and versions."""
    git = subprocess.run(["git", "--version"], capture_output=True, check=True).stdout.decode().split()[-1]
    return {
        "kernel": platform.release(),
        "processors": str(os.cpu_count()),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": sys.version.split()[0],
        "pyfuse3": version("pyfuse3"),
        "pygit2": version("pygit2"),
        "libgit2": pygit2.LIBGIT2_VERSION,
        "git": git,
        "katafs": version("katafs") if _is_installed() else "from a checkout",
    }


def _is_installed() -> bool:
    try:
        version("katafs")
    except ModuleNotFoundError:
        return False
    return True
