"""``diff/``: the difference of the files of any two events, as text, as JSON, and as a JSON summary."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from katafs.errors import HeavyError, NotFoundError
from katafs.git import GitRepo, Oid
from katafs.kata.read.kata import Kata
from katafs.kata.views.diff import DIFF_BUDGET, diff_lines, diff_summary, raw_diff
from katafs.text import pretty_bytes
from katafs.tree.catalogue import row_at
from katafs.tree.context import Context
from katafs.tree.dirs.contents import MadeFile
from katafs.tree.dirs.events import parse_steps
from katafs.tree.makers import FixedDir, makes
from katafs.tree.nodes import Entry, Link, Work
from katafs.tree.numbers import DIFF, Key

# What is compared in the event loop: microseconds (`katafs.git.budget`), files and directories that differ, files that
# came or went, for renames take longest. It takes a third of a millisecond, and some milliseconds at the worst that was
# found (random lines of one letter).
_LITTLE, _FEW, _FEW_MOVED = 3_500.0, 200, 4


def _lines_json(repo: GitRepo, was: Oid | None, now: Oid | None) -> bytes:
    return pretty_bytes(diff_lines(repo, was, now))


def _summary_json(repo: GitRepo, was: Oid | None, now: Oid | None) -> bytes:
    return pretty_bytes(diff_summary(repo, was, now))


_View = Callable[..., bytes]

# By the end of the name: what makes the content
_VIEWS: dict[str, _View] = {"": raw_diff, ".json": _lines_json, ".summary.json": _summary_json}
_ROWS = {ending: row_at(f"diff/W..N{ending}") for ending in _VIEWS}
_BY_VIEW = {row.number: _VIEWS[ending] for ending, row in _ROWS.items()}


@makes("diff")
class DiffsDir(FixedDir):
    """``diff/``: lists the neighbours ``0..1 1..2 …`` and ``latest``; every other pair, and JSON, opens by name."""

    def names(self) -> list[bytes]:
        return [*super().names(), *(b"%d..%d" % (index, index + 1) for index in range(self._tip.last))]

    def child(self, name: bytes) -> Entry:
        for ending, row in _ROWS.items():
            steps = parse_steps(name, ending.encode())
            if steps is not None:
                return self._entry(row, Key(DIFF, self._kata.kata_id, steps[0], steps[1] * 4 + row.number))
        return super().child(name)


@makes("diff/latest")
def _latest(ctx: Context, kata: Kata, key: Key) -> Link:
    tip = kata.tip()
    if not tip.last:
        raise NotFoundError("there is only event 0")
    return Link(key, ctx.owner(kata), tip.time_ns, f"{tip.last - 1}..{tip.last}")


@makes(*(row.path for row in _ROWS.values()))
def _diff(ctx: Context, kata: Kata, key: Key) -> MadeFile:
    """One diff, dated as the newer of its events."""
    old, new, view = kata.snapshot(key.a), kata.snapshot(key.b >> 2), key.b & 3
    trees = old.files_tree, new.files_tree
    make = functools.partial(_BY_VIEW[view], was=old.files_tree, now=new.files_tree)
    # Equal trees have equal diffs, whatever the events are called.
    rest = (key, ctx, kata, max(old.time_ns, new.time_ns), (DIFF, kata.kata_id, view, *trees), make)
    return _DiffFile(*rest) if view else _RawDiffFile(trees, *rest)


class _DiffFile(MadeFile):
    queue = "diff"
    budget = DIFF_BUDGET


class _RawDiffFile(_DiffFile):
    """A diff as git says it. A small one is made at once: that takes less time than to hand it to a thread."""

    def __init__(self, trees: tuple[Oid | None, Oid | None], *rest: Any) -> None:
        super().__init__(*rest)
        self._trees = trees

    def prepare(self) -> Work | None:
        maker = super().prepare()
        if maker is None:
            return None
        repo = self._kata.repo
        with contextlib.suppress(HeavyError), repo.budget.within(_LITTLE):
            self.prepared(raw_diff(repo, *self._trees, most=_FEW, most_moved=_FEW_MOVED))
            return None
        return maker
