"""What somebody did, as it is to be recorded: an `Act` becomes an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from katafs.kata.model.kinds import Kind


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
        """The subject of the commit (FORMAT: commit subjects)."""
        return f"{index} {self.kind.facts.subject(self.summary)}"
