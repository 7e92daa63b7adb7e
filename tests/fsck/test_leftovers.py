"""``katafs fsck``: what saver left behind when it crashed, and what somebody still uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.kata.fsck import Outcome
from tests.fsck.cases import (
    LAST,
    LONG_AGO,
    assert_mended,
    check,
    copy_kata,
    kept,
    make_old,
    references,
)
from tests.katas import git

# -- a save of saver's that crashed


@pytest.fixture
def worktree(kata: Path, tmp_path: Path) -> Iterator[Path]:
    """A worktree as saver made it, on a branch with a name of eight characters."""
    path = tmp_path / "Xy7Zk2Qw"
    git(kata, "worktree", "add", "-q", path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_worktree_that_was_left(kata: Path, worktree: Path) -> None:
    before = references(kata)
    (worktree / "stdout").write_text("never committed")
    git(worktree, "add", "stdout")
    git(worktree, "commit", "-q", "-m", "6 a save that crashed")
    commit = git(worktree, "rev-parse", "HEAD").decode().strip()
    shutil.rmtree(worktree)
    make_old(kata)
    assert_mended(kata, before, "branch-stray", "worktree-left")
    assert kept(kata) == [commit]
    assert not (kata / ".git" / "worktrees" / worktree.name).exists()


def test_a_worktree_that_is_in_use(kata: Path, worktree: Path) -> None:
    """Saver may be in the middle of a save: what is young is left alone, with its branch."""
    assert check(kata, repair=True, notes=True) == []
    (worktree / "stdout").write_text("saved")
    git(worktree, "commit", "-q", "-a", "-m", "6 a save")
    assert check(kata, repair=True, notes=True) == []
    assert git(kata, "log", "-1", "--format=%s", worktree.name) == b"6 a save\n"


def test_a_worktree_that_is_there_is_told(kata: Path, worktree: Path) -> None:
    make_old(kata)
    os.utime(kata / ".git" / "refs" / "heads" / worktree.name)
    assert [finding.code for finding in check(kata, repair=True, notes=True)] == ["worktree"]


# -- locks and temporary files of those who live


def test_a_young_lock_of_index_is_somebodys(kata: Path) -> None:
    (kata / ".git/index.lock").touch()
    (kata / ".git/objects/ab").mkdir(exist_ok=True)
    (kata / ".git/objects/ab/tmp_obj_young").touch()
    assert check(kata, repair=True) == []
    assert (kata / ".git/index.lock").exists()
    assert (kata / ".git/objects/ab/tmp_obj_young").exists()
    os.utime(kata / ".git/index.lock", (LONG_AGO, time.time() - 60))
    (finding,) = check(kata, repair=True)
    assert (finding.code, finding.state) == ("lock-held", Outcome.LEFT)
    assert (kata / ".git/index.lock").exists()


def test_a_lock_that_is_let_go_is_no_finding(store: Path) -> None:
    """Somebody holds main for half a second while a tag is missing: he may just be making it."""
    kata = copy_kata("native", store)
    lock, tag = kata / ".git/refs/heads/main.lock", kata / f".git/refs/tags/{LAST}"
    text = tag.read_text()
    tag.unlink()
    lock.touch()
    script = f"sleep 0.5; echo {text.strip()} > {tag}; rm {lock}"
    with subprocess.Popen(["sh", "-c", script]) as process:
        assert check(kata, repair=True, is_quick=True) == []
        assert process.wait() == 0
