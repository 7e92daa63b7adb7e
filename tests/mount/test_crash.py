"""A crash between any two steps of a write: the kata reads right at once, and the next write mends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.katas import Served, git, message, serve_kata, serving, stored_rows
from tests.mounts import Mount

# The process records something, and dies at the n-th call of a function.
RECORDER = """
import json, os, sys
from pathlib import Path
import katafs.git.refs.writing, katafs.git.store.writer, katafs.kata.record.commit as commit
from katafs.kata.model.kinds import Kind
from katafs.kata.record.message import parse_act

path, message, where, calls, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
owner, name = where.rsplit(".", 1)
refs, store = katafs.git.refs.writing, katafs.git.store
owner = {"RefWriter": refs.RefWriter, "GitWriter": store.writer.GitWriter, "os": os}[owner]
real = getattr(owner, name)

def die(*arguments, **named):
    global calls
    # of all renames that of the file of many tags
    if name == "rename" and not str(arguments[1]).endswith("packed-refs"):
        return real(*arguments, **named)
    calls -= 1
    if calls == 0 and when == "before":
        os._exit(42)
    result = real(*arguments, **named)
    if calls == 0:
        os._exit(42)
    return result

setattr(owner, name, die)
commit.record(path, "".join(path.parts[-3:]), parse_act(Kind.RAN_TESTS, message.encode()))
"""

EDITED = {"hiker.py": "edited\n", "cyber-dojo.sh": "pytest\n"}
# where the process dies, at which call, before it or after it; how many events are there then, and how many have tags
STEPS = [
    ("GitWriter.blob", 3, "after", 0, 0),
    ("GitWriter.commit", 2, "after", 0, 0),
    ("RefWriter.move_main", 1, "before", 0, 0),
    ("RefWriter.move_main", 1, "after", 2, 0),
    ("RefWriter._make_tag", 1, "before", 2, 0),
    ("RefWriter._make_tag", 1, "after", 2, 1),
    ("RefWriter._make_tag", 2, "after", 2, 2),
]
SKIPPING = [
    ("RefWriter.move_main", 1, "after", 20, 0),
    ("RefWriter._pack", 1, "before", 20, 0),
    ("os.rename", 1, "before", 20, 0),  # libgit2 has its own
    ("RefWriter._pack", 1, "after", 20, 20),
]


@pytest.fixture(scope="module")
def served(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("served"), "fast") as mount:
        mount.expected_log = "was left behind"
        yield mount


def crash(path: Path, step: tuple[Any, ...], text: str) -> None:
    where, calls, when = step[:3]
    command = [sys.executable, "-c", RECORDER, str(path), text, where, str(calls), when]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (42, "")


def tags(path: Path) -> set[int]:
    return set(map(int, git(path, "tag").split()))


def assert_read(kata: Served, events: int) -> None:
    """All events can be read, whether they have their tags or not."""
    assert int(os.readlink(kata.shown / "events/latest")) == events
    for index in range(events + 1):
        rows = json.loads((kata.shown / f"events/{index}/events_summary.json").read_bytes())
        assert rows == stored_rows(kata.stored)[: index + 1]
        content = "edited\n" if index else "def answer():\n    return 6 * 9\n"
        assert (kata.shown / f"events/{index}/files/hiker.py").read_text() == content
    assert len(json.loads((kata.shown / "events_summary.json").read_bytes())) == events + 1
    if events:
        (kata.shown / f"diff/0..{events}").read_bytes()
        (kata.shown / "download.tgz").read_bytes()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[2]} {step[1]} {step[0]}")
def test_two_events(served: Mount, step: tuple[Any, ...]) -> None:
    """An edit and a test run: both or neither."""
    kata = serve_kata(served)
    text = json.dumps(message(EDITED, laptop_id="0123456789abcdef" * 4, tab_seq=1))
    crash(kata.stored, step, text)
    _, _, _, events, with_tags = step
    assert len(stored_rows(kata.stored)) - 1 == events
    assert tags(kata.stored) == set(range(with_tags + 1))
    assert_read(kata, events)
    # the writer has heard nothing, and sends it again
    kata.ran_tests.write_text(text)
    assert kata.accepted() == 2
    assert_read(kata, 2)


@pytest.mark.parametrize("step", SKIPPING, ids=lambda step: f"{step[2]} {step[0]}")
def test_an_event_that_skips_others(served: Mount, step: tuple[Any, ...]) -> None:
    """So many tags are written in one file, whose lock may be left behind."""
    kata = serve_kata(served)
    text = json.dumps(message(EDITED, index=20))
    crash(kata.stored, step, text)
    assert len(stored_rows(kata.stored)) == 21
    assert tags(kata.stored) == set(range(step[4] + 1))
    assert_read(kata, 20)
    kata.ran_tests.write_text(json.dumps(message()))
    assert json.loads(kata.ran_tests.read_bytes())["index"] == 21
    assert tags(kata.stored) == set(range(22))
    commits = {git(kata.stored, "rev-parse", f"refs/tags/{index}") for index in range(1, 21)}
    assert commits == {git(kata.stored, "rev-parse", "main~1")}
    assert git(kata.stored, "fsck", "--strict", "--no-dangling") == b""
    assert not list(kata.stored.glob(".git/**/*.lock"))
