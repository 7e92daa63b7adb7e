"""What the commands share: arguments, refusals, what is done before anything is written."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from katafs.errors import KataError
from katafs.fuse import mounting

if TYPE_CHECKING:
    from katafs.kata.store import Store


class PathType(click.Path):
    """A path. The empty one, which a variable that is not set leaves, is not the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


PATH = PathType(path_type=Path, readable=False)


def start_writing() -> None:
    """Get ready to write to a store."""
    # what is written to a store is for other services too, whatever the shell of the operator says
    os.umask(0o022)
    # SIGTERM cleans up, as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def real_store(store: Path, status: int = 1) -> Path:
    """The real path of a store, or the end of the command with that exit status."""
    try:
        path = mounting.real_directory(store, "store")
    except mounting.MountError as error:
        fail(str(error), status)
    if mounting.is_mounted(path):
        fail(f"{store} is a mount, not a store", status)
    return path


def drop_output() -> None:
    """Forget what could not be printed; Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(message: str, status: int = 1) -> NoReturn:
    """End the command with one sentence."""
    click.echo(f"katafs: {message}", err=True)
    sys.exit(status)


def names(katas: Store, parts: str) -> list[str]:
    """The names below a directory of a store; none, and a line that says why, if it cannot be read."""
    try:
        return katas.names(parts)
    except KataError as error:
        click.echo(f"katafs: {error}", err=True)
        return []
