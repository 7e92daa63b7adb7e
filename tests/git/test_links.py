"""A link in a repository leads to another one: nothing is written there, and nothing of it is removed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

import pytest

from katafs.errors import KataError
from katafs.git import GitRepo, beneath
from katafs.git.refs.writing import RefWriter
from katafs.git.store.compaction import MOST_SMALL, merge_packs
from katafs.kata.compact import compact_kata
from katafs.kata.model.ids import kata_path
from tests.fsck.cases import check, make_old
from tests.katas import add_event, git, make_kata

LINKS = (
    "refs",
    "refs/heads",
    "refs/tags",
    "logs",
    "logs/refs/heads",
    "objects/pack",
    "objects/pack/multi-pack-index.d",
    "objects/info",
    "objects/info/commit-graphs",
)
NOWHERE = "1234567890123456789012345678901234567890"


def record(path: Path) -> None:
    add_event(path, 2)


def compact(path: Path) -> None:
    compact_kata(path, "AbCdEf")


def repair(path: Path) -> None:
    check(path, repair=True)


def merge(path: Path) -> None:
    with contextlib.suppress(OSError):
        merge_packs(path / ".git/objects/pack")


def set_tags(path: Path) -> None:
    """So many that they go into ``packed-refs``, and so few that each has a file."""
    repo = GitRepo(path)
    tip = repo.main()
    assert tip is not None
    for last in (40, 60):
        RefWriter(repo).set_tags(dict.fromkeys(range(last - 4, last), tip))
        RefWriter(repo).set_tags(dict.fromkeys(range(last), tip))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nobody is to touch: locks that look as if they were left, packs that may be merged, stale files of git."""
    path = make_kata(tmp_path_factory.mktemp("made"), "GhJkLm")
    for index in range(1, MOST_SMALL):
        add_event(path, index)
    git(path, "multi-pack-index", "write")
    git(path, "commit-graph", "write", "--reachable", "--split")
    directory = path / ".git/objects/pack/multi-pack-index.d"
    directory.mkdir()
    (directory / "multi-pack-index-chain").write_text("x")
    (path / ".git/objects/pack/tmp_pack_katafs_dead").touch()
    (path / ".git/refs/heads/main.lock").touch()
    (path / ".git/refs/tags/2.lock").touch()
    (path / ".git/logs/refs/heads/main").write_text(f"{NOWHERE} {NOWHERE} a <a@b> 1 +0000\t\n")
    make_old(path)
    return path


def everything(path: Path) -> dict[str, tuple[int, bytes]]:
    """Each file and directory, with the time of its last change and what is in it."""
    found = {}
    for file in sorted((path / ".git").rglob("*")):
        is_file = file.is_file() and not file.is_symlink()
        found[os.fspath(file)] = file.lstat().st_mtime_ns, file.read_bytes() if is_file else b""
    return found


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_or_removed_there(made: Path, store: Path, name: str) -> None:
    path, other = make_kata(store, "AbCdEf"), kata_path(store, "GhJkLm")
    shutil.copytree(made, other, symlinks=True)
    add_event(path, 1)
    link = path / ".git" / name
    if link.exists():
        shutil.rmtree(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(other / ".git" / name)
    make_old(path)
    before = everything(other)
    # the last one may put a directory where the link was
    for act in (record, compact, merge, set_tags, repair):
        with contextlib.suppress(KataError):
            act(path)
        assert everything(other) == before, act.__name__


@pytest.mark.parametrize("is_new", [True, False])
def test_no_part_of_a_path_may_be_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool) -> None:
    """The same on a kernel that has no openat2(2), or where somebody forbids it."""
    monkeypatch.setattr(beneath, "_has_openat2", lambda: is_new)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("text")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a/b/link").symlink_to("file")
    assert beneath.read_part(f"{tmp_path}/a/b/file", 10) == b"text"
    for name, wrong in {
        "link/b/file": errno.ELOOP,
        "a/b/link": errno.ELOOP,
        "a/b/none": errno.ENOENT,
        "a/b/file/none": errno.ENOTDIR,
    }.items():
        with pytest.raises(OSError, match=name) as error:
            beneath.open_beneath(f"{tmp_path}/{name}")
        assert error.value.errno == wrong
    with pytest.raises(ValueError, match="null"):
        beneath.open_beneath(f"{tmp_path}/a/b/file\0")
