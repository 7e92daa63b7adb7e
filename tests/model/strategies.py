"""What clients send, as hypothesis chooses it: recipes, of which a message is made once the state of the kata is known.

Recipes are small and mean something in every state, so that a failing run becomes a short one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.model.algebra import EDITS, LIGHTS, Files, Json

NAMES = (
    *("hiker.py", "cyber-dojo.sh", "with space.txt", "grüße/日本.txt", "a", "a/b", "a/b/c.txt", "a.txt", "a-b", "Z"),
    *(".hidden/x", 'quote".txt', "back\\slash.txt", "new\nline", "report/coverage.txt", "-dash", "é", "z" * 200),
)
LINES = (
    "",
    "one",
    "two",
    "three",
    "  indented",
    "blank ",
    "tab\t",
    "größer ☃",
    "dos\r",
    "def f():",
    "    return 6 * 9",
)
LAPTOPS = ("0123456789abcdef" * 4, "f" * 64)
TAB_SEQS = (1, "1", 2, "2", 3, 4, 5, 6, 7, 8, 9, 10, 0, -1, "", "é")
COLOURS = ("red", "amber", "green", "timed_out", "faulty", "pulling", "red_special")
EXTRAS: tuple[Json, ...] = (
    {},
    {"duration": 1.25, "predicted": "none", "revert_if_wrong": "on"},
    {"duration": 1e-05, "time": "then", "deep": {"a": [], "b": {}, "é": [1, {"x": None}]}, "big": 1e20},
    {"predicted": "amber", "zero": -0.0, "text": 'quote " \\ / \x07 \x7f \u2028 ☃', "many": 12345678901234567890},
)
#: relative to the next index; the two ends of what a gap may be are rare, since they are slow
WHERE = (None, None, None, None, 0, 0, 0, -1, -2, 1, 2, 7)
FAR = (1000, 1001, -10_000)


class Recipe(NamedTuple):
    """What a message is made of. Numbers among the edits choose one of the files that there are."""

    kind: str
    edits: list[tuple[str, Any, Any]] | None
    names: tuple[int | str, str]
    outputs: Json
    colour: str
    extra: Json
    who: Json
    where: int | None

    def message(self, files: Files, following: int) -> Json:
        """The message, for a kata with these files whose next event is `following`."""
        made: Json = {}
        if self.where is not None:
            made["index"] = following + self.where
        if self.edits is not None:
            made["files"] = edited(files, self.edits)
        if self.kind in LIGHTS:
            made |= {"summary": self._summary(), **self.outputs}
        elif self.kind == "file_rename":
            made |= {"old_filename": chosen(files, self.names[0]), "new_filename": self.names[1]}
        elif self.kind != "file_edit" or self.names[0] != 0:
            made["filename"] = self.names[1] if self.kind == "file_create" else chosen(files, self.names[0])
        return made | self.who

    def _summary(self) -> Json:
        more: Json = {}
        if self.kind == "reverted":
            more = {"revert": ["AbCdEf", self.where or 0]} if (self.where or 0) >= 0 else {"revert": ["AbCdEf", "3"]}
        if self.kind == "checked_out":
            more = {"checkout": {"id": "AbCdEf", "index": 3, "avatarIndex": self.where or ""}}
        if self.kind.startswith("predicted"):
            more = {"predicted": "green"}
        return {"colour": self.colour, **self.extra, **more}


def chosen(files: Files, which: int | str) -> str:
    """A name, or the name of one of the files."""
    there = sorted(files.content)
    if isinstance(which, str) or not there:
        return str(which)
    return there[which % len(there)]


def edited(files: Files, edits: list[tuple[str, Any, Any]]) -> Json:
    """The ``files`` of a message: those of the kata, edited."""
    content = {name: data.decode() for name, data in files.content.items()}
    truncated = {name: {"truncated": True} for name, flag in files.truncated.items() if flag}
    for what, which, value in edits:
        name = chosen(Files(dict.fromkeys(content, b"")), which)
        if what == "put":
            content[name] = value
        elif what == "append":
            content[name] = content.get(name, "") + value
        elif what == "rename" and name in content:
            content[value] = content.pop(name)
        elif what == "delete":
            content.pop(name, None)
        elif what == "cut":
            truncated[name] = {"truncated": value}
    return {name: {"content": text, **truncated.get(name, {})} for name, text in content.items()}


def _with_key(path: str, value: Any) -> Callable[[Json], None]:
    def change(message: Json) -> None:
        *way, last = path.split(".")
        for key in way:
            message = message.setdefault(key, {})
        message[last] = value

    return change


#: each makes any message of any kind one that must be refused with EINVAL
FLAWS: dict[str, Callable[[Json], None]] = {
    "unknown key": _with_key("colour", "red"),
    "index is text": _with_key("index", "1"),
    "index is true": _with_key("index", True),
    "index is a fraction": _with_key("index", 1.0),
    "laptop_id is short": _with_key("laptop_id", "0123"),
    "laptop_id in capitals": _with_key("laptop_id", "A" * 64),
    "laptop_id and a newline": _with_key("laptop_id", "a" * 64 + "\n"),
    "tab_seq is an object": _with_key("tab_seq", {}),
    "tab_seq is true": _with_key("tab_seq", True),
    "files is an array": _with_key("files", []),
    "content is a number": _with_key("files", {"f": {"content": 1}}),
    "no content": _with_key("files", {"f": {"truncated": False}}),
    "truncated is text": _with_key("files", {"f": {"content": "", "truncated": "no"}}),
    "file above": _with_key("files", {"../f": {"content": ""}}),
    "file in .git": _with_key("files", {".git/f": {"content": ""}}),
    "file from the root": _with_key("files", {"/f": {"content": ""}}),
    "file without a name": _with_key("files", {"": {"content": ""}}),
    "file in nothing": _with_key("files", {"a//b": {"content": ""}}),
    "directory": _with_key("files", {"a/": {"content": ""}}),
    "NUL in a name": _with_key("files", {"a\0": {"content": ""}}),
    "file and directory": _with_key("files", {"d": {"content": ""}, "d-": {"content": ""}, "d/e": {"content": ""}}),
    "summary is text": _with_key("summary", "red"),
    "lone surrogate": _with_key("files", {"f": {"content": "\ud800"}}),
    "not a number": _with_key("files", {"f": {"content": float("nan")}}),
}

LINE = st.sampled_from(LINES)
CONTENT = st.builds(lambda lines, end: "\n".join(lines) + end, st.lists(LINE, max_size=8), st.sampled_from(("", "\n")))
CONTENTS = CONTENT | st.sampled_from(("", "\0binary\n", "\n\n\n", "x" * 3000))
NAME = st.sampled_from(NAMES)
EXISTING = st.integers(0, 5) | NAME
EDIT = st.one_of(
    st.tuples(st.just("put"), EXISTING, CONTENTS),
    st.tuples(st.just("append"), EXISTING, LINE),
    st.tuples(st.just("rename"), EXISTING, NAME),
    st.tuples(st.just("delete"), EXISTING, st.none()),
    st.tuples(st.just("cut"), EXISTING, st.booleans()),
)
TEXT = st.builds(
    lambda content, flag: {"content": content} if flag is None else {"content": content, "truncated": flag},
    CONTENTS,
    st.sampled_from((None, True, False)),
)
OUTPUTS = st.fixed_dictionaries(
    {}, optional={"stdout": TEXT, "stderr": TEXT, "status": st.sampled_from(("0", "1", 0, 2, "145", -1))}
)
WHO = st.fixed_dictionaries(
    {}, optional={"laptop_id": st.sampled_from((*LAPTOPS, None)), "tab_seq": st.sampled_from((*TAB_SEQS, None))}
)
PLACES = st.integers(0, 199).map(lambda number: FAR[number % 3] if number > 196 else WHERE[number % len(WHERE)])
RECIPES = st.builds(
    Recipe,
    kind=st.sampled_from(("ran_tests", *LIGHTS, *EDITS)),
    edits=st.none() | st.lists(EDIT, max_size=4),
    names=st.tuples(EXISTING, NAME),
    outputs=OUTPUTS,
    colour=st.sampled_from(COLOURS),
    extra=st.sampled_from(EXTRAS),
    who=WHO,
    where=PLACES,
)


def encoded(message: Json, *, ascii_only: bool) -> bytes:
    """A message as bytes."""
    return json.dumps(message, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
