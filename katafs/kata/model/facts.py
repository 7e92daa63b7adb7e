"""The events of katas for other programs: a flat record an event, and records as lines of CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from katafs.kata.model.steps import Step

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
