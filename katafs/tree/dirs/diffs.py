"""What is made of two events, or of all: ``diff/``, as text, as JSON, as a JSON summary; ``html/``, pages to look at;
and ``history``, a table of the events.

Pages are made in a process of their own (`katafs.html.process`): what a kata holds decides how long highlighting takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from katafs.errors import NotFoundError
from katafs.git import GitRepo, Oid
from katafs.html.process import Page, render
from katafs.kata.model.rows import Row
from katafs.kata.model.steps import history, history_text
from katafs.kata.read.kata import Kata
from katafs.kata.views.diff import DIFF_BUDGET, diff_lines, diff_summary, raw_diff
from katafs.text import pretty_bytes
from katafs.tree.catalogue import row_at, row_of
from katafs.tree.context import Context
from katafs.tree.dirs.contents import MadeFile
from katafs.tree.dirs.events import parse_index
from katafs.tree.makers import FixedDir, makes
from katafs.tree.nodes import Entry, Link
from katafs.tree.numbers import DIFF, Key, Numbers
from katafs.tree.timeouts import IMMUTABLE, MUTABLE, NEVER

# What is compared in the event loop: files and directories that differ, files that came or went, for renames take
# longest; and what is not paid for by lines, in microseconds (random lines of one letter take 12 ms then).
_FEW, _FEW_MOVED, _LITTLE = 200, 4, 3_500.0
# A page of a step has the lights of so many events after it, so it changes until these are there.
_NEIGHBOURS = 5
# events of a history that takes longer than 5 ms to be put into words
_LONG_HISTORY = 300


def _json(view: Callable[..., object], repo: GitRepo, was: Oid | None, now: Oid | None, **few: int) -> bytes:
    return pretty_bytes(view(repo, was, now, **few))


# By the end of the name: what makes the content
_VIEWS: dict[str, Callable[..., bytes]] = {
    "": raw_diff,
    ".json": partial(_json, diff_lines),
    ".summary.json": partial(_json, diff_summary),
}
_ROWS = {ending: row_at(f"diff/W..N{ending}") for ending in _VIEWS}
_BY_VIEW = {row.number: _VIEWS[ending] for ending, row in _ROWS.items()}
_PAGE, _INDEX = row_at("html/W..N.html"), row_at("html/index.html")
# By directory: what of two events is in it, the first as it is listed.
_OF_PAIRS = {"diff": _ROWS, "html": {".html": _PAGE}}


@makes("diff", "html")
class PairsDir(FixedDir):
    """``diff/`` and ``html/``: they list the neighbours ``0..1 1..2 …``, and ``0..0.html`` for the first files; every
    other pair, and JSON, opens by name. Listing them makes nothing."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        super().__init__(ctx, kata, key)
        self._rows = _OF_PAIRS[row_of(key).path]

    def names(self) -> list[bytes]:
        ending = next(iter(self._rows)).encode()
        neighbours = [(index, index + 1, ending) for index in range(self._tip.last)]
        first = [(0, 0, ending)] if ending else []
        return [*super().names(), *(b"%d..%d%b" % each for each in first + neighbours)]

    def child(self, name: bytes) -> Entry:
        for ending, row in self._rows.items():
            steps = _parse_steps(name, ending.encode())
            if steps is not None:
                key = pair_key(self._kata.kata_id, *steps, row.number)
                if row is _PAGE and max(steps) + _NEIGHBOURS > self._tip.last:
                    # soon it is that of another page
                    return Entry(self._entry(row, key._replace(path=b"%d" % self._tip.last)).node, MUTABLE)
                return self._entry(row, key)
        return super().child(name)


def _parse_steps(name: bytes, ending: bytes) -> tuple[int, int] | None:
    """The two event numbers of ``W..N`` before an ending; None for anything else."""
    first, dots, second = name.removesuffix(ending).partition(b"..")
    was, now = parse_index(first), parse_index(second)
    return None if not dots or not name.endswith(ending) or was is None or now is None else (was, now)


def pair_key(kata_id: str, was: int, now: int, view: int) -> Key:
    """The key of a view of two events."""
    return Key(DIFF, kata_id, was, now * 4 + view)


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
    make = partial(_BY_VIEW[view], was=old.files_tree, now=new.files_tree)
    # Equal trees have equal diffs, whatever the events are called.
    identity = (DIFF, kata.kata_id, view, old.files_tree, new.files_tree)
    # renames are paired by libgit2 in JSON
    few = partial(make, most=_FEW, most_moved=0 if view else _FEW_MOVED)
    file = _DiffFile(key, ctx, kata, max(old.time_ns, new.time_ns), identity, make, few)
    file.at_once = file.at_once if view else _LITTLE
    return file


class _DiffFile(MadeFile):
    queue = "diff"
    budget = DIFF_BUDGET


class _PageFile(MadeFile):
    queue = "page"


@makes("history", "html/index.html")
def _of_all(ctx: Context, kata: Kata, key: Key) -> MadeFile:
    """What is made of all events up to one, which is the version: who reads it for long reads on while events come.
    Version 0, as an earlier release has numbered it, is that of the newest."""
    tip = kata.tip()
    newest = kata.snapshot(key.b - 1 if key.b else tip.last)
    last, identity = newest.index, (key, newest.commit.oid)
    # of what was the newest commit then, which may have set an option
    time = tip.time_ns if last == tip.last else kata.tip_at(kata.snapshot(last + 1).commit.parents[0]).time_ns
    file: MadeFile
    if key.a == _INDEX.number:
        page = Page(kata.path, kata.kata_id, tip.commit.oid, end=last)
        file = _PageFile(key, ctx, kata, time, identity, partial(_render, page))
    else:
        file = MadeFile(key, ctx, kata, time, identity, make := partial(_history, tip.rows.stored, kata.kata_id, last))
        if last < _LONG_HISTORY and ctx.made.get(identity) is None:
            file.prepared(make(kata.repo))
    file.attr_timeout = IMMUTABLE if key.b else NEVER
    return file


def _history(rows: Sequence[Row], kata_id: str, last: int, _repo: GitRepo) -> bytes:
    return history_text(history(rows[: last + 1], kata_id))


@makes(_PAGE.path)
def _step_page(ctx: Context, kata: Kata, key: Key) -> MadeFile:
    was, now = key.a, key.b >> 2
    tip = kata.tip()
    old, new = kata.snapshot(was), kata.snapshot(now)
    full = max(was, now) + _NEIGHBOURS
    end = kata.snapshot(int(key.path) if key.path else min(full, tip.last))
    identity = (key, old.commit.oid, new.commit.oid, end.index, end.commit.oid)
    make = partial(_render, Page(kata.path, kata.kata_id, tip.commit.oid, was, now, end.index))
    page = _PageFile(key, ctx, kata, max(old.time_ns, new.time_ns, end.time_ns), identity, make)
    if full > tip.last and not key.path:
        # as an earlier release has numbered it
        page.attr_timeout = NEVER
    return page


def changing_pages(kata_id: str, last: int) -> list[tuple[int, bytes]]:
    """``html/``, and the names in it that are listed and are other pages' when an event comes after ``last``."""
    steps = (b"%d..%d.html" % (max(index - 1, 0), index) for index in range(max(last - _NEIGHBOURS, 0), last + 1))
    html = Numbers.number(row_at("html").key(kata_id))
    return [(html, name) for name in (_INDEX.name, *steps)]


def _render(page: Page, _repo: GitRepo) -> bytes:
    # the process that makes pages opens the repository itself
    return render(page)
