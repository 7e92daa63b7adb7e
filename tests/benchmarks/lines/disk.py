"""What a kata takes on the disk, once idle: beside the same kata as plain files of version 1 (line 11 of the bars)."""

from __future__ import annotations

import json
import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

from katafs.kata.compact import compact_kata
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import record
from katafs.kata.record.create import create_kata
from katafs.kata.record.message import parse_act
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Bar, Figure
from tests.katas import START, message, row_time

FILES = 5


class Exercise:
    """Five files of 1 to 2 KB, as somebody edits them: some lines of one or two of them between two test runs."""

    def __init__(self, seed: int = 1) -> None:
        self._dice = random.Random(seed)
        self._files = {f"file{number}.py": [self._line() for _ in range(30 + 7 * number)] for number in range(FILES)}

    def _line(self) -> str:
        words = ("return", "assert", "self", "value", "count", "if", "else", "frame", "score", "roll", "def", "pins")
        return " ".join(self._dice.choices(words, k=self._dice.randrange(3, 9)))

    def files(self) -> dict[str, str]:
        """All files as they are now."""
        return {name: "\n".join(lines) + "\n" for name, lines in self._files.items()}

    def edit(self) -> None:
        """Change, add or remove some lines."""
        for name in self._dice.sample(sorted(self._files), self._dice.randrange(1, 3)):
            lines = self._files[name]
            at = self._dice.randrange(len(lines) - 3)
            lines[at : at + self._dice.randrange(3)] = [self._line() for _ in range(self._dice.randrange(3))]

    def output(self) -> str:
        """What a test run prints: the same as ever, but for some numbers and lines."""
        lines = [f"test_{number} ... {self._dice.choice(('ok', 'ok', 'FAIL'))}" for number in range(12)]
        seconds = self._dice.random()
        return "\n".join([*lines, f"Ran 12 tests in {seconds:.3f}s", "", "AssertionError: " + self._line(), ""])


def make_both(work: Path, events: int) -> tuple[Path, Path]:
    """The same kata stored by katafs, and as plain files of version 1."""
    (work / "store").mkdir()
    exercise = Exercise()
    visible = {name: {"content": content} for name, content in exercise.files().items()}
    manifest: dict[str, Any] = {"display_name": "Python, pytest", "exercise": "Bowling", "visible_files": visible}
    create_kata(work / "store", manifest, "AbCdEf", START)
    kata, plain = kata_path(work / "store", "AbCdEf"), work / "plain" / "Ab" / "Cd" / "Ef"
    plain.mkdir(parents=True)
    _write(plain / "manifest.json", {**manifest, "version": 1, "id": "AbCdEf", "created": row_time(0)})
    rows: list[dict[str, Any]] = [{"index": 0, "event": "created", "time": row_time(0)}]
    _write(plain / "0.event.json", {"files": visible})
    for index in range(1, events + 1):
        exercise.edit()
        output = {"content": exercise.output(), "truncated": False}
        sent = message(exercise.files(), index=index, stdout=output)
        record(kata, "AbCdEf", parse_act(Kind.RAN_TESTS, json.dumps(sent).encode()), START + timedelta(minutes=index))
        row = {"index": index, "time": row_time(60 * index), **sent["summary"]}
        rows.append(row)
        event = {"files": sent["files"], "stdout": output, "stderr": {"content": "", "truncated": False}, "status": "0"}
        _write(plain / f"{index}.event.json", {**row, **event})
    (plain / "events.json").write_text(",\n".join(json.dumps(row, separators=(",", ":")) for row in rows))
    return kata, plain


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, separators=(",", ":")))


def taken(directory: Path) -> dict[str, int]:
    """What a directory takes: inodes, bytes of the disk, and bytes of the files themselves."""
    found = [os.lstat(directory)]
    for parent, directories, names in os.walk(directory):
        found += [os.lstat(os.path.join(parent, name)) for name in (*directories, *names)]
    files = [status for status in found if status.st_nlink == 1]
    return {
        "inodes": len(found),
        "allocated": sum(status.st_blocks * 512 for status in found),
        "apparent": sum(status.st_size for status in files),
    }


def measure(work: Path, events: int = 300) -> dict[str, dict[str, float]]:
    """Inodes and bytes an event: written to a moment ago, compacted, and as plain files; ``work`` is on a real disk."""
    kata, plain = make_both(work, events)
    busy = taken(kata)
    compact_kata(kata, "AbCdEf")
    os.sync()  # blocks are counted when they are written
    sides = {"busy": busy, "idle": taken(kata), "plain v1": taken(plain)}
    found: dict[str, dict[str, float]] = {
        side: {what: round(count / events, 3) for what, count in counts.items()} for side, counts in sides.items()
    }
    found["ratio to plain v1"] = {
        what: round(sides["idle"][what] / sides["plain v1"][what], 3) for what in ("allocated", "apparent")
    }
    return found


def line_11(bench: Bench) -> list[Figure]:
    """A kata of 300 events, once idle; as it was before it was compacted is printed beside it."""
    found = measure(bench.directory("disk"))
    idle, others = found["idle"], {"plain v1": found["plain v1"], "before": found["busy"]}
    ours, beside = idle["allocated"], {side: counts["allocated"] for side, counts in others.items()}
    inodes = {side: counts["inodes"] for side, counts in others.items()}
    return [
        Figure(11, "disk space an event", "bytes", ours, beside, [Bar(0.2, "plain v1")], "compacted"),
        Figure(11, "inodes an event", "", idle["inodes"], inodes, [Bar(0.2)], "compacted"),
    ]
