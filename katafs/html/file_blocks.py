"""The files of a step, as blocks of lines for the template."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from katafs.git.diff.patch import Region
from katafs.html.code import Line, highlighted, line_html, pairs
from katafs.kata.views.changes import FileChange, SideContent
from katafs.text import decode, visible

_CONTEXT = 3  # unchanged lines that are shown around a change
_SHORTEST_FOLD = 8  # fewer unchanged lines are not folded
_LONGEST_CHANGE, _HEAD = 300, 60  # lines of one change: of longer ones so many are shown, and the others folded
# Bounds of a page: unchanged files past the first are not shown at all, changed ones past the second
_UNCHANGED_BYTES = 512 << 10
_CHANGED_BYTES = 4 << 20
_MAX_FILES = 1_000


class Row(NamedTuple):
    """A line: its numbers in the old and the new content, and its HTML."""

    old: int | None
    new: int | None
    html: Markup


class Block(NamedTuple):
    """Lines that belong together: of a change, or such as are on both sides (in one column: only in ``new``)."""

    is_change: bool
    old: list[Row]
    new: list[Row]
    is_folded: bool = False


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

    @property
    def is_short(self) -> bool:
        return sum(len(block.new) for block in self.blocks) <= _LONGEST_CHANGE


def shown_files(changes: Iterable[FileChange], cut: Set[str], *, highlight: bool) -> tuple[list[ShownFile], int]:
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
        files.append(_shown(change, highlight=highlight, is_too_much=spent > limit))
        files[-1].is_cut = change.new is not None and f"files/{decode(change.new.name)}" in cut
        if spent > limit:
            spent -= change.shown.size
    return files, left_out


def _shown(change: FileChange, *, highlight: bool, is_too_much: bool) -> ShownFile:
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
        before = highlighted(old.name, contents[0], highlight=highlight) if old is not None else []
        after = highlighted(new.name, contents[1], highlight=highlight) if new is not None else []
        file.blocks = _blocks(change, before, after, is_compared=highlight)
        unfinished = [bool(content) and not content.endswith(b"\n") for content in contents]
        file.is_unfinished = (unfinished[0], unfinished[1])
    return file


def _name(side: SideContent) -> str:
    return visible(decode(side.name), kept="")


def _blocks(change: FileChange, old: list[Line], new: list[Line], *, is_compared: bool) -> list[Block]:
    if not change.regions:
        return [Block(False, [], [Row(at, at, line_html(line)) for at, line in enumerate(new or old, 1)])]
    blocks: list[Block] = []
    old_done = new_done = 0
    for region in change.regions:
        blocks += _same(new, old_done, new_done, region.new_start, is_first=not new_done and not old_done)
        blocks += _changed(old, new, region, is_compared=is_compared)
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
        return [Block(False, rows, rows)] if rows else []
    shown = [Block(False, part, part) for part in (rows[:head], rows[tail:])]
    fold = Block(False, [], rows[head:tail], is_folded=True)
    return [block for block in (shown[0], fold, shown[1]) if block.new]


def _changed(old: list[Line], new: list[Line], region: Region, *, is_compared: bool) -> list[Block]:
    """A change, cut where lines came or went between two that became one another: these stand side by side."""
    old_start, old_end, start, end = region
    old_marks: dict[int, tuple[int, int]] = {}
    new_marks: dict[int, tuple[int, int]] = {}
    cuts = [(old_start, start)]
    for was, now, marks in pairs(old[old_start:old_end], new[start:end]) if is_compared else []:
        at, to = old_start + was, start + now
        old_marks[at], new_marks[to] = marks
        if at - cuts[-1][0] != to - cuts[-1][1]:
            cuts.append((at, to))
    blocks = []
    for (at, to), (at_end, to_end) in pairwise([*cuts, (old_end, end)]):
        before = [Row(line + 1, None, line_html(old[line], old_marks.get(line))) for line in range(at, at_end)]
        after = [Row(None, line + 1, line_html(new[line], new_marks.get(line))) for line in range(to, to_end)]
        head = _HEAD if max(len(before), len(after)) > _LONGEST_CHANGE else _LONGEST_CHANGE
        blocks.append(Block(True, before[:head], after[:head]))
        if before[head:] or after[head:]:
            blocks.append(Block(True, before[head:], after[head:], is_folded=True))
    return blocks
