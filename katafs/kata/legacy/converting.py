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
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from katafs.errors import InvalidError, TooLargeError
from katafs.git import Oid
from katafs.git.store.history import HistoryWriter
from katafs.git.store.writer import ObjectMaker
from katafs.kata.legacy.plain_kata import EMPTY, OUTPUT_NAMES, OptionChange, PlainEvent, PlainKata
from katafs.kata.model.ids import identity
from katafs.kata.model.kinds import BY_TYPE, Act, Kind
from katafs.kata.model.rows import MOST_ROWS, Row, Rows, event_type, time_ns
from katafs.text import pretty_bytes

ABSENT = "Plain-absent:"

_SECOND = 1_000_000_000
_MOST_SUBJECT = 1_000
# the last second that fits into what git and its fsck take for a date
_LAST_SECOND = (1 << 31) - 1
_CONTROL = re.compile(r"[\0-\x1f\x7f\u2028\u2029\ud800-\udfff]")


def write_repository(plain: PlainKata, directory: Path, *, is_durable: bool = False) -> Oid:
    """Convert a kata into ``directory/.git``; returns its newest commit. It is synced if it is to last. Raises
    `DamagedError` for an event that cannot be read, `TooLargeError` where all rows together could not be,
    `StorageError` and OSError."""
    with HistoryWriter(directory / ".git", is_durable=is_durable) as git:
        main, tags = b"", dict[int, Oid]()
        for index, main in _Converter(plain, git).commits():
            if index is not None:
                # an index that was skipped has the commit of the event after it
                tags |= dict.fromkeys(range(len(tags), index + 1), main)
        git.finish(main, tags, *identity(plain.kata_id))
        return main


def first_commit(plain: PlainKata) -> Oid:
    """The commit of event 0, without storing anything."""
    return next(_Converter(plain, ObjectMaker()).commits())[1]


class _Converter:
    def __init__(self, plain: PlainKata, git: ObjectMaker) -> None:
        self._plain = plain
        self._git = git
        stored = plain.rows()
        self._rows = Rows([{**row, "type": event_type(row, index)} for index, row in enumerate(stored)])
        if self._rows.summary_size(self._rows.last) > MOST_ROWS:
            raise TooLargeError(f"the rows of all its events are larger than {MOST_ROWS >> 20} MiB")
        kept = {key: value for key, value in plain.manifest.items() if key != "visible_files"}
        self._manifest = git.blob(pretty_bytes(kept), path=b"manifest.json")
        self._config: dict[bytes, Oid] = {}
        for name, value in plain.first_options().items():
            self._set_option(name.encode(), value)
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
            yield index, self._commit(_with_absent(_subject(index, event.row), event), self._seconds)
            for change in changes.get(index, ()):
                self._set_option(change.name.encode(), change.value)
                seconds = min(max(change.time_ns // _SECOND, 0), _LAST_SECOND)
                yield None, self._commit(f"set option {change.name} to {change.value}", seconds)

    def _options_by_event(self) -> dict[int, list[OptionChange]]:
        placed: dict[int, list[OptionChange]] = {}
        times = [(time_ns(self._plain.stored[index]), index) for index in self._plain.indexes]
        for change in self._plain.options():
            earlier = [index for when, index in times if when is not None and when <= change.time_ns]
            placed.setdefault(max(earlier, default=0), []).append(change)
        return placed

    def _set_option(self, name: bytes, value: str) -> None:
        self._config[name] = self._git.blob(value.encode() + b"\n", path=b"config/" + name)

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
        config = self._git.tree(None, self._config, path=b"config/")
        tree = self._git.tree(None, self._blobs, {b"config": config, b"files": self._files})
        parents = [self._parent] if self._parent is not None else []
        self._parent = self._git.commit(tree, parents, message, *identity(self._plain.kata_id), seconds)
        return self._parent


def _with_absent(subject: str, event: PlainEvent) -> str:
    """The message of an event: it also says what it does not have although all but the first have it."""
    absent = ["status"] if event.status is None else []
    for name in OUTPUT_NAMES:
        text = event.outputs.get(name)
        if text is None:
            absent.append(name)
        elif text.truncated is None:
            absent.append(f"{name}.truncated")
    return f"{subject}\n\n{ABSENT} {' '.join(absent)}" if absent and event.index else subject


def absent_parts(message: bytes) -> frozenset[str]:
    """What the plain event of a commit did not have, from the commit's message."""
    last = message.rpartition(b"\n\n")[2].decode("utf-8", "replace")
    return frozenset(last.removeprefix(ABSENT).split()) if last.startswith(ABSENT) else frozenset()


def _plain_kind(row: Row, index: int) -> Kind:
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
        subject = Act(_plain_kind(row, index), row).subject(index)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        subject = f"{index} ran tests"
    return _CONTROL.sub("?", subject)[:_MOST_SUBJECT]


# -- an event that a plain-path service records


@dataclass(frozen=True)
class _PlainAct(Act):
    event: PlainEvent = field(kw_only=True)

    def subject(self, index: int) -> str:
        ran = f"{index} ran tests"
        return _with_absent(super().subject(index) if "colour" in self.summary else ran, self.event)


def plain_act(event: PlainEvent, row: Row) -> Act:
    """The act that an event file and its row tell of (FORMAT §1.1, §1.2). Raises `InvalidError`."""
    if "colour" in row and not isinstance(row["colour"], str):
        raise InvalidError(f"the row of event {event.index} has no colour that is text")
    outputs = (event.outputs.get(name, EMPTY) for name in OUTPUT_NAMES)
    stdout, stderr = (replace(text, truncated=text.truncated is True) for text in outputs)
    kind, status = _plain_kind(row, event.index), event.status or "0"
    act = _PlainAct(kind, row, event.files, stdout, stderr, status, event.index, event=event)
    try:
        act.subject(event.index)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"the row of event {event.index} does not say what was reverted to") from error
    return act
