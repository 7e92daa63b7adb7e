"""Writing to a kata that is stored plain: it is migrated first, and then what was written is recorded."""

from __future__ import annotations

from katafs.kata.commit import Announce, Committed
from katafs.kata.inbox import Message
from katafs.kata.migrate import migrate_kata
from katafs.tree.control import ControlFile
from katafs.tree.options import OptionFile
from katafs.tree.writable import Job, Writable


class _Migrating(Writable):
    """Has its kata migrated before a job."""

    def parse(self, message: Message) -> Job:
        job = super().parse(message)  # type: ignore[safe-super] # of the other class that is mixed in
        path, kata_id = self._path, self.kata_id

        def migrate_first(announce: Announce | None) -> Committed | None:
            migrate_kata(path, kata_id)
            return job(announce)

        return migrate_first


class MigratingControl(_Migrating, ControlFile):
    """A control file of a plain kata."""


class MigratingOption(_Migrating, OptionFile):
    """``config/NAME`` of a plain kata."""
