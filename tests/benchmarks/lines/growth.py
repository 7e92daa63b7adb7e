"""How the cost of a commit, a lookup and a read grows with the number of events, of files and of katas."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katafs.kata.model.ids import from_number, kata_path
from tests.benchmarks.bench import Bench
from tests.benchmarks.data import compact, make_history
from tests.katas import message

_BAR = 40  # characters
_OPERATIONS = ("commit", "lookup", "read")


@dataclass(frozen=True)
class Curve:
    """Medians in ms against a number of something."""

    operation: str
    against: str
    points: dict[int, float]

    def as_json(self) -> dict[str, Any]:
        """The curve as JSON has it."""
        return {"operation": self.operation, "against": self.against, "unit": "ms", "points": self.points}

    def lines(self) -> Iterator[str]:
        """The curve as text."""
        yield f"{self.operation} against the number of {self.against}"
        most = max(self.points.values())
        for number, value in self.points.items():
            yield f"  {number:>7}  {value:8.3f} ms  {'#' * max(round(value / most * _BAR), 1)}"


def measure(bench: Bench) -> list[Curve]:
    """A curve for each operation and each number; a fresh mount for each point."""
    points: dict[str, dict[int, dict[str, float]]] = {"events": {}, "files": {}, "katas": {}}
    for events in (10, 100, 300) if bench.quick else (10, 100, 1000, 3000):
        points["events"][events] = _point(bench, events, 10, 1)
    for files in (10, 100) if bench.quick else (10, 100, 1000):
        points["files"][files] = _point(bench, 30, files, 1)
    for katas in (1, 100) if bench.quick else (1, 100, 1000):
        points["katas"][katas] = _point(bench, 30, 10, katas)
    return [
        Curve(operation, against, {number: found[operation] for number, found in of.items()})
        for operation in _OPERATIONS
        for against, of in points.items()
    ]


def _point(bench: Bench, events: int, files: int, katas: int) -> dict[str, float]:
    """Medians in ms, with so many events, files in each, and katas that are all open."""
    bench.say(f"growth: {events} events, {files} files, {katas} katas")
    template = make_history(bench.directory("made"), "AbCdEf", events, files=files, size=600)
    compact(template)
    store = bench.directory("store")
    ids = [from_number(number * 1_000_003) for number in range(katas)]
    for kata_id in ids:
        shutil.copytree(template, kata_path(store, kata_id))
    times: dict[str, list[float]] = {operation: [] for operation in _OPERATIONS}
    rounds = bench.rounds * 4
    with bench.katafs(store) as mount:
        for kata_id in ids:
            (mount.kata(kata_id) / "status").read_bytes()
        path = mount.kata(ids[-1])
        step = max(events // rounds, 1)
        for index in list(range(1, events + 1, step))[:rounds]:
            names = sorted(os.listdir(path / "events" / "0" / "files"))[:1]
            file = path / "events" / str(index) / "files" / names[0]
            times["lookup"].append(_timed(lambda file=file: os.stat(file)))
            times["read"].append(_timed(lambda file=file: file.read_bytes()))
        texts = {name: f"{name}\n" * 40 for name in (f"file{number}.py" for number in range(files))}
        for index in range(events + 1, events + 1 + rounds):
            texts["file0.py"] = f"{index}\n" * 100
            times["commit"].append(_commit(path, index, texts))
    return {operation: statistics.median(values[1:]) for operation, values in times.items()}


def _timed(function: Any) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def _commit(path: Path, index: int, texts: dict[str, str]) -> float:
    data = json.dumps(message(texts, index=index)).encode()
    fd = os.open(path / "ran_tests", os.O_WRONLY | os.O_TRUNC)
    try:
        return _timed(lambda: os.write(fd, data))
    finally:
        os.close(fd)
