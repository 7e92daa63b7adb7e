"""The command ``fsck``: what is printed, and the exit status."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import DIRECTORY, command, count, drop_output, fail, say, unsafe_store, writable_store
from katafs.text import visible

if TYPE_CHECKING:
    from katafs.kata.fsck import Finding, Result

# as fsck(8) has them; they are added up
_MENDED, _LEFT, _FAILED, _STOPPED = 1, 4, 8, 32
_STEPS = 1000  # of the progress bar


@command(
    ("katafs fsck /srv/katas", "look at all katas"),
    ("katafs fsck --repair /srv/katas AbCdEf", "mend one kata"),
    ("katafs fsck --json -q /srv/katas | jq .code", "for programs"),
    statuses={
        0: "nothing is wrong; the following are added up, as those of fsck(8):",
        1: "something was wrong, and is mended",
        2: "the command line is wrong",
        4: "something is wrong, and is left",
        8: "something could not be checked",
        32: "stopped by a signal",
    },
)
@click.argument("store", type=DIRECTORY)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("-r", "--repair", is_flag=True, help="Mend what can be mended. Nothing that was recorded is lost.")
@unsafe_store
@click.option("--quick", is_flag=True, help="References, rows and tags only: do not read all objects.")
@click.option("--json", "as_json", is_flag=True, help="Print each finding as a JSON object, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Print findings only: no notes, progress or summary.")
def fsck(
    store: Path, ids: tuple[str, ...], repair: bool, unsafe_store: bool, quick: bool, as_json: bool, quiet: bool
) -> None:
    """Check the katas of STORE, all or those with these IDs.

    Safe beside running daemons and services. Each finding is one line: the kata, what kind of finding it is, a
    sentence, and what became of it or what to do.
    """
    # what the writers log is in the findings
    logging.getLogger().addHandler(logging.NullHandler())
    path = writable_store(store, _FAILED, unsafe_store=unsafe_store or not repair)
    _check_ids(path, store, ids)
    report = _Report(as_json, quiet)
    try:
        from katafs.kata import fsck as checks

        if ids:
            results = checks.check_ids(path, list(dict.fromkeys(ids)), repair=repair, is_quick=quick)
        else:
            results = checks.check_store(path, repair=repair, is_quick=quick)
        with report.bar:
            for done, result in results:
                report.tell(done, result)
            report.advance(1.0)
    except KeyboardInterrupt:
        report.status |= _STOPPED
        say("stopped; what was not looked at yet is as it was")
    except OSError as error:
        drop_output()
        fail(f"{error.filename or 'standard output'}: {error.strerror}", report.status | _FAILED)
    report.summarize()
    sys.exit(report.status)


def _check_ids(path: Path, store: Path, ids: tuple[str, ...]) -> None:
    from katafs.kata.model.ids import is_kata_id, kata_path

    for kata_id in ids:
        if not is_kata_id(kata_id):
            raise click.BadParameter(f"{kata_id!r} is not a kata id.", param_hint="ID")
        kata = kata_path(path, kata_id)
        if os.path.islink(kata) or not os.path.isdir(kata):
            fail(f"kata {kata_id} is not in {store}", _FAILED)


class _Report:
    """Prints findings as they come, and counts them."""

    def __init__(self, as_json: bool, is_quiet: bool) -> None:
        self._as_json, self._is_quiet = as_json, is_quiet
        self._katas = 0
        self._counts: Counter[str] = Counter()
        self._failures = 0
        self.status = 0
        self._started = time.monotonic()
        is_hidden = is_quiet or sys.stderr is None or not sys.stderr.isatty()
        self.bar = click.progressbar(
            range(_STEPS), hidden=is_hidden, file=sys.stderr, item_show_func=lambda _: self._rate()
        )

    def tell(self, done: float, result: Result) -> None:
        for finding in result.findings:
            self._tell(finding)
        if result.failure:
            self._failures += 1
            self.status |= _FAILED
            self._clear()
            say(f"kata {result.kata_id} could not be checked: {result.failure}")
        self._katas += bool(result.kata_id)
        self.advance(done)

    def advance(self, done: float) -> None:
        self.bar.update(int(done * _STEPS) - self.bar.pos)

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        return f"{count(self._katas, 'kata')}, {self._katas / seconds:.0f}/s"

    def _tell(self, finding: Finding) -> None:
        state = finding.state.value
        self._counts[state] += 1
        if state == "note" and self._is_quiet:
            return
        if state != "note":
            self.status |= _MENDED if state == "mended" else _LEFT
        self._clear()
        if self._as_json:
            shown = {"kata": finding.kata_id, "code": finding.code, "state": state}
            click.echo(json.dumps({**shown, "message": finding.message, "advice": finding.advice}))
        else:
            outcome = {"found": "--repair mends it", "left": f"left: {finding.advice}"}.get(state, state)
            click.echo(visible(f"{finding.kata_id} {finding.code}: {finding.message} [{outcome}]", kept="\t"))

    def _clear(self) -> None:
        """Take the progress bar out of the way of a line."""
        if not self.bar.hidden:
            click.echo("\r\x1b[K", err=True, nl=False)

    def summarize(self) -> None:
        if self._is_quiet:
            return
        counts = self._counts
        wrong = counts["found"] + counts["mended"] + counts["left"]
        text = f"{count(self._katas, 'kata')}: {count(wrong, 'finding')}"
        if wrong:
            text += f", {counts['mended']} mended, {counts['left'] + counts['found']} left"
        if counts["found"]:
            text += f" ({counts['found']} that --repair can mend)"
        if counts["note"]:
            text += f"; {count(counts['note'], 'note')}"
        if self._failures:
            text += f"; {count(self._failures, 'kata')} could not be checked"
        click.echo(text, err=self._as_json)
