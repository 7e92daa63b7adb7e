"""How what is found in a kata is told in a line."""

from __future__ import annotations

from collections.abc import Iterable

from katafs.errors import why
from katafs.text import brief


def printable(text: str | bytes, limit: int = 120) -> str:
    """Text of a kata as it can be shown in a line."""
    return brief(text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text, limit)


def several(names: Iterable[str | bytes]) -> str:
    """Some names, each once and in order, the first five of them."""
    ordered = sorted(set(names))
    return ", ".join(map(printable, ordered[:5])) + (" …" if len(ordered) > 5 else "")


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


def reason(error: Exception) -> str:
    """Why something failed, without the path of the repository in front of it."""
    text = why(error)
    return printable(text.partition("/.git: ")[2] or text, 300)
