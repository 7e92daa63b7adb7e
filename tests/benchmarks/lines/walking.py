"""Lines 12 and 13: what walks through a kata that nobody has looked at yet, beside plain files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.benchmarks.bench import KATA, Bench, read_all, shell, stat_walk
from tests.benchmarks.data import compact, make_history
from tests.benchmarks.figures import Bar, Figure, Side, compare
from tests.benchmarks.lines.reading import EVENTS, Measure, prepare

_KATA = f"{KATA[:2]}/{KATA[2:4]}/{KATA[4:]}"
# what both sides have, of a kata of 300 events: the rest of it is made when somebody asks, and on neither side here
_WALKS = {
    "find -type f": "find events -type f | sort",
    "ls -lR": "ls -lR --time-style=+ events | awk '$6 != \"latest\" && /^-/ {print $5, $6}'",
    "rsync -an": "rsync -an --exclude=latest --out-format='%n %l' events/ /nowhere | grep -v '/ ' | sort",
}


def list_walk(root: Path) -> tuple[float, str]:
    """Walk a directory and stat nothing: µs a file, and what is there."""
    found: list[str] = []
    start = time.perf_counter()
    for directory, _, names in os.walk(root):
        found += [f"{directory}/{name}" for name in names if name != "latest"]
    took = time.perf_counter() - start
    text = "\n".join(sorted(os.path.relpath(path, root) for path in found))
    return took / len(found) * 1e6, hashlib.sha256(text.encode()).hexdigest()


def list_and_read(root: Path, names: list[str]) -> tuple[float, str]:
    """Walk a directory, then read its files: µs a file, and a digest of their bytes."""
    listed, read = list_walk(root), read_all(root, names)
    return listed[0] + read[0], read[1]


def first(bench: Bench) -> list[Figure]:
    """Line 12: ``events/`` of a compacted kata, in fresh mounts."""
    stores, plain, names = prepare(bench, bench.choose(100, 30))
    walks: dict[str, tuple[Measure, float]] = {
        "list": (lambda root, _names: list_walk(root), 9),
        "stat walk": (lambda root, _names: stat_walk(root), 6.5),
        "list + read": (list_and_read, 12),
    }
    return _figures(bench, 12, walks, names, (stores["compacted"], EVENTS), plain)


def whole(bench: Bench) -> list[Figure]:
    """Line 13: what programs take for a whole kata of 300 events, in fresh mounts."""
    store = bench.directory("store")
    compact(make_history(store, KATA, bench.choose(300, 50)))
    plain = bench.expand(store, EVENTS)
    above = bench.directory("beside")
    plain.rename(above / "events")
    count = sum(len(names) for _, _, names in os.walk(above))
    walks: dict[str, tuple[Measure, float]] = {
        name: (lambda root, _names, command=command: shell(root, command, count), 6)  # type: ignore[misc]
        for name, command in _WALKS.items()
    }
    return _figures(bench, 13, walks | {"tar c": (_tar, 6)}, [], (store, _KATA), above)


def _tar(root: Path, _names: list[str]) -> tuple[float, str]:
    """``tar c``, to memory: µs a file, and a digest of all files."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        start = time.perf_counter()
        subprocess.run(["tar", "-c", "--exclude=latest", "events"], cwd=root, stdout=file, check=True)
        took = time.perf_counter() - start
        file.seek(0)
        found = {}
        with tarfile.open(fileobj=file) as archive:
            for member in archive:
                if (content := archive.extractfile(member)) is not None:
                    found[member.name] = hashlib.sha256(content.read()).hexdigest()
    return took / len(found) * 1e6, hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def _figures(
    bench: Bench,
    line: int,
    walks: dict[str, tuple[Measure, float]],
    names: list[str],
    shown: tuple[Path, str],
    plain: Path,
) -> list[Figure]:
    """``shown`` is a directory of a store, which is mounted afresh for each walk, and ``plain`` the same files."""
    figures = []
    for name, (measure, most) in walks.items():

        def katafs(measure: Measure = measure) -> tuple[float, str]:
            with bench.katafs(shown[0]) as mount:
                return measure(mount.path / shown[1], names)

        sides: dict[str, Side] = {"katafs": katafs, "ext4": partial(measure, plain, names)}
        found = compare(sides, bench.rounds)
        others, bars = {"ext4": found["ext4"]}, [Bar(most, "ext4")]
        figures.append(Figure(line, f"cold {name}", "µs/file", found["katafs"], others, bars, "compacted"))
    return figures
