"""``python -m tests.benchmarks``: how fast katafs is, beside plain files, a bare mount, pygit2 and git.

Each figure is a median of at least five rounds in which the sides take turns; both must have read the same bytes. Run
it as root from the checkout, in the tests' environment: ``.venv-test/bin/python -m tests.benchmarks --quick``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks import against
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, in_columns, surroundings, table
from tests.benchmarks.lines import (
    classroom,
    diffs,
    disk,
    downloads,
    first_looks,
    growth,
    memory,
    million,
    reading,
    walking,
    writing,
)

#: what measures which lines
MEASURES: dict[tuple[int, ...], Callable[[Bench], list[Figure]]] = {
    (1, 2): reading.warm,
    (3,): reading.cold,
    (4,): writing.at_100,
    (5,): writing.growth,
    (6,): diffs.measure,
    (7,): downloads.measure,
    (8,): million.measure,
    (9,): memory.measure,
    (10,): classroom.measure,
    (11,): disk.line_11,
    (12,): walking.first,
    (13,): walking.whole,
    (14,): first_looks.measure,
}
#: what takes long in a full run
_FULL = "else line 8 makes a store of a million katas, and removes it, 2 million inodes and some 25 minutes"
_LINES = {str(line) for lines in MEASURES for line in lines} | {"growth"}


def _only(text: str) -> set[str]:
    wanted = set(text.split(","))
    if not wanted <= _LINES:
        raise argparse.ArgumentTypeError(f"there are the lines {' '.join(sorted(_LINES, key=lambda x: (len(x), x)))}")
    return wanted


def _command(venv: str) -> list[str]:
    try:
        return against.command_of(Path(venv))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> None:
    """Measure, and print a table and curves; with ``--json`` write a file, too."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", type=_only, default=_LINES, metavar="N[,N]", help="these lines, or 'growth'")
    parser.add_argument("--quick", action="store_true", help=f"fewer events and katas: all in two minutes; {_FULL}")
    parser.add_argument("--rounds", type=int, help="of each comparison; a median is taken (5; with --against 9)")
    parser.add_argument(
        "--against",
        type=_command,
        metavar="VENV",
        help="compare with the katafs that is installed there, or in .venv-test of a checkout, mounted in turn",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--at", type=Path, metavar="DIR", help="for temporary files, on a real disk (default: $TMPDIR)")
    options = parser.parse_args()
    if options.against and (options.json or options.only != _LINES):
        parser.error("--against has lines of its own, and a table")
    rounds = options.rounds or (9 if options.against else 5)
    figures: list[Figure] = []
    curves: list[growth.Curve] = []
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:4.0f} s] {text}\n")

    @contextlib.contextmanager
    def bench() -> Iterator[Bench]:
        with tempfile.TemporaryDirectory(
            prefix="katafs-bench-", dir=options.at, ignore_cleanup_errors=True
        ) as directory:
            yield Bench(Path(directory), options.quick, rounds, say)

    if options.against:
        with bench() as run:
            found = against.measure(run, options.against)
        shown = [", ".join(f"{name} {value}" for name, value in surroundings().items())]
        shown += in_columns([against.HEAD, *(line.cells() for line in found)])
        sys.stdout.write("\n".join(shown) + "\n")
        sys.exit(not all(line.is_held for line in found))
    for lines, measure in MEASURES.items():
        if options.only & {str(line) for line in lines}:
            say(f"line {' and '.join(map(str, lines))}")
            with bench() as run:
                figures += [figure for figure in measure(run) if str(figure.line) in options.only]
    if "growth" in options.only:
        with bench() as run:
            curves = growth.measure(run)
    say("done")
    around = surroundings()
    shown = [", ".join(f"{name} {value}" for name, value in around.items()), *(table(figures) if figures else ())]
    shown += [line for curve in curves for line in ("", *curve.lines())]
    sys.stdout.write("\n".join(shown) + "\n")
    if options.json is not None:
        answer = {
            "quick": options.quick,
            "surroundings": around,
            "figures": [figure.as_json() for figure in figures],
            "growth": [curve.as_json() for curve in curves],
        }
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    main()
