"""``katafs migrate``."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import DIRECTORY, Command, fail, katas_of, quiet, start_writing, unsafe_store, writable_store
from katafs.cli.progress import Progress
from katafs.errors import StorageError, why

if TYPE_CHECKING:
    from katafs.kata.legacy.migrate import Migrated

# what another kata would meet too
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@click.command(
    cls=Command,
    examples=[
        ("katafs migrate --dry-run /srv/katas", "what could be migrated, and what could not"),
        ("katafs migrate /srv/katas", "all katas; go on here when it was stopped"),
        ("katafs migrate /srv/katas AbCdEf", "one kata"),
    ],
    statuses={1: "a kata could not be migrated: it stays as it is, and a sentence says why"},
)
@click.argument("store", type=DIRECTORY)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Try it all, change nothing, and say what would be done.")
@click.option("--keep-originals", is_flag=True, help="Keep each kata's plain files in its .katafs-original.")
@click.option("-v", "--verbose", is_flag=True, help="Name each kata that is migrated.")
@unsafe_store
@quiet
def migrate(
    store: Path, ids: Sequence[str], dry_run: bool, keep_originals: bool, verbose: bool, unsafe_store: bool, quiet: bool
) -> None:
    """Turn katas of plain files into git repositories.

    All katas of versions 0 and 1 in STORE that are plain files, or those with an ID. Each gets its whole history, with
    the dates of its events, and is read back and compared before its plain files go. It can be stopped at any moment
    and started again, and can run while the store is mounted. Katas that are stored as git already are left alone.

    Exit status 1 when a kata could not be migrated, or it was interrupted; such katas stay as they are, and a line says
    why. Where the disk is full or read-only no others are tried.
    """
    from katafs.kata.legacy.migrate import migrate_kata, needs_migration
    from katafs.kata.model.ids import is_kata_id

    start_writing()
    path = writable_store(store, unsafe_store=unsafe_store or dry_run)
    for kata_id in ids:
        if not is_kata_id(kata_id):
            fail(f"{kata_id} is not a kata id", 2)
    wanted = sorted(set(ids))
    total = sum(1 for _ in katas_of(path, wanted, needs_migration))
    run = _Run(total, dry_run=dry_run, verbose=verbose, quiet=quiet)
    try:
        for kata_id, kata_path in katas_of(path, wanted, needs_migration):
            work = partial(migrate_kata, kata_path, kata_id, dry_run=dry_run, keep_originals=keep_originals)
            if not run.take(kata_id, work):
                break
    except KeyboardInterrupt:
        run.end()
        fail("interrupted; started again it goes on from here")
    run.end()
    sys.exit(1 if run.refused else 0)


class _Run:
    """What was done so far, and telling of it."""

    def __init__(self, total: int, *, dry_run: bool, verbose: bool, quiet: bool) -> None:
        self.refused = 0
        self._progress = Progress(total, quiet=quiet)
        self._migrated = self._events = self._already = 0
        self._dry_run, self._is_verbose, self._is_quiet = dry_run, verbose, quiet

    def take(self, kata_id: str, work: Callable[[], Migrated | None]) -> bool:
        """Migrate one kata. Whether it makes sense to go on."""
        try:
            migrated = work()
        except Exception as error:  # noqa: BLE001 - whatever one holds, the next is looked at
            self.refused += 1
            self._progress.say(f"katafs: {kata_id} is not migrated: {why(error)}")
            if isinstance(error, StorageError) and error.errno in _HOPELESS:
                return False
        else:
            if migrated is None:
                self._already += 1
            else:
                self._migrated += 1
                self._events += migrated.events
                if self._is_verbose:
                    self._progress.say(f"{kata_id}: {migrated.events} events")
                if migrated.left:
                    names = ", ".join(migrated.left[:5])
                    self._progress.say(
                        f"katafs: {kata_id}: these are no files of a kata, and stay where they are: {names}"
                    )
        done = self._migrated + self._already + self.refused
        self._progress.update(done, f"{self._events} events", self._events, "events")
        return True

    def end(self) -> None:
        """Tell of all."""
        if self._is_quiet:
            return
        self._progress.end()
        verb = "could be migrated" if self._dry_run else "migrated"
        text = f"{self._migrated} {_katas(self._migrated)} with {self._events} events {verb}"
        if self._already:
            text += f", {self._already} already stored as git"
        if self.refused:
            text += f", {self.refused} not migrated"
        left = self._progress.total - self._migrated - self._already - self.refused
        if left > 0:
            text += f", {left} left"
        click.echo(text)


def _katas(count: int) -> str:
    return "kata" if count == 1 else "katas"
