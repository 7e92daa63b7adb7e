"""Messages that are nearly right, by the hundred thousand: good ones whose structure and whose bytes were spoilt."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from tests.model.algebra import EDITS, LIGHTS, Json

KINDS = (*LIGHTS, *EDITS)
_KEYS = {"index", "files", "laptop_id", "tab_seq"}
KNOWN = {kind: _KEYS | {"stdout", "stderr", "status", "summary"} for kind in LIGHTS}
KNOWN |= {kind: _KEYS | {"filename"} for kind in EDITS}
KNOWN["file_rename"] = _KEYS | {"old_filename", "new_filename"}

_TEXT = {"content": "one\ntwo é ☃\n", "truncated": False}
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 1001, 2**63, -(2**64), 10**60, 0.0, 1.5, 1e308, "", "x", "0", "red", "\0", "é"),
    *("\ud800", "../x", "a/../b", ".git/config", "/etc/passwd", "a" * 300, "a/" * 900, "\u202e\u200b.git", "file_edit"),
    *([], {}, [[]], [None], {"": ""}, {"content": ""}, {"content": "x", "truncated": 1}, ["AbCdEf", 0], {"id": 1}),
    *({"a": {"content": ""}, "a/b": {"content": ""}}, {"colour": "red"}, {"colour": "red\n\n"}, "a" * 64, "F" * 64),
)
_KEY_NAMES = (
    *sorted(_KEYS),
    "stdout",
    "status",
    "summary",
    "colour",
    "event",
    "type",
    "filename",
    "content",
    "",
    "é\0",
)
_PIECES = (
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\\u", b"NaN", b"-Infinity", b"1e999"),
    *(b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b"//", b"/**/", b"'", b"0x1", b"+1"),
    *(b"01", b"9" * 5000, b"[" * 3000, b'{"a":' * 2000, b'"index":1,', b'"files":{},', b"\xe2\x80\xa8", b" " * 100),
)


def good(rnd: random.Random, kind: str) -> Json:
    """A message that says something."""
    files = {rnd.choice(("hiker.py", "a/b", "new.txt", "é x")): dict(_TEXT) for _ in range(rnd.randrange(3))}
    made: Json = {"files": {**files, "keep.txt": {"content": str(rnd.random())}}}
    if kind in LIGHTS:
        summary: Json = {
            "colour": rnd.choice(("red", "amber")),
            "duration": 1.5,
            "predicted": "red",
            "revert": ["AbCdEf", 1],
        }
        summary["checkout"] = {"id": "AbCdEf", "index": 1, "avatarIndex": ""}
        made |= {"stdout": dict(_TEXT), "stderr": dict(_TEXT), "status": "1", "summary": summary}
    elif kind == "file_rename":
        made |= {"old_filename": "keep.txt", "new_filename": "moved.txt"}
    else:
        made["filename"] = "new.txt" if kind == "file_create" else "keep.txt"
    if rnd.random() < 0.5:
        made |= {"laptop_id": "0123456789abcdef" * 4, "tab_seq": rnd.randrange(50)}
    return made


def spoil_structure(rnd: random.Random, message: Json) -> None:
    """Change, remove, add or rename something somewhere."""
    place: Any = message
    while True:
        values = list(place.values() if isinstance(place, dict) else place)
        inner = [value for value in values if value and isinstance(value, (dict, list))]
        if not inner or rnd.random() < 0.4:
            break
        place = rnd.choice(inner)
    value = copy.deepcopy(rnd.choice(_VALUES))
    if isinstance(place, list):
        place.insert(rnd.randrange(len(place) + 1), value)
        return
    key = rnd.choice(list(place)) if place else ""
    how = rnd.randrange(5)
    if how == 0:
        place.pop(key, None)
    elif how == 1:
        place[rnd.choice(_KEY_NAMES)] = value
    elif how == 2 and key in place:
        place[str(rnd.choice(_KEY_NAMES))] = place.pop(key)
    elif how == 3:
        for _ in range(rnd.choice((3, 70, 400))):
            value = [value] if rnd.random() < 0.5 else {"a": value}
        place[key] = value
    else:
        place[key] = value


def spoil_bytes(rnd: random.Random, data: bytes) -> bytes:
    """Flip, cut, double or put in a few bytes."""
    at, length = rnd.randrange(len(data) + 1), rnd.choice((1, 1, 2, 5, 40))
    how = rnd.randrange(6)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + data[at + length :]
    if how == 2:
        return data[:at] + data[at : at + length] + data[at:]
    if how == 3:
        return data[:at] + bytes([rnd.randrange(256)]) + data[at + 1 :]
    if how == 4:
        return data + rnd.choice(_PIECES) + data[at:]
    return data[:at] + rnd.choice(_PIECES) + data[at:]


def messages(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many messages, each with the kind whose control file it is for; the same ones for the same seed."""
    rnd = random.Random(seed)
    for _ in range(count):
        kind = rnd.choice(KINDS)
        message = good(rnd, kind)
        for _ in range(rnd.choice((0, 0, 1, 1, 2, 4))):
            spoil_structure(rnd, message)
        data = json.dumps(message, ensure_ascii=rnd.random() < 0.5).encode("utf-8", "surrogatepass")
        for _ in range(rnd.choice((0, 0, 1, 1, 3))):
            data = spoil_bytes(rnd, data)
        yield kind, data


def is_plausible(kind: str, data: bytes) -> bool:
    """Whether a message may have been accepted, as far as plain JSON and the list of keys can tell."""
    try:
        message = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(message, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    if not isinstance(message, dict) or not message.keys() <= KNOWN[kind]:
        return False
    colour = message["summary"].get("colour") if isinstance(message.get("summary"), dict) else None
    return kind in EDITS or (isinstance(colour, str) and bool(colour) and "\n" not in colour)


def is_unfinished(data: bytes) -> bool:
    """Whether an object begins and does not end: brackets and quotes, nothing else, tell where one ends."""
    data = data.lstrip(b" \t\r\n")
    depth, quoted, position = 0, False, 0
    while position < len(data):
        character = data[position : position + 1]
        if quoted and character == b"\\":
            position += 1
        elif character == b'"':
            quoted = not quoted
        elif not quoted and character in b"{[":
            depth += 1
        elif not quoted and character in b"}]":
            depth -= 1
        if depth <= 0:
            return False
        position += 1
    return True


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("the same key twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(name)
