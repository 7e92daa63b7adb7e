"""``katafs migrate``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import PATH, fail, names, real_store, start_writing
from katafs.errors import KataError

if TYPE_CHECKING:
    from katafs.kata.migrate import Migrated

_TERMINAL_SECONDS, _LINE_SECONDS = 0.2, 5.0


@click.command()
@click.argument("store", type=PATH)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Try it all, change nothing, and say what would be done.")
@click.option("--keep-originals", is_flag=True, help="Keep each kata's plain files in its .katafs-original.")
def migrate(store: Path, ids: Sequence[str], dry_run: bool, keep_originals: bool) -> None:
    """Turn katas of plain files into git repositories.

    All katas of versions 0 and 1 in STORE that are plain files, or those with an ID. Each gets its whole history, with
    the dates of its events, and is read back and compared before its plain files go. It can be stopped at any moment
    and started again, and can run while the store is mounted. Katas that are stored as git already are left alone.

    Exit status 1 when a kata could not be migrated; it stays as it is, and a line says why.
    """
    from katafs.kata.ids import is_kata_id
    from katafs.kata.migrate import migrate_kata

    start_writing()
    path = real_store(store)
    for kata_id in ids:
        if not is_kata_id(kata_id):
            fail(f"{kata_id} is not a kata id", 2)
    wanted = sorted(set(ids))
    run = _Run(dry_run=dry_run)
    run.total = sum(1 for _ in _to_migrate(path, wanted))
    try:
        for kata_id, kata_path in _to_migrate(path, wanted):
            work = partial(migrate_kata, kata_path, kata_id, dry_run=dry_run, keep_originals=keep_originals)
            run.take(kata_id, work)
    finally:
        run.end()
    sys.exit(1 if run.refused else 0)


def _to_migrate(store: Path, ids: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The katas to be migrated, with their directories; those that were named in any case."""
    from katafs.kata.ids import kata_path
    from katafs.kata.migrate import needs_migration
    from katafs.kata.store import Store

    if ids:
        yield from ((kata_id, kata_path(store, kata_id)) for kata_id in ids)
        return
    katas = Store(store)
    for first in katas.names(""):
        for second in names(katas, first):
            for third in names(katas, first + second):
                path = kata_path(store, first + second + third)
                if needs_migration(path):
                    yield first + second + third, path


class _Run:
    """What was done so far, and telling of it: a line that changes on a terminal, some lines otherwise."""

    def __init__(self, *, dry_run: bool) -> None:
        self.total = self.refused = 0
        self._migrated = self._events = self._already = 0
        self._dry_run = dry_run
        self._start = self._told = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def take(self, kata_id: str, work: Callable[[], Migrated | None]) -> None:
        """Migrate one kata."""
        try:
            migrated = work()
        except KataError as error:
            self.refused += 1
            self._say(f"katafs: {kata_id} is not migrated: {error}")
        else:
            if migrated is None:
                self._already += 1
            else:
                self._migrated += 1
                self._events += migrated.events
                if migrated.left:
                    names = ", ".join(migrated.left[:5])
                    self._say(f"katafs: {kata_id}: these are no files of a kata, and stay where they are: {names}")
        now = time.monotonic()
        if now - self._told > (_TERMINAL_SECONDS if self._is_terminal else _LINE_SECONDS):
            self._told = now
            self._tell()

    def _tell(self) -> None:
        seconds = time.monotonic() - self._start
        done = self._migrated + self._already + self.refused
        left = int(seconds / max(done, 1) * (self.total - done))
        text = (
            f"{done} of {self.total} katas, {self._events} events, {self._events / seconds:.0f} events/s, "
            f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        )
        click.echo(f"\r\033[K{text}" if self._is_terminal else text, err=True, nl=not self._is_terminal)

    def _say(self, sentence: str) -> None:
        # on the terminal it takes the place of the line that changes
        click.echo(f"\r\033[K{sentence}" if self._is_terminal else sentence, err=True)

    def end(self) -> None:
        """Tell of all."""
        if self._is_terminal:
            click.echo("\r\033[K", err=True, nl=False)
        verb = "could be migrated" if self._dry_run else "migrated"
        text = f"{self._migrated} {_katas(self._migrated)} with {self._events} events {verb}"
        if self._already:
            text += f", {self._already} already stored as git"
        if self.refused:
            text += f", {self.refused} not migrated"
        click.echo(text)


def _katas(count: int) -> str:
    return "kata" if count == 1 else "katas"
