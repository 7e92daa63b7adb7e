"""The act that a plain-path service records with an event file and its row (FORMAT §1.1, §1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from katafs.errors import InvalidError
from katafs.kata.legacy.converting import EMPTY, plain_kind, what_is_absent, with_absent
from katafs.kata.legacy.plain_kata import OUTPUT_NAMES, PlainEvent
from katafs.kata.model.act import Act
from katafs.kata.model.rows import Row


@dataclass(frozen=True)
class _PlainAct(Act):
    """An act that a plain event file tells of; ``absent`` is what that file does not have."""

    absent: Sequence[str] = ()

    def subject(self, index: int) -> str:
        return with_absent(super().subject(index) if "colour" in self.summary else f"{index} ran tests", self.absent)


def plain_act(event: PlainEvent, row: Row) -> Act:
    """The act that an event and its row tell of. Raises `InvalidError`."""
    if "colour" in row and not isinstance(row["colour"], str):
        raise InvalidError(f"the row of event {event.index} has no colour that is text")
    stdout, stderr = (event.outputs.get(name, EMPTY) for name in OUTPUT_NAMES)
    act = _PlainAct(
        plain_kind(row, event.index),
        row,
        event.files,
        replace(stdout, truncated=stdout.truncated is True),
        replace(stderr, truncated=stderr.truncated is True),
        event.status or "0",
        event.index,
        absent=what_is_absent(event),
    )
    try:
        act.subject(event.index)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"the row of event {event.index} does not say what was reverted to") from error
    return act
