"""Clients of eight runtimes, which send messages in pieces: programs in ``programs/``, all called alike.

``PROGRAM FIRST NAME COUNT MOST PATH…``: for each PATH, a control file, a sender of its own, all at once. Each sends
COUNT messages, one after the other, in a way of its own: the first one in that of the number FIRST, the next in the
next. The n-th message of sender s says in its summary that it is of ``NAME-s-n``, and its file has that and a blank
some times, at most MOST. For each a line is printed: ``NAME-s-n ok``, or instead of ``ok`` what the system said.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import unavailable
from tests.katas import Served, assert_sound, git_blobs, git_files, stored_rows
from tests.mounts import READING_AS_OTHER, patience

PROGRAMS = Path(__file__).parent / "programs"
NEEDED = ("node", "go", "java", "ecj", "ruby", "bash", "dash", "dd", "rsync", "rclone")
#: no program has more
WAYS = 7


class Runtime(NamedTuple):
    """A program, up to the word FIRST."""

    name: str
    command: tuple[object, ...]


def runtimes(directory: Path) -> list[Runtime]:
    """Eight. They are put into ``directory``, where everybody can read them."""
    if lacking := [name for name in NEEDED if shutil.which(name) is None]:
        unavailable(f"not installed: {', '.join(lacking)}")
    for source in PROGRAMS.iterdir():
        shutil.copy(source, directory)
    environment = {**os.environ, "GOCACHE": str(directory / "cache"), "GO111MODULE": "off"}
    java = ["ecj", "-proc:none", "-source", "11", "-target", "11", "Client.java"]
    for command in (["go", "build", "client.go"], java):
        subprocess.run(command, cwd=directory, env=environment, check=True)
    return [
        Runtime("node", ("node", directory / "client.js")),
        Runtime("go", (directory / "client",)),
        Runtime("java", ("java", "-cp", directory, "Client")),
        Runtime("ruby", ("ruby", directory / "client.rb")),
        Runtime("asyncio", (sys.executable, directory / "client.py")),
        Runtime("bash", ("bash", directory / "client.sh", "shell")),
        Runtime("dash", ("dash", directory / "client.sh", "shell")),
        Runtime("tools", ("dash", directory / "client.sh", "tools")),
    ]


class Run(NamedTuple):
    """One run of a program: a sender for each of the katas."""

    runtime: Runtime
    katas: Sequence[Served]
    messages: int
    most: int
    first: int = 0

    def command(self, *, as_other: bool) -> list[str]:
        words = (self.first, f"{self.runtime.name}{self.first}", self.messages, self.most)
        command = (*self.runtime.command, *words, *(kata.ran_tests for kata in self.katas))
        return [*(READING_AS_OTHER if as_other else []), *map(str, command)]


def sent(runs: Sequence[Run], seconds: float, *, as_other: bool = False) -> dict[str, str]:
    """Run them all at once: what was heard of each message."""
    processes: list[subprocess.Popen[str]] = []
    pipe = subprocess.PIPE
    with tempfile.TemporaryDirectory(prefix="katafs-clients-") as scratch:
        os.chmod(scratch, 0o777)
        environment = {**os.environ, "TMPDIR": scratch}
        try:
            for run in runs:
                command = run.command(as_other=as_other)
                processes += [subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)]
            ends = [process.communicate(timeout=patience(seconds)) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    for process, (_, complaints) in zip(processes, ends, strict=True):
        assert process.returncode == 0, complaints
        # shells and tools say there what was refused
        known = re.compile("[Ii]nvalid argument|write error")
        strange = [line for line in complaints.splitlines() if not known.search(line)]
        assert not strange, "\n".join(strange[:20])
    heard = dict(line.split(" ", 1) for out, _ in ends for line in out.splitlines())
    assert len(heard) == sum(run.messages * len(run.katas) for run in runs)
    return heard


def refused(katas: Sequence[Served], heard: dict[str, str]) -> list[str]:
    """Whose messages were refused; all others were recorded as they were sent, once, and nothing else was."""
    found: Counter[str] = Counter()
    for kata in katas:
        assert_sound(kata.stored)
        rows = [row for row in stored_rows(kata.stored) if "who" in row]
        blobs = {row["index"]: git_files(kata.stored, f"refs/tags/{row['index']}")[b"files/a.txt"] for row in rows}
        texts = git_blobs(kata.stored, blobs.values())
        for row in rows:
            words = texts[blobs[row["index"]]].decode().split(" ")
            assert set(words[:-1]) == {row["who"]}, (
                f"{kata.stored}: event {row['index']} of {row['who']}: {Counter(words)}"
            )
            assert not words[-1]
            found[row["who"]] += 1
    assert [who for who, count in found.items() if count != 1] == []
    wrong = {who: said for who, said in heard.items() if (said == "ok") != (who in found)}
    assert not wrong, f"untrue answers: {wrong}"
    assert found.keys() <= heard.keys()
    return [f"{who}: {said}" for who, said in heard.items() if said != "ok"]
