"""What people read: ``history``, a table of the events, and ``html/``, pages to look at. Pages are made when asked for.

Pages are made in a process of their own (`katafs.html.process`): what a kata holds decides how long highlighting takes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from katafs.errors import NotFoundError
from katafs.git import GitRepo, Oid
from katafs.html.process import Page, render
from katafs.kata.model.rows import Row
from katafs.kata.model.steps import history, history_text
from katafs.kata.read.kata import Kata
from katafs.tree.context import Context
from katafs.tree.events import parse_index
from katafs.tree.made import MadeFile
from katafs.tree.nodes import IMMUTABLE, MUTABLE, BytesFile, Directory, Entry, Node, entry_or_damaged
from katafs.tree.numbers import DIFF, FIXED, Key

# fixed entries of a kata
HTML, HTML_INDEX, HISTORY = 40, 41, 42
# the view of a diff that is a page (`katafs.tree.diffs` has the others)
PAGE_VIEW = 3
# A page of a step has the lights of so many events after it, so it changes until these are there.
NEIGHBOURS = 5
# events of a history that takes longer than 5 ms to be put into words
_LONG_HISTORY = 300


class _HistoryFile(BytesFile):
    """``history``, made at once."""

    attr_timeout = MUTABLE


class _LongHistoryFile(MadeFile):
    """The same, made in a thread."""

    attr_timeout = MUTABLE


def history_file(ctx: Context, kata: Kata) -> Node:
    """``history``."""
    tip = kata.tip()
    identity = (HISTORY, kata.kata_id, tip.commit.oid)
    key, owner = Key(FIXED, kata.kata_id, HISTORY), ctx.owner(kata)
    make = functools.partial(_make_history, tip.rows.stored, kata.kata_id)
    if tip.last >= _LONG_HISTORY:
        return _LongHistoryFile(key, owner, tip.time_ns, ctx.made, identity, kata.path, make)
    data = ctx.made.get(identity)
    if not isinstance(data, bytes):
        data = make(None)
        ctx.made.put(identity, data)
    return _HistoryFile(key, owner, tip.time_ns, data)


def _make_history(rows: Sequence[Row], kata_id: str, _repo: GitRepo | None) -> bytes:
    return history_text(history(rows, kata_id))


class _Page(MadeFile):
    """A page, which waits for pages only."""

    slowness = "page"


class _MutablePage(_Page):
    """A page that changes when events come."""

    attr_timeout = MUTABLE


class HtmlDir(Directory):
    """``html/``: ``index.html``, ``0..0.html`` for the first files, ``0..1.html 1..2.html …``; any other pair opens by
    name. Listing it makes nothing."""

    attr_timeout = MUTABLE

    def __init__(self, ctx: Context, kata: Kata) -> None:
        kata_id = kata.kata_id
        self._tip = kata.tip()
        super().__init__(Key(FIXED, kata_id, HTML), ctx.owner(kata), self._tip.time_ns, Key(FIXED, kata_id, 0))
        self._ctx, self._kata = ctx, kata

    def names(self) -> list[bytes]:
        steps = (b"%d..%d.html" % (index, index + 1) for index in range(self._tip.last))
        return [b"index.html", b"0..0.html", *steps]

    def child(self, name: bytes) -> Entry:
        if name == b"index.html":
            key = Key(FIXED, self._kata.kata_id, HTML_INDEX)
            return entry_or_damaged(lambda: index_page(self._ctx, self._kata), IMMUTABLE, key, self)
        was, dots, now = name.removesuffix(b".html").partition(b"..")
        indexes = parse_index(was), parse_index(now)
        if not name.endswith(b".html") or not dots or indexes[0] is None or indexes[1] is None:
            raise NotFoundError(f"no page {name!r}")
        make = functools.partial(step_page, self._ctx, self._kata, indexes[0], indexes[1])
        key = Key(DIFF, self._kata.kata_id, indexes[0], indexes[1] * 4 + PAGE_VIEW)
        return entry_or_damaged(make, IMMUTABLE, key, self)


def index_page(ctx: Context, kata: Kata) -> MadeFile:
    """``html/index.html``."""
    tip = kata.tip()
    key = Key(FIXED, kata.kata_id, HTML_INDEX)
    make = functools.partial(_render, _page(kata, tip.commit.oid))
    return _MutablePage(key, ctx.owner(kata), tip.time_ns, ctx.made, (key, tip.commit.oid), kata.path, make)


def step_page(ctx: Context, kata: Kata, was: int, now: int) -> MadeFile:
    """``html/W..N.html``. Raises `NotFoundError`."""
    tip = kata.tip()
    old, new = kata.snapshot(was), kata.snapshot(now)
    full = max(was, now) + NEIGHBOURS
    end = kata.snapshot(min(full, tip.last))
    kind = _Page if full <= tip.last else _MutablePage
    key = Key(DIFF, kata.kata_id, was, now * 4 + PAGE_VIEW)
    identity = (key, old.commit.oid, new.commit.oid, end.index, end.commit.oid)
    make = functools.partial(_render, _page(kata, tip.commit.oid, was, now, end.index))
    when = max(old.time_ns, new.time_ns, end.time_ns)
    return kind(key, ctx.owner(kata), when, ctx.made, identity, kata.path, make)


def changing_pages(last: int) -> list[tuple[int, int]]:
    """The listed pages (W, N) that change when an event comes after ``last``."""
    first = max(last - NEIGHBOURS, 0)
    return [(max(index - 1, 0), index) for index in range(first, last + 1)]


def _render(page: Page, _repo: GitRepo) -> bytes:
    # the process that makes pages opens the repository itself
    return render(page)


def _page(kata: Kata, tip: Oid, was: int = -1, now: int = -1, end: int = -1) -> Page:
    return Page(kata.path, kata.kata_id, tip, was, now, end)
