"""``katafs compact`` and ``katafs migrate``: commands that go through a store, and change one kata after the other."""

from __future__ import annotations

import errno
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click

from katafs.cli.common import (
    DIRECTORY,
    command,
    count,
    fail,
    katas_of,
    quiet,
    say,
    unsafe_store,
    writable_store,
)
from katafs.errors import StorageError, why

_TERMINAL_SECONDS, _LINE_SECONDS = 0.2, 5.0
_CLEAR = "\r\033[K"


class _Batch(ABC):
    """What was done so far, told on standard error with the time that is left: on a terminal by a line that changes,
    by some lines otherwise; and in the end what was done, unless the command is to be quiet."""

    verb: str
    #: what becomes of what was done, when it is interrupted
    interrupted: str
    #: of a kata, after which no others are tried
    hopeless: Sequence[int] = ()

    def __init__(self, *, quiet: bool) -> None:
        self.total = self.done = self.refused = self._unreadable = 0
        self._is_quiet = quiet
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()

    @abstractmethod
    def work(self, path: Path, kata_id: str) -> None:
        """Do it to one kata. Raises whatever is wrong with it."""

    @abstractmethod
    def rate(self) -> tuple[str, int, str]:
        """What was done so far, and how much of what unit of work that is."""

    @abstractmethod
    def summary(self) -> str:
        """All that was done."""

    def run(
        self, store: Path, ids: Sequence[str], is_wanted: Callable[[Path], bool], *, unsafe_store: bool
    ) -> NoReturn:
        """Go through the katas of a store that are wanted, or those with an id, and end the command."""
        from katafs.kata.model.ids import is_kata_id

        root = writable_store(store, unsafe_store=unsafe_store)
        for kata_id in ids:
            if not is_kata_id(kata_id):
                fail(f"{kata_id} is not a kata id", 2)
        wanted = sorted(set(ids))
        self.total = sum(1 for _ in katas_of(root, wanted, is_wanted, lambda _: None))
        self._start = self._told = time.monotonic()
        try:
            for kata_id, path in katas_of(root, wanted, is_wanted, self._note_unreadable):
                if not self._take(path, kata_id):
                    break
        except KeyboardInterrupt:
            self._end()
            fail(f"interrupted; {self.interrupted}")
        self._end()
        sys.exit(1 if self.refused or self._unreadable else 0)

    def say(self, sentence: str) -> None:
        """A sentence of its own; on a terminal it takes the place of the line that changes."""
        say(sentence, before=_CLEAR if self._is_terminal else "")

    def _note_unreadable(self, sentence: str) -> None:
        self._unreadable += 1
        self.say(f"katafs: {sentence}")

    def _take(self, path: Path, kata_id: str) -> bool:
        """Whether it makes sense to go on after one kata."""
        is_hopeless = False
        try:
            self.work(path, kata_id)
        except Exception as error:  # noqa: BLE001 - whatever one holds, the next is looked at
            self.refused += 1
            self.say(f"katafs: {kata_id} is not {self.verb}: {why(error)}")
            is_hopeless = isinstance(error, StorageError) and error.errno in self.hopeless
        self.done += 1
        now = time.monotonic()
        if not self._is_quiet and now - self._told >= (_TERMINAL_SECONDS if self._is_terminal else _LINE_SECONDS):
            self._told = now
            what, much, unit = self.rate()
            seconds = now - self._start
            left = int(seconds / self.done * max(0, self.total - self.done))
            clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
            text = f"{self.done} of {self.total} katas, {what}, {much / seconds:.0f} {unit}/s, {clock} left"
            click.echo(f"{_CLEAR}{text}" if self._is_terminal else text, err=True, nl=not self._is_terminal)
        return not is_hopeless

    def _refusals(self) -> str:
        return f", {self.refused} not {self.verb}" if self.refused else ""

    def _end(self) -> None:
        if self._is_quiet:
            return
        if self._is_terminal:
            click.echo(_CLEAR, err=True, nl=False)
        click.echo(self.summary())


@command(
    ("katafs compact /srv/katas", "all katas that would gain by it"),
    ("katafs compact /srv/katas AbCdEf", "one kata"),
    statuses={1: "a kata could not be compacted: it stays as it is, and a sentence says why"},
)
@click.argument("store", type=DIRECTORY)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@unsafe_store
@quiet
def compact(store: Path, ids: Sequence[str], *, unsafe_store: bool, quiet: bool) -> None:
    """Pack the repositories of katas anew, so that they take less room.

    All katas in STORE that are stored as git, or those with an ID. A mount does this by itself for katas that are
    written to through it and then left alone; this is for all others. Nothing is lost, whatever stops it, and the store
    may be mounted and written to meanwhile.
    """
    from katafs.kata.store import is_git

    _Compaction(quiet=quiet).run(store, ids, is_git, unsafe_store=unsafe_store)


class _Compaction(_Batch):
    verb, interrupted = "compacted", "what was compacted stays so"

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._gained = 0

    def work(self, path: Path, kata_id: str) -> None:
        from katafs.kata.compact import compact_kata

        self._gained += compact_kata(path, kata_id)

    def rate(self) -> tuple[str, int, str]:
        return f"{self._gained} compacted", self.done, "katas"

    def summary(self) -> str:
        return f"{count(self._gained, 'kata')} compacted{self._refusals()}"


@command(
    ("katafs migrate --dry-run /srv/katas", "what could be migrated, and what could not"),
    ("katafs migrate /srv/katas", "all katas; go on here when it was stopped"),
    ("katafs migrate /srv/katas AbCdEf", "one kata"),
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
    from katafs.kata.legacy.migrate import needs_migration

    run = _Migration(dry_run, keep_originals, verbose, quiet=quiet).run
    run(store, ids, needs_migration, unsafe_store=unsafe_store or dry_run)


class _Migration(_Batch):
    verb, interrupted = "migrated", "started again it goes on from here"
    hopeless = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

    def __init__(self, dry_run: bool, keep_originals: bool, verbose: bool, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._dry_run, self._keeps_originals, self._is_verbose = dry_run, keep_originals, verbose
        self._migrated = self._events = self._already = 0

    def work(self, path: Path, kata_id: str) -> None:
        from katafs.kata.legacy.migrate import migrate_kata

        migrated = migrate_kata(path, kata_id, dry_run=self._dry_run, keep_originals=self._keeps_originals)
        if migrated is None:
            self._already += 1
            return
        self._migrated += 1
        self._events += migrated.events
        if self._is_verbose:
            self.say(f"{kata_id}: {migrated.events} events")
        if migrated.left:
            names = ", ".join(migrated.left[:5])
            self.say(f"katafs: {kata_id}: these are no files of a kata, and stay where they are: {names}")

    def rate(self) -> tuple[str, int, str]:
        return f"{self._events} events", self._events, "events"

    def summary(self) -> str:
        verb = "could be migrated" if self._dry_run else "migrated"
        already = f", {self._already} already stored as git" if self._already else ""
        left = f", {self.total - self.done} left" if self.total > self.done else ""
        return f"{count(self._migrated, 'kata')} with {self._events} events {verb}{already}{self._refusals()}{left}"
