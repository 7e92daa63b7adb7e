"""Malformed and hostile messages in great number: refused with an errno, in no time, and nothing is left of them."""

from __future__ import annotations

import errno
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.errors import InvalidError, TooLargeError
from katafs.kata.model.kinds import Kind
from katafs.kata.record.message import parse_act
from tests.katas import Served, repository_state, serve_kata, serving
from tests.model.hostile import is_plausible, is_unfinished, messages
from tests.model.stored import Stored, assert_clean
from tests.mounts import Mount, patience

MEGABYTE = 1 << 20
PATIENCE = 5.0  # seconds, for one message


def resident(pid: int | str = "self") -> int:
    """The memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def parse_many(seed: int, count: int) -> Counter[str]:
    """Parse messages: none does anything but be understood or be refused. How many of which."""
    outcomes: Counter[str] = Counter()
    for kind, data in messages(seed, count):
        begun = time.monotonic()
        try:
            act = parse_act(Kind(kind), data)
        except (InvalidError, TooLargeError) as error:
            outcomes[type(error).__name__] += 1
        else:
            assert is_plausible(kind, data), data
            # a file_edit may leave it to the repository which file it names
            assert kind == "file_edit" or "\0" not in act.subject(1)
            outcomes["accepted"] += 1
        assert time.monotonic() - begun < patience(PATIENCE), data
    return outcomes


def test_some_messages_are_parsed() -> None:
    outcomes = parse_many(1, 2_000)
    assert outcomes["accepted"] > 100, "the fuzz must know what a message is"
    assert outcomes["InvalidError"] > 1_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(101, 110))
def test_very_many_messages_are_parsed(seed: int) -> None:
    parse_many(2, 2_000)  # caches of the library fill up
    before = resident()
    assert sum(parse_many(seed, 20_000).values()) == 20_000
    assert resident() - before < 8 * MEGABYTE


# -- over a mount


@pytest.fixture(scope="module")
def served(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("hostile"), "fast") as mount:
        yield mount


def send(control: Path, data: bytes) -> int:
    """Write a message, open to close: the errno, or 0."""
    descriptor = os.open(control, os.O_WRONLY)
    number = 0
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        number = error.errno or -1
    try:
        os.close(descriptor)
    except OSError as error:
        number = number or error.errno or -1
    return number


def stored_state(path: Path) -> tuple[bytes, set[str], set[str]]:
    """The branch, the tags and the objects of a repository that nobody packs: read without a process, thousands of
    times."""
    git_dir = path / ".git"
    main = (git_dir / "refs" / "heads" / "main").read_bytes()
    return main, set(os.listdir(git_dir / "refs" / "tags")), Stored(path, "").objects()


def read_once(control: Path) -> bytes:
    """By one read(2): between two of them the outcome may become that of an earlier message which is dropped."""
    with control.open("rb", buffering=0) as file:
        return file.read(1 << 16)


def write_many(kata: Served, seed: int, count: int) -> Counter[str]:
    """Write messages to the control files: each is recorded as a new event or a known one, or changes nothing."""
    outcomes: Counter[str] = Counter()
    state = stored_state(kata.stored)
    for kind, data in messages(seed, count):
        control, begun = kata.shown / "control" / kind, time.monotonic()
        number = send(control, data)
        assert time.monotonic() - begun < patience(PATIENCE), data
        assert number in (0, errno.EINVAL, errno.EEXIST, errno.EFBIG), data
        if number == 0 and is_unfinished(data):
            outcomes["unfinished"] += 1  # nobody sees the end of a file in this mode: its writer may go on
        elif data.strip():
            outcome = json.loads(read_once(control))
            # one that was not finished may be dropped meanwhile, ten seconds later: then its outcome is the last
            is_dropped = "was not finished, and was dropped" in outcome.get("message", "")
            assert is_dropped or outcome["ok"] is (number == 0), (outcome, data)
            outcomes[outcome.get("errno", "ok")] += 1
        if number == 0 and data.strip() and not is_unfinished(data):
            assert is_plausible(kind, data), data
            state = stored_state(kata.stored)
        else:
            assert stored_state(kata.stored) == state, data
    assert_clean(kata.stored)
    return outcomes


def test_some_messages_are_written(served: Mount) -> None:
    outcomes = write_many(serve_kata(served), 4, 250)
    assert outcomes["ok"] > 10
    assert outcomes["EINVAL"] > 100


@pytest.fixture(scope="module")
def filled(served: Mount) -> int:
    """The memory of the daemon once its caches are filled, in bytes."""
    write_many(serve_kata(served), 5, 2_000)
    return resident(served.pid)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 16))
def test_very_many_messages_are_written(served: Mount, filled: int, seed: int) -> None:
    """A kata for each seed: the rows of one would grow long."""
    write_many(serve_kata(served), seed, 2_000)
    assert resident(served.pid) - filled < 32 * MEGABYTE


@pytest.mark.slow
def test_messages_larger_than_the_limit(served: Mount) -> None:
    kata = serve_kata(served)
    state = repository_state(kata.stored)
    for _ in range(20):
        assert send(kata.ran_tests, b'{"stdout": {"content": "' + b"x" * (17 * MEGABYTE)) == errno.EFBIG
        assert kata.refused() == "EFBIG"
    assert repository_state(kata.stored) == state
