"""The files of a step, as blocks of lines for the template."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from markupsafe import Markup

from katafs.html.code import Highlighter, Line, differing, line_html
from katafs.kata.views.changes import FileChange, SideContent
from katafs.text import decode, visible

_CONTEXT = 3  # unchanged lines that are shown around a change
_SHORTEST_FOLD = 8  # fewer unchanged lines are not folded
# Bounds of a page: unchanged files past the first are not shown at all, changed ones past the second
_UNCHANGED_BYTES = 512 << 10
_CHANGED_BYTES = 4 << 20
_MAX_FILES = 1_000


@dataclass(frozen=True)
class Row:
    """A line: its numbers in the old and the new content, and its HTML."""

    old: int | None
    new: int | None
    html: Markup


@dataclass(frozen=True)
class Block:
    """Lines that belong together: ``same`` (shown on both sides), ``fold`` (the same, folded), or ``change``."""

    kind: str
    old: list[Row]
    new: list[Row]


@dataclass
class ShownFile:
    """A file on a page."""

    kind: str
    name: str
    old_name: str  # of a renamed file, else empty
    added: int
    deleted: int
    note: str = ""  # why there are no lines
    blocks: list[Block] = field(default_factory=list)
    is_cut: bool = False
    is_unfinished: tuple[bool, bool] = (False, False)  # whether the old, the new last line has no newline

    @property
    def is_only_renamed(self) -> bool:
        return self.kind == "renamed" and not self.added and not self.deleted


def shown_files(
    changes: Iterable[FileChange], highlighter: Highlighter, cut: Set[str] = frozenset(), *, highlight: bool
) -> tuple[list[ShownFile], int]:
    """The files of a page, and how many are left out because there are too many. ``cut``: those that the runner cut
    short, as ``files/NAME``."""
    files: list[ShownFile] = []
    left_out = spent = 0
    for change in changes:
        if len(files) >= _MAX_FILES:
            left_out += 1
            continue
        limit = _UNCHANGED_BYTES if change.kind == "unchanged" else _CHANGED_BYTES
        spent += sum(side.size for side in {change.old, change.new} if side is not None)
        files.append(_shown(change, highlighter, highlight=highlight, is_too_much=spent > limit))
        files[-1].is_cut = change.new is not None and f"files/{decode(change.new.name)}" in cut
        if spent > limit:
            spent -= change.shown.size
    return files, left_out


def _shown(change: FileChange, highlighter: Highlighter, *, highlight: bool, is_too_much: bool) -> ShownFile:
    old, new = change.old, change.new
    old_name = _name(old) if old is not None and change.kind == "renamed" else ""
    file = ShownFile(change.kind, _name(change.shown), old_name, change.added, change.deleted)
    sides = [side for side in (old, new) if side is not None]
    if is_too_much or any(side.data is None for side in sides):
        file.note = f"{change.shown.size:,} bytes, too large to be shown here"
    elif any(side.is_binary for side in sides):
        file.note = f"{change.shown.size:,} bytes that are no text"
    elif not any(side.size for side in sides):
        file.note = "empty"
    else:
        contents = [side.data or b"" if side is not None else b"" for side in (old, new)]
        before = highlighter.lines(old.name, contents[0], highlight=highlight) if old is not None else []
        after = highlighter.lines(new.name, contents[1], highlight=highlight) if new is not None else []
        file.blocks = _blocks(change, before, after)
        unfinished = [bool(content) and not content.endswith(b"\n") for content in contents]
        file.is_unfinished = (unfinished[0], unfinished[1])
    return file


def _name(side: SideContent) -> str:
    return visible(decode(side.name), kept="")


def _blocks(change: FileChange, old: list[Line], new: list[Line]) -> list[Block]:
    if not change.regions:
        lines = new or old
        return [Block("same", [], [Row(at, at, line_html(line)) for at, line in enumerate(lines, 1)])]
    blocks: list[Block] = []
    old_done = new_done = 0
    for region in change.regions:
        blocks += _same(new, old_done, new_done, region.new_start, is_first=not new_done and not old_done)
        blocks.append(_change(old, new, region.old_start, region.old_end, region.new_start, region.new_end))
        old_done, new_done = region.old_end, region.new_end
    return blocks + _same(new, old_done, new_done, len(new), is_last=True)


def _same(
    new: list[Line], old_start: int, start: int, end: int, *, is_first: bool = False, is_last: bool = False
) -> list[Block]:
    """Unchanged lines: those next to a change are shown, a long row of others is folded."""
    shift = old_start - start
    rows = [Row(at + shift + 1, at + 1, line_html(new[at])) for at in range(start, end)]
    head = 0 if is_first else _CONTEXT
    tail = len(rows) - (0 if is_last else _CONTEXT)
    if tail - head < _SHORTEST_FOLD:
        return [Block("same", rows, rows)] if rows else []
    parts = (("same", rows[:head]), ("fold", rows[head:tail]), ("same", rows[tail:]))
    return [Block(kind, part, part) for kind, part in parts if part]


def _change(old: list[Line], new: list[Line], old_start: int, old_end: int, start: int, end: int) -> Block:
    # Lines are compared one by one only where as many came as went: else nobody knows which became which.
    is_paired = old_end - old_start == end - start
    pairs = [differing(old[old_start + at], new[start + at]) if is_paired else None for at in range(end - start)]
    old_marks = [pair[0] if pair else None for pair in pairs] if is_paired else [None] * (old_end - old_start)
    new_marks = [pair[1] if pair else None for pair in pairs]
    return Block(
        "change",
        [Row(at + 1, None, line_html(old[at], mark)) for at, mark in enumerate(old_marks, old_start)],
        [Row(None, at + 1, line_html(new[at], mark)) for at, mark in enumerate(new_marks, start)],
    )
