"""A kata that is stored as plain files, as the commits of a native repository.

The same plain files always give the same commits. An event is one commit, dated as its row says (git has whole
seconds; the order is that of the indexes). A row that has no time has that of the event before. Options are commits of
their own, each after the last event that is not newer than the option's file: that file's time is all that is known.

What an event did not have, such as an output, is empty in the tree, as every native kata has it. So that the plain
paths can still leave it out, a last paragraph of the commit's message, such as ``Plain-absent: stderr status``, says
which. Katas that services wrote have all, and no such line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katafs.errors import TooLargeError
from katafs.git import Oid
from katafs.git.store.history import HistoryWriter
from katafs.git.store.writer import ObjectMaker
from katafs.kata.legacy.plain_kata import OUTPUT_NAMES, OptionChange, PlainEvent, PlainKata
from katafs.kata.model.act import Act, Text
from katafs.kata.model.ids import identity
from katafs.kata.model.kinds import BY_TYPE, Kind
from katafs.kata.model.rows import MOST_ROWS, Row, Rows, event_type, time_ns
from katafs.text import pretty_bytes

ABSENT = "Plain-absent:"

_SECOND = 1_000_000_000
_MOST_SUBJECT = 1_000
# the last second that fits into what git and its fsck take for a date
_LAST_SECOND = (1 << 31) - 1
EMPTY = Text(b"")
_CONTROL = re.compile(r"[\0-\x1f\x7f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Converted:
    """What a conversion made: the newest commit, and the commit of each event, outages included."""

    main: Oid
    tags: Mapping[int, Oid]


def convert(plain: PlainKata, git: ObjectMaker) -> Converted:
    """Store all objects of a kata. Raises `DamagedError` for an event that cannot be read, `TooLargeError`
    where all rows together could not be."""
    conversion = _Converter(plain, git)
    main, tags = b"", dict[int, Oid]()
    for index, commit in conversion.commits():
        main = commit
        if index is not None:
            first = max(tags, default=-1) + 1
            tags |= dict.fromkeys(range(first, index + 1), commit)
    return Converted(main, tags)


def write_repository(plain: PlainKata, directory: Path, *, is_durable: bool = False) -> Converted:
    """Convert a kata into ``directory/.git``, synced if it is to last. Raises as `convert` does, `StorageError` and
    OSError."""
    git = HistoryWriter(directory / ".git")
    try:
        converted = convert(plain, git)
        git.finish(converted.main, converted.tags, *identity(plain.kata_id), is_durable=is_durable)
        return converted
    finally:
        git.close()


def first_commit(plain: PlainKata) -> Oid:
    """The commit of event 0, without storing anything."""
    return next(_Converter(plain, ObjectMaker()).commits())[1]


class _Converter:
    """One kata on its way into one repository."""

    def __init__(self, plain: PlainKata, git: ObjectMaker) -> None:
        self._plain = plain
        self._git = git
        stored = plain.rows()
        self._rows = Rows([{**row, "type": event_type(row, index)} for index, row in enumerate(stored)])
        if self._rows.summary_size(self._rows.last) > MOST_ROWS:
            raise TooLargeError(f"the rows of all its events are larger than {MOST_ROWS >> 20} MiB")
        kept = {key: value for key, value in plain.manifest.items() if key != "visible_files"}
        self._manifest = git.blob(pretty_bytes(kept), path=b"manifest.json")
        self._config = {
            name.encode(): git.blob(value.encode() + b"\n", path=b"config/" + name.encode())
            for name, value in plain.first_options().items()
        }
        self._seconds = max((time_ns({"time": plain.manifest.get("created")}) or 0) // _SECOND, 0)
        self._parent: Oid | None = None
        # the root of the last event: an option changes nothing but config/ in it
        self._blobs: dict[bytes, Oid] = {}
        self._files: Oid | None = None

    def commits(self) -> Iterator[tuple[int | None, Oid]]:
        """All commits, oldest first, each with the index of its event, or None for an option."""
        changes = self._options_by_event()
        for index in self._plain.indexes:
            event = self._plain.event(index)
            self._store(event)
            when = time_ns(event.row)
            if when is not None and 0 <= when // _SECOND <= _LAST_SECOND:
                self._seconds = when // _SECOND
            yield index, self._commit(_message(event), self._seconds)
            for change in changes.get(index, ()):
                blob = self._git.blob(change.value.encode() + b"\n", path=b"config/" + change.name.encode())
                self._config[change.name.encode()] = blob
                seconds = min(max(change.time_ns // _SECOND, 0), _LAST_SECOND)
                yield None, self._commit(f"set option {change.name} to {change.value}", seconds)

    def _options_by_event(self) -> dict[int, list[OptionChange]]:
        """The changes of options by the event after which they come."""
        placed: dict[int, list[OptionChange]] = {}
        times = [(time_ns(self._plain.row(index)), index) for index in self._plain.indexes]
        for change in self._plain.options():
            earlier = [index for when, index in times if when is not None and when <= change.time_ns]
            placed.setdefault(max(earlier, default=0), []).append(change)
        return placed

    def _store(self, event: PlainEvent) -> None:
        files = {path: text.content for path, text in event.files.items()}
        self._files = self._git.file_tree(files, path=b"files/")
        said = {path.decode(): text.truncated for path, text in sorted(event.files.items())}
        outputs = {name: event.outputs.get(name, EMPTY) for name in OUTPUT_NAMES}
        flags: dict[str, Any] = {"files": {name: flag for name, flag in said.items() if flag is not None}}
        flags |= {name: text.truncated is True for name, text in outputs.items()}
        contents = {
            b"truncations.json": pretty_bytes({**flags, "status": False}),
            b"events_summary.json": self._rows.summary(event.index),
            b"event.json": self._rows.text(event.index),
            b"status": (event.status or "0").encode("utf-8", "replace"),
            **{name.encode(): text.content for name, text in outputs.items()},
        }
        self._blobs = {name: self._git.blob(data, path=name) for name, data in contents.items()}
        self._blobs[b"manifest.json"] = self._manifest

    def _commit(self, message: str, seconds: int) -> Oid:
        subtrees = {b"config": self._git.tree(None, self._config, path=b"config/")}
        if self._files is not None:
            subtrees[b"files"] = self._files
        tree = self._git.tree(None, self._blobs, subtrees)
        name, email = identity(self._plain.kata_id)
        parents = [self._parent] if self._parent is not None else []
        self._parent = self._git.commit(tree, parents, message, name, email, seconds)
        return self._parent


def _message(event: PlainEvent) -> str:
    return with_absent(_subject(event.index, event.row), what_is_absent(event))


def with_absent(subject: str, absent: Sequence[str]) -> str:
    """The message of an event that lacks some parts."""
    return f"{subject}\n\n{ABSENT} {' '.join(absent)}" if absent else subject


def what_is_absent(event: PlainEvent) -> Sequence[str]:
    """What the event does not have although all but the first have it."""
    if event.index == 0:
        return []
    absent = ["status"] if event.status is None else []
    for name in OUTPUT_NAMES:
        text = event.outputs.get(name)
        if text is None:
            absent.append(name)
        elif text.truncated is None:
            absent.append(f"{name}.truncated")
    return absent


def absent_parts(message: bytes) -> frozenset[str]:
    """What the plain event of a commit did not have, from the commit's message."""
    last = message.rpartition(b"\n\n")[2].decode("utf-8", "replace")
    return frozenset(last.removeprefix(ABSENT).split()) if last.startswith(ABSENT) else frozenset()


def plain_kind(row: Row, index: int) -> Kind:
    """What a row of a plain kata says that was done."""
    ran = Kind.RAN_TESTS if row.get("predicted") in (None, "none") else Kind.PREDICTED_RIGHT
    kind = BY_TYPE.get(event_type(row, index), ran)
    # plain katas have no events of files
    return ran if kind.facts.file_names else kind


def _subject(index: int, row: Row) -> str:
    """The subject of an event's commit (FORMAT: commit subjects), one line whatever the row holds."""
    if index == 0:
        return "0 kata creation"
    try:
        subject = Act(plain_kind(row, index), row).subject(index)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        subject = f"{index} ran tests"
    return _CONTROL.sub("?", subject)[:_MOST_SUBJECT]
