"""What the commands share: arguments, refusals, what is done before anything is written."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from katafs.engine.trust import refusal
from katafs.errors import KataError, absent
from katafs.mount import mounting
from katafs.text import visible, visible_on_terminal


class _PathType(click.Path):
    """A path. The empty one, which a variable that is not set leaves, is not the current directory.

    It is not looked at, as click.Path does: it may be in a mount that does not answer. Its kind is for
    shells, which complete it.
    """

    def __init__(self, *, file_okay: bool) -> None:
        super().__init__(file_okay=file_okay)
        self.name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        return Path(value)


class Command(click.Command):
    """A command whose help ends with examples and exit statuses. What is expected to fail ends it with a sentence."""

    def __init__(
        self, *args: Any, examples: Sequence[tuple[str, str]] = (), statuses: dict[int, str] | None = None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.examples = examples
        self.statuses = STATUSES | (statuses or {})

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except mounting.MountError as error:
            fail(str(error), error.exit_status)
        except KataError as error:
            fail(str(error))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        if self.examples:
            teach(formatter, self.examples, self.statuses)


def command(
    *examples: tuple[str, str], cls: type[Command] = Command, statuses: dict[int, str] | None = None
) -> Callable[[Callable[..., object]], Command]:
    """A command with examples, each with what it does, and with what its exit statuses are beside the usual ones."""
    return click.command(cls=cls, examples=examples, statuses=statuses)


def teach(formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]], statuses: dict[int, str]) -> None:
    with formatter.section("Examples"):
        formatter.write_dl(examples)
    with formatter.section("Exit status"):
        formatter.write_dl([(str(status), words) for status, words in statuses.items()])


#: what commands end with; those that do not, or with more, say so
STATUSES = {0: "done", 1: "it could not be done; a sentence says why", 2: "the command line is wrong"}

quiet = click.option("-q", "--quiet", is_flag=True, help="Say nothing but what goes wrong.")
unsafe_store = click.option("--unsafe-store", is_flag=True, help="Also where the file system may lose events.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Say what is done.")


# Whether it is a directory, the command says in its own words.
PATH, DIRECTORY = _PathType(file_okay=True), _PathType(file_okay=False)


def start_writing() -> None:
    """Get ready to write to a store, before anything is made."""
    # what is written to a store is for other services too, whatever the shell of the operator says
    os.umask(0o022)
    # SIGTERM cleans up, as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def real_store(store: Path, status: int = 1) -> Path:
    """The real path of a store that is about to be written to, or the end of the command with that exit status."""
    start_writing()
    try:
        path = mounting.real_directory(store, "store")
    except mounting.MountError as error:
        fail(str(error), status)
    if mounting.katafs_at(path) is not None:
        fail(f"{store} is a mount, not a store", status)
    return path


def writable_store(store: Path, status: int = 1, *, unsafe_store: bool) -> Path:
    """The same; or the end of the command where events may be lost there, and that is not wanted."""
    path = real_store(store, status)
    risk = "" if unsafe_store else refusal(path)
    if risk:
        fail(f"store {store}: {risk}; --unsafe-store writes to it as it is", status)
    return path


def drop_output() -> None:
    """Forget what could not be printed; Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def echo(text: str) -> None:
    """Print what may have colours: on a terminal only, where click itself looks, and not with NO_COLOR.

    Nothing else that a terminal would obey gets there, whatever a kata holds.
    """
    click.echo(visible_on_terminal(text), color=False if os.environ.get("NO_COLOR") else None)


def say(sentence: str, before: str = "katafs: ") -> None:
    """Print one line on standard error, whatever names and texts of a kata are in it."""
    click.echo(before + visible(sentence, kept="\t"), err=True)


def fail(message: str, status: int = 1) -> NoReturn:
    say(message)
    sys.exit(status)


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def katas_of(
    store: Path, ids: Sequence[str], is_wanted: Callable[[Path], bool], unreadable: Callable[[str], object]
) -> Iterator[tuple[str, Path]]:
    """The katas of a store that are wanted, with their directories; those that were named in any case.

    ``unreadable`` is told, in a sentence, which directory cannot be read. Raises `KataError` when it is the store.
    """
    from katafs.kata.model.ids import kata_path
    from katafs.kata.store import katas_below

    if ids:
        yield from ((kata_id, kata_path(store, kata_id)) for kata_id in ids)
        return
    for path, failure in katas_below(store):
        if failure is not None:
            error = absent(str(path), failure)
            if path == store:
                raise error
            unreadable(str(error))
            continue
        try:
            is_one = not path.is_symlink() and is_wanted(path)
        except (KataError, OSError):
            # who works on it says why that cannot be known
            is_one = True
        if is_one:
            yield "".join(path.parts[-3:]), path


class LineFormatter(logging.Formatter):
    """One line a message, whatever names and texts of a kata are in it; those of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as the library has it
        return visible(super().formatMessage(record), kept="\t")

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as the library has it
        return visible(super().formatException(ei)).replace("\n", "\n  ")
