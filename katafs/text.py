"""JSON as katafs writes it: pretty, two spaces, non-ASCII as it is; strict when it reads what a client sent.

What is written is what every parser takes, whatever was stored: null for numbers that are none or beyond a double, and
for what is nested more deeply than Ruby's JSON takes; U+FFFD for lone surrogates.

`ruby=True` gives the bytes that cyber-dojo's saver writes (Ruby's ``JSON.pretty_generate``): the same but for floats
(``1.0e-05`` where Python prints ``1e-05``) and for the final newline, which is never added.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from json.encoder import encode_basestring
from typing import Any

from katafs.errors import InvalidError

# Ruby's JSON, with which cyber-dojo's saver must read and write the rows, allows 100 levels.
_MAX_DEPTH, _RUBY_DEPTH = 64, 100
# 2^1024 is no double; an integer of more digits than Python takes is cut to some that are too many
_MOST_BITS, _MANY_DIGITS = 1023, 400
_SHORT = 10**15
_SURROGATE = re.compile("[\ud800-\udfff]")


class Printed(str):
    """What `pretty` takes as it is: JSON of what there is much of, printed where it is made."""

    __slots__ = ()


def pretty(value: Any, *, ruby: bool = False, indent: str = "") -> str:
    """``value`` as pretty JSON, without a newline at the end; `indent` stands before every line but the first."""
    if type(value) is Printed:
        return value
    if isinstance(value, str):
        return encode_basestring(value if value.isascii() else _SURROGATE.sub("\ufffd", value))
    # what json.dumps says of most others, sooner
    if type(value) is int and -_SHORT < value < _SHORT:
        return str(value)
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is float and not ruby and math.isfinite(value):
        return repr(value)
    deeper = indent + "  "
    if isinstance(value, (dict, list, tuple)) and len(indent) >= 2 * _RUBY_DEPTH:
        return "null"
    if isinstance(value, dict) and value:
        items = []
        for key, item in value.items():
            # most are plain, and a call takes three times as long
            name = encode_basestring(key) if type(key) is str and key.isascii() else pretty(str(key))
            is_plain = type(item) is str and item.isascii()
            text = encode_basestring(item) if is_plain else pretty(item, ruby=ruby, indent=deeper)
            items.append(f"{deeper}{name}: {text}")
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and value:
        elements = [deeper + pretty(item, ruby=ruby, indent=deeper) for item in value]
        return "[\n" + ",\n".join(elements) + f"\n{indent}]"
    if not _is_portable_number(value):
        return "null"
    if isinstance(value, float) and ruby:
        return re.sub(r"^(-?\d)e", r"\1.0e", repr(value))
    return json.dumps(value)


def compact(value: Any) -> str:
    """``value`` as JSON without blanks, as Ruby's ``to_json`` writes it."""
    dumps = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
    try:
        text = dumps(value)
        if is_portable_json(text.encode("utf-8", "surrogatepass")):
            return text
    except RecursionError:
        pass  # it is cut off below
    return dumps(json.loads(pretty(value)))


def is_portable_json(data: bytes, pay: Callable[[Any], object] = lambda _: None) -> bool:
    """Whether JSON as it was stored is such as every parser takes; ``pay`` is called with its value before all that is
    in it is looked at, where the bytes do not tell. Raises ValueError, RecursionError."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    folded = data.translate(_FOLDED, b"+")
    # few levels for sure; brackets in strings may hide it
    brackets = data.translate(None, _NOT_BRACKETS)
    for _ in range(_SHALLOW):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    is_plain = not brackets and not any(odd in folded for odd in _ODD)
    if is_plain:
        return True
    value = parse_stored(text)
    pay(value)
    return is_portable(value)


# what a number of no use, or a lone surrogate, has in it, once digits, signs and two letters are folded
_FOLDED = bytes.maketrans(b"123456789ED", b"000000000ed")
_ODD = (b"NaN", b"Infinity", b"\\ud", b"e000", b"0" * 300)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_SHALLOW = 8


def is_portable(value: Any, levels: int = _RUBY_DEPTH) -> bool:
    """Whether a JSON value can be written as it is: `pretty` changes nothing in it."""
    if isinstance(value, str):
        return _SURROGATE.search(value) is None
    if isinstance(value, dict):
        return levels > 0 and is_portable([*value, *value.values()], levels)
    if isinstance(value, list):
        return levels > 0 and all(is_portable(item, levels - 1) for item in value)
    return _is_portable_number(value)


def _is_portable_number(value: Any) -> bool:
    """Whether a number is one, and a double has room for it; anything but a number does."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or value.bit_length() <= _MOST_BITS


def pretty_bytes(value: Any) -> bytes:
    """``value`` as the bytes of a text file: pretty JSON, UTF-8, one newline at the end."""
    return pretty(value).encode() + b"\n"


def decode(data: bytes) -> str:
    """Text of a kata's file or output; bytes that are not UTF-8 become U+FFFD."""
    return data.decode("utf-8", errors="replace")


def parse_stored(text: str) -> Any:
    """The JSON value in a text that anybody may have stored.

    NaN, infinities and numbers that become one are read, and written as null. Raises ValueError, RecursionError.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # an integer of more digits than Python takes
        return json.loads(text, parse_int=lambda digits: int(digits[:_MANY_DIGITS]))


def parse_strict(data: bytes) -> Any:
    """The JSON value in ``data``, as a client must write it. Raises `InvalidError` (EINVAL) for anything that is not
    UTF-8 or not JSON, for a byte order mark, duplicate keys, NaN and infinities, numbers out of range, lone surrogates,
    and more than 64 levels."""
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_short_int
        )
    except InvalidError:
        raise
    except RecursionError as error:
        raise InvalidError("the message is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise InvalidError(f"the message is not UTF-8 (byte {error.start})") from error
    except ValueError as error:
        raise InvalidError(f"the message is not JSON: {error}") from error
    if not is_portable(value, _MAX_DEPTH):
        # an escape such as \ud800 alone is no character
        raise InvalidError("the message is nested too deeply, or has a lone surrogate in a string")
    return value


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InvalidError(f"duplicate key {json.dumps(key)} in the message")
        result[key] = value
    return result


def _refuse_constant(name: str) -> Any:
    raise InvalidError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidError(f"the number {text[:40]} is out of range")
    return value


def _short_int(text: str) -> int:
    if len(text) > 40:
        raise InvalidError("an integer in the message is out of range")
    return int(text)


def visible(text: str, kept: str = "\t\n") -> str:
    """Text of a kata for a person's eyes: what a terminal or a browser would obey is shown as a sign instead.

    Control characters become their pictures (U+2400…), those that change the direction of text or take no room their
    code in angle brackets; lone surrogates U+FFFD. The characters in ``kept`` stay.
    """
    return _unseen(kept).sub(lambda match: _sign(match[0]), text)


def brief(text: str, most: int = 200) -> str:
    """The same in one line, of so many characters at most."""
    return visible(text if len(text) <= most else text[:most] + "…", kept="")


def visible_on_terminal(text: str) -> str:
    """The same for several lines that we have coloured ourselves: sequences that only set colours stay, too."""
    parts = _COLOUR_SEQUENCE.split(text)
    return "".join(part if at % 2 else visible(part) for at, part in enumerate(parts))


def without_colours(text: str) -> str:
    """Text of a terminal without the escape sequences that only set colours."""
    return _COLOUR_SEQUENCE.sub("", text)


def span(seconds: float) -> str:
    """A length of time in one or two units."""
    whole = max(round(seconds), 0)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return chr(0x2421 if code == 0x7F else 0x2400 + code)
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"


@cache
def _unseen(kept: str) -> re.Pattern[str]:
    """C0, DEL and C1; soft hyphen, marks and overrides of direction, zero width, line separators, byte order mark,
    tags; without those that are kept, each of which would cost a call."""
    controls = "".join(chr(code) for code in range(0x20) if chr(code) not in kept)
    return re.compile(
        f"[{controls}\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
        "\U000e0000-\U000e007f]"
    )


_COLOUR_SEQUENCE = re.compile("(\x1b\\[[0-9;]{0,32}m)")
