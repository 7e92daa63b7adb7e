"""The history of a kata as data, as a table to read, and for other programs: one `Step` an event, whatever its era."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from katafs.kata.model.kinds import BY_TYPE, Kind
from katafs.kata.model.rows import Row, event_type, moment_of_ns, time_ns
from katafs.text import brief

# The traffic lights. A name ending in "_special" is that of a run that wrote a file ``outcome.special``.
LIGHTS = ("red", "amber", "green", "timed_out", "faulty", "pulling")
_SPECIAL = "_special"
_FILE_NAMES = ("filename", "old_filename", "new_filename")


@dataclass(frozen=True)
class Step:
    """One event. All texts are safe to show (`katafs.text.visible`), but for HTML."""

    index: int
    type: str  # see `katafs.kata.model.rows.event_type`
    light: str  # one of `LIGHTS`, another word that the row has, or "" where no tests ran
    time: datetime | None
    duration: float | None  # seconds that the run took
    predicted: str | None  # a light; None when nothing was predicted
    added: int | None  # lines; None where the row does not say
    deleted: int | None
    file_names: tuple[str, ...]  # of a file event: the file, or the old and the new name
    origin: str  # where the files of a revert or a check-out are from: "12", "AbCdEf 3"
    laptop: int | None  # who sent it: 1 for the first who sent something, and so on

    @property
    def is_right(self) -> bool | None:
        """Whether the prediction came true; None when nothing was predicted."""
        return None if self.predicted is None else self.predicted == self.light

    @property
    def headline(self) -> str:
        names = [f"“{name}”" for name in self.file_names]
        if self.type in BY_TYPE:
            facts = BY_TYPE[self.type].facts
            text = f"{facts.from_where} {self.origin}" if facts.from_where and self.origin else facts.headline
        else:
            text = {"test": Kind.RAN_TESTS.facts.headline, "outage": "nothing recorded"}.get(self.type, self.type)
        return " ".join([text, " to ".join(names)]) if names else text

    @property
    def prediction(self) -> str:
        return "" if self.predicted is None else f"{self.predicted}, {'right' if self.is_right else 'wrong'}"


def history(rows: Sequence[Row], kata_id: str = "") -> list[Step]:
    """The steps of all rows, stored or shown ones. Nothing in a row is relied on: what makes no sense is left out."""
    laptops: dict[str, int] = {}
    return [_step(row, index, kata_id, laptops) for index, row in enumerate(rows)]


def step_of(row: Row, index: int, kata_id: str = "") -> Step:
    """One step; who sent it is not told, since that is a matter of all rows."""
    return replace(_step(row, index, kata_id, {}), laptop=None)


def _step(row: Row, index: int, kata_id: str, laptops: dict[str, int]) -> Step:
    kind = _word(event_type(row, index))
    has_light = kind not in ("created", "outage") and not kind.startswith("file_")
    light = _word(row.get("colour")).removesuffix(_SPECIAL) if has_light else ""
    predicted = _word(row.get("predicted")) if has_light else ""
    laptop = row.get("laptop_id")
    nanoseconds = time_ns(row)
    return Step(
        index=index,
        type=kind,
        light=light,
        time=None if nanoseconds is None else moment_of_ns(nanoseconds),
        duration=_seconds(row.get("duration")),
        predicted=predicted if predicted not in ("", "none") else None,
        added=_count(row.get("diff_added_count")),
        deleted=_count(row.get("diff_deleted_count")),
        file_names=tuple(_word(row[key]) for key in _FILE_NAMES if isinstance(row.get(key), str)),
        origin=_origin(row, kata_id),
        laptop=laptops.setdefault(laptop, len(laptops) + 1) if isinstance(laptop, str) else None,
    )


def _word(value: Any) -> str:
    return brief(value) if isinstance(value, str) else ""


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e9 else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 10**9 else None


def _origin(row: Row, kata_id: str) -> str:
    """``revert`` is ``[id, index]``, ``checkout`` is ``{"id": …, "index": …}``."""
    revert, checkout = row.get("revert"), row.get("checkout")
    if isinstance(revert, list) and len(revert) == 2:
        where, index = revert
    elif isinstance(checkout, dict):
        where, index = checkout.get("id"), checkout.get("index")
    else:
        return ""
    number = str(index) if _count(index) is not None else _word(index)
    return number if where == kata_id else f"{_word(where)} {number}".strip()


# -- as a table


_TITLES = ("event", "light", "what", "time (UTC)", "took", "predicted", "+", "-", "laptop")
_TO_THE_RIGHT = ("event", "took", "+", "-", "laptop")


def table(steps: Sequence[Step]) -> list[list[str]]:
    """The cells of a table: the titles, then a row an event; a column with nothing in it is left out."""
    rows = [_cells(step) for step in steps]
    kept = [at for at in range(len(_TITLES)) if at < 4 or any(row[at] for row in rows)]
    return [[row[at] for at in kept] for row in [list(_TITLES), *rows]]


def _cells(step: Step) -> list[str]:
    return [
        str(step.index),
        step.light,
        step.headline,
        step.time.strftime("%Y-%m-%d %H:%M:%S") if step.time else "",
        "" if step.duration is None else f"{step.duration:.2f} s",
        step.prediction,
        "" if step.added is None else f"+{step.added}",
        "" if step.deleted is None else f"-{step.deleted}",
        "" if step.laptop is None else str(step.laptop),
    ]


def aligned(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells of `table`, padded to columns for type of one width; figures to the right."""
    to_the_right = [title in _TO_THE_RIGHT for title in cells[0]]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    return [
        [
            " " * (wide - width(cell)) + cell if right else cell + " " * (wide - width(cell))
            for cell, wide, right in zip(row, widths, to_the_right, strict=True)
        ]
        for row in cells
    ]


def history_text(steps: Sequence[Step]) -> bytes:
    """The table as plain text, UTF-8, a line an event after a line of titles."""
    return "".join("  ".join(row).rstrip() + "\n" for row in aligned(table(steps))).encode()


def width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# -- for other programs


Facts = dict[str, str | int | float | bool | None]

#: the names of what `facts` says, in its order
COLUMNS = (
    *("kata", "event", "type", "light", "time", "duration", "predicted", "right"),
    *("added", "deleted", "file", "old_file", "origin", "laptop"),
)
# what a spreadsheet takes for the beginning of a formula; those of double width where Chinese or Japanese is written
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def facts(step: Step, kata_id: str) -> Facts:
    """What is known of an event; None where nothing is said. ``time`` as ISO 8601 has it, in UTC with microseconds;
    ``duration`` in seconds; ``added`` and ``deleted`` in lines."""
    *old, file = step.file_names or (None,)
    values = (
        *(kata_id, step.index, step.type, step.light or None),
        step.time.isoformat(timespec="microseconds").replace("+00:00", "Z") if step.time else None,
        *(step.duration, step.predicted, step.is_right, step.added, step.deleted),
        *(file, old[0] if old else None, step.origin or None, step.laptop),
    )
    return dict(zip(COLUMNS, values, strict=True))


def csv_lines(records: Iterable[Iterable[object]]) -> str:
    """Lines of CSV (RFC 4180, but that they end as lines do); None is empty. A text that a spreadsheet would take for a
    formula, which a kata may hold, has an apostrophe in front."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in record] for record in records)
    return text.getvalue()


def csv_events(steps: Iterable[Step], kata_id: str, before: Mapping[str, object] | None = None) -> str:
    """The lines of some events, with the values of further columns in front."""
    return csv_lines([*(before or {}).values(), *facts(step, kata_id).values()] for step in steps)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
