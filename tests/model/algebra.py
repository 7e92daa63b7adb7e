"""A model of what every event and option change does to a kata: plain dicts and lists, no git but for counting lines.

It is written from the interface and from FORMAT.md alone, never from the code that it judges. The state of a kata is
its files with their truncation flags, its rows, its options and its commits; a commit knows its subject, its time and
its whole tree, path by path.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from tests.model.lines import count_lines
from tests.model.pretty import compact, native_json, saver_json

OPTIONS = {"theme": "light", "colour": "on"} | dict.fromkeys(
    ("predict", "revert_red", "revert_amber", "revert_green"), "off"
)
LIGHTS = ("ran_tests", "predicted_right", "predicted_wrong", "reverted", "checked_out")
EDITS = ("file_create", "file_delete", "file_rename", "file_edit")
TYPES = {"reverted": "reverted", "checked_out": "checked_out"} | {kind: kind for kind in EDITS}
#: those before which a change of files that nobody has told of becomes an event of its own
AFTER_EDIT = ("ran_tests", "predicted_right", "predicted_wrong", "file_create", "file_delete", "file_rename")
RESERVED = {"index", "event", "type", "laptop_id", "tab_seq", "diff_added_count", "diff_deleted_count"}
LONGEST_GAP = 1_000

Json = dict[str, Any]


class RefusedError(Exception):
    """The errno by which a message is refused."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


class Commit(NamedTuple):
    subject: str
    now: datetime
    tree: dict[str, bytes]
    #: whether katafs makes it: then it knows whose name it bears
    ours: bool = True


@dataclass
class Files:
    """The files of an event: their bytes, and which of them the runner cut short."""

    content: dict[str, bytes] = field(default_factory=dict)
    truncated: dict[str, bool] = field(default_factory=dict)


@dataclass
class Outputs:
    """What a run gave, each text with whether it was cut short; nothing by default."""

    stdout: tuple[bytes, bool] = (b"", False)
    stderr: tuple[bytes, bool] = (b"", False)
    status: bytes = b"0"


@dataclass
class Model:
    """A kata in one of the two layouts, ``native`` or ``saver``."""

    kata_id: str
    layout: str
    #: files of the tree that no event changes: the manifest, saver's README.md
    fixed: dict[str, bytes]
    files: Files
    options: dict[str, str] = field(default_factory=lambda: dict(OPTIONS))
    outputs: Outputs | None = None
    rows: list[Json] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    #: index of the event → position of its commit
    tags: dict[int, int] = field(default_factory=dict)
    #: the files of each event
    past: dict[int, Files] = field(default_factory=dict)

    def create(self, now: datetime) -> None:
        """Event 0."""
        self.rows.append(self._typed({"index": 0, "event": "created", "time": row_time(now)}, "created"))
        if self.layout == "native":
            self.outputs = Outputs()
        self.past[0] = copy.deepcopy(self.files)
        self._commit("0 kata creation", now, [0])

    # -- events

    def record(self, kind: str, message: Json, now: datetime) -> int:
        """The index of the event that a message of the right shape is; raises `RefusedError`."""
        refuse_conflicts(message.get("files", ()))
        if kind == "file_rename" and message["old_filename"] == message["new_filename"]:
            raise RefusedError(errno.EINVAL)
        if kind == "checked_out" and "files" not in message:
            raise RefusedError(errno.EINVAL)
        summary = summary_of(kind, message)
        who = identity(message)
        repeated = self._repeated(summary["colour"], who)
        if repeated is not None:
            return repeated
        index = self._place(message)
        incoming = self._incoming(kind, message)
        files = after(kind, message, incoming)
        edited = self._edited(incoming)
        if kind == "file_edit":
            name = self._named(message.get("filename"), edited, incoming)
            if name is None:
                return len(self.rows) - 1
            summary["filename"] = name
        elif index is None and kind in AFTER_EDIT and edited is not None:
            pending = {"colour": "file_edit", "filename": edited}
            self._append("file_edit", pending, who, incoming, Outputs(), now, None)
        self._append(kind, summary, who, files, outputs_of(message), now, index)
        return len(self.rows) - 1

    def _repeated(self, colour: str, who: Json) -> int | None:
        """Question 1. Values are equal as JSON has them: 1 is not "1"."""
        if "laptop_id" not in who or who.get("tab_seq") is None:
            return None
        for row in self.rows:
            same = row.get("laptop_id") == who["laptop_id"] and row.get("colour") == colour
            if same and repr(row.get("tab_seq")) == repr(who["tab_seq"]):
                return int(row["index"])
        return None

    def _place(self, message: Json) -> int | None:
        """Question 2."""
        index: int | None = message.get("index")
        if index is None:
            return None
        last = len(self.rows) - 1
        if index < 0 or index - last - 1 > LONGEST_GAP:
            raise RefusedError(errno.EINVAL)
        if index <= last:
            raise RefusedError(errno.EEXIST)
        return index

    def _incoming(self, kind: str, message: Json) -> Files:
        """The files of the message; those of the newest event where it has none, or of the one that it reverts to."""
        if "files" not in message and kind == "reverted":
            kata_id, index = message["summary"]["revert"]
            if kata_id != self.kata_id or int(index) not in self.past:
                raise RefusedError(errno.EINVAL)
            return copy.deepcopy(self.past[int(index)])
        if "files" not in message:
            return copy.deepcopy(self.files)
        given = message["files"]
        content = {name: entry["content"].encode() for name, entry in given.items()}
        return Files(content, {name: entry.get("truncated", False) for name, entry in given.items()})

    def _edited(self, incoming: Files) -> str | None:
        """Question 3: the first file, in the order of git, that is there before and after and differs."""
        both = sorted(set(self.files.content) & set(incoming.content), key=str.encode)
        return next((name for name in both if self.files.content[name] != incoming.content[name]), None)

    def _named(self, told: str | None, edited: str | None, incoming: Files) -> str | None:
        """The file that a ``file_edit`` names; None where none was edited: then there is nothing to record."""
        before, now = set(self.files.content), set(incoming.content)
        if told is not None and told not in before | now:
            raise RefusedError(errno.EINVAL)
        return edited and (told or edited)

    def _append(
        self, kind: str, summary: Json, who: Json, files: Files, outputs: Outputs, now: datetime, index: int | None
    ) -> None:
        """One event, and the outages before it, in one commit."""
        first = len(self.rows)
        index = first if index is None else index
        self.rows += [self._typed({"index": n, "event": "outage"}, "outage") for n in range(first, index)]
        added, deleted = count_lines(self.files.content, files.content)
        row = {**summary, "index": index, "time": row_time(now)}
        row |= {"diff_added_count": added, "diff_deleted_count": deleted, **who}
        self.rows.append(self._typed(row, TYPES.get(kind, "test")))
        self.files, self.outputs = files, outputs
        whole = Files(files.content, dict.fromkeys(files.content, False))
        self.past |= {n: copy.deepcopy(files if n == index else whole) for n in range(first, index + 1)}
        self._commit(f"{index} {subject(kind, summary)}", now, range(first, index + 1))

    # -- options, and what others write

    def set_option(self, name: str, value: str, now: datetime) -> bool:
        """Whether there was anything to change; raises `RefusedError`."""
        if name not in OPTIONS or value not in (("dark", "light") if name == "theme" else ("on", "off")):
            raise RefusedError(errno.EINVAL)
        if self.options[name] == value:
            return False
        self.options[name] = value
        self._commit(f"set option {name} to {value}", now, [])
        return True

    def foreign(self, content: bytes, now: datetime) -> None:
        """An event of another writer: a test run with the rows of 2021 and one file changed."""
        index = len(self.rows)
        row = {"duration": 0.5, "colour": "amber", "predicted": "none", "index": index, "time": row_time(now)}
        self.rows.append(self._typed(row, "test"))
        self.files = copy.deepcopy(self.files)
        self.files.content["other.txt"], self.files.truncated["other.txt"] = content, False
        self.outputs = Outputs(stdout=(content, False))
        self.past[index] = self.files
        self._commit(f"{index} ran tests, no prediction, got amber", now, [index])

    # -- what is stored

    def _typed(self, row: Json, type_: str) -> Json:
        return {**row, "type": type_} if self.layout == "native" else row

    def _commit(self, subject: str, now: datetime, indexes: Any) -> None:
        self.tags |= dict.fromkeys(indexes, len(self.commits))
        self.commits.append(Commit(subject, now, self.tree()))

    def tree(self) -> dict[str, bytes]:
        """Every file of the newest commit."""
        tree = dict(self.fixed)
        tree |= {f"files/{name}": content for name, content in self.files.content.items()}
        if self.outputs is not None:
            tree |= {"stdout": self.outputs.stdout[0], "stderr": self.outputs.stderr[0], "status": self.outputs.status}
        if self.layout == "native":
            tree |= {f"config/{name}": f"{value}\n".encode() for name, value in self.options.items()}
            tree |= {"events_summary.json": native_json(self.rows), "event.json": native_json(self.rows[-1])}
            tree["truncations.json"] = native_json(self._truncations())
        else:
            tree |= {"options.json": saver_json(self.options), "events.json": saver_json(self.rows)}
            if self.outputs is not None:
                tree["truncations.json"] = saver_json(self._truncations())
        return tree

    def _truncations(self) -> Json:
        assert self.outputs is not None
        flags: Json = {"stdout": self.outputs.stdout[1], "stderr": self.outputs.stderr[1]}
        if self.layout == "saver":
            return flags
        files = {name: self.files.truncated[name] for name in sorted(self.files.content, key=str.encode)}
        return {"files": files, **flags, "status": False}


def row_time(now: datetime) -> list[int]:
    return [now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond]


def identity(message: Json) -> Json:
    """What a row says of its writer: no ``laptop_id`` where there is none, ``tab_seq`` as it was sent."""
    who = {"laptop_id": message["laptop_id"]} if message.get("laptop_id") is not None else {}
    return who | ({"tab_seq": message["tab_seq"]} if "tab_seq" in message else {})


def outputs_of(message: Json) -> Outputs:
    texts = [message.get(name, {"content": ""}) for name in ("stdout", "stderr")]
    stdout, stderr = ((text["content"].encode(), text.get("truncated", False)) for text in texts)
    return Outputs(stdout, stderr, str(message.get("status", "0")).encode())


def summary_of(kind: str, message: Json) -> Json:
    """What the row begins with."""
    if kind in LIGHTS:
        return copy.deepcopy(dict(message["summary"]))
    names = ("old_filename", "new_filename") if kind == "file_rename" else ("filename",)
    return {"colour": kind} | {name: message.get(name) for name in names}


def after(kind: str, message: Json, incoming: Files) -> Files:
    """The files once a file was created (empty), deleted or renamed; raises `RefusedError` where that cannot be."""
    files = copy.deepcopy(incoming)
    old = str(message.get("old_filename" if kind == "file_rename" else "filename"))
    new = str(message.get("new_filename" if kind == "file_rename" else "filename"))
    moved = (b"", False)
    if kind in ("file_delete", "file_rename"):
        if old not in files.content:
            raise RefusedError(errno.EINVAL)
        moved = files.content.pop(old), files.truncated.pop(old)
    if kind in ("file_create", "file_rename"):
        if new in incoming.content:
            raise RefusedError(errno.EINVAL)
        files.content[new], files.truncated[new] = moved
    refuse_conflicts(files.content)
    return files


def refuse_conflicts(names: Iterable[str]) -> None:
    """No name is a file and a directory."""
    for name in names:
        if any(other.startswith(f"{name}/") for other in names):
            raise RefusedError(errno.EINVAL)


def subject(kind: str, summary: Json) -> str:
    """A commit's subject, after the index."""
    if kind == "ran_tests":
        return f"ran tests, no prediction, got {summary['colour']}"
    if kind in ("predicted_right", "predicted_wrong"):
        return f"ran tests, predicted {summary['predicted']}, got {summary['colour']}"
    if kind == "reverted":
        kata_id, index = summary["revert"]
        return f"reverted to {compact({'id': kata_id, 'index': index})}"
    if kind == "checked_out":
        return f"checked out {compact(summary['checkout'])}"
    if kind == "file_rename":
        return f"renamed file {summary['old_filename']} to {summary['new_filename']}"
    verb = {"file_create": "created", "file_delete": "deleted", "file_edit": "edited"}[kind]
    return f"{verb} file {summary['filename']}"
