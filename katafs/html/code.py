"""Contents of files as lines of HTML: highlighted by language, every character escaped by the template library."""

from __future__ import annotations

import os.path
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache

from markupsafe import Markup, escape
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.token import Comment, Keyword, Literal, Name, _TokenType
from pygments.util import ClassNotFound

from katafs.caching import Shared
from katafs.text import decode, visible

# Larger files, and those with longer lines, are shown plain: an hour's work on a page helps nobody.
MAX_HIGHLIGHTED = 128 << 10  # bytes
_LONGEST_HIGHLIGHTED = 2_000  # characters of a line
_LONGEST_LINE = 4_000  # characters; the rest is counted
_MOST_PAIRS = 400  # lines of a change that went times those that came: each of some with each is compared
_KEPT, _PIECE = 8 << 20, 80  # bytes of lines that are kept, in memory, and of a piece of one beside its text

# What katas are written in most often. Pygments loads a language when it is first met, and compiles what it looks for.
_USUAL = b"py rb java js ts c cpp cs go rs hs kt php sh clj ex fs pl html css json xml yml feature scala".split()

# a piece of a line: its CSS class, its text
Piece = tuple[str, str]
Line = list[Piece]

_CLASSES: list[tuple[_TokenType, str]] = [
    (Comment, "c"),
    (Keyword, "k"),
    (Literal.String, "s"),
    (Literal.Number, "m"),
    (Name.Function, "f"),
    (Name.Class, "f"),
    (Name.Decorator, "f"),
    (Name.Builtin, "b"),
    (Name.Tag, "k"),
    (Name.Attribute, "f"),
]


# lines of contents, for a while, by the language: an unchanged file is on many pages
_known_lines: Shared[tuple[str, bytes], list[Line]] = Shared(
    _KEPT, lambda lines: sum(2 * len(text) + _PIECE for line in lines for _, text in line) + _PIECE, shares=8
)


def load_languages() -> Iterator[None]:
    """Load those that will be wanted, one after the other."""
    for suffix in _USUAL:
        if (lexer := _lexer(b"x." + suffix)) is not None:
            list(lexer.get_tokens("x"))
        yield


def highlighted(name: bytes, data: bytes, *, highlight: bool) -> list[Line]:
    """The lines of a content, without their newlines; the name decides the language. Belongs to one thread."""
    text = decode(data)
    plain: list[Line] = [[("", line)] for line in text.split("\n")]
    if text.endswith("\n") or not text:
        plain.pop()
    lexer = _lexer(name) if highlight and len(data) <= MAX_HIGHLIGHTED else None
    if lexer is None or any(len(line[0][1]) > _LONGEST_HIGHLIGHTED for line in plain):
        return plain
    key = (lexer.name, data)
    lines = _known_lines.get(key)
    if lines is None:
        lines = _split(lexer.get_tokens(text))[: len(plain)]
        # a lexer that loses something is not believed
        if [_text(line) for line in lines] != [line[0][1] for line in plain]:
            lines = plain
        _known_lines.keep(key, lines)
    return lines


def _lexer(name: bytes) -> Lexer | None:
    base = os.path.basename(decode(name))
    known = {"makefile": "Makefile", "gemfile": "x.rb", "cyber-dojo.sh": "x.sh"}.get(base.lower(), base)
    if known.endswith((".txt", ".md", ".log")):
        return None
    return _lexer_of(known)


@lru_cache(256)
def _lexer_of(name: str) -> Lexer | None:
    try:
        lexer: Lexer = get_lexer_for_filename(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
    return lexer


def _split(tokens: Iterable[tuple[_TokenType, str]]) -> list[Line]:
    lines: list[Line] = [[]]
    for kind, value in tokens:
        css = _css(kind)
        if "\n" not in value:
            if value:
                lines[-1].append((css, value))
            continue
        first, *more = value.split("\n")
        if first:
            lines[-1].append((css, first))
        lines.extend([(css, part)] if part else [] for part in more)
    return lines


@cache
def _css(kind: _TokenType) -> str:
    return next((name for token, name in _CLASSES if kind[: len(token)] == token), "")


def _text(line: Line) -> str:
    return "".join([text for _, text in line])


def line_html(line: Line, marked: tuple[int, int] | None = None) -> Markup:
    """One line; the characters from ``marked[0]`` to ``marked[1]`` are marked."""
    parts: list[tuple[str, str, bool]] = []
    at = 0
    for css, text in line:
        left = _LONGEST_LINE - at
        shown = text if len(text) <= left else text[: max(left, 0)]
        if marked is None:
            parts.append((css, shown, False))
        else:
            parts += ((css, piece, is_marked) for piece, is_marked in _cut(shown, at, marked))
        at += len(text)
    # at once, as no piece has a newline
    escaped = str(escape(visible("\n".join([text for _, text, _ in parts]), kept="\t\n"))).split("\n")
    html = ""
    for (css, _, is_marked), text in zip(parts, escaped, strict=False):
        piece = f'<span class="{css}">{text}</span>' if css else text
        html += f"<mark>{piece}</mark>" if is_marked else piece
    if at > _LONGEST_LINE:
        html += f'<span class="note">… {at - _LONGEST_LINE:,} more characters</span>'
    return Markup(html)  # noqa: S704 - all text in it was escaped above


def _cut(text: str, at: int, marked: tuple[int, int]) -> Iterable[tuple[str, bool]]:
    start, end = (min(max(place - at, 0), len(text)) for place in marked)
    pieces = ((text[:start], False), (text[start:end], True), (text[end:], False))
    return ((piece, is_marked) for piece, is_marked in pieces if piece)


# Where two lines differ, in characters of each
Marks = tuple[tuple[int, int], tuple[int, int]]


def pairs(old: list[Line], new: list[Line]) -> list[tuple[int, int, Marks]]:
    """Which lines became which, in order, and where the two differ: the choice that keeps most characters.

    In long texts lines are looked at one by one, and only where as many came as went.
    """
    before, after = [_text(line) for line in old], [_text(line) for line in new]
    if len(old) * len(new) > _MOST_PAIRS:
        lines = zip(before, after, strict=True) if len(old) == len(new) else ()
        return [(at, at, found) for at, (one, other) in enumerate(lines) if (found := _differing(one, other))]
    marks = {
        (at, to): found
        for at, one in enumerate(before)
        for to, other in enumerate(after)
        if (found := _differing(one, other))
    }
    # how many characters are kept at most from these two lines on
    kept: defaultdict[tuple[int, int], int] = defaultdict(int)
    gains = {(at, to): len(before[at]) + 1 - (end - start) for (at, to), ((start, end), _) in marks.items()}
    for at in reversed(range(len(old))):
        for to in reversed(range(len(new))):
            as_pair = kept[at + 1, to + 1] + gains.get((at, to), 0)
            kept[at, to] = max(as_pair, kept[at + 1, to], kept[at, to + 1])
    result, at, to = [], 0, 0
    while kept[at, to]:
        if (at, to) in marks and kept[at, to] == kept[at + 1, to + 1] + gains[at, to]:
            result.append((at, to, marks[at, to]))
            at, to = at + 1, to + 1
        elif kept[at, to] == kept[at + 1, to]:
            at += 1
        else:
            to += 1
    return result


def _differing(before: str, after: str) -> Marks | None:
    """Where two lines differ, in characters of each; None when they have little in common."""
    if len(before) + len(after) > 2 * _LONGEST_LINE:
        return None
    start = _alike(before, after)
    end = _alike(before[start:][::-1], after[start:][::-1])
    common = len(before[:start].strip()) + (len(before[-end:].strip()) if end else 0)
    shorter, longer = sorted((len(before.strip()), len(after.strip())))
    if common * 2 < shorter or common * 4 < longer:
        return None
    return (start, len(before) - end), (start, len(after) - end)


def _alike(one: str, other: str) -> int:
    """How many characters at their starts are the same."""
    same, most = 0, min(len(one), len(other))
    while same < most:
        middle = (same + most + 1) // 2
        same, most = (middle, most) if one[same:middle] == other[same:middle] else (same, middle - 1)
    return same
