"""git and libgit2 read the mounted ``.git`` beside a writer that records 20 events a second, and compacts: nothing
fails, and what was recorded before a read began is seen by it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pygit2
import pytest

from katafs.kata.compact import compact_kata
from tests.benchmarks.restarts import say
from tests.clients.senders import PROGRAMS
from tests.katas import Served, assert_sound, message, serve_kata
from tests.mounts import Mount, patience

RATE = 20  # events a second
EACH = 25  # events, after which the writer compacts

#: asks for the newest event or one before it: which that is by the subject of its commit, and by its file
Read = Callable[[str], tuple[int, int]]


def by_git(git_dir: Path) -> Read:
    """Two processes, each of which reads references and objects for itself."""

    def git(*arguments: str) -> str:
        command = ["git", f"--git-dir={git_dir}", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{arguments}: {result.stderr}"
        return result.stdout

    def read(name: str) -> tuple[int, int]:
        return index_of(git("log", "-1", "--format=%s", name)), int(git("cat-file", "-p", f"{name}:files/a.txt"))

    return read


def by_a_new_repository(git_dir: Path) -> Read:
    """libgit2 with nothing in its caches."""

    def read(name: str) -> tuple[int, int]:
        return look(pygit2.Repository(os.fspath(git_dir)), name)

    return read


def by_one_repository(git_dir: Path) -> Read:
    """libgit2 that goes on with what it has opened, and mapped."""
    repository = pygit2.Repository(os.fspath(git_dir))
    return lambda name: look(repository, name)


def by_rugged(git_dir: Path) -> Read:
    """libgit2 in Ruby, as saver reads."""
    command = ["ruby", os.fspath(PROGRAMS / "reader.rb"), os.fspath(git_dir)]
    ruby = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert ruby.stdin is not None
    assert ruby.stdout is not None
    questions, answers = ruby.stdin, ruby.stdout

    def read(name: str) -> tuple[int, int]:
        questions.write(f"{name}\n")
        questions.flush()
        subject, content = answers.readline().split()
        return int(subject), int(content)

    return read


def look(repository: pygit2.Repository, name: str) -> tuple[int, int]:
    commit = repository.lookup_reference(name).peel(pygit2.Commit)
    blob = commit.tree["files/a.txt"]
    assert isinstance(blob, pygit2.Blob)
    return index_of(commit.message), int(blob.data)


def index_of(subject: str) -> int:
    return int(subject.split(" ", 1)[0])


READERS = (by_git, by_git, by_a_new_repository, by_one_repository)
#: with --clients
MORE = (by_rugged,)


def reads(make: Callable[[Path], Read], git_dir: Path, count: int, recorded: Any, said: Any) -> None:
    """Read so often; what was wrong."""
    wrong: Counter[str] = Counter()
    read, chance = make(git_dir), random.Random(make.__name__)
    for number in range(count):
        before = recorded.value
        name = "refs/heads/main" if number % 2 else f"refs/tags/{chance.randrange(before + 1)}"
        try:
            found = read(name)
        except (AssertionError, ValueError, KeyError, OSError, pygit2.GitError) as error:
            wrong[repr(error)] += 1
            continue
        # two processes of git may see two events
        is_right = min(found) >= before if number % 2 else set(found) == {int(name.rpartition("/")[2])}
        if not is_right:
            wrong[f"{name} was {found}, {before} was recorded before"] += 1
    said.put((make.__name__, wrong))


def write(kata: Served, recorded: Any, is_over: threading.Event) -> int:
    """Record events, so many a second; how many."""
    start, index = time.monotonic(), 0
    while not is_over.wait(max(0.0, start + index / RATE - time.monotonic())):
        index += 1
        kata.ran_tests.write_text(json.dumps(message({"a.txt": f"{index}\n"}, index=index)))
        recorded.value = index
        if index % EACH == 0:
            compact_kata(kata.stored, kata.shown.parts[-3] + kata.shown.parts[-2] + kata.shown.parts[-1])
    return index


@pytest.mark.parametrize(
    "count", [pytest.param(100, marks=pytest.mark.thorough), pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_beside_a_writer(served: Mount, count: int, request: pytest.FixtureRequest) -> None:
    kata = serve_kata(served, {"a.txt": "0\n"})
    recorded: Any = multiprocessing.Value("q", 0)
    said: Any = multiprocessing.Queue()
    readers = READERS + (MORE if request.config.getoption("--clients") else ())
    each = count // len(readers)
    processes = [
        multiprocessing.Process(target=reads, args=(make, kata.shown / ".git", each, recorded, said))
        for make in readers
    ]
    is_over = threading.Event()
    written: list[int] = []
    writer = threading.Thread(target=lambda: written.append(write(kata, recorded, is_over)))
    writer.start()
    try:
        for process in processes:
            process.start()
        answers = [said.get(timeout=patience(count / 10)) for _ in processes]
    finally:
        is_over.set()
        writer.join()
        for process in processes:
            process.kill()
    wrong = {name: what for name, what in answers if what}
    say(f"{each * len(readers)} reads beside {written[0]} events")
    assert not wrong
    assert assert_sound(kata.stored) == written[0] > EACH
