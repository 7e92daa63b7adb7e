"""One side of a probe: what one host does with the files of the probe, in a process of its own that is told what to do
in lines of JSON, so that it may be on another host, and an engine that hangs stops nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from katafs.directories import remove_tree
from katafs.engine.trust import FileSystem
from katafs.engine.work import DIRECTORY

_PAUSE, _LONGEST, _PATIENCE = 0.1, 10.0, 60.0  # seconds


class SideError(Exception):
    """A side cannot go on; the message is a sentence."""


class WrongSidesError(SideError):
    """They are not two views of one store: the command line is wrong."""


class Side:
    """A process that works in a store, here or on another host."""

    def __init__(self, place: str) -> None:
        """``place`` is a path, or ``HOST:PATH``, as with scp(1)."""
        self.place, self.is_here = place, is_path(place)
        command = [sys.executable, "-P", "-m", "katafs", "probe-side", place]
        if not self.is_here:
            host, _, path = place.partition(":")
            command = ["ssh", "-o", "BatchMode=yes", "--", host, f"katafs probe-side {shlex.quote(path)}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        # Ctrl-C is for us: who is in the middle of something could not remove it
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True, env=environment, text=True)
        self._process, self._to, self._from = process, cast(IO[str], process.stdin), cast(IO[str], process.stdout)

    def ask(self, what: str, *arguments: Any) -> Any:
        """Have it do something, and wait for the result. Raises OSError as it did there, `SideError`."""
        self.tell(what, *arguments)
        return self.answer()

    def tell(self, what: str, *arguments: Any) -> None:
        """Have it begin; it is told no more before it has answered."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([what, *arguments]), file=self._to, flush=True)

    def answer(self) -> Any:
        """What it says to that; raises as `ask` does."""
        if not select.select([self._from], [], [], _PATIENCE)[0]:
            raise SideError(f"{self.place} does not answer")
        line = self._from.readline()
        if not line:
            raise SideError(f"{self.place}: no katafs probes there")
        try:
            said = dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise SideError(f"{self.place} says {line[:80].strip()!r}, which is no answer") from error
        if "errno" in said:
            raise OSError(said["errno"], os.strerror(said["errno"]), self.place)
        return said["is"]

    def end(self) -> None:
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # where its engine hangs it cannot end
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)


def is_path(place: str) -> bool:
    """Whether that is a path, and not ``HOST:PATH``: as with scp(1), by what is before the first slash."""
    return ":" not in place.partition("/")[0]


@contextlib.contextmanager
def probing(store: Path, other: str) -> Iterator[tuple[Side, Side]]:
    """Two sides, and a directory for what they do, which is removed at the end, whatever happens. Raises `SideError`,
    OSError."""
    with contextlib.ExitStack() as ending:
        sides = (Side(os.fspath(store)), Side(other))
        for side in sides:
            ending.callback(side.end)
        shared = not FileSystem(**sides[0].ask("about")).is_local
        sides[1].ask("about")
        if shared and sides[1].is_here and os.stat(store).st_dev == os.stat(other).st_dev:
            raise WrongSidesError(
                f"{store} and {other} are one mount, as one host has it; give another one, or HOST:PATH"
            )
        path = store / DIRECTORY
        try:
            path.mkdir()
        except FileExistsError as error:
            raise SideError(f"{path} is there: another probe runs, or was killed; then remove it") from error
        ending.callback(_remove, path)
        # who makes files ends first
        for side in sides:
            ending.callback(side.end)
        yield sides


def _remove(directory: Path) -> None:
    """Remove what was made; by and by, where the engine still shows what is gone. Raises OSError, `SideError`."""
    end = time.monotonic() + _LONGEST
    if directory.is_symlink():
        raise SideError(f"{directory} was replaced by a link; who else can write to the store?")
    while directory.exists():
        try:
            remove_tree(directory)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(_PAUSE)
