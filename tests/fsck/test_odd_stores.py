"""Commands that go through a store end at nothing that is in it: it is told, and the next kata is looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from katafs.directories import remove_tree, walk
from katafs.git import GitRepo
from katafs.git.refs.writing import RefWriter
from katafs.kata.compact import compact_kata
from katafs.kata.fsck import Outcome
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.plain_store import PlainStore
from katafs.kata.read.caches import ReadCaches
from tests.conftest import unavailable
from tests.fsck.cases import LONG_AGO, check, check_all, codes, copy_kata, make_old
from tests.fsck.odd_stores import PLAIN, SOUND, make_odd_store, nest
from tests.katas import git
from tests.mounts import OTHER, WEAK_ROOT, katafs
from tests.plain_katas import make_plain_kata

# deeper than Python's recursion, than descriptors may be open, and than a path may be long
DEEP = pytest.mark.parametrize(("levels", "name"), [(1500, "d"), (40, "d" * 255)])


def _age(path: Path) -> None:
    """Nobody has written to what is in a directory for a day, however deep it is."""
    for directory in walk(path):
        for name in (*directory.directories, *directory.names):
            os.utime(name, (LONG_AGO, LONG_AGO), dir_fd=directory.fd, follow_symlinks=False)
    os.utime(path, (LONG_AGO, LONG_AGO))


@DEEP
def test_a_deep_leftover(store: Path, levels: int, name: str) -> None:
    copy_kata("native", store)
    (store / "Fs/ck/Me/.git/refs/tags/2").unlink()
    make_old(store / "Fs")
    nest(store / ".new-AbCdEf-01234567", levels, name)
    _age(store / ".new-AbCdEf-01234567")
    expected = [("new-left", Outcome.FOUND), ("tag-missing", Outcome.FOUND)]
    assert codes(check_all(store)) == expected
    assert codes(check_all(store, repair=True)) == [(code, Outcome.MENDED) for code, _ in expected]
    assert sorted(os.listdir(store)) == ["Fs"]


@DEEP
def test_deep_directories_in_a_repository(kata: Path, levels: int, name: str) -> None:
    """It is checked, mended and packed as any other."""
    for place in ("x", "objects/x", "worktrees/x", "katafs-lost-found"):
        (kata / ".git" / place).parent.mkdir(exist_ok=True)
        nest(kata / ".git" / place, levels, name)
    nest(kata / "x", levels, name)
    _age(kata)
    blob = git(kata, "rev-parse", "main:manifest.json").decode().strip()
    (kata / ".git/objects" / blob[:2] / blob[2:]).unlink()
    assert codes(check(kata, repair=True)) == [("object-missing", Outcome.LEFT), ("worktree-left", Outcome.MENDED)]
    git(kata, "hash-object", "-w", "manifest.json")
    assert check(kata) == []
    assert compact_kata(kata, "FsckMe")


@DEEP
def test_deep_directories_of_the_wrong_owner(owned: Path, levels: int, name: str) -> None:
    """Of what is seen of them, as deep as references and objects are."""
    nest(owned / ".git/x", levels, name)
    assert codes(check(owned, repair=True)) == [("wrong-owner", Outcome.MENDED)]
    assert check(owned) == []
    assert {directory.status(each).st_uid for directory in walk(owned / ".git/x") for each in directory.names} == {
        OTHER
    }


@DEEP
def test_deep_directories_where_a_reference_is_to_be(kata: Path, levels: int, name: str) -> None:
    repo = GitRepo(kata)
    tip = repo.main()
    nest(kata / ".git/refs/x", levels, name)
    with pytest.raises(Exception, match="not empty"):
        RefWriter(repo).replace("refs/x", tip, None)
    remove_tree(kata / ".git/refs/x")
    nest(kata / ".git/refs/x", levels, name)
    for directory in walk(kata / ".git/refs/x"):
        for each in directory.names:
            os.unlink(each, dir_fd=directory.fd)
    RefWriter(repo).replace("refs/x", tip, None)
    assert git(kata, "rev-parse", "refs/x") == git(kata, "rev-parse", "main")


@DEEP
def test_a_deep_beginning_of_a_migration(store: Path, levels: int, name: str) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 1, 3)
    nest(written.path / ".katafs-new", levels, name)
    assert migrate_kata(written.path, "AbCdEf") is not None
    assert sorted(os.listdir(written.path)) == [".git", "manifest.json"]


@DEEP
def test_what_is_left_among_temporary_files(store: Path, levels: int, name: str) -> None:
    """Everybody may make directories there."""
    nest(store / "katafs-plain-x", levels, name)
    plain = PlainStore(ReadCaches(), store, 128)
    made = plain.directory()
    assert os.listdir(store) == [made.name]
    plain.close()
    assert not made.exists()


def test_what_cannot_be_searched_does_not_end_a_walk(tmp_path: Path) -> None:
    """Who has got into it would not come back."""
    if os.geteuid() != 0:
        unavailable("another user is needed")
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "b").chmod(0o644)
    os.chown(tmp_path / "b", OTHER, OTHER)
    script = (
        "import sys; from katafs.directories import walk\n"
        "failed = []; seen = [each.below for each in walk(sys.argv[1], lambda *error: failed.append(error[0]))]\n"
        "print(sorted(seen), failed)"
    )
    command = [*WEAK_ROOT, sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "['.', 'a', 'c'] ['b']\n"


@pytest.mark.parametrize("mode", [0o700, 0o744])
def test_what_cannot_be_read_is_told(store: Path, mode: int) -> None:
    """Once, with an exit status, and the others are looked at."""
    if os.geteuid() != 0:
        unavailable("another user is needed")
    for first in ("Aa", "zz"):
        path = copy_kata("native", store)
        (path / ".git/refs/tags/2").unlink()
        make_old(path)
        (store / first / "bb").mkdir(parents=True)
        path.rename(store / first / "bb/cc")
        shutil.rmtree(store / "Fs")
    (store / "Aa").chmod(mode)
    os.chown(store / "Aa", OTHER, OTHER)

    def told(*arguments: object) -> tuple[int, str, str]:
        command = [*WEAK_ROOT, sys.executable, "-m", "katafs", *map(str, arguments), str(store)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr

    status, printed, errors = told("fsck", "--json", "-q")
    what = "Aa" if mode == 0o700 else "Aabb"
    assert (status, errors) == (12, f"katafs: kata {what} could not be checked: Permission denied\n")
    assert [json.loads(line)["kata"] for line in printed.splitlines()] == ["zzbbcc", "zzbbcc"]
    status, printed, errors = told("compact")
    assert "1 kata compacted" in printed
    assert errors.count("Permission denied") == 1
    assert status == 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 100))])
def test_odd_stores(store: Path, seed: int) -> None:
    made = make_odd_store(store, seed)

    def run(*arguments: object, statuses: tuple[int, ...], stdin: bytes = b"") -> str:
        result = katafs(*arguments, stdin=stdin, check=False)
        said = (result.stdout + result.stderr).decode(errors="replace")
        assert "Traceback" not in said, (made, said)
        assert result.returncode in statuses, (made, said)
        return said

    missing = f'{{"kata": "{SOUND}", "code": "tag-missing", "state": "%s"'
    assert missing % "found" in run("fsck", "--json", store, statuses=(4, 8, 12))
    assert PLAIN in run("migrate", "--dry-run", "-v", store, statuses=(0, 1))
    run("compact", store, statuses=(0, 1))
    assert not list((store / "zz/zz/z1/.git/objects").glob("??")), made
    assert PLAIN in run("migrate", "-v", store, statuses=(0, 1))
    assert missing % "mended" in run("fsck", "--repair", "--json", store, statuses=(1, 5, 9, 13))
    run("create", store, stdin=b'{"visible_files": {}}', statuses=(0,))
    run("demo", store, statuses=(0, 1))
