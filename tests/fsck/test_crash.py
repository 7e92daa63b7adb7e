"""``katafs fsck`` after a crash between any two steps of a write, and of other writers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from katafs.kata.fsck import Finding, Outcome
from tests.fsck.cases import LAST, assert_git_is_content, check, codes, copy_kata, make_old
from tests.katas import add_event, git, make_kata, message, stored_rows
from tests.mount.test_crash import EDITED, SKIPPING, STEPS, crash, tags


def some_slow(steps: list[tuple[Any, ...]], quick: set[int]) -> list[Any]:
    """Each step takes a process; the quick suite tries some."""
    return [
        pytest.param(step, id=f"{step[2]} {step[1]} {step[0]}", marks=() if number in quick else pytest.mark.slow)
        for number, step in enumerate(steps)
    ]


def assert_whole(path: Path, events: int) -> None:
    """All events have their tags, git is content, and katafs records the next one."""
    assert check(path) == []
    assert len(stored_rows(path)) == events + 1
    assert tags(path) == set(range(events + 1))
    assert_git_is_content(path)
    add_event(path, events + 1)
    assert tags(path) == set(range(events + 2))
    assert not list(path.glob(".git/**/*.lock"))


def marked(findings: list[Finding]) -> list[tuple[str, Outcome]]:
    """What was found, but for the mark that a dead writer left on his pack, and files that were to become others."""
    return [found for found in codes(findings) if found[0] not in ("stale-file", "temporary-file")]


@pytest.mark.parametrize("step", some_slow(STEPS, {2, 3, 5}))
def test_two_events(store: Path, step: tuple[Any, ...]) -> None:
    path = make_kata(store, "AAAAAA")
    crash(path, step, json.dumps(message(EDITED, laptop_id="0123456789abcdef" * 4, tab_seq=1)))
    make_old(path)
    _, _, _, events, with_tags = step
    lacking = [("tag-missing", Outcome.MENDED)] if with_tags < events else []
    assert marked(check(path, repair=True)) == lacking
    assert_whole(path, events)


@pytest.mark.parametrize("step", some_slow(SKIPPING, {2}))
def test_an_event_that_skips_others(store: Path, step: tuple[Any, ...]) -> None:
    path = make_kata(store, "AAAAAA")
    crash(path, step, json.dumps(message(EDITED, index=20)))
    lacking = [("tag-missing", Outcome.MENDED)] if step[4] == 0 else []
    if (path / ".git" / "packed-refs.lock").exists():
        lacking.insert(0, ("lock-stale", Outcome.MENDED))
    make_old(path)
    assert marked(check(path, repair=True)) == lacking
    assert_whole(path, 20)
    commits = {git(path, "rev-parse", f"refs/tags/{index}") for index in range(1, 21)}
    assert commits == {git(path, "rev-parse", "main~1")}


def test_a_lock_of_a_moment_before(kata: Path) -> None:
    """After a crash fsck is run at once: a lock is waited for until it is let go, or nobody's."""
    lock = kata / ".git" / "refs" / "heads" / "main.lock"
    lock.touch()
    os.utime(lock, (time.time() - 9.5, time.time() - 9.5))
    assert codes(check(kata, repair=True)) == [("lock-stale", Outcome.MENDED)]
    assert not lock.exists()
    assert check(kata) == []


def test_a_lock_from_the_future(kata: Path) -> None:
    """A clock that jumped back: nobody can say how old it is."""
    lock = kata / ".git" / "refs" / "heads" / "main.lock"
    lock.touch()
    os.utime(lock, (time.time() + 86_400, time.time() + 86_400))
    (finding,) = check(kata, repair=True)
    assert (finding.code, finding.state) == ("lock-held", Outcome.LEFT)
    assert "time in the future" in finding.message
    assert lock.exists()


def test_a_disk_that_cannot_be_written_to(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be mended says why, and the rest goes on."""
    kata = copy_kata("native", store)
    (kata / ".git" / "refs" / "tags" / str(LAST)).unlink()
    (kata / ".git" / "refs" / "heads" / "aB3dE6gH.lock").touch()
    make_old(kata)

    def refuse(*_arguments: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    found = {finding.code: finding for finding in check(kata, repair=True)}
    assert found["lock-stale"].state is Outcome.MENDED
    assert found["tag-missing"].state is Outcome.LEFT
    assert "Read-only file system" in found["tag-missing"].advice
    monkeypatch.undo()
    assert codes(check(kata, repair=True)) == [("tag-missing", Outcome.MENDED)]


@pytest.mark.parametrize("layout", ["native", "saver"])
def test_a_mended_kata_is_written_to(layout: str, store: Path) -> None:
    path = copy_kata(layout, store)
    for name in ("HEAD", "config", "refs/heads/main", f"refs/tags/{LAST}"):
        (path / ".git" / name).unlink()
    make_old(path)
    assert {finding.state for finding in check(path, repair=True)} == {Outcome.MENDED}
    add_event(path, LAST + 1)
    assert check(path) == []
    assert git(path, "config", "user.email") == b"FsckMe@cyber-dojo.org\n"
    assert git(path, "log", "-1", "--format=%s").startswith(b"6 ")
