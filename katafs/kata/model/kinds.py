"""The kinds of things that are recorded, each by a control file of its own name."""

from __future__ import annotations

from enum import Enum


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
    def type(self) -> str:
        """The ``type`` of its event."""
        runs = (Kind.RAN_TESTS, Kind.PREDICTED_RIGHT, Kind.PREDICTED_WRONG)
        return "test" if self in runs else self.value

    @property
    def file_names(self) -> tuple[str, ...] | None:
        """The keys of the names that a file event has; None for what comes with an output and a traffic light."""
        if self is Kind.FILE_RENAME:
            return ("old_filename", "new_filename")
        return ("filename",) if self in (Kind.FILE_CREATE, Kind.FILE_DELETE, Kind.FILE_EDIT) else None

    @property
    def saves_edits(self) -> bool:
        """Whether edits that nobody has recorded are recorded first, as an event of their own (FORMAT §2.2)."""
        return self not in (Kind.REVERTED, Kind.CHECKED_OUT, Kind.FILE_EDIT)
