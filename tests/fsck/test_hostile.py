"""``katafs fsck --repair``, as root, of repositories whose owner means harm."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from katafs.kata.fsck import Outcome
from tests.fsck.cases import LAST, assert_git_is_content, check, codes, make_old
from tests.katas import git
from tests.mounts import OTHER

SECRET = "root:secret:1234567890\n"


@pytest.fixture
def secret(store: Path) -> Path:
    """A directory of root's with a file that nobody else may read."""
    path = store / "secret"
    path.mkdir(mode=0o700)
    for name in ("main", "config", "manifest.json", "packed-refs", "index", "HEAD"):
        (path / name).write_text(SECRET)
        (path / name).chmod(0o600)
    return path


def assert_nothing_is_told(path: Path) -> None:
    """The owner of the kata has got nothing of the secret."""
    found = subprocess.run(["grep", "-rlI", "secret:1234", path], capture_output=True, check=False)
    assert found.stdout == b""


@pytest.mark.parametrize("name", ["HEAD", "config", "packed-refs", "index", "refs/heads/main", "manifest.json"])
@pytest.mark.parametrize("how", ["symlink", "hard link"])
def test_a_link_to_a_file_of_roots(owned: Path, secret: Path, name: str, how: str) -> None:
    file = owned / (name if name == "manifest.json" else f".git/{name}")
    file.unlink(missing_ok=True)
    target = secret / Path(name).name
    if how == "symlink":
        file.symlink_to(target)
    else:
        os.link(target, file)
    make_old(owned)
    found = check(owned, repair=True)
    assert found
    assert not any("secret:1234" in finding.message + finding.advice for finding in found)
    assert (target.read_text(), target.stat().st_uid, target.stat().st_mode & 0o777) == (SECRET, 0, 0o600)
    if how == "symlink":
        assert_nothing_is_told(owned)


def test_references_that_are_a_directory_of_roots(owned: Path, secret: Path) -> None:
    shutil.rmtree(owned / ".git" / "refs")
    (owned / ".git" / "refs").symlink_to(secret)
    make_old(owned)
    found = check(owned, repair=True)
    assert found
    assert not any("secret:1234" in finding.message + finding.advice for finding in found)
    assert_nothing_is_told(owned)
    assert sorted(os.listdir(secret)) == ["HEAD", "config", "index", "main", "manifest.json", "packed-refs"]


def test_directories_that_are_links(owned: Path, secret: Path) -> None:
    for name in ("hooks", "logs", "worktrees", "objects/pack", "objects/info"):
        path = owned / ".git" / name
        shutil.rmtree(path, ignore_errors=True)
        path.symlink_to(secret)
    (owned / ".git" / f"refs/tags/{LAST}").unlink()
    make_old(owned)
    assert ("tag-missing", Outcome.MENDED) in codes(check(owned, repair=True))
    assert len(os.listdir(secret)) == 6


@pytest.mark.parametrize("name", ["HEAD", "config", "packed-refs", "index", "refs/heads/main", "logs/refs/heads/main"])
def test_nobody_waits_for_a_pipe(kata: Path, name: str) -> None:
    file = kata / ".git" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    if not name.startswith("refs"):
        (kata / ".git/refs/heads/main").unlink()
    make_old(kata)
    assert check(kata, repair=True)


def test_a_kata_that_is_given_to_the_wrong_one(owned: Path) -> None:
    """If most is somebody else's, it is the directory that is wrong: the service's files are not taken from it."""
    os.chown(owned, 0, 0)
    (finding,) = check(owned, repair=True)
    assert (finding.code, finding.state) == ("wrong-owner", Outcome.LEFT)
    assert (owned / ".git" / "HEAD").stat().st_uid == OTHER


def test_large_and_deep_things(kata: Path) -> None:
    """Files of a terabyte that take no room, directories without end, a tree that names another many times."""
    deep = kata / ".git" / "refs" / "heads"
    for _ in range(200):
        deep /= "d"
        deep.mkdir()
    (deep / "end").write_text("rubbish")
    tree = git(kata, "mktree", stdin=b"").decode().strip()
    for _ in range(40):
        entries = "".join(f"040000 tree {tree}\t{name}\n" for name in "abcdefghij")
        tree = git(kata, "mktree", stdin=entries.encode()).decode().strip()
    commit = git(kata, "commit-tree", tree, "-p", "main", "-m", "x").decode().strip()
    git(kata, "update-ref", "refs/heads/aB3dE6gH", commit)
    packs = ("objects/pack/pack-1.pack", "objects/pack/pack-1.idx")
    for name in ("index", "packed-refs", "objects/pack/tmp_pack_1", "refs/heads/large", *packs):
        with (kata / ".git" / name).open("wb") as file:
            file.truncate(1 << 40)
    make_old(kata)
    assert {code for code, _ in codes(check(kata, repair=True))} == {
        "branch-stray",
        "pack-index-damaged",
        "packed-refs-damaged",
        "reference-broken",
        "temporary-file",
    }
    for name in ("index", *packs):
        (kata / ".git" / name).unlink()
    shutil.rmtree(kata / ".git" / "refs" / "heads" / "d")
    assert check(kata) == []
    assert_git_is_content(kata)
