"""``katafs compact``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import DIRECTORY, Command, fail, katas_of, real_store, start_writing
from katafs.errors import KataError

if TYPE_CHECKING:
    from katafs.kata.compact import Usage

_TERMINAL_SECONDS, _LINE_SECONDS = 0.2, 5.0


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
def compact(store: Path, ids: Sequence[str]) -> None:
    """Pack the repositories of katas anew, so that they take less room.

    All katas in STORE that are stored as git, or those with an ID. A mount does this by itself for katas that are
    written to through it and then left alone; this is for all others. Nothing is lost, whatever stops it, and the store
    may be mounted and written to meanwhile.
    """
    from katafs.kata.compact import Usage, compact_kata
    from katafs.kata.ids import is_kata_id
    from katafs.kata.store import is_git

    start_writing()
    path = real_store(store)
    for kata_id in ids:
        if not is_kata_id(kata_id):
            fail(f"{kata_id} is not a kata id", 2)
    done = gained = refused = 0
    before, after = Usage(0, 0), Usage(0, 0)
    told = time.monotonic()
    is_terminal = sys.stderr.isatty()
    for kata_id, kata_path in katas_of(path, sorted(set(ids)), is_git):
        try:
            compacted = compact_kata(kata_path, kata_id)
        except KataError as error:
            refused += 1
            click.echo(f"{_CLEAR * is_terminal}katafs: {kata_id} is not compacted: {error}", err=True)
        else:
            done += 1
            if compacted is not None:
                gained += 1
                before, after = _plus(before, compacted.before), _plus(after, compacted.after)
        if time.monotonic() - told > (_TERMINAL_SECONDS if is_terminal else _LINE_SECONDS):
            told = time.monotonic()
            text = f"{done + refused} katas looked at, {gained} compacted"
            click.echo(f"{_CLEAR * is_terminal}{text}", err=True, nl=not is_terminal)
    if is_terminal:
        click.echo(_CLEAR, err=True, nl=False)
    sizes = f"from {before.files} files, {before.size >> 10} KiB to {after.files} files, {after.size >> 10} KiB"
    text = f"{gained} {'kata' if gained == 1 else 'katas'} compacted" + (f", {sizes}" if gained else "")
    click.echo(text + (f", {refused} not compacted" if refused else ""))
    sys.exit(1 if refused else 0)


_CLEAR = "\r\033[K"


def _plus(one: Usage, other: Usage) -> Usage:
    from katafs.kata.compact import Usage

    return Usage(one.files + other.files, one.size + other.size)
