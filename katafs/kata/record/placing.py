"""Where an act goes in the row of events: the three questions of INTERFACE §4, in their order.

1. Is it a repetition of what is recorded? (`repetition`)
2. Which index does it get, and which were skipped? (`place`)
3. Are there edits to be recorded first? (`edited_file`; only where no index was given)

Nothing is read from or written to a repository here.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

from katafs.errors import InvalidError, LateError, TooLargeError
from katafs.kata.model.act import Act, Text
from katafs.kata.model.kinds import Kind
from katafs.kata.model.listing import MAX_DEPTH, MAX_PATHS, Listing, count_paths, directories_of
from katafs.kata.model.rows import Row

MOST_SKIPPED = 1_000


def repetition(rows: Sequence[Row], act: Act) -> int | None:
    """The index of the event that this act is already; None when it is new.

    The same laptop_id, tab_seq and colour, of which the first two are not null. JSON values are compared, so ``"7"``
    is not ``7``.
    """
    tab_seq = act.tab_seq.get("tab_seq")
    if act.laptop_id is None or tab_seq is None:
        return None
    wanted = (act.laptop_id, tab_seq, act.colour)
    for index, row in enumerate(rows):
        if _same(row.get("tab_seq"), tab_seq) and (row.get("laptop_id"), tab_seq, row.get("colour")) == wanted:
            return index
    return None


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: in Python ``True == 1 == 1.0``."""
    return type(one) is type(other) and one == other


def place(last: int, act: Act) -> int:
    """The index of a new event after event ``last``: the next one, if the act says nothing else.

    Raises `LateError` (EEXIST) for one that is taken, `InvalidError` for one that would skip too many.
    """
    return last + 1 if act.index is None else check_index(last, act.index)


def check_index(last: int, index: int) -> int:
    """That index, if a new event after event ``last`` can have it. Raises as `place` does."""
    if index <= last:
        raise LateError(f"event {index} is there already; the last is {last}")
    if index - last - 1 > MOST_SKIPPED:
        raise InvalidError(f"index {index} skips more than {MOST_SKIPPED} events after the last, {last}")
    return index


def edited_file(before: Listing, after: Listing) -> bytes | None:
    """The first file, in git's order, that is in both listings with another content; None when there is none.

    Files that were added or removed are no edit (FORMAT §2.2).
    """
    for position in after.files():
        earlier = before.position(after.paths[position])
        if earlier is None or before.is_directory(earlier):
            continue
        if before.entries[earlier].oid != after.entries[position].oid:
            return after.paths[position]
    return None


def check_files(act: Act, before: Set[bytes]) -> None:
    """Refuse a file event that does not go with its files, or else with those ``before`` it; nothing is stored yet.

    Raises `InvalidError` for a file to be made that is there or is a directory, or whose directory is a file, and for
    one to be removed, renamed or edited that is not there; `TooLargeError` for more paths than are shown.
    """
    files = set(before if act.files is None else act.files)
    if act.kind in (Kind.FILE_DELETE, Kind.FILE_RENAME, Kind.FILE_EDIT):
        taken = "old_filename" if act.kind is Kind.FILE_RENAME else "filename"
        if taken in act.summary and act.name(taken) not in (files | before if act.kind is Kind.FILE_EDIT else files):
            raise InvalidError(f"there is no file {act.summary[taken]!r}")
    if act.kind in (Kind.FILE_CREATE, Kind.FILE_RENAME):
        made = "new_filename" if act.kind is Kind.FILE_RENAME else "filename"
        path = act.name(made)
        if path in files:
            raise InvalidError(f"{act.summary[made]!r} is there already")
        rest = files - {act.name("old_filename")} if act.kind is Kind.FILE_RENAME else files
        above = directories_of([path])
        if len(files) + len(above) >= MAX_PATHS // MAX_DEPTH and count_paths(files | {path}) > MAX_PATHS:
            raise TooLargeError(f"there would be more than {MAX_PATHS} files and directories")
        if above & rest or any(other.startswith(path + b"/") for other in rest):
            raise InvalidError(f"{act.summary[made]!r} is a directory, or its directory is a file")


def named_edit(act: Act, before: Listing, after: Listing) -> Act | None:
    """A ``file_edit`` message with the name of a file: its own, else the first edited one. None when no file that was
    there is another: files that are added or removed are no edit, as in saver.
    """
    edited = edited_file(before, after)
    if "filename" in act.summary:
        return act if edited is not None else None
    return replace(act, summary={**act.summary, "filename": edited.decode()}) if edited is not None else None


def file_edit(act: Act, path: bytes) -> Act:
    """The event that records edits: all files of the act as they are, but only this one is named. It has no output."""
    summary = {"colour": Kind.FILE_EDIT.value, "filename": path.decode()}
    empty = Text(b"")
    return replace(act, kind=Kind.FILE_EDIT, summary=summary, stdout=empty, stderr=empty, status="0", index=None)
