"""Writing to control files and options of katas of versions 0 and 1.

A kata that is stored plain is migrated first; events of plain-path services that wait for their rows are recorded.
"""

from __future__ import annotations

from pathlib import Path

from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import flush_pending
from katafs.kata.record.commit import Announce, Committed, Job, Landed
from katafs.kata.record.inbox import Message
from katafs.tree.control import ControlFile
from katafs.tree.options import OptionFile
from katafs.tree.writable import MessageFile


class _Migrating(MessageFile):
    """Has its kata made ready before a job."""

    def parse(self, message: Message, offset: int) -> Job:
        job = super().parse(message, offset)  # type: ignore[safe-super] # of the other class that is mixed in
        return Job(self._path, self.kata_id, _migrate_first, (job,), job.counted_as)


def _migrate_first(path: Path, kata_id: str, job: Job, *, announce: Announce, landed: Landed) -> Committed | None:
    migrate_kata(path, kata_id)
    flush_pending(path, kata_id)
    return job(announce, landed)


class MigratingControl(_Migrating, ControlFile):
    """A control file of a kata of version 0 or 1."""


class MigratingOption(_Migrating, OptionFile):
    """``config/NAME`` of such a kata."""
