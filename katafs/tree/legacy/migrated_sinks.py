"""Writing to control files and options of katas of versions 0 and 1.

A kata that is stored plain is migrated first; events of plain-path services that wait for their rows are recorded.
"""

from __future__ import annotations

from pathlib import Path

from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import flush_pending
from katafs.kata.record.commit import Announce, Committed, Job, Landed


def migrating(job: Job) -> Job:
    """The job, once its kata was made ready for it."""
    return Job(job.path, job.kata_id, _migrate_first, (job,), job.counted_as)


def _migrate_first(path: Path, kata_id: str, job: Job, *, announce: Announce, landed: Landed) -> Committed | None:
    migrate_kata(path, kata_id)
    flush_pending(path, kata_id)
    return job(announce, landed)
