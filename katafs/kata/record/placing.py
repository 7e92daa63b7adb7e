"""Where an act goes in the row of events: the three questions of INTERFACE §4, in their order.

1. Is it a repetition of what is recorded? (`repetition`)
2. Which index does it get, and which were skipped? (`check_index`; without one the next)
3. Are there edits to be recorded first? (`edited_file`; only where no index was given)

Nothing is read from or written to a repository here.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from katafs.errors import InvalidError, LateError, TooLargeError
from katafs.kata.model.kinds import Act, Kind, Text
from katafs.kata.model.rows import Row
from katafs.kata.model.trees import MAX_DEPTH, MAX_PATHS, Listing, directories_of

MOST_SKIPPED = 1_000


def repetition(rows: Sequence[Row], act: Act) -> int | None:
    """The index of the event that this act is already: the same laptop_id, tab_seq, neither of them null, and colour as
    JSON values, so ``"7"`` is not ``7``. None when it is new."""
    tab_seq = act.tab_seq.get("tab_seq")
    if act.laptop_id is None or tab_seq is None:
        return None
    for index, row in enumerate(rows):
        is_same = row.get("tab_seq") == tab_seq and row.get("laptop_id") == act.laptop_id
        # in Python ``True == 1 == 1.0``
        if is_same and type(row["tab_seq"]) is type(tab_seq) and row.get("colour") == act.colour:
            return index
    return None


def check_index(last: int, index: int) -> int:
    """That index for a new event. Raises `LateError` (EEXIST) if it is taken, `InvalidError` if it skips too many."""
    if index <= last:
        raise LateError(f"event {index} is there already; the last is {last}")
    if index - last - 1 > MOST_SKIPPED:
        raise InvalidError(f"index {index} skips more than {MOST_SKIPPED} events after the last, {last}")
    return index


def edited_file(before: Listing, after: Listing) -> bytes | None:
    """The first file in git's order that is in both with another content: others are no edit (FORMAT §2.2)."""
    known = dict(before.blobs())
    return next((path for path, oid in after.blobs() if known.get(path, oid) != oid), None)


def check_files(act: Act, before: Set[bytes]) -> None:
    """Refuse a file event that does not go with its files, or else with those ``before`` it; nothing is stored yet.
    Raises `InvalidError` for a file to be made that is there or is a directory, or whose directory is a file, and for
    one to be removed, renamed or edited that is not there; `TooLargeError` for more paths than are shown."""
    files = set(before if act.files is None else act.files)
    taken, made = ("old_filename", "new_filename") if act.kind is Kind.FILE_RENAME else ("filename", "filename")
    there = files | before if act.kind is Kind.FILE_EDIT else files
    if act.kind is not Kind.FILE_CREATE and taken in act.summary and act.name(taken) not in there:
        raise InvalidError(f"there is no file {act.summary[taken]!r}")
    if act.kind in (Kind.FILE_CREATE, Kind.FILE_RENAME):
        path = act.name(made)
        if path in files:
            raise InvalidError(f"{act.summary[made]!r} is there already")
        rest = files - {act.name(taken)}
        above = directories_of([path])
        is_near = len(files) + len(above) >= MAX_PATHS // MAX_DEPTH
        if is_near and len(files) + 1 + len(directories_of(files | {path})) > MAX_PATHS:
            raise TooLargeError(f"there would be more than {MAX_PATHS} files and directories")
        if above & rest or any(other.startswith(path + b"/") for other in rest):
            raise InvalidError(f"{act.summary[made]!r} is a directory, or its directory is a file")


def file_edit(act: Act, path: bytes) -> Act:
    """The event that records edits: all files of the act as they are, but only this one, the first, is named (saver
    names one, too). It has no output."""
    summary = {"colour": Kind.FILE_EDIT.value, "filename": path.decode()}
    empty = Text(b"")
    return replace(act, kind=Kind.FILE_EDIT, summary=summary, stdout=empty, stderr=empty, status="0", index=None)
