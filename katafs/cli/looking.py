"""Commands to look at a kata: ``log``, ``show``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import DIRECTORY, Command, echo, fail
from katafs.errors import KataError
from katafs.text import visible, without_colours

if TYPE_CHECKING:
    from katafs.kata.model.steps import Step
    from katafs.kata.reader import Reader

_CONTEXT = 3  # unchanged lines around a change
_MOST_CUT = 10  # names
_COLOURS = {"red": "red", "amber": "yellow", "green": "green"}
_LINE_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command(
    cls=Command,
    examples=[
        ("katafs log /mnt/katas/Py/Fz/Bz", "a kata in a mount, or in a store"),
        ("katafs log", "the one that the current directory is"),
    ],
)
@click.argument("path", type=DIRECTORY, default=".")
def log(path: Path) -> None:
    """Show the history of the kata in PATH, a line an event.

    PATH is a kata in a mount or in a store, the current directory unless given. In colour on a terminal, but not when
    NO_COLOR is set.
    """
    from katafs.kata.model.steps import aligned, history, table
    from katafs.kata.reader import reader

    try:
        rows = aligned(table(history(reader(path).rows(), _id_of(path))))
    except KataError as error:
        fail(str(error))
    titles, *events = rows
    echo(click.style("  ".join(titles).rstrip(), bold=True))
    for cells in events:
        echo("  ".join(_coloured(title.strip(), cell) for title, cell in zip(titles, cells, strict=True)).rstrip())


@click.command(
    cls=Command,
    examples=[
        ("katafs show /mnt/katas/Py/Fz/Bz 12", "event 12"),
        ("katafs show .", "the newest event, in a kata's directory"),
    ],
)
@click.argument("path", type=DIRECTORY)
@click.argument("event", type=click.IntRange(min=0), required=False, metavar="[N]")
def show(path: Path, event: int | None) -> None:
    """Show event N of the kata in PATH: its output, what changed.

    PATH is a kata in a mount or in a store; N is the newest event unless given.
    """
    from katafs.kata.model.steps import history
    from katafs.kata.reader import reader

    try:
        kata = reader(path)
        steps = history(kata.rows(), _id_of(path))
        index = len(steps) - 1 if event is None else event
        if index >= len(steps):
            fail(f"{path}: there is no event {index}; the newest is {len(steps) - 1}")
        lines = [*_about(steps[index]), *_outputs(kata, index)]
        if index:
            lines += _diff(kata.diff(index - 1, index))
    except KataError as error:
        fail(str(error))
    for line in lines:
        echo(line)


def _id_of(path: Path) -> str:
    """The id of a kata by the last three names of its path."""
    return "".join(Path(os.path.abspath(path)).parts[-3:])


def _coloured(title: str, cell: str) -> str:
    word = cell.strip()
    if title == "light" and word:
        return click.style(cell, fg=_COLOURS.get(word, "magenta"), bold=True)
    if title == "predicted" and word:
        return click.style(cell, fg="green" if word.endswith("right") else "red")
    if title in _LINE_COLOURS and word:
        return click.style(cell, fg=_LINE_COLOURS[title])
    return cell


def _about(step: Step) -> Iterator[str]:
    light = click.style(step.light, fg=_COLOURS.get(step.light, "magenta"), bold=True) if step.light else ""
    yield f"event {step.index}: {step.headline}" + (f", {light}" if light else "")
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
        in_hunk = False
        hunk: list[str] = []
        for line in lines:
            if line == "GIT binary patch":
                yield "(no text)"
                break
            if in_hunk:
                hunk.append(line)
            else:
                in_hunk = line.startswith("@@ ")
                if not in_hunk and line:
                    yield click.style(visible(line), bold=True)
        yield from _around_changes(hunk)


def _around_changes(lines: list[str]) -> Iterator[str]:
    near = {
        place
        for at, line in enumerate(lines)
        if line[:1] in ("+", "-")
        for place in range(at - _CONTEXT, at + _CONTEXT + 1)
    }
    last = -1
    for at, line in enumerate(lines):
        if at not in near or (not line and at == len(lines) - 1):
            continue
        if at != last + 1:
            yield click.style(f"@@ {at - last - 1} unchanged lines @@", fg="cyan")
        last = at
        colour = _LINE_COLOURS.get(line[:1])
        yield click.style(visible(line), fg=colour) if colour else visible(line)
