"""The act that a plain-path service records with an event file and its row (FORMAT §1.1, §1.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from katafs.errors import InvalidError
from katafs.kata.act import Act, Text
from katafs.kata.events import Row, event_type
from katafs.kata.kinds import Kind
from katafs.kata.legacy.converting import ABSENT
from katafs.kata.legacy.plain_kata import OUTPUT_NAMES, PlainEvent, PlainText


@dataclass(frozen=True)
class _PlainAct(Act):
    """An act that a plain event file tells of; ``absent`` is what that file does not have."""

    absent: tuple[str, ...] = field(default=())

    def subject(self, index: int) -> str:
        subject = super().subject(index) if "colour" in self.summary else f"{index} ran tests"
        return f"{subject}\n\n{ABSENT} {' '.join(self.absent)}" if self.absent else subject


def plain_act(event: PlainEvent, row: Row) -> Act:
    """The act that an event and its row tell of. Raises `InvalidError`."""
    if "colour" in row and not isinstance(row["colour"], str):
        raise InvalidError(f"the row of event {event.index} has no colour that is text")
    kinds = {"reverted": Kind.REVERTED, "checked_out": Kind.CHECKED_OUT}
    kind = kinds.get(event_type(row, event.index), Kind.RAN_TESTS)
    if kind is Kind.RAN_TESTS and row.get("predicted") not in (None, "none"):
        kind = Kind.PREDICTED_RIGHT
    absent = ["status"] if event.status is None else []
    for name in OUTPUT_NAMES:
        if name not in event.outputs:
            absent.append(name)
        elif event.outputs[name].truncated is None:
            absent.append(f"{name}.truncated")
    texts = {name: event.outputs.get(name, PlainText(b"")) for name in OUTPUT_NAMES}
    outputs = {name: Text(text.content, text.truncated is True) for name, text in texts.items()}
    # a file of which nothing was said gets no flag
    files = {path: Text(text.content, cast(bool, text.truncated)) for path, text in event.files.items()}
    act = _PlainAct(
        kind, row, files, outputs["stdout"], outputs["stderr"], event.status or "0", event.index, absent=tuple(absent)
    )
    try:
        act.subject(event.index)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"the row of event {event.index} does not say what was reverted to") from error
    return act
