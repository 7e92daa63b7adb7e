"""Control messages: the JSON object that a client writes to a control file, checked into an `Act` (INTERFACE §4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from katafs import process
from katafs.errors import InvalidError, TooLargeError
from katafs.git.format.stored import is_component
from katafs.kata.model.ids import is_kata_id
from katafs.kata.model.kinds import Act, Kind, Text
from katafs.kata.model.trees import MAX_DEPTH, MAX_PATHS, directories_of, is_git_name
from katafs.text import compact, parse_strict

_OWN_SUMMARY_KEYS = ("index", "event", "type", "laptop_id", "tab_seq", "diff_added_count", "diff_deleted_count")
_COLOUR = re.compile(r"[a-z]+(_[a-z]+)*")
_LONGEST_COLOUR = 40
_NOT_TEST_COLOURS = ("create", "created", "outage", "file_create", "file_delete", "file_rename", "file_edit")
_STATUS = re.compile(r"-?[0-9]{1,10}")
_LAPTOP_ID = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 1024
_MAX_SUBJECT = 1000
#: characters of a summary and tab_seq as compact JSON: they are repeated in the rows of every later event, and all who
#: read these wait
MAX_ROW = 64 << 10

# How long reading a message takes, in bytes of plain text, and how many are read in the daemon itself: some 4 ms.
_WEIGHT = 64
_MOST_HERE = 1 << 20
_LIMITS = process.Limits(processor_seconds=10, seconds=15.0, nice=0)


def parse_act(kind: Kind, data: bytes) -> Act:
    """The message in ``data``, read in a process of its own where that takes long: Python's JSON has the GIL. Raises
    `InvalidError` (EINVAL) that says what is wrong, and `TooLargeError` (EFBIG) for a row that is too large."""
    if len(data) + _WEIGHT * sum(map(data.count, b",[{")) <= _MOST_HERE:
        return _parse(None, kind, data)
    return cast(Act, process.attempt(_LIMITS, None, _parse, kind, data))


def _parse(_file: None, kind: Kind, data: bytes) -> Act:
    message = parse_strict(data)
    if not isinstance(message, dict):
        raise InvalidError("the message is not a JSON object")
    names = kind.facts.file_names
    known = [*_FOR_ALL, *(names or _FOR_RUNS)]
    unknown = set(message) - set(known)
    if unknown:
        raise InvalidError(f"unknown key {min(unknown)!r} in a message to {kind.value}")
    needed = () if kind is Kind.FILE_EDIT else names or ("summary",)
    for key in needed:
        if key not in message:
            raise InvalidError(f"the message has no {key}")
    fields = {name: _FIELDS[name](value) for name, value in message.items()}
    if names:
        fields["summary"] = {"colour": kind.value, **{name: fields.pop(name) for name in names if name in fields}}
    act = Act(kind, **fields)
    if len(compact({**act.summary, **act.tab_seq})) > MAX_ROW:
        raise TooLargeError(f"summary and tab_seq are larger than {MAX_ROW >> 10} KiB")
    _check_kind(act)
    return act


def _check_kind(act: Act) -> None:
    """What one kind of message needs more than the others. Raises `InvalidError`."""
    summary = act.summary
    if act.kind is Kind.REVERTED:
        _check_source(summary, "revert", lambda value: len(value) == 2 and _is_place(*value), list)
    elif act.kind is Kind.CHECKED_OUT:
        if act.files is None:
            raise InvalidError("the message has no files: those of another kata are not looked up")
        _check_source(summary, "checkout", lambda value: _is_place(value.get("id"), value.get("index")), dict)
    elif act.kind in (Kind.PREDICTED_RIGHT, Kind.PREDICTED_WRONG) and "predicted" in summary:
        if not _is_colour(summary["predicted"]):
            raise InvalidError("summary.predicted is not the colour of a traffic light")
    elif act.kind is Kind.FILE_RENAME and act.name("old_filename") == act.name("new_filename"):
        raise InvalidError("old_filename and new_filename are the same")


def _check_source(summary: Mapping[str, Any], key: str, is_right: Callable[[Any], bool], shape: type) -> None:
    value = summary.get(key)
    if not isinstance(value, shape) or not is_right(value):
        raise InvalidError(f"summary.{key} does not say which event of which kata")
    if len(compact(value)) > _MAX_SUBJECT:
        raise InvalidError(f"summary.{key} is too long")


def _is_place(kata_id: Any, index: Any) -> bool:
    """Whether these are the id of a kata and the index of an event, which a service may send as a string."""
    is_index = type(index) in (int, str) and re.fullmatch("[0-9]+", str(index)) is not None
    return is_index and isinstance(kata_id, str) and is_kata_id(kata_id)


def _is_colour(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_COLOUR and _COLOUR.fullmatch(value) is not None


def _parse_summary(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidError("summary is not an object")
    for key in _OWN_SUMMARY_KEYS:
        if key in value:
            raise InvalidError(f"summary may not hold {key!r}")
    colour = value.get("colour")
    if not _is_colour(colour):
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
    directories = directories_of(files)
    if len(files) + len(directories) > MAX_PATHS:
        raise InvalidError(f"there are more than {MAX_PATHS} files and directories")
    for path in files:
        if path in directories:
            raise InvalidError(f"{path.decode()!r} is both a file and a directory")
    return files


def check_path(name: str) -> bytes:
    """A file name of a message as a path below ``files/``. Raises `InvalidError`. Refused is what git or a file system
    could not hold, and what could reach outside: empty, absolute, ``.`` or ``..``, NUL, names over 255 bytes,
    everything that some file system takes for ``.git``, and what could not be shown afterwards."""
    path = name.encode()
    components = name.split("/")
    if len(path) > _MAX_PATH or len(components) > MAX_DEPTH:
        raise InvalidError(f"the file name {name[:40]!r}… is too long")
    for component in components:
        if not is_component(component.encode()) or is_git_name(component):
            raise InvalidError(f"{name[:300]!r} is not a file name")
    return path


def _parse_name(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidError("a file name is not a string")
    check_path(value)
    return value


def _if(
    is_right: Callable[[Any], object], otherwise: str, made: Callable[[Any], Any] = lambda value: value
) -> Callable[[Any], Any]:
    """A parser of one value: what is made of one that is right, else `InvalidError`."""

    def parse(value: Any) -> Any:
        if not is_right(value):
            raise InvalidError(otherwise)
        return made(value)

    return parse


_FOR_ALL = ("index", "files", "laptop_id", "tab_seq")
_FOR_RUNS = ("summary", "stdout", "stderr", "status")
_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "index": _if(lambda value: type(value) is int and value >= 0, "index is not a whole number from 0"),
    "files": parse_files,
    "filename": _parse_name,
    "old_filename": _parse_name,
    "new_filename": _parse_name,
    "stdout": _parse_text("stdout"),
    "stderr": _parse_text("stderr"),
    "status": _if(
        lambda value: type(value) in (int, str) and _STATUS.fullmatch(str(value)), "status is not a decimal number", str
    ),
    "summary": _parse_summary,
    "laptop_id": _if(
        lambda value: value is None or (isinstance(value, str) and _LAPTOP_ID.fullmatch(value)),
        "laptop_id is not null or 64 lowercase hexadecimal digits",
    ),
    "tab_seq": _if(
        lambda value: value is None or type(value) in (int, str),
        "tab_seq is not null, an integer or a string",
        lambda value: {"tab_seq": value},
    ),
}
