"""``katafs fsck`` of whole stores, beside daemons and other writers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from katafs.errors import StorageError
from katafs.git.store.storing import MUTEX
from katafs.kata.fsck import Outcome, checking
from tests.fsck.cases import (
    KATA_ID,
    LAST,
    assert_git_is_content,
    check,
    check_all,
    codes,
    copy_kata,
    git_event_on,
    make_old,
)
from tests.katas import assert_sound, git, long_store, make_kata, message, serving, unpack
from tests.mounts import OTHER, katafs


def untag(path: Path) -> None:
    """Take away the newest tag."""
    (path / ".git" / "refs" / "tags" / str(LAST)).unlink()
    make_old(path)


# -- healthy stores


def test_a_long_kata_has_no_findings(tmp_path: Path) -> None:
    store = long_store(tmp_path)
    assert check_all(store) == check_all(store, repair=True) == []
    git(store / "Ln" / "gK" / "at", "gc", "-q")
    assert check_all(store, repair=True) == []


def test_the_real_katas_have_no_findings(shared_katas: Path, store: Path) -> None:
    for archive in sorted(shared_katas.glob("*.tgz")):
        unpack(archive, store)
    assert check_all(store, repair=True) == check_all(store, is_quick=True) == []
    git(store / "rG" / "63" / "fy", "gc", "-q")
    # git, as root, made files of root's
    assert {finding.code for finding in check_all(store)} <= {"wrong-owner"}


# -- the store itself


def test_what_a_killed_create_left(store: Path) -> None:
    copy_kata("native", store)
    old, young = store / ".new-AbCdEf-01234567", store / ".new-AbCdEf-89abcdef"
    for path in (old, young):
        (path / ".git" / "objects").mkdir(parents=True)
    (store / ".new-unrelated").mkdir()
    claimed = store / "Ab" / "Cd" / "Ef"
    claimed.mkdir(parents=True)
    for path in (old, claimed):
        make_old(path)
    assert codes(check_all(store)) == [("kata-empty", Outcome.FOUND), ("new-left", Outcome.FOUND)]
    assert codes(check_all(store, repair=True)) == [("kata-empty", Outcome.MENDED), ("new-left", Outcome.MENDED)]
    assert check_all(store) == []
    assert sorted(name for name in os.listdir(store) if name.startswith(".")) == [young.name, ".new-unrelated"]
    assert not claimed.exists()


def test_links_in_a_store_are_told(store: Path, tmp_path: Path) -> None:
    untag(copy_kata("native", tmp_path))
    (store / "Fs").symlink_to(tmp_path / "Fs")
    (finding,) = check_all(store, repair=True)
    assert (finding.kata_id, finding.code, finding.state) == ("Fs", "not-shown", Outcome.NOTE)


# -- owners and modes


def test_owners_and_modes(owned: Path) -> None:
    objects = owned / ".git" / "objects"
    directory = next(entry for entry in objects.iterdir())
    os.chown(directory, 0, 0)
    os.chown(owned / ".git" / "HEAD", 0, 0)
    objects.chmod(0o555)
    (owned / ".git" / "config").chmod(0o666)
    assert codes(check(owned)) == [("wrong-mode", Outcome.FOUND), ("wrong-owner", Outcome.FOUND)]
    assert codes(check(owned, repair=True)) == [("wrong-mode", Outcome.MENDED), ("wrong-owner", Outcome.MENDED)]
    assert check(owned) == []
    assert (directory.stat().st_uid, directory.stat().st_gid) == (OTHER, OTHER)
    assert objects.stat().st_mode & 0o777 == 0o755
    assert (owned / ".git" / "config").stat().st_mode & 0o777 == 0o664


def test_what_is_mended_belongs_to_the_owner(owned: Path) -> None:
    for name in ("refs/tags/4", "refs/heads/main", "HEAD", "config"):
        (owned / ".git" / name).unlink()
    (owned / "manifest.json").write_text("rubbish")
    # what fsck itself makes, too
    (owned / ".git/.katafs-mutex").unlink(missing_ok=True)
    make_old(owned)
    found = check(owned, repair=True)
    assert {finding.state for finding in found} == {Outcome.MENDED}
    assert "wrong-owner" not in {finding.code for finding in found}
    everything = [owned, *owned.rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in everything} == {(OTHER, OTHER)}


def test_nothing_outside_is_given_away(owned: Path, store: Path) -> None:
    """The owner of a kata cannot have root give him what is not his: by a link of either kind."""
    secret, other = store / "secret", store / "other"
    for file in (secret, other):
        file.write_text("root's")
    (owned / ".git" / "link").symlink_to(secret)
    os.link(other, owned / ".git" / "hard")
    (owned / ".git" / "directory").symlink_to(store)
    os.chown(owned / ".git" / "HEAD", 0, 0)
    check(owned, repair=True)
    assert (owned / ".git" / "HEAD").stat().st_uid == OTHER
    assert {file.stat().st_uid for file in (secret, other, store)} == {0}


# -- beside others


def test_beside_a_daemon_that_is_written_to(fuse: None, tmp_path: Path) -> None:
    """A daemon and git write, hear of no error, and nothing is found or changed."""
    stop = threading.Event()
    written: list[int] = []

    def write_to(shown: Path) -> None:
        while not stop.is_set():
            (shown / "ran_tests").write_text(json.dumps(message({"hiker.py": f"{len(written)}\n"})))
            written.append(1)

    def write_by_git(path: Path) -> None:
        while not stop.is_set():
            git_event_on(path, git(path, "rev-parse", "main").decode().strip())

    with serving(tmp_path, "fast") as mount, ThreadPoolExecutor(2) as pool:
        path = make_kata(mount.store, "AAAAAA")
        try:
            writers = [pool.submit(write_to, mount.kata("AAAAAA")), pool.submit(write_by_git, path)]
            looks = 0
            while len(written) < 25 and not any(writer.done() for writer in writers):
                result = katafs("fsck", "--repair", mount.store, check=False)
                assert (result.returncode, result.stdout) == (0, b"1 kata: 0 findings\n"), result
                looks += 1
        finally:
            stop.set()
        for writer in writers:
            writer.result()
        assert looks
        assert check_all(mount.store) == []
        assert assert_sound(path) > len(written) >= 25


def test_beside_saver(store: Path) -> None:
    """Saver moves main, and makes the tag a moment later: that is no finding."""
    path = copy_kata("saver", store)
    tag = path / ".git" / "refs" / "tags" / str(LAST)
    text = tag.read_text()
    tag.unlink()
    script = f"sleep 0.3; echo {text.strip()} > {tag}"
    with subprocess.Popen(["sh", "-c", script]) as process:
        assert check(path, repair=True, is_quick=True) == []
        assert process.wait() == 0


@pytest.mark.slow
def test_a_tag_that_never_comes(store: Path) -> None:
    """Somebody wrote a moment ago, and is dead."""
    path = copy_kata("saver", store)
    (path / ".git" / "refs" / "tags" / str(LAST)).unlink()
    assert codes(check(path, is_quick=True)) == [("tag-missing", Outcome.FOUND)]


def test_a_kata_that_another_holds(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy_kata("native", store)
    untag(path)
    monkeypatch.setattr(checking, "_PATIENCE", 0.1)
    fd = os.open(path / ".git" / MUTEX, os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="locked by another writer"):
            checking.check_kata(path, KATA_ID, repair=True)
    finally:
        os.close(fd)
    assert codes(check(path, repair=True)) == [("tag-missing", Outcome.MENDED)]


def test_a_kata_that_is_removed_meanwhile(store: Path) -> None:
    path = copy_kata("native", store)
    shutil.rmtree(path)
    assert checking.check_kata(path, KATA_ID) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from katafs.kata.fsck import check_ids
from katafs.kata.fsck import checking

store, last = Path(sys.argv[1]), int(sys.argv[2])
steps = 0

def count(event, arguments):
    global steps
    if event in ("os.rename", "os.remove", "os.mkdir", "shutil.rmtree") or (
        event == "open" and arguments[2] is not None and arguments[2] & os.O_ACCMODE
    ):
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
list(check_ids(store, [sys.argv[3]], repair=True, is_quick=True))
"""


@pytest.mark.slow
def test_a_repair_that_is_killed_at_any_step(store: Path, tmp_path: Path) -> None:
    """The next repair goes on: nothing is lost between the steps."""
    for step in range(1, 200):
        path = copy_kata("native", store)
        before = git(path, "for-each-ref", "refs/heads/main", "refs/tags")
        git(
            path,
            "branch",
            "aB3dE6gH",
            git(path, "commit-tree", "main^{tree}", "-p", "main~1", "-m", "x").decode().strip(),
        )
        for name in ("refs/heads/main", "refs/tags/3"):
            (path / ".git" / name).write_bytes(b"")
        (path / ".git" / f"refs/tags/{LAST}").unlink()
        (path / ".git" / "HEAD").unlink()
        (path / "manifest.json").write_text("rubbish")
        make_old(path)
        command = [sys.executable, "-c", KILLED, store, str(step), KATA_ID]
        status = subprocess.run(list(map(str, command)), check=False).returncode
        make_old(path)
        check(path, repair=True)
        make_old(path)
        check(path, repair=True)
        assert check(path) == []
        assert git(path, "for-each-ref", "refs/heads/main", "refs/tags") == before
        assert len(git(path, "for-each-ref", "refs/katafs/lost").splitlines()) == 1
        assert_git_is_content(path)
        shutil.rmtree(path)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert step > 10
