"""What is recorded: its kinds, each with a control file of its own name, all that tells one from another; and an `Act`
of such a kind, which becomes an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from katafs.text import compact


class _Facts(NamedTuple):
    """What a kind is, to those who record it and to those who read of it."""

    #: what is recorded, and an example of a message, with {name} for a file, {kata_id}: for who reads the control file
    explanation: str
    example: str
    #: what happened, in a few words; the same where it is told from where files are; the sign in a light
    headline: str = "ran tests"
    from_where: str = ""
    sign: str = ""
    #: the keys of the names that a file event has; none: it comes with an output and a traffic light
    file_names: tuple[str, ...] = ()
    #: a key that only its rows have, where it is no file event and no test: saver stores no type
    row_key: str = ""


_RUN = """\
{{ "stdout": {{"content": "1 test passed"}}, "stderr": {{"content": ""}}, "status": "0",
  "summary": {{"colour": "green", "duration": 1.2, "predicted": "PREDICTED"}} }}"""


class Kind(Enum):
    """A kind of act; the value is the name of its control file, and of a file event's colour."""

    RAN_TESTS = "ran_tests"
    PREDICTED_RIGHT = "predicted_right"
    PREDICTED_WRONG = "predicted_wrong"
    REVERTED = "reverted"
    CHECKED_OUT = "checked_out"
    FILE_CREATE = "file_create"
    FILE_DELETE = "file_delete"
    FILE_RENAME = "file_rename"
    FILE_EDIT = "file_edit"

    @property
    def facts(self) -> _Facts:
        return _FACTS[self]

    @property
    def type(self) -> str:
        """The ``type`` of its event: of all that are test runs the same."""
        return self.value if self.facts.file_names or self.facts.row_key else "test"

    @property
    def saves_edits(self) -> bool:
        """Whether edits that nobody has recorded are recorded first, as an event of their own (FORMAT §2.2)."""
        return not self.facts.row_key and self is not Kind.FILE_EDIT

    def subject(self, summary: Mapping[str, Any]) -> str:
        """The subject of a commit, after the index, from the row's own keys (FORMAT: commit subjects)."""
        if self.facts.file_names:
            return f"{self.facts.headline} {' to '.join(str(summary[name]) for name in self.facts.file_names)}"
        if self is Kind.REVERTED:
            kata_id, index = summary["revert"]
            return f"reverted to {compact({'id': kata_id, 'index': index})}"
        if self is Kind.CHECKED_OUT:
            return f"checked out {compact(summary['checkout'])}"
        predicted = "no prediction" if self is Kind.RAN_TESTS else f"predicted {summary.get('predicted', 'none')}"
        return f"ran tests, {predicted}, got {summary['colour']}"


_FACTS = {
    Kind.RAN_TESTS: _Facts("a test run", _RUN.replace("PREDICTED", "none")),
    Kind.PREDICTED_RIGHT: _Facts("a test run whose colour was predicted", _RUN.replace("PREDICTED", "green")),
    Kind.PREDICTED_WRONG: _Facts("a test run of another colour than was predicted", _RUN.replace("PREDICTED", "red")),
    Kind.REVERTED: _Facts(
        "that the files are again those of an earlier event",
        '{{ "summary": {{"colour": "red", "revert": ["{kata_id}", 0]}} }}',
        headline="reverted",
        from_where="reverted to",
        sign="↶",
        row_key="revert",
    ),
    Kind.CHECKED_OUT: _Facts(
        "that the files are now those of an event of another kata",
        '{{ "files": {{{name}: {{"content": "…"}}}}, '
        '"summary": {{"colour": "red", "checkout": {{"id": "{kata_id}", "index": 0}}}} }}',
        headline="checked out",
        from_where="checked out",
        sign="⇣",
        row_key="checkout",
    ),
    Kind.FILE_CREATE: _Facts(
        "that an empty file was made",
        '{{ "filename": "new.txt" }}',
        headline="created file",
        sign="+",
        file_names=("filename",),
    ),
    Kind.FILE_DELETE: _Facts(
        "that a file was removed",
        '{{ "filename": {name} }}',
        headline="deleted file",
        sign="–",
        file_names=("filename",),
    ),
    Kind.FILE_RENAME: _Facts(
        "that a file got another name",
        '{{ "old_filename": {name}, "new_filename": "new.txt" }}',
        headline="renamed file",
        sign="→",
        file_names=("old_filename", "new_filename"),
    ),
    Kind.FILE_EDIT: _Facts(
        "that files were edited",
        '{{ "files": {{ {name}: {{"content": "…"}} }} }}',
        headline="edited file",
        sign="✎",
        file_names=("filename",),
    ),
}

#: by the types of their events, but for test runs
BY_TYPE = {kind.type: kind for kind in Kind if kind.type == kind.value}


@dataclass(frozen=True, slots=True)
class Text:
    """A file or an output, as bytes, and whether the runner cut it short; None where a plain event does not say."""

    content: bytes
    truncated: bool | None = False


@dataclass(frozen=True)
class Act:
    """What somebody did, which becomes an event. ``files`` is the complete set by path; None leaves the files as they
    are. Of a file event it is the set before the act: the created file is added to it, and so on."""

    kind: Kind
    # the row's own keys; of a file event those that the row begins with: its colour and the names
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

    def name(self, key: str) -> bytes:
        """The path below ``files/`` that the row has as ``filename``, ``old_filename`` or ``new_filename``."""
        return str(self.summary[key]).encode()

    def subject(self, index: int) -> str:
        return f"{index} {self.kind.subject(self.summary)}"
