"""What a check finds (`Problem`), and what is told of it (`Finding`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

# what is told is one line, and obeyed by no terminal, whatever a kata calls its files
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Outcome(Enum):
    """What became of a finding."""

    NOTE = "note"  # nothing is wrong, but an operator may want to know
    FOUND = "found"  # can be mended, and was not to be
    MENDED = "mended"
    LEFT = "left"  # katafs cannot mend it; there is advice


@dataclass(frozen=True)
class Problem:
    """Something that a check found: one sentence without its full stop."""

    code: str
    message: str
    #: mends it; raises KataError or OSError. None: katafs cannot, or it is a note
    mend: Callable[[], object] | None = None
    #: what to do about it by hand
    advice: str = ""
    is_note: bool = False
    #: its mend needs root's powers, and must be safe with them in a directory of somebody else
    needs_root: bool = False
    #: a writer that is at work looks the same: believed when it is there twice, with the same indexes
    is_passing: bool = False
    #: the indexes of events that it is about, where two looks are compared
    indexes: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Finding:
    """What is told of a problem of one kata."""

    kata_id: str  # of something that is not a kata: its name in the store
    code: str
    message: str
    state: Outcome
    advice: str = ""


def printable(text: str | bytes, limit: int = 120) -> str:
    """Text of a kata as it can be shown in a line."""
    shown = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    cut = shown if len(shown) <= limit else shown[:limit] + "…"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), cut)


def ranges(indexes: Iterable[int]) -> str:
    """Indexes for a person: ``3, 5-9``; no more than ten ranges."""
    spans: list[tuple[int, int]] = []
    for index in sorted(set(indexes)):
        follows = bool(spans) and spans[-1][1] == index - 1
        spans.append((spans.pop()[0] if follows else index, index))
    shown = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in spans[:10])
    return shown + (", …" if len(spans) > 10 else "")


def events(indexes: Iterable[int]) -> str:
    """``event 3`` or ``events 3, 5-9``."""
    known = set(indexes)
    return f"event{'s' if len(known) != 1 else ''} {ranges(known)}"
