"""A kata as it was at one tip, for work that is done elsewhere than in the thread that has the `Kata`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from katafs.errors import DamagedError, NotFoundError
from katafs.git import GitRepo, Oid
from katafs.kata.model.rows import Row
from katafs.kata.model.steps import Step, history
from katafs.kata.read.snapshot import OUTPUTS, Snapshot, read_snapshot
from katafs.kata.read.state import read_state
from katafs.kata.views.diff import line_counts, raw_diff
from katafs.text import decode


def cut_short(flags: Any) -> list[str]:
    """The names of what is cut short by the flags in ``truncations.json``, whatever that holds."""
    if not isinstance(flags, dict):
        return []
    files = flags.get("files")
    cut = [f"files/{name}" for name, is_cut in files.items() if is_cut is True] if isinstance(files, dict) else []
    return [name for name in ("stdout", "stderr") if flags.get(name) is True] + cut


class Past:
    """The events of the kata at ``path`` up to the commit ``tip``. Raises `DamagedError`. Also what the command line
    reads (`katafs.kata.reader`)."""

    def __init__(self, path: Path, kata_id: str, tip: Oid) -> None:
        self.kata_id = kata_id
        self.repo = GitRepo(path)
        self._state = read_state(self.repo, tip)
        self._rows = self._state.rows
        self._snapshots: dict[int, Snapshot] = {}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The stored manifest; empty when there is none that can be read."""
        try:
            return self._state.manifest(self.repo)
        except DamagedError:
            return {}

    def rows(self) -> list[Row]:
        return self._rows.stored

    @cached_property
    def steps(self) -> list[Step]:
        return history(self._rows.stored, self.kata_id)

    def snapshot(self, index: int) -> Snapshot:
        """The snapshot of an event. Raises `NotFoundError` for an index that is not there."""
        snapshot = self._snapshots.get(index)
        if snapshot is None:
            if not 0 <= index <= self._rows.last:
                raise NotFoundError(f"kata {self.kata_id} has no event {index}")
            commit = self.repo.commit_of_event(self._state.commit.oid, index)
            snapshot = read_snapshot(self.repo, self._state, index, commit)
            self._snapshots[index] = snapshot
        return snapshot

    def counted_steps(self) -> list[Step]:
        """All events, with the numbers of lines where rows of before 2026 do not have them: reckoned as for rows."""
        return [self._counted(step) for step in self.steps]

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
