"""Katas to measure with: the same bytes for the same seed, made by git, stored loose or compacted."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.katas import START, git, make_kata, pretty_json, row_time

COLOURS = ("red", "amber", "green")
WORDS = [f"{first}{second}" for first in ("get", "set", "test", "make") for second in ("_it", "_one", "_all", "Kata")]
#: the files of a kata, and their usual size in bytes
FILES, FILE_SIZE = 10, 1900


def make_history(
    store: Path, kata_id: str, events: int, *, files: int = FILES, size: int = FILE_SIZE, seed: int = 1
) -> Path:
    """A native kata of so many events after event 0; each edits two of its files. All objects and tags are loose."""
    path = make_kata(store, kata_id, dict.fromkeys(_names(files), "first\n"))
    stream = b"".join(_stream(path, events, files, size, random.Random(seed)))
    git(path, "-c", "fastimport.unpackLimit=10000000", "fast-import", "--quiet", stdin=stream)
    return path


def _names(files: int) -> list[str]:
    return [f"src/file{number}.py" if number % 5 == 4 else f"file{number}.py" for number in range(files)]


def _stream(path: Path, events: int, files: int, size: int, chance: random.Random) -> Iterator[bytes]:
    """What git fast-import is told: for each event a commit with what changed, and its tag."""
    names = _names(files)
    texts = {name: [_line(chance) for _ in range(size // 28)] for name in names}
    rows = json.loads(git(path, "show", "main:events_summary.json"))
    for index in range(1, events + 1):
        changed = names if index == 1 else chance.sample(names, min(2, files))
        for name in changed:
            texts[name][chance.randrange(len(texts[name]))] = _line(chance)
        colour = COLOURS[index % 3]
        row = {"index": index, "colour": colour, "time": row_time(60 * index), "duration": 1.25, "predicted": "none"}
        row |= {"diff_added_count": 2, "diff_deleted_count": 2, "type": "test"}
        rows.append(row)
        moment = int(START.timestamp()) + 60 * index
        yield b"commit refs/heads/main\nmark :%d\ncommitter k <k@cyber-dojo.org> %d +0000\n" % (index, moment)
        subject = b"%d ran tests, no prediction, got %s\n" % (index, colour.encode())
        yield b"data %d\n%s" % (len(subject), subject)
        yield b"from refs/heads/main^0\n" if index == 1 else b""
        yield from (_file(f"files/{name}", "".join(texts[name]).encode()) for name in changed)
        yield _file("stdout", f"run {index}\n".encode() * 20)
        yield _file("status", b"%d" % (index % 3))
        yield _file("event.json", pretty_json(row))
        yield _file("events_summary.json", pretty_json(rows))
        yield b"\nreset refs/tags/%d\nfrom :%d\n\n" % (index, index)


def _file(name: str, data: bytes) -> bytes:
    return b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(data), data)


def _line(chance: random.Random) -> str:
    return f"    {chance.choice(WORDS)}({chance.randrange(10**9)}, {chance.choice(WORDS)})\n"


def compact(path: Path) -> None:
    """Store a kata as git does after it was packed: one pack, ``packed-refs``."""
    git(path, "repack", "-a", "-d", "-q")
    git(path, "prune-packed", "-q")
    git(path, "pack-refs", "--all")


def copies(path: Path, store: Path) -> dict[str, Path]:
    """The stores of copies of a kata by how they are stored: ``loose`` and ``compacted``."""
    relative = Path(*path.parts[-3:])
    found = {}
    for state in ("loose", "compacted"):
        found[state] = store.with_name(f"{store.name}-{state}")
        shutil.copytree(path, found[state] / relative)
    compact(found["compacted"] / relative)
    return found
