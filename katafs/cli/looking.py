"""Commands to look at a kata: ``log``, ``show``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import DIRECTORY, command, echo, say
from katafs.errors import KataError, NotFoundError
from katafs.text import visible, without_colours

if TYPE_CHECKING:
    from katafs.kata.model.steps import Step
    from katafs.kata.reader import Reader

_CONTEXT = 3  # unchanged lines around a change
_MOST_CUT = 10  # names
_COLOURS = {"red": "red", "amber": "yellow", "green": "green"}
_LINE_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@command(
    ("katafs log /mnt/katas/Py/Fz/Bz", "a kata in a mount, or in a store"),
    ("katafs log", "the one that the current directory is"),
    ("katafs log --csv /mnt/katas/??/??/?? > events.csv", "all of them, for a spreadsheet"),
)
@click.argument("paths", type=DIRECTORY, nargs=-1, metavar="[KATA]...")
@click.option("--csv", "form", flag_value="csv", help="Print a table for other programs, with a line of titles.")
@click.option("--json", "form", flag_value="json", help="Print each event as a JSON object, one a line.")
def log(paths: tuple[Path, ...], form: str | None) -> None:
    """Show the history of each KATA, a line an event.

    KATA is a directory in a mount or in a store, the current one unless given. In colour on a terminal, but not when
    NO_COLOR is set. With --csv and --json times are ISO 8601 in UTC, and each event says of which kata it is.
    """
    from katafs.kata.model.steps import COLUMNS, csv_events, csv_lines, facts, history
    from katafs.kata.reader import reader

    def show_history(path: Path) -> Iterable[str]:
        steps = history(reader(path).rows(), _id_of(path))
        if form == "csv":
            click.echo(csv_events(steps, _name_of(path)), nl=False)
        elif form == "json":
            for step in steps:
                click.echo(json.dumps(facts(step, _name_of(path)), ensure_ascii=False))
        else:
            return _table(steps)
        return ()

    if form == "csv":
        click.echo(csv_lines([COLUMNS]), nl=False)
    _each(paths or (Path(),), show_history)


@command(
    ("katafs show /mnt/katas/Py/Fz/Bz 12", "event 12"),
    ("katafs show .", "the newest event, in a kata's directory"),
    ("katafs show /mnt/katas/Py/??/?? latest", "the newest event of several katas"),
)
@click.argument(
    "arguments", nargs=-1, required=True, metavar="KATA... [N|latest]", shell_complete=DIRECTORY.shell_complete
)
def show(arguments: tuple[str, ...]) -> None:
    """Show event N of each KATA: its output, what changed.

    KATA is a directory in a mount or in a store; N is the newest event unless given. What is last and not alone is N if
    it is a number: a directory of such a name is ./12.
    """
    from katafs.kata.model.steps import history
    from katafs.kata.reader import reader

    *before, last = arguments
    is_event = bool(before) and (last == "latest" or (last.isascii() and last.isdecimal()))
    names = before if is_event else arguments
    event = int(last[:9]) if is_event and last != "latest" else None

    def show_event(path: Path) -> list[str]:
        kata = reader(path)
        steps = history(kata.rows(), _id_of(path))
        index = len(steps) - 1 if event is None else event
        if index >= len(steps):
            raise NotFoundError(f"{path}: there is no event {index}; the newest is {len(steps) - 1}")
        lines = [*_about(steps[index]), *_outputs(kata, index)]
        if index:
            lines += _diff(kata.diff(index - 1, index))
        return lines

    _each([DIRECTORY.convert(name, None, click.get_current_context()) for name in names], show_event)


def _each(paths: Sequence[Path], act: Callable[[Path], Iterable[str]]) -> None:
    """Print what ``act`` says of each kata; one that cannot be read is told of, and makes the exit status 1."""
    status = 0
    for number, path in enumerate(paths):
        try:
            lines = act(path)
            if lines and len(paths) > 1:
                echo(("\n" if number else "") + click.style(visible(str(path), kept=""), bold=True))
            for line in lines:
                echo(line)
        except KataError as error:
            say(str(error) if str(path) in str(error) else f"{path}: {error}")
            status = 1
        except OSError as error:
            # of standard output there is no name
            if error.filename is None:
                raise
            say(f"{error.filename}: {error.strerror}")
            status = 1
    sys.exit(status)


def _table(steps: list[Step]) -> Iterator[str]:
    from katafs.kata.model.steps import aligned, table

    titles, *events = aligned(table(steps))
    yield click.style("  ".join(titles).rstrip(), bold=True)
    for cells in events:
        yield "  ".join(_coloured(title.strip(), cell) for title, cell in zip(titles, cells, strict=True)).rstrip()


def _name_of(path: Path) -> str:
    """The id of a kata; where it is in no store, its path."""
    from katafs.kata.model.ids import is_kata_id

    kata_id = _id_of(path)
    return kata_id if is_kata_id(kata_id) else visible(str(path), kept="")


def _id_of(path: Path) -> str:
    """The id of a kata by the last three names of its path; a class has links to katas."""
    return "".join(Path(os.path.realpath(path)).parts[-3:])


def _coloured(title: str, cell: str) -> str:
    word = cell.strip()
    if not word:
        return cell
    if title == "light":
        return click.style(cell, fg=_COLOURS.get(word, "magenta"), bold=True)
    if title == "predicted":
        return click.style(cell, fg="green" if word.endswith("right") else "red")
    return click.style(cell, fg=_LINE_COLOURS[title]) if title in _LINE_COLOURS else cell


def _about(step: Step) -> Iterator[str]:
    yield f"event {step.index}: {step.headline}" + (f", {_coloured('light', step.light)}" if step.light else "")
    facts = {
        "time": step.time.strftime("%Y-%m-%d %H:%M:%S UTC") if step.time else "",
        "took": "" if step.duration is None else f"{step.duration:.2f} s",
        "predicted": step.prediction,
        "laptop": "" if step.laptop is None else str(step.laptop),
    }
    yield from (f"{name:<11}{fact}" for name, fact in facts.items() if fact)


def _outputs(kata: Reader, index: int) -> Iterator[str]:
    outputs = kata.outputs(index)
    yield f"{'status':<11}{visible(outputs['status'], kept='')}"
    if cut := kata.cut(index):
        more = f" and {len(cut) - _MOST_CUT} more" if len(cut) > _MOST_CUT else ""
        yield f"{'cut short':<11}{visible(', '.join(cut[:_MOST_CUT]), kept='')}{more}"
    for name in ("stdout", "stderr"):
        text = visible(without_colours(outputs[name])).removesuffix("\n")
        if text:
            yield ""
            yield click.style(name, bold=True)
            yield from ("    " + line for line in text.split("\n"))


def _diff(text: str) -> Iterator[str]:
    """A diff with all lines, cut down to what is around the changes, after a list of the files in it."""
    files: list[list[str]] = []
    for line in text.split("\n"):
        if line.startswith("diff --git "):
            files.append([])
        if files:
            files[-1].append(line)
    for lines in files:
        yield ""
        for at, line in enumerate(lines):
            if line == "GIT binary patch":
                yield "(no text)"
                break
            if line.startswith("@@ "):
                yield from _around_changes(lines[at + 1 :])
                break
            if line:
                yield click.style(visible(line), bold=True)


def _around_changes(lines: list[str]) -> Iterator[str]:
    changed = (at for at, line in enumerate(lines) if line[:1] in ("+", "-"))
    near = {place for at in changed for place in range(at - _CONTEXT, at + _CONTEXT + 1)}
    last = -1
    for at, line in enumerate(lines):
        if at not in near or (not line and at == len(lines) - 1):
            continue
        if at != last + 1:
            yield click.style(f"@@ {at - last - 1} unchanged lines @@", fg="cyan")
        last = at
        colour = _LINE_COLOURS.get(line[:1])
        yield click.style(visible(line), fg=colour) if colour else visible(line)
