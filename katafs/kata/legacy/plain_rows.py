"""``events.json`` of katas that are stored as plain files, and which row belongs to which event.

Both versions write one object after another: version 0 a line each, version 1 joined by ``,\\n`` (FORMAT §1.1, §1.2).
Hand-made ones have stray newlines and are pretty-printed.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Never

import cachetools

from katafs.errors import DamagedError, InvalidError
from katafs.kata.model.rows import Row, time_ns

_WORD = re.compile(r"[-+.\w]*")
_BETWEEN = re.compile(r"[\s,\[\]]*")
# the time of a file and that of its row are some milliseconds apart, unless the file was copied
_SAME_MOMENT_NS = 60 * 1_000_000_000
# bytes of a row, and of all that are not whole; these for so many seconds
_LONGEST_ROW, _MOST_BYTES, _SECONDS = 1 << 20, 64 << 20, 10


def _refuse(text: str) -> Never:
    raise ValueError(f"{text[:40]} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in a plain file, which a sentence calls ``what``. Raises `DamagedError`."""
    try:
        value = _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{what} is not a JSON object")
    return value


def parse_plain_rows(data: bytes) -> tuple[list[Row], str]:
    """The rows in the order in which they were written, and what is wrong with what follows them, or nothing. A row
    that is being written, or was when the machine stopped, is cut short, and is the last one."""
    rows: list[Row] = []
    try:
        text = data.decode()
        at = _next_row(text, 0)
        while at < len(text):
            row, at = _DECODER.raw_decode(text, at)
            if not isinstance(row, dict):
                return rows, f"row {len(rows)} of events.json is not an object"
            rows.append(row)
            at = _next_row(text, at)
    except (ValueError, RecursionError) as error:
        return rows, f"row {len(rows)} of events.json is not JSON: {error}"
    return rows, ""


def begins_row(data: bytes) -> bool:
    """Whether what was appended could be a row, or its beginning, by how it begins."""
    return data.lstrip(b", \t\r\n")[:1] in (b"{", b"")


def is_part_of_row(data: bytes) -> bool:
    """Whether what was appended, or a file so far, is the beginning of a row, or object, and its end is still to come:
    the kernel cuts a write at the end of a page. What is no JSON whatever comes after it is no part of a row."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
        _DECODER.raw_decode(text, _next_row(text, 0))
    except json.JSONDecodeError as error:
        # there the decoder stopped: at the end, or in a string, word or number that goes on
        return error.msg.startswith("Unterminated string") or _WORD.fullmatch(error.doc, error.pos) is not None
    except (ValueError, RecursionError):
        return False
    return False


class RowPieces:
    """Rows that are appended in pieces: the kernel cuts a write at the end of a page, and its parts come one after
    another from one writer, who is told of the whole."""

    def __init__(self) -> None:
        # where the next piece is expected, and what was before it
        self._begun: cachetools.TTLCache[Hashable, tuple[int, bytes]] = cachetools.TTLCache(
            _MOST_BYTES, _SECONDS, getsizeof=lambda begun: 1024 + len(begun[1])
        )

    def is_begun(self, writer: Hashable) -> bool:
        return writer in self._begun

    def feed(self, writer: Hashable, offset: int, data: bytes) -> bytes | None:
        """The row that a write completes, or None. Raises `InvalidError` for one that begins in mid-row: who was told
        of an error sends the rest once more."""
        expected, begun = self._begun.pop(writer, (offset, b""))
        end = offset + len(data)
        data = begun + data if expected == offset else data
        if not begins_row(data):
            raise InvalidError("what is appended begins in the middle of a row")
        if len(data) > _LONGEST_ROW or not is_part_of_row(data):
            return data
        self._begun[writer] = (end, data)
        return None


def _next_row(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


#: the row of each event, by index; and sentences about rows that are no event's
Pairing = tuple[dict[int, Row], list[str]]


def pair_version_1(rows: Sequence[Row], events: Mapping[int, int]) -> Pairing:
    """Rows know their index in version 1: with gaps, in any order; one that is there twice is one row. ``events`` are
    the indexes of the event files."""
    paired: dict[int, Row] = {}
    problems = []
    for position, row in enumerate(rows):
        index = _index_of(row, position)
        if index not in events:
            problems.append(f"there is a row for event {index}, but no file {index}.event.json")
        elif paired.setdefault(index, row) != row:
            problems.append(f"there are two different rows for event {index}")
    return paired, problems


def _index_of(row: Row, position: int) -> int:
    index = row.get("index", position)
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        return int(index)
    return index if type(index) is int else -1


def pair_version_0(rows: Sequence[Row], events: Mapping[int, int]) -> Pairing:
    """Rows of version 0 have no index: the k-th row is that of the k-th event that was written. ``events`` are the
    indexes of the event directories, with the time of each one's file in ns. Where those times go with the times of the
    rows, they tell the order; else it was ascending."""
    order = sorted(events)
    by_time = sorted(order, key=lambda index: (events[index], index))
    times = [events[index] for index in by_time]
    if by_time != order and len(rows) == len(order) and all(map(_is_near, rows, times)):
        order = by_time
    too_many = [f"events.json has {len(rows)} rows, but there are only {len(order)} events"]
    return dict(zip(order, rows, strict=False)), too_many if len(rows) > len(order) else []


def _is_near(row: Row, time: int) -> bool:
    when = time_ns(row)
    return when is not None and abs(when - time) < _SAME_MOMENT_NS
