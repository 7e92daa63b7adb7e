"""The rows of a kata's events: parsing what is stored, and showing it in one shape.

A row is a JSON object. Stored rows differ by era (FORMAT: row shapes); a *shown* row has the stored keys and, as its
last key, ``type``. Times are ``[year, month, day, hour, minute, second, microsecond]`` in UTC.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from katafs.errors import NoEventsError
from katafs.git.budget import Budget
from katafs.kata.model.kinds import BY_TYPE, Kind
from katafs.text import is_portable_json, parse_stored, pretty

Row = dict[str, Any]

#: bytes of all rows that are written; no object larger than `katafs.git.odb.objects.IN_MEMORY` is read
MOST_ROWS = 16 << 20


class StoredRows(list[Row]):
    """Rows as they were parsed. ``is_portable``: every parser takes the very text that they were parsed from."""

    def __init__(self, rows: Iterable[Row], *, is_portable: bool) -> None:
        super().__init__(rows)
        self.is_portable = is_portable

    def grown(self, added: StoredRows) -> StoredRows:
        """These rows and those that were added to their text."""
        return StoredRows([*self, *added], is_portable=self.is_portable and added.is_portable)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Spellings that saver used for some weeks at the end of 2025; "switch-file" saved what had been edited.
_OLD_SPELLINGS = {
    **{f"{verb}-file": f"file_{verb}" for verb in ("create", "delete", "rename", "edit")},
    **{f"file-{verb}": f"file_{verb}" for verb in ("create", "delete", "rename", "edit")},
    "switch-file": "file_edit",
    "file-switch": "file_edit",
}


def event_type(row: Row, index: int) -> str:
    """``created | test | file_create | file_delete | file_rename | file_edit | reverted | checked_out | outage``."""
    stored = row.get("type")
    if isinstance(stored, str):
        return stored
    words = [word for word in (row.get("event"), row.get("colour")) if isinstance(word, str)]
    for word in words:
        kind = BY_TYPE.get(_OLD_SPELLINGS.get(word, word))
        if kind is not None and kind.facts.file_names:
            return kind.type
    if index == 0 or "created" in words:
        return "created"
    if "outage" in words:
        return "outage"
    return next((kind.type for kind in Kind if kind.facts.row_key and kind.facts.row_key in row), "test")


def without_contents(event: Mapping[str, Any]) -> Row:
    """What of an event's document, or row, is not what it keeps its contents under, whatever a client called it."""
    return {key: value for key, value in event.items() if key not in ("files", "stdout", "stderr", "status")}


def shown_row(row: Row, index: int) -> Row:
    """The row with ``type`` as its last key."""
    shown = {key: value for key, value in row.items() if key != "type"}
    shown["type"] = event_type(row, index)
    return shown


def time_of(moment: datetime) -> list[int]:
    """A moment as a row stores it."""
    at = moment.astimezone(UTC)
    return [at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond]


def moment_of_ns(time_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def moment_of(time: list[int]) -> datetime:
    """The inverse of `time_of`. Raises ValueError or OverflowError for what is no time."""
    year, month, day, hour, minute, second, microsecond = time
    return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC)


def time_ns(row: Row) -> int | None:
    """The time of a row in nanoseconds since the epoch; None when it has none that makes sense."""
    value = row.get("time")
    if not isinstance(value, list) or len(value) != 7 or not all(type(part) is int for part in value):
        return None
    try:
        moment = moment_of(value)
    except (ValueError, OverflowError):
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def parse_rows(data: bytes, budget: Budget | None = None) -> StoredRows:
    """The stored rows: a JSON array, or (May 2021) objects joined by ``,\\n`` without brackets; ``budget`` pays for
    them. Raises `NoEventsError`."""
    budget = budget or Budget()
    budget.spend_for_parsing(data)
    text = data.decode("utf-8", errors="replace").strip()
    is_array = text.startswith("[")
    if not is_array:
        text = f"[{text}]"
    try:
        rows: Any = parse_stored(text)
        is_portable = is_array and is_portable_json(data, budget.spend_for_looking)
    except (ValueError, RecursionError) as error:
        raise NoEventsError(f"the stored events are not JSON: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise NoEventsError("the stored events are not a list of objects")
    return StoredRows(rows, is_portable=is_portable)


def _goes_on(earlier: list[Row], stored: list[Row]) -> bool:
    # row by row, which lets other threads have a turn
    pairs = zip(earlier, stored, strict=False)
    return len(earlier) <= len(stored) and all(row is other or row == other for row, other in pairs)


class Rows:
    """All rows at one tip, and their text. ``stored[n]`` is event n. The text of each row is made once, when it is
    first asked for, so that the summary of an event (rows 0..n) is joined, and its size known without joining."""

    def __init__(self, stored: list[Row], earlier: Rows | None = None, budget: Budget | None = None) -> None:
        self.stored = stored
        self._budget = budget or Budget()
        self._texts: list[bytes] = []
        # the start of row n in "[\n  {…},\n  {…}", with the four bytes before it, and the end of the last one
        self._ends: list[int] = [0]
        self._newest = (-1, b"")
        # A history only grows: what was rendered for an earlier tip is used again.
        if earlier is not None and _goes_on(earlier.stored, stored):
            self._texts, self._ends = earlier._texts.copy(), earlier._ends.copy()

    @property
    def is_portable(self) -> bool:
        """Whether every parser takes the text in which they are stored."""
        return isinstance(self.stored, StoredRows) and self.stored.is_portable

    @property
    def last(self) -> int:
        return len(self.stored) - 1

    def shown(self, index: int) -> Row:
        return shown_row(self.stored[index], index)

    def is_outage(self, index: int) -> bool:
        """Whether nothing happened at ``index`` but that it was skipped."""
        return event_type(self.stored[index], index) == "outage"

    def text(self, index: int) -> bytes:
        """``event.json`` of an event."""
        if index == len(self._texts):
            # who looks at one event after the other asks for the summary, too
            self._render(index)
        if index != self._newest[0]:
            # who reads a large one comes again for each part of it
            text = self._texts[index] if index < len(self._texts) else self._pretty(index)
            self._newest = index, text.replace(b"\n  ", b"\n") + b"\n"
        return self._newest[1]

    def summary(self, index: int) -> bytes:
        """``events_summary.json`` of an event: rows 0..index."""
        return self.summary_part(index, 0, self.summary_size(index))

    def summary_part(self, index: int, offset: int, length: int) -> bytes:
        self._render(index)
        first = min(bisect_right(self._ends, offset) - 1, index + 1)
        last = min(bisect_left(self._ends, offset + length), index + 1)
        pieces = [(b",\n  " if at else b"[\n  ") + self._texts[at] for at in range(first, last)]
        text = b"".join(pieces) + (b"\n]\n" if last > index else b"")
        offset -= self._ends[first]
        return text[offset : offset + length]

    def summary_size(self, index: int) -> int:
        self._render(index)
        return self._ends[index + 1] + 3

    def _render(self, last: int) -> None:
        for index in range(len(self._texts), last + 1):
            text = self._pretty(index)
            self._texts.append(text)
            self._ends.append(self._ends[-1] + len(text) + 4)

    def _pretty(self, index: int) -> bytes:
        self._budget.spend_for_json(self.stored[index])
        return pretty(self.shown(index), indent="  ").encode()
