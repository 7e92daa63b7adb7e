"""JSON as the two layouts have it, by the standard library and a page of FORMAT.md."""

from __future__ import annotations

import json
import re
from typing import Any

# A private character: no text in these tests has it.
_MARK = "\ue000"


def native_json(value: Any) -> bytes:
    """Two spaces, text as it is, one newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def compact(value: Any) -> str:
    """On one line, without a blank."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def saver_json(value: Any) -> bytes:
    """What Ruby's ``JSON.pretty_generate`` gives: ``1.0e-05`` where Python has ``1e-05``, and no newline at the end."""
    text = json.dumps(_marked(value), indent=2, ensure_ascii=False)
    return re.sub(f'"{_MARK}([^"]*)"', r"\1", text).encode()


def _marked(value: Any) -> Any:
    """Floats as marked text: the standard library lets nobody say how it writes them."""
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    if isinstance(value, float):
        return _MARK + re.sub(r"^(-?\d)e", r"\1.0e", repr(value))
    return value
