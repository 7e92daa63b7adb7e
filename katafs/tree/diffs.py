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
from katafs.tree.context import Context
from katafs.tree.events import parse_index
from katafs.tree.made import MadeFile
from katafs.tree.nodes import IMMUTABLE, MUTABLE, Directory, Entry, Link, Maker, entry_or_damaged
from katafs.tree.numbers import DIFF, FIXED, Key

# fixed entries of a kata
DIFFS, DIFF_LATEST = 4, 5
# What is compared in the event loop: microseconds (`katafs.git.budget`), files and directories that differ, files that
# came or went, for renames take longest. It takes a third of a millisecond, and some milliseconds at the worst that was
# found (random lines of one letter).
_LITTLE, _FEW, _FEW_MOVED = 3_500.0, 200, 4


def _lines_json(repo: GitRepo, was: Oid | None, now: Oid | None) -> bytes:
    return pretty_bytes(diff_lines(repo, was, now))


def _summary_json(repo: GitRepo, was: Oid | None, now: Oid | None) -> bytes:
    return pretty_bytes(diff_summary(repo, was, now))


_View = Callable[[GitRepo, Oid | None, Oid | None], bytes]

# By view: the end of the name, and what makes the content
_VIEWS: list[tuple[bytes, _View]] = [
    (b"", raw_diff),
    (b".json", _lines_json),
    (b".summary.json", _summary_json),
]


class DiffsDir(Directory):
    """``diff/``: lists the neighbours ``0..1 1..2 …`` and ``latest``; every other pair, and JSON, opens by name."""

    attr_timeout = MUTABLE

    def __init__(self, ctx: Context, kata: Kata) -> None:
        kata_id = kata.kata_id
        self._tip = kata.tip()
        super().__init__(Key(FIXED, kata_id, DIFFS), ctx.owner(kata), self._tip.time_ns, Key(FIXED, kata_id, 0))
        self._ctx, self._kata = ctx, kata

    def names(self) -> list[bytes]:
        last = self._tip.last
        return [*([b"latest"] if last else []), *(b"%d..%d" % (index, index + 1) for index in range(last))]

    def child(self, name: bytes) -> Entry:
        if name == b"latest" and self._tip.last:
            return Entry(latest_diff(self._ctx, self._kata), MUTABLE)
        for view in (2, 1, 0):
            ending = _VIEWS[view][0]
            was, dots, now = name.removesuffix(ending).partition(b"..")
            indexes = parse_index(was), parse_index(now)
            if name.endswith(ending) and dots and indexes[0] is not None and indexes[1] is not None:
                return self._entry(indexes[0], indexes[1], view)
        raise NotFoundError(f"no diff {name!r}")

    def _entry(self, was: int, now: int, view: int) -> Entry:
        make = functools.partial(diff_file, self._ctx, self._kata, was, now, view)
        return entry_or_damaged(make, IMMUTABLE, Key(DIFF, self._kata.kata_id, was, now * 4 + view), self)


def latest_diff(ctx: Context, kata: Kata) -> Link:
    """``diff/latest``. Raises `NotFoundError` while there is only event 0."""
    tip = kata.tip()
    if not tip.last:
        raise NotFoundError("there is only event 0")
    return Link(Key(FIXED, kata.kata_id, DIFF_LATEST), ctx.owner(kata), tip.time_ns, f"{tip.last - 1}..{tip.last}")


def diff_file(ctx: Context, kata: Kata, was: int, now: int, view: int) -> MadeFile:
    """One diff, dated as the newer of its events. Raises `NotFoundError`."""
    if not 0 <= view < len(_VIEWS):
        raise NotFoundError(f"no view {view} of a diff")
    old, new = kata.snapshot(was), kata.snapshot(now)
    key = Key(DIFF, kata.kata_id, was, now * 4 + view)
    make = functools.partial(_make, _VIEWS[view][1], old.files_tree, new.files_tree)
    # Equal trees have equal diffs, whatever the events are called.
    identity = (DIFF, kata.kata_id, view, old.files_tree, new.files_tree)
    rest = (key, ctx.owner(kata), max(old.time_ns, new.time_ns), ctx.made, identity, kata.path, make)
    return _DiffFile(*rest) if view else _RawDiffFile(kata, (old.files_tree, new.files_tree), *rest)


class _DiffFile(MadeFile):
    slowness = "diff"
    budget = DIFF_BUDGET


class _RawDiffFile(_DiffFile):
    """A diff as git says it. A small one is made at once: that takes less time than to hand it to a thread."""

    def __init__(self, kata: Kata, trees: tuple[Oid | None, Oid | None], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kata, self._trees = kata, trees

    def to_make(self) -> Maker | None:
        maker = super().to_make()
        if maker is None:
            return None
        repo = self._kata.repo
        with contextlib.suppress(HeavyError), repo.budget.within(_LITTLE):
            self.made(raw_diff(repo, *self._trees, most=_FEW, most_moved=_FEW_MOVED))
            return None
        return maker


def _make(view: _View, was: Oid | None, now: Oid | None, repo: GitRepo) -> bytes:
    return view(repo, was, now)
