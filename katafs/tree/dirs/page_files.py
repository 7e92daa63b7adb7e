"""What people read: ``history``, a table of the events, and ``html/``, pages to look at. Pages are made when asked for.

Pages are made in a process of their own (`katafs.html.process`): what a kata holds decides how long highlighting takes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from katafs.git import GitRepo
from katafs.html.process import Page, render
from katafs.kata.model.rows import Row
from katafs.kata.model.steps import history, history_text
from katafs.kata.read.kata import Kata
from katafs.tree.catalogue import row_at
from katafs.tree.context import Context
from katafs.tree.dirs.contents import MadeFile
from katafs.tree.dirs.events import parse_steps
from katafs.tree.makers import FixedDir, makes
from katafs.tree.nodes import BytesFile, Entry, Node
from katafs.tree.numbers import DIFF, Key
from katafs.tree.timeouts import IMMUTABLE

_STEP = row_at("html/W..N.html")
# A page of a step has the lights of so many events after it, so it changes until these are there.
NEIGHBOURS = 5
# events of a history that takes longer than 5 ms to be put into words
_LONG_HISTORY = 300


@makes("history")
def _history(ctx: Context, kata: Kata, key: Key) -> Node:
    tip = kata.tip()
    identity = (key, tip.commit.oid)
    make = functools.partial(_make_history, tip.rows.stored, kata.kata_id)
    if tip.last >= _LONG_HISTORY:
        return MadeFile(key, ctx, kata, tip.time_ns, identity, make)
    data = ctx.made.get(identity)
    if not isinstance(data, bytes):
        data = make(None)
        ctx.made.put(identity, data)
    return BytesFile(key, ctx.owner(kata), tip.time_ns, data)


def _make_history(rows: Sequence[Row], kata_id: str, _repo: GitRepo | None) -> bytes:
    return history_text(history(rows, kata_id))


class _Page(MadeFile):
    """A page, which waits for pages only."""

    queue = "page"


@makes("html")
class HtmlDir(FixedDir):
    """``html/``: ``index.html``, ``0..0.html`` for the first files, ``0..1.html 1..2.html …``; any other pair opens by
    name. Listing it makes nothing."""

    def names(self) -> list[bytes]:
        steps = (b"%d..%d.html" % (index, index + 1) for index in range(self._tip.last))
        return [*super().names(), b"0..0.html", *steps]

    def child(self, name: bytes) -> Entry:
        steps = parse_steps(name, b".html")
        return super().child(name) if steps is None else self._entry(_STEP, step_key(self._kata.kata_id, *steps))


@makes("html/index.html")
def _index(ctx: Context, kata: Kata, key: Key) -> MadeFile:
    tip = kata.tip()
    make = functools.partial(_render, Page(kata.path, kata.kata_id, tip.commit.oid))
    return _Page(key, ctx, kata, tip.time_ns, (key, tip.commit.oid), make)


@makes(_STEP.path)
def _step_page(ctx: Context, kata: Kata, key: Key) -> MadeFile:
    was, now = key.a, key.b >> 2
    tip = kata.tip()
    old, new = kata.snapshot(was), kata.snapshot(now)
    full = max(was, now) + NEIGHBOURS
    end = kata.snapshot(min(full, tip.last))
    identity = (key, old.commit.oid, new.commit.oid, end.index, end.commit.oid)
    make = functools.partial(_render, Page(kata.path, kata.kata_id, tip.commit.oid, was, now, end.index))
    when = max(old.time_ns, new.time_ns, end.time_ns)
    page = _Page(key, ctx, kata, when, identity, make)
    if full <= tip.last:
        page.attr_timeout = IMMUTABLE
    return page


def step_key(kata_id: str, was: int, now: int) -> Key:
    """The key of ``html/W..N.html``."""
    return Key(DIFF, kata_id, was, now * 4 + _STEP.number)


def changing_pages(last: int) -> list[tuple[int, int]]:
    """The listed pages (W, N) that change when an event comes after ``last``."""
    first = max(last - NEIGHBOURS, 0)
    return [(max(index - 1, 0), index) for index in range(first, last + 1)]


def _render(page: Page, _repo: GitRepo) -> bytes:
    # the process that makes pages opens the repository itself
    return render(page)
