"""Control messages: the JSON object that a client writes to ``ran_tests``, checked into a value (INTERFACE §4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from katafs.errors import InvalidError
from katafs.git import is_component
from katafs.kata.listing import MAX_DEPTH, MAX_PATHS
from katafs.kata.names import is_git_name
from katafs.text import parse_strict

_OWN_SUMMARY_KEYS = ("index", "event", "type", "laptop_id", "tab_seq", "diff_added_count", "diff_deleted_count")
_TEST_COLOUR = re.compile(r"[a-z]+(_[a-z]+)*")
_NOT_TEST_COLOURS = ("create", "created", "outage", "file_create", "file_delete", "file_rename", "file_edit")
_STATUS = re.compile(r"-?[0-9]{1,10}")
_LAPTOP_ID = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 1024


@dataclass(frozen=True, slots=True)
class Text:
    """A file or an output, as bytes, and whether the runner cut it short."""

    content: bytes
    truncated: bool = False


@dataclass(frozen=True)
class RanTests:
    """A test run. ``files`` is the complete new set, by path; None leaves the files as they are."""

    summary: Mapping[str, Any]
    files: Mapping[bytes, Text] | None = None
    stdout: Text = Text(b"")
    stderr: Text = Text(b"")
    status: str = "0"
    index: int | None = None
    laptop_id: str | None = None
    # what the row gets: empty when the message had no tab_seq, which may also be null
    tab_seq: Mapping[str, int | str | None] = field(default_factory=dict)

    @property
    def colour(self) -> str:
        return str(self.summary["colour"])

    def subject(self, index: int) -> str:
        """The subject of the commit (FORMAT: commit subjects)."""
        return f"{index} ran tests, no prediction, got {self.colour}"


def parse_ran_tests(data: bytes) -> RanTests:
    """The message in ``data``. Raises `InvalidError` (EINVAL) that says what is wrong."""
    message = parse_strict(data)
    if not isinstance(message, dict):
        raise InvalidError("the message is not a JSON object")
    unknown = set(message) - set(_FIELDS)
    if unknown:
        raise InvalidError(f"unknown key {min(unknown)!r} in the message")
    if "summary" not in message:
        raise InvalidError("the message has no summary")
    fields = {name: _FIELDS[name](value) for name, value in message.items()}
    return RanTests(**fields)


def _parse_summary(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidError("summary is not an object")
    for key in _OWN_SUMMARY_KEYS:
        if key in value:
            raise InvalidError(f"summary may not hold {key!r}")
    colour = value.get("colour")
    if not isinstance(colour, str) or len(colour) > 40 or not _TEST_COLOUR.fullmatch(colour):
        raise InvalidError("summary.colour is not the colour of a traffic light")
    if colour in _NOT_TEST_COLOURS:
        raise InvalidError(f"summary.colour {colour!r} is not the colour of a test run")
    return value


def _parse_text(name: str) -> Callable[[Any], Text]:
    def parse(value: Any) -> Text:
        if not isinstance(value, dict) or set(value) - {"content", "truncated"}:
            raise InvalidError(f'{name} is not {{"content": …, "truncated": …}}')
        content, truncated = value.get("content"), value.get("truncated", False)
        if not isinstance(content, str) or not isinstance(truncated, bool):
            raise InvalidError(f"{name}: content must be a string, truncated true or false")
        return Text(content.encode(), truncated)

    return parse


def parse_files(value: Any) -> Mapping[bytes, Text]:
    """The files of a message or a manifest by path. Raises `InvalidError`."""
    if not isinstance(value, dict):
        raise InvalidError("files is not an object")
    files = {check_path(name): _parse_text(f"file {name!r}")(item) for name, item in value.items()}
    directories = {path[:at] for path in files for at, byte in enumerate(path) if byte == 0x2F}
    if len(files) + len(directories) > MAX_PATHS:
        raise InvalidError(f"there are more than {MAX_PATHS} files and directories")
    for path in files:
        if path in directories:
            raise InvalidError(f"{path.decode()!r} is both a file and a directory")
    return files


def check_path(name: str) -> bytes:
    """A file name of a message as a path below ``files/``. Raises `InvalidError`.

    Refused is what git or a file system could not hold, and what could reach outside: empty, absolute, ``.`` or
    ``..``, NUL, names over 255 bytes, everything that some file system takes for ``.git``, and what could not be
    shown afterwards.
    """
    path = name.encode()
    components = name.split("/")
    if len(path) > _MAX_PATH or len(components) > MAX_DEPTH:
        raise InvalidError(f"the file name {name[:40]!r}… is too long")
    for component in components:
        if not is_component(component.encode()) or is_git_name(component):
            raise InvalidError(f"{name[:300]!r} is not a file name")
    return path


def _parse_status(value: Any) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _STATUS.fullmatch(text):
        raise InvalidError("status is not a decimal number")
    return text


def _parse_index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise InvalidError("index is not a whole number from 0")
    return value


def _parse_laptop_id(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and _LAPTOP_ID.fullmatch(value)):
        raise InvalidError("laptop_id is not null or 64 lowercase hexadecimal digits")
    return value


def _parse_tab_seq(value: Any) -> Mapping[str, int | str | None]:
    if value is not None and type(value) not in (int, str):
        raise InvalidError("tab_seq is not null, an integer or a string")
    return {"tab_seq": value}


_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "index": _parse_index,
    "files": parse_files,
    "stdout": _parse_text("stdout"),
    "stderr": _parse_text("stderr"),
    "status": _parse_status,
    "summary": _parse_summary,
    "laptop_id": _parse_laptop_id,
    "tab_seq": _parse_tab_seq,
}
