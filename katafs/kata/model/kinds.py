"""The kinds of things that are recorded, each by a control file of its own name: all that tells one from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from katafs.text import compact

_Subject = Callable[[Mapping[str, Any]], str]


class _Facts(NamedTuple):
    """What a kind is, to those who record it and to those who read of it."""

    #: of the commit, after the index, from the row's own keys (FORMAT: commit subjects)
    subject: _Subject
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
    #: whether edits that nobody has recorded are recorded first, as an event of their own (FORMAT §2.2)
    saves_edits: bool = True


_RUN = """\
{{ "stdout": {{"content": "1 test passed"}}, "stderr": {{"content": ""}}, "status": "0",
  "summary": {{"colour": "green", "duration": 1.2, "predicted": "PREDICTED"}} }}"""


def _predicted(summary: Mapping[str, Any]) -> str:
    return f"ran tests, predicted {summary.get('predicted', 'none')}, got {summary['colour']}"


def _reverted(summary: Mapping[str, Any]) -> str:
    kata_id, index = summary["revert"]
    return f"reverted to {compact({'id': kata_id, 'index': index})}"


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
        """What tells it from the others."""
        return _FACTS[self]

    @property
    def type(self) -> str:
        """The ``type`` of its event: of all that are test runs the same."""
        return self.value if self.facts.file_names or self.facts.row_key else "test"


_FACTS = {
    Kind.RAN_TESTS: _Facts(
        lambda summary: f"ran tests, no prediction, got {summary['colour']}",
        "a test run",
        _RUN.replace("PREDICTED", "none"),
    ),
    Kind.PREDICTED_RIGHT: _Facts(
        _predicted,
        "a test run whose colour was predicted",
        _RUN.replace("PREDICTED", "green"),
    ),
    Kind.PREDICTED_WRONG: _Facts(
        _predicted,
        "a test run of another colour than was predicted",
        _RUN.replace("PREDICTED", "red"),
    ),
    Kind.REVERTED: _Facts(
        _reverted,
        "that the files are again those of an earlier event",
        '{{ "summary": {{"colour": "red", "revert": ["{kata_id}", 0]}} }}',
        headline="reverted",
        from_where="reverted to",
        sign="↶",
        row_key="revert",
        saves_edits=False,
    ),
    Kind.CHECKED_OUT: _Facts(
        lambda summary: f"checked out {compact(summary['checkout'])}",
        "that the files are now those of an event of another kata",
        '{{ "files": {{{name}: {{"content": "…"}}}}, '
        '"summary": {{"colour": "red", "checkout": {{"id": "{kata_id}", "index": 0}}}} }}',
        headline="checked out",
        from_where="checked out",
        sign="⇣",
        row_key="checkout",
        saves_edits=False,
    ),
    Kind.FILE_CREATE: _Facts(
        lambda summary: f"created file {summary['filename']}",
        "that an empty file was made",
        '{{ "filename": "new.txt" }}',
        headline="created file",
        sign="+",
        file_names=("filename",),
    ),
    Kind.FILE_DELETE: _Facts(
        lambda summary: f"deleted file {summary['filename']}",
        "that a file was removed",
        '{{ "filename": {name} }}',
        headline="deleted file",
        sign="–",
        file_names=("filename",),
    ),
    Kind.FILE_RENAME: _Facts(
        lambda summary: f"renamed file {summary['old_filename']} to {summary['new_filename']}",
        "that a file got another name",
        '{{ "old_filename": {name}, "new_filename": "new.txt" }}',
        headline="renamed file",
        sign="→",
        file_names=("old_filename", "new_filename"),
    ),
    Kind.FILE_EDIT: _Facts(
        lambda summary: f"edited file {summary['filename']}",
        "that files were edited",
        '{{ "files": {{ {name}: {{"content": "…"}} }} }}',
        headline="edited file",
        sign="✎",
        file_names=("filename",),
        saves_edits=False,
    ),
}

#: by the types of their events, but for test runs
BY_TYPE = {kind.type: kind for kind in Kind if kind.type == kind.value}
