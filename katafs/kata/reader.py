"""A kata in a directory, wherever that is: in a mount (or a copy of one), in a store as git, or stored as plain files.

For the command line, which is told a path. Each reader gives the rows of all events, the outputs of one, what of one
the runner cut short (``stdout``, ``stderr``, ``files/NAME``), and what changed between two, as ``git diff`` says it,
with all lines; all raise `KataError`. `Past` is a kata as it was at one tip, also for work that is done elsewhere than
in the thread that has the `Kata`.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from katafs.errors import DamagedError, NotFoundError
from katafs.git import GitRepo, Oid
from katafs.kata.legacy.plain_files import read_file
from katafs.kata.legacy.plain_kata import PlainKata
from katafs.kata.legacy.plain_store import PlainStore
from katafs.kata.model.rows import Row, parse_rows
from katafs.kata.model.steps import Step, history
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import OUTPUTS
from katafs.kata.read.state import State, read_state
from katafs.kata.views.diff import line_counts, raw_diff
from katafs.text import decode

_LONGEST = 64 << 20  # bytes of a file that is read


def cut_short(flags: Any) -> list[str]:
    """The names of what is cut short by the flags in ``truncations.json``, whatever that holds."""
    if not isinstance(flags, dict):
        return []
    files = flags.get("files")
    cut = [f"files/{name}" for name, is_cut in files.items() if is_cut is True] if isinstance(files, dict) else []
    return [name for name in ("stdout", "stderr") if flags.get(name) is True] + cut


class Past(Kata):
    """The kata at ``path`` as it was when ``tip`` was its newest commit: what pages are made from, too. Raises
    `DamagedError`."""

    def __init__(self, path: Path, kata_id: str, tip: Oid) -> None:
        super().__init__(kata_id, path)
        self._tip = self._state = read_state(self.repo, tip)

    def tip(self) -> State:
        return self._state

    def manifest(self) -> dict[str, Any]:
        """The stored manifest; empty when there is none that can be read."""
        try:
            return super().manifest()
        except DamagedError:
            return {}

    def rows(self) -> list[Row]:
        return self._state.rows.stored

    @cached_property
    def steps(self) -> list[Step]:
        return history(self.rows(), self.kata_id)

    def counted_steps(self, end: int) -> list[Step]:
        """The events up to one, with the numbers of lines where rows of before 2026 do not have them: reckoned as for
        rows."""
        return [self._counted(step) for step in self.steps[: end + 1]]

    def _counted(self, step: Step) -> Step:
        if step.index == 0 or (step.added is not None and step.deleted is not None):
            return step
        try:
            was, now = (self.snapshot(index).files_tree for index in (step.index - 1, step.index))
            added, deleted = line_counts(self.repo, was, now)
        except (DamagedError, NotFoundError):
            return step
        return replace(step, added=added, deleted=deleted)

    def cut(self, index: int) -> list[str]:
        """What the runner cut short at an event: ``stdout``, ``stderr``, and the names of files."""
        try:
            return cut_short(self.snapshot(index).truncation_flags(self.repo))
        except DamagedError:
            # nobody knows, and all else can be shown
            return []

    def output(self, index: int, name: bytes, limit: int) -> tuple[str, int]:
        """The start of ``stdout``, ``stderr`` or ``status`` of an event, ``limit`` bytes at most, and its size."""
        data = self.snapshot(index).output_bytes(self.repo, name)
        return decode(data[:limit]), len(data)

    def outputs(self, index: int) -> dict[str, str]:
        """``stdout``, ``stderr`` and ``status`` of an event."""
        return {name.decode(): self.output(index, name, sys.maxsize)[0] for name in OUTPUTS}

    def diff(self, was: int, now: int) -> str:
        """What changed from one event to another (`katafs.kata.views.diff.raw_diff`)."""
        old, new = (self.snapshot(index).files_tree for index in (was, now))
        return decode(raw_diff(self.repo, old, new))


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
    """Version 0 or 1, as the mount shows it: numbered so that what was skipped is an outage, and converted for all that
    is more than rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kata = PlainKata("".join(path.absolute().parts[-3:]), path)

    def rows(self) -> list[Row]:
        return self._kata.rows()

    @cached_property
    def _past(self) -> Past:
        store = PlainStore(ReadCaches(), None, 1)
        weakref.finalize(self, store.close)
        kata = store.kata(self._kata.kata_id, self._path, (0, 0))
        return Past(kata.path, kata.kata_id, kata.tip().commit.oid)

    def outputs(self, index: int) -> dict[str, str]:
        return self._past.outputs(index)

    def cut(self, index: int) -> list[str]:
        return self._past.cut(index)

    def diff(self, was: int, now: int) -> str:
        return self._past.diff(was, now)


Reader = Past | _Shown | _Plain
