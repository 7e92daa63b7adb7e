"""A kata in a directory, wherever that is: in a mount (or a copy of one), in a store as git, or stored as plain files.

For the command line, which is told a path. Each reader gives rows, outputs and diffs; all raise `KataError`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Protocol

from katafs.errors import DamagedError, NotFoundError
from katafs.git import GitRepo
from katafs.kata.diff import raw_diff
from katafs.kata.events import Row, parse_rows
from katafs.kata.past import Past
from katafs.kata.plain_kata import OUTPUT_NAMES, PlainEvent, PlainKata

_LONGEST = 64 << 20  # bytes of a file that is read


class Reader(Protocol):
    """What a kata is asked for."""

    def rows(self) -> list[Row]:
        """The rows of all events."""

    def outputs(self, index: int) -> dict[str, str]:
        """``stdout``, ``stderr`` and ``status`` of an event."""

    def diff(self, was: int, now: int) -> str:
        """What changed from one event to another, as ``git diff`` says it, with all lines."""


def reader(path: Path) -> Reader:
    """The reader of the kata in a directory. Raises `NotFoundError` when there is none."""
    if os.path.islink(path / "events" / "latest"):
        return _Shown(path)
    if (path / ".git").is_dir():
        return _Stored(path)
    if (path / "manifest.json").is_file() and (path / "events.json").is_file():
        return _Plain(path)
    raise NotFoundError(f"{path}: there is no kata in this directory")


class _Shown:
    """As katafs shows it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> list[Row]:
        return parse_rows(_read(self._path / "events_summary.json"))

    def outputs(self, index: int) -> dict[str, str]:
        names = ("stdout", "stderr", "status")
        return {name: _text(_read(self._path / "events" / str(index) / name)) for name in names}

    def diff(self, was: int, now: int) -> str:
        return _text(_read(self._path / "diff" / f"{was}..{now}"))


class _Stored:
    """A git repository."""

    def __init__(self, path: Path) -> None:
        tip = GitRepo(path).main()
        if tip is None:
            raise DamagedError(f"{path}: the repository has no branch main")
        self._past = Past(path, "", tip)

    def rows(self) -> list[Row]:
        return self._past.rows.stored

    def outputs(self, index: int) -> dict[str, str]:
        return {name: self._past.output(index, name.encode(), _LONGEST)[0] for name in ("stdout", "stderr", "status")}

    def diff(self, was: int, now: int) -> str:
        old, new = (self._past.snapshot(index).files_tree for index in (was, now))
        return _text(raw_diff(self._past.repo, old, new))


class _Plain:
    """Plain files of version 0 or 1."""

    def __init__(self, path: Path) -> None:
        self._plain = PlainKata("", path)

    def rows(self) -> list[Row]:
        return self._plain.rows()

    def outputs(self, index: int) -> dict[str, str]:
        event = self._event(index)
        if event.index != index:
            return {"stdout": "", "stderr": "", "status": "0"}
        found = {name: event.outputs[name].content if name in event.outputs else b"" for name in OUTPUT_NAMES}
        return {name: _text(content) for name, content in found.items()} | {"status": event.status or "0"}

    def diff(self, was: int, now: int) -> str:
        old, new = (self._event(index).files for index in (was, now))
        parts = []
        for path in sorted(old.keys() | new.keys()):
            name = _text(path)
            before, after = (
                _text(files[path].content).splitlines(keepends=True) if path in files else [] for files in (old, new)
            )
            names = f"a/files/{name}" if path in old else "/dev/null", f"b/files/{name}" if path in new else "/dev/null"
            lines = list(difflib.unified_diff(before, after, *names, n=len(before)))
            if lines or (path in old) != (path in new):
                parts.append(f"diff --git a/files/{name} b/files/{name}\n")
                parts += [line if line.endswith("\n") else line + "\n" for line in lines]
        return "".join(parts)

    def _event(self, index: int) -> PlainEvent:
        """The event, of an outage the one that came after it: its files are those that are shown."""
        return self._plain.event(min(other for other in self._plain.indexes if other >= index))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror}") from error
    if len(data) > _LONGEST:
        raise DamagedError(f"{path} is larger than {_LONGEST >> 20} MiB")
    return data


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
