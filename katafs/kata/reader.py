"""A kata in a directory, wherever that is: in a mount (or a copy of one), in a store as git, or stored as plain files.

For the command line, which is told a path. Each reader gives the rows of all events, the outputs of one, what of one
the runner cut short (``stdout``, ``stderr``, ``files/NAME``), and what changed between two, as ``git diff`` says it,
with all lines; all raise `KataError`.
"""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path

from katafs.errors import DamagedError, NotFoundError
from katafs.git import GitRepo
from katafs.kata.legacy.plain_files import read_file
from katafs.kata.legacy.plain_kata import EMPTY, OUTPUT_NAMES, PlainEvent, PlainKata
from katafs.kata.model.rows import Row, parse_rows
from katafs.kata.read.past import Past, cut_short
from katafs.text import decode

_LONGEST = 64 << 20  # bytes of a file that is read


def reader(path: Path) -> Reader:
    """The reader of the kata in a directory. Raises `NotFoundError` when there is none."""
    if os.path.islink(path / "events" / "latest"):
        return _Shown(path)
    if (path / ".git").is_dir():
        tip = GitRepo(path).main()
        if tip is None:
            raise DamagedError(f"{path}: the repository has no branch main")
        return Past(path, "", tip)
    if (path / "manifest.json").is_file() and (path / "events.json").is_file():
        return _Plain(path)
    raise NotFoundError(f"{path}: there is no kata in this directory")


class _Shown:
    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> list[Row]:
        return parse_rows(self._read("events_summary.json"))

    def outputs(self, index: int) -> dict[str, str]:
        names = ("stdout", "stderr", "status")
        return {name: decode(self._read(f"events/{index}/{name}")) for name in names}

    def cut(self, index: int) -> list[str]:
        try:
            return cut_short(json.loads(self._read(f"events/{index}/truncations.json")))
        except (ValueError, RecursionError):
            return []

    def diff(self, was: int, now: int) -> str:
        return decode(self._read(f"diff/{was}..{now}"))

    def _read(self, name: str) -> bytes:
        return read_file(self._path, name.encode(), _LONGEST)


class _Plain:
    """Version 0 or 1, numbered as the mount shows it: what was skipped is an outage."""

    def __init__(self, path: Path) -> None:
        self._kata = PlainKata("".join(path.absolute().parts[-3:]), path)

    def rows(self) -> list[Row]:
        return self._kata.rows()

    def outputs(self, index: int) -> dict[str, str]:
        event = self._event(index)
        found = {name: decode(event.outputs.get(name, EMPTY).content) for name in OUTPUT_NAMES}
        return {**found, "status": (event.status or "0")[:20]}

    def cut(self, index: int) -> list[str]:
        event = self._event(index)
        files = {decode(name): file.truncated for name, file in event.files.items()}
        return cut_short({"files": files, **{name: text.truncated for name, text in event.outputs.items()}})

    def diff(self, was: int, now: int) -> str:
        old, new = self._files(was), self._files(now)
        parts = []
        for name in sorted(old.keys() | new.keys()):
            before, after = (files.get(name, "").splitlines(keepends=True) for files in (old, new))
            names = f"a/files/{name}" if name in old else "/dev/null", f"b/files/{name}" if name in new else "/dev/null"
            lines = list(difflib.unified_diff(before, after, *names, n=len(before)))
            if lines or (name in old) != (name in new):
                parts.append(f"diff --git a/files/{name} b/files/{name}\n")
                parts += [line if line.endswith("\n") else line + "\n" for line in lines]
        return "".join(parts)

    def _event(self, index: int) -> PlainEvent:
        return self._kata.event(index) if index in self._kata.indexes else PlainEvent(index, {}, {}, {}, None)

    def _files(self, index: int) -> dict[str, str]:
        # an outage has the files of the event that came after it
        written = next(known for known in self._kata.indexes if known >= index)
        return {decode(name): decode(file.content) for name, file in self._kata.event(written).files.items()}


Reader = Past | _Shown | _Plain
