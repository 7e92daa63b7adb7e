"""The state of a kata at the tip of ``main``."""

from __future__ import annotations

from dataclasses import dataclass

from katafs.git import Commit
from katafs.kata.events import Rows, time_ns
from katafs.kata.layouts import Layout, Root

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Tip:
    """The state of a kata at the tip of ``main``."""

    commit: Commit
    root: Root
    layout: Layout
    rows: Rows
    time_ns: int

    @property
    def last(self) -> int:
        """The newest event."""
        return self.rows.last


def tip_time(commit: Commit, rows: Rows) -> int:
    """The time of the newest commit in ns, different for every tip, so that the kernel sees that a directory changed.

    A commit has whole seconds. The row of an event commit has microseconds; the rest of a time is made from the id, as
    two events of one microsecond would leave the kernel with the listing that it has.
    """
    subject = commit.subject.split(b" ", 1)[0]
    if subject == str(rows.last).encode():
        own = time_ns(rows.stored[rows.last])
        if own is not None:
            return own + int.from_bytes(commit.oid[:4]) % 1000
    return commit.time * _SECOND + int.from_bytes(commit.oid[:4]) % _SECOND
