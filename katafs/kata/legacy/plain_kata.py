"""Katas that are stored as plain files, versions 0 and 1 (FORMAT §1.1, §1.2), read into one model.

Events come in the order of their indexes, whatever order they were written in; indexes that were skipped have none.
Nothing is changed, and only what is asked for is read, so that a long history does not fill the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from katafs.errors import DamagedError, InvalidError, NotFoundError
from katafs.kata.legacy.plain_files import event_file, event_indexes, mtime_ns, read_file
from katafs.kata.legacy.plain_rows import pair_version_0, pair_version_1, parse_object, parse_plain_rows
from katafs.kata.model.kinds import Text
from katafs.kata.model.layouts import plain_version
from katafs.kata.model.options import OPTION_DEFAULTS, OPTION_VALUES
from katafs.kata.model.rows import Row, moment_of_ns, time_of, without_contents
from katafs.kata.model.trees import MAX_PATHS, directories_of
from katafs.kata.record.message import check_path
from katafs.kata.record.placing import MOST_SKIPPED

_LARGEST_OPTION = 1 << 16
OUTPUT_NAMES, EMPTY = ("stdout", "stderr"), Text(b"")


@dataclass(frozen=True)
class PlainEvent:
    """One event; outputs and status are those that it has, event 0 has none. Texts are truncated None where it does not
    say."""

    index: int
    row: Row
    files: Mapping[bytes, Text]
    outputs: Mapping[str, Text]
    status: str | None


@dataclass(frozen=True)
class OptionChange:
    """An option that was set: all that is known of the time is when its file was last written to, in ns."""

    name: str
    value: str
    time_ns: int


class PlainKata:
    """The kata in the directory ``path``; ``problems`` are sentences about what the model has no room for. They grow as
    events are read. Raises `NotFoundError` where there is no manifest, `DamagedError` where events cannot be told at
    all."""

    def __init__(self, kata_id: str, path: Path) -> None:
        self.kata_id = kata_id
        self.path = path
        self.problems: list[str] = []
        self.manifest = parse_object(read_file(path, b"manifest.json"), "manifest.json")
        version = plain_version(self.manifest or {"version": 0})
        if version is None:
            raise DamagedError(f"there is no .git, but the manifest's version is {str(self.manifest['version'])[:40]}")
        self.version = version
        times = {index: mtime_ns(path, self.event_path(index)) for index in event_indexes(path, self.version)}
        written, wrong = parse_plain_rows(read_file(path, b"events.json"))
        self.problems += [wrong] if wrong else []
        #: the row of each event by index, as it was written
        self.stored, problems = (pair_version_1 if self.version else pair_version_0)(written, times)
        self.problems += problems
        for index in sorted(times.keys() - self.stored.keys()):
            self._find_row(index, times[index])
        self.indexes = sorted(self.stored)
        if self.indexes[:1] != [0]:
            raise DamagedError(f"kata {self.kata_id} has no event 0")
        for before, after in pairwise(self.indexes):
            if after - before - 1 > MOST_SKIPPED:
                raise DamagedError(f"between the events {before} and {after} more than {MOST_SKIPPED} are missing")

    def _find_row(self, index: int, time_ns: int) -> None:
        """The row of an event that ``events.json`` does not have: its writer was stopped, or is about to add it."""
        try:
            event = self.document(index)
        except DamagedError as error:
            self.problems.append(f"event {index} was not finished: {error}")
            return
        if self.version:
            row = without_contents(event)
        else:
            row = {"time": time_of(moment_of_ns(time_ns))}
            self.problems.append(f"nothing says what event {index} was: it has no row in events.json")
        self.stored[index] = row

    @property
    def last(self) -> int:
        return self.indexes[-1]

    def rows(self) -> list[Row]:
        """The rows up to the last event as native rows, but for ``type``; those that are missing are outages."""
        return [
            {**self.stored[index], "index": index} if index in self.stored else {"index": index, "event": "outage"}
            for index in range(self.last + 1)
        ]

    def event_path(self, index: int) -> bytes:
        return event_file(self.version, index).encode()

    def document(self, index: int) -> dict[str, Any]:
        """The JSON object in the file of an event. Raises `DamagedError`."""
        path = self.event_path(index)
        return parse_object(read_file(self.path, path), path.decode())

    def event(self, index: int) -> PlainEvent:
        """An event. Raises `DamagedError` where it is not JSON; what else is wrong goes to ``problems``."""
        return parse_event(index, self.stored[index], self.document(index), self.problems)

    def options(self) -> Sequence[OptionChange]:
        """What options were set to, oldest first. The first write to an option file writes the value twice (FORMAT
        §1.2); a value that was set again when it was there already is no change."""
        changes: list[OptionChange] = []
        for name in OPTION_DEFAULTS:
            try:
                text = read_file(self.path, name.encode(), _LARGEST_OPTION).decode("utf-8", "replace")
            except NotFoundError:
                continue
            when = mtime_ns(self.path, name.encode())
            kept = [value for value, _ in groupby(text.removeprefix("\n").rstrip("\n").split("\n"))]
            changes += [OptionChange(name, value, when) for value in kept if value in OPTION_VALUES[name]]
            if any(value not in OPTION_VALUES[name] for value in kept):
                self.problems.append(f"the option {name} was set to something that it cannot be")
        return sorted(changes, key=lambda change: change.time_ns)

    def first_options(self) -> dict[str, str]:
        """The options at event 0: those of the manifest, which katas of groups have, else the defaults."""
        given = {name: self.manifest.get(name) for name in OPTION_DEFAULTS}
        return OPTION_DEFAULTS | {name: value for name, value in given.items() if value in OPTION_VALUES[name]}


def parse_event(index: int, row: Row, document: Mapping[str, Any], problems: list[str]) -> PlainEvent:
    """The event in the JSON object of its file; sentences about what it should not hold are added to ``problems``."""
    files = document.get("files")
    outputs = {name: _text(index, name, document[name], problems) for name in OUTPUT_NAMES if name in document}
    status = document.get("status")
    if status is not None and type(status) not in (int, str):
        problems.append(f"event {index}: the status is not a number")
    stored = _files(index, files if isinstance(files, dict) else {}, problems)
    return PlainEvent(index, row, stored, outputs, None if status is None else str(status))


def _files(index: int, stored: Mapping[str, Any], problems: list[str]) -> Mapping[bytes, Text]:
    files: dict[bytes, Text] = {}
    for name, value in stored.items():
        try:
            files[check_path(name)] = _text(index, name, value, problems)
        except (InvalidError, UnicodeEncodeError) as error:
            problems.append(f"event {index}: {error}")
    directories = directories_of(files)
    if len(files) + len(directories) > MAX_PATHS:
        problems.append(f"event {index}: there are more than {MAX_PATHS} files and directories")
    for path in directories & files.keys():
        # as saver does (FORMAT §2.2)
        del files[path]
        problems.append(f"event {index}: {path.decode()!r} is both a file and a directory")
    return files


def _text(index: int, name: str, value: Any, problems: list[str]) -> Text:
    content, truncated = (value.get("content"), value.get("truncated")) if isinstance(value, dict) else (None, None)
    try:
        return Text(joined(content).encode(), truncated if isinstance(truncated, bool) else None)
    except (TypeError, UnicodeEncodeError):
        problems.append(f"event {index}: the content of {name[:100]!r} is not text")
        return Text(b"", None)


def joined(content: Any) -> str:
    """The text of a ``content``: a string, or an array of lines. Raises TypeError for anything else."""
    if isinstance(content, list):
        return "".join(content)
    if not isinstance(content, str):
        raise TypeError("not text")
    return content
