"""How far a command is that goes through a store: a line that changes on a terminal, some lines otherwise."""

from __future__ import annotations

import sys
import time

import click

from katafs.cli.common import say

_TERMINAL_SECONDS, _LINE_SECONDS = 0.2, 5.0
_CLEAR = "\r\033[K"


class Progress:
    """Told on standard error, with the time that is left; unless the command is to be quiet."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total = total
        self._is_quiet = quiet
        self._start = self._told = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def update(self, done: int, what: str, count: int, unit: str) -> None:
        """So many katas are done, and so much of ``what`` was; told if the last time is a while ago.

        The rate is ``count`` in a second, with the ``unit``.
        """
        now = time.monotonic()
        if self._is_quiet or now - self._told < (_TERMINAL_SECONDS if self._is_terminal else _LINE_SECONDS):
            return
        self._told = now
        seconds = now - self._start
        left = int(seconds / max(done, 1) * max(0, self.total - done))
        rate = f"{count / seconds:.0f} {unit}/s"
        text = f"{done} of {self.total} katas, {what}, {rate}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        click.echo(f"{_CLEAR}{text}" if self._is_terminal else text, err=True, nl=not self._is_terminal)

    def say(self, sentence: str) -> None:
        """A sentence of its own; on a terminal it takes the place of the line that changes."""
        say(sentence, before=_CLEAR if self._is_terminal else "")

    def end(self) -> None:
        """Take the line that changes away."""
        if self._is_terminal and not self._is_quiet:
            click.echo(_CLEAR, err=True, nl=False)
