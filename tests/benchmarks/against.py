"""``--against VENV``: this version of katafs beside another, mounted in turn on the same store.

Each side of each round has fresh mounts, and both must have read the same bytes; commits go to equal copies. What a
version is slower by than its machine is restless shows in the ratios of the rounds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import katafs
from tests.benchmarks.bench import KATA, Bench, files_below, read_all, stat_walk
from tests.benchmarks.commits import through_the_mount
from tests.benchmarks.data import copies, make_history
from tests.benchmarks.figures import number
from tests.benchmarks.lines.diffs import first_diffs
from tests.benchmarks.lines.downloads import digest_of, timed
from tests.benchmarks.lines.reading import Measure, cat, grep
from tests.katas import git

_MOST = 1.1
_RELATIVE = f"{KATA[:2]}/{KATA[2:4]}/{KATA[4:]}"
_WRITES, _WARM = 10, 3

#: what was measured in a fresh mount, one after the other: name, unit, figure, digest
Measured = Iterator[tuple[str, str, float, str]]


@dataclass
class Line:
    """One thing that was measured: its figure by side, for each round."""

    name: str
    state: str
    unit: str
    figures: dict[str, list[float]] = field(default_factory=lambda: {"old": [], "new": []})

    @property
    def medians(self) -> tuple[float, float]:
        """Of the old and of the new."""
        return statistics.median(self.figures["old"]), statistics.median(self.figures["new"])

    @property
    def ratio(self) -> float:
        """Of the medians, new by old."""
        old, new = self.medians
        return new / old

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the ratios of the rounds."""
        ratios = [new / old for old, new in zip(self.figures["old"], self.figures["new"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return quartiles[0], quartiles[2]

    @property
    def is_held(self) -> bool:
        """Whether the new is as fast: hardly slower, or no slower than may be chance."""
        low, high = self.spread
        return self.ratio <= _MOST or low <= 1 <= high

    def cells(self) -> tuple[str, ...]:
        """The line as a row of a table."""
        old, new = self.medians
        low, high = self.spread
        figures = [f"{number(old)} {self.unit}", f"{number(new)} {self.unit}", f"{self.ratio:.2f}"]
        return (self.name, self.state, *figures, f"{low:.2f} to {high:.2f}", "holds" if self.is_held else "SLOWER")


HEAD = ("figure", "stored", "old", "new", "ratio", "quartiles", "")


def command_of(venv: Path) -> list[str]:
    """The katafs that is installed in an environment, or in that of a checkout. Raises ValueError."""
    for each in (venv, venv / ".venv-test"):
        if (each / "bin/katafs").exists():
            python = [str(each / "bin/python"), "-c", "import katafs; print(*katafs.__path__)"]
            found = subprocess.run(python, cwd="/", capture_output=True, check=True).stdout.decode().strip()
            if found == str(Path(katafs.__file__).parent):
                raise ValueError(f"in {each} there is the katafs of this checkout")
            return [str((each / "bin/katafs").absolute())]
    raise ValueError(f"there is no katafs in {venv}")


def measure(bench: Bench, other: list[str]) -> list[Line]:
    """All lines; the first round is not counted."""
    # an import takes as long for both
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(bench.directory("bytecode"))
    commands = {"old": other, "new": [sys.executable, "-m", "katafs"]}
    stores = copies(make_history(bench.directory("made"), KATA, bench.choose(100, 30)), bench.work / "store")
    names = files_below(bench.expand(stores["compacted"], f"{_RELATIVE}/events"))
    written = {side: bench.work / f"written-{side}" for side in commands}
    for path in written.values():
        shutil.copytree(stores["loose"], path)
    phases: list[Callable[[Path], Measured]] = [
        partial(_listed, names),
        *(partial(_cold, name, each, names) for name, each in (("stat walk", _stat), ("grep -r", grep), ("cat", cat))),
        _documents,
        partial(_download, bench),
    ]
    lines: dict[tuple[str, str], Line] = {}

    def take(turn: int, state: str, stores: dict[str, Path], phase: Callable[[Path], Measured]) -> None:
        found = {}
        for side in list(commands)[:: -1 if turn % 2 else 1]:
            with bench.katafs(stores[side], "--no-compact", command=commands[side]) as mount:
                found[side] = list(phase(mount.path / _RELATIVE))
        for old, new in zip(found["old"], found["new"], strict=True):
            assert old[3] == new[3], f"the sides have not read the same: {old[0]}"
            line = lines.setdefault((old[0], state), Line(old[0], state, old[1]))
            if turn:
                line.figures["old"].append(old[2])
                line.figures["new"].append(new[2])

    for turn in range(bench.rounds + 1):
        bench.say(f"round {turn} of {bench.rounds}")
        for state, store in stores.items():
            for phase in phases:
                take(turn, state, dict.fromkeys(commands, store), phase)
        first = 1 + int(git(written["old"] / _RELATIVE, "show", "-s", "--format=%s", "main").split()[0])
        take(turn, "as written", written, partial(_commits, first))
        trees = {git(path / _RELATIVE, "rev-parse", "main:files", "main:stdout") for path in written.values()}
        assert len(trees) == 1, "the sides have not stored the same"
    return list(lines.values())


def _list(root: Path, _names: list[str]) -> tuple[float, str]:
    """Walk a directory and stat nothing: µs a file, and what is there."""
    digest, count = hashlib.sha256(), 0
    start = time.perf_counter()
    for directory, _, names in os.walk(root):
        count += len(names)
        digest.update(f"{os.path.relpath(directory, root)} {sorted(names)}".encode())
    return (time.perf_counter() - start) / count * 1e6, digest.hexdigest()


def _stat(root: Path, _names: list[str]) -> tuple[float, str]:
    return stat_walk(root)


def _listed(names: list[str], kata: Path) -> Measured:
    root = kata / "events"
    yield "cold list", "µs/file", *_list(root, names)
    yield "cold read, once listed", "µs/file", *read_all(root, names)
    warm: dict[str, Measure] = {"list": _list, "stat walk": _stat, "read": read_all, "grep -r": grep, "cat": cat}
    for name, each in warm.items():
        each(root, names)
        found = [each(root, names) for _ in range(_WARM)]
        yield f"warm {name}", "µs/file", statistics.median(took for took, _ in found), found[0][1]


def _cold(name: str, each: Measure, names: list[str], kata: Path) -> Measured:
    yield f"cold {name}", "µs/file", *each(kata / "events", names)


def _documents(kata: Path) -> Measured:
    (kata / "diff/latest").readlink()
    for name in ("events/20.json", "diff/19..20.json", "html/19..20.html"):
        took, data = timed(kata / name)
        # a page may be told to look otherwise
        yield f"first {name}", "ms", took, "" if name.startswith("html") else hashlib.sha256(data).hexdigest()
    times, digest = first_diffs(kata / "diff", 2)
    yield "cold diff/W..N", "ms", statistics.median(times), digest


def _download(bench: Bench, kata: Path) -> Measured:
    path = kata / "download.tgz"
    path.readlink()
    took, data = timed(path)
    yield "first download.tgz", "ms", took, digest_of(bench, data)


def _commits(first: int, kata: Path) -> Measured:
    times = [through_the_mount(kata, index) for index in range(first, first + _WRITES)]
    yield "ran_tests, one commit", "ms", statistics.median(times) / 1e3, ""
