"""``katafs compact``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import DIRECTORY, Command, fail, katas_of, quiet, start_writing, unsafe_store, writable_store
from katafs.cli.progress import Progress
from katafs.errors import why

if TYPE_CHECKING:
    from katafs.kata.compact import Compacted


@click.command(
    cls=Command,
    examples=[
        ("katafs compact /srv/katas", "all katas that would gain by it"),
        ("katafs compact /srv/katas AbCdEf", "one kata"),
    ],
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
    from katafs.kata.compact import compact_kata
    from katafs.kata.model.ids import is_kata_id
    from katafs.kata.store import is_git

    start_writing()
    path = writable_store(store, unsafe_store=unsafe_store)
    for kata_id in ids:
        if not is_kata_id(kata_id):
            fail(f"{kata_id} is not a kata id", 2)
    wanted = sorted(set(ids))
    run = _Run(sum(1 for _ in katas_of(path, wanted, is_git)), quiet=quiet)
    try:
        for kata_id, kata_path in katas_of(path, wanted, is_git):
            run.take(kata_id, partial(compact_kata, kata_path, kata_id))
    except KeyboardInterrupt:
        run.end()
        fail("interrupted; what was compacted stays so")
    run.end()
    sys.exit(1 if run.refused else 0)


class _Run:
    """What was done so far, and telling of it."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.refused = 0
        self._done = self._gained = 0
        self._files, self._bytes = [0, 0], [0, 0]  # before and after
        self._is_quiet = quiet
        self._progress = Progress(total, quiet=quiet)

    def take(self, kata_id: str, work: Callable[[], Compacted | None]) -> None:
        """Compact one kata."""
        try:
            compacted = work()
        except Exception as error:  # noqa: BLE001 - whatever one holds, the next is looked at
            self.refused += 1
            self._progress.say(f"katafs: {kata_id} is not compacted: {why(error)}")
        else:
            if compacted is not None:
                self._gained += 1
                for at, usage in enumerate((compacted.before, compacted.after)):
                    self._files[at] += usage.files
                    self._bytes[at] += usage.size
        self._done += 1
        self._progress.update(self._done, f"{self._gained} compacted", self._done, "katas")

    def end(self) -> None:
        """Tell of all."""
        if self._is_quiet:
            return
        self._progress.end()
        text = f"{self._gained} {'kata' if self._gained == 1 else 'katas'} compacted"
        if self._gained:
            before, after = [f"{n} files, {size >> 10} KiB" for n, size in zip(self._files, self._bytes, strict=True)]
            text += f", from {before} to {after}"
        click.echo(text + (f", {self.refused} not compacted" if self.refused else ""))
