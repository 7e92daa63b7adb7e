"""What somebody who packs, or locks, at the wrong moment could take away from an event that is being recorded."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from katafs.errors import StorageError
from katafs.git import GitRepo, Oid
from katafs.git.format.stored import BLOB, object_id
from katafs.git.refs import locks
from katafs.git.refs.locks import STALE_TAG, RefLocks
from katafs.git.refs.reading import MAIN
from katafs.git.refs.writing import RefWriter
from katafs.git.store.pack_files import store_pack
from katafs.git.store.storing import MUTEX, NewFile
from katafs.kata.model.kinds import Act, Kind
from katafs.kata.record.commit import record
from katafs.kata.record.message import parse_act
from katafs.kata.record.recorders import find_recorded
from tests.katas import assert_sound, git, make_kata, message
from tests.mounts import wait_until


def act(index: int, text: str) -> Act:
    files = {"a.txt": text, "b/c.txt": text * 2}
    return parse_act(Kind.RAN_TESTS, json.dumps(message(files, index=index, stdout={"content": text})).encode())


def repack(path: Path) -> None:
    git(path, "repack", "-a", "-d", "-q")


def packs(path: Path, ending: str) -> list[Path]:
    return list((path / ".git/objects/pack").glob(f"*.{ending}"))


def test_what_a_writer_left_who_failed_is_stored_again(store: Path) -> None:
    """Nothing refers to it, so `git repack -a -d` drops it, also in the moment before the branch is moved."""
    path = make_kata(store, "AbCdEf")

    def fail(_commit: Oid) -> None:
        raise StorageError("the disk is full", errno.ENOSPC)

    with pytest.raises(StorageError):
        record(path, "AbCdEf", act(1, "one\n"), announce=fail)
    assert packs(path, "pack")
    assert not packs(path, "keep")
    record(path, "AbCdEf", act(1, "one\n"), announce=lambda _: repack(path))
    assert assert_sound(path) == 1
    assert git(path, "show", "main:files/a.txt") == b"one\n"
    assert not packs(path, "keep")


def test_what_the_dead_kept_is_let_go(store: Path) -> None:
    """By who writes next, or answers for the dead: nobody may write again, and packs would stay as they are."""
    path = make_kata(store, "AbCdEf")
    directory = path / ".git/objects/pack"
    store_pack(directory, {object_id(BLOB, b"one"): (BLOB, b"one")})
    assert packs(path, "keep")
    recorded = record(path, "AbCdEf", act(1, "one\n"))
    assert not packs(path, "keep")
    store_pack(directory, {object_id(BLOB, b"two"): (BLOB, b"two")})
    assert find_recorded(path, "AbCdEf", recorded.commit) == recorded
    assert not packs(path, "keep")


def test_the_same_once_more_has_another_name(store: Path) -> None:
    """``git repack -a -d`` removes by name what it has seen when nobody kept it: not what was stored since."""
    path = make_kata(store, "AbCdEf")
    now = datetime.now(UTC)

    def fail(_commit: Oid) -> None:
        raise StorageError("the disk is full", errno.ENOSPC)

    with pytest.raises(StorageError):
        record(path, "AbCdEf", act(1, "one\n"), now, announce=fail)
    seen = set(packs(path, "pack"))
    record(path, "AbCdEf", act(1, "one\n"), now)
    for pack in seen:
        pack.unlink()
        pack.with_suffix(".idx").unlink()
    assert git(path, "cat-file", "-t", "main") == b"commit\n"
    assert git(path, "show", "main:files/a.txt") == b"one\n"


def test_who_waits_for_the_lock_stores_once(store: Path) -> None:
    """Not again and again, each time another commit, until readers do not find their packs among so many."""
    path = make_kata(store, "AbCdEf")
    lock = path / f".git/{MAIN}.lock"
    before = len(packs(path, "pack"))
    lock.touch()
    writing = threading.Thread(target=record, args=(path, "AbCdEf", act(1, "one\n")))
    writing.start()
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert len(packs(path, "pack")) <= before + 1
    finally:
        lock.unlink()
        writing.join()
    assert assert_sound(path) == 1


def test_what_was_there_before_is_stored_again(store: Path) -> None:
    """Of a branch that is about to go, say."""
    path = make_kata(store, "AbCdEf")
    record(path, "AbCdEf", act(1, "one\n"))
    git(path, "update-ref", MAIN, "main~1")
    git(path, "update-ref", "-d", "refs/tags/1")
    git(path, "reflog", "expire", "--expire=now", "--all")
    record(path, "AbCdEf", act(1, "one\n"), announce=lambda _: repack(path))
    assert assert_sound(path) == 1


def test_what_stays_is_not_stored_again(store: Path) -> None:
    """All that the tip has: but for what has changed, an event takes no room."""
    path = make_kata(store, "AbCdEf")
    files = {f"{number}/{number}.txt": f"{number}\n" * 100 for number in range(50)}
    text = json.dumps(message(files, index=1)).encode()
    record(path, "AbCdEf", parse_act(Kind.RAN_TESTS, text))
    before = {pack: pack.stat().st_size for pack in packs(path, "pack")}
    files["7/7.txt"] = "another\n"
    record(path, "AbCdEf", parse_act(Kind.RAN_TESTS, json.dumps(message(files, index=2)).encode()))
    (new,) = set(packs(path, "pack")) - set(before)
    listed = git(path, "verify-pack", "-v", new.with_suffix(".idx")).splitlines()
    kinds = [line.split()[1] for line in listed if len(line.split()) > 4]
    # the file; its directory, files/ and the root; rows, row
    assert sorted(kinds) == [b"blob"] * 3 + [b"commit"] + [b"tree"] * 3


# -- locks


def test_an_empty_lock_of_git_is_left_to_it(store: Path) -> None:
    """``git pack-refs`` has the lock of ``main`` empty for up to a second, while it waits for that of ``packed-refs``;
    then it removes the branch's file, whatever is in there."""
    path = make_kata(store, "AbCdEf")
    tip = GitRepo(path).main()
    assert tip is not None
    packed, main = path / ".git/packed-refs.lock", path / f".git/{MAIN}.lock"
    locks = RefLocks(path / ".git", is_alone=True)
    main.touch()
    locks.unlock_dead(MAIN, tip)
    begun = time.monotonic()
    while time.monotonic() < begun + 1.5:
        locks.unlock(MAIN, STALE_TAG)
        assert main.exists(), f"it was removed after {time.monotonic() - begun:.2f} s"
    assert not packed.exists()


def test_what_a_third_has_locked_does_not_become_ours(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our lock is removed in the last moment, and a third takes it: what that holds is not what we set."""
    path = make_kata(store, "AbCdEf")
    tip = GitRepo(path).main()
    rename = os.rename
    thirds: list[locks.HeldLock] = []

    def late(source: str | Path, target: str | Path) -> None:
        if not thirds:
            (path / f".git/{MAIN}.lock").unlink()
            thirds.append(locks.HeldLock(path / ".git", MAIN, NewFile(path / ".git", b"2" * 40 + b"\n")))
        rename(source, target)

    monkeypatch.setattr("katafs.git.refs.locks.os.rename", late)
    with pytest.raises(StorageError, match="another writer") as caught:
        RefWriter(GitRepo(path)).move_main(b"\x11" * 20, tip)
    assert caught.value.errno == errno.EIO
    assert (path / ".git" / MAIN).read_bytes() == b"1" * 40 + b"\n"
    assert (path / f".git/{MAIN}.lock").read_bytes() == b"2" * 40 + b"\n"
    with thirds[0]:
        pass
    assert not list((path / ".git").glob(".katafs-*[!x]"))


def test_a_lock_is_never_empty(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one that a dead writer left says whose it is: looked at by who holds it, right after he has taken it."""
    path = make_kata(store, "AbCdEf")
    seen: dict[str, bytes] = {}
    real_main = GitRepo.main

    def look(name: str) -> None:
        lock = path / f".git/{name}.lock"
        if lock.exists():
            seen[name] = lock.read_bytes()

    def main(repo: GitRepo) -> Oid | None:
        look(MAIN)
        return real_main(repo)

    monkeypatch.setattr(GitRepo, "main", main)
    committed = record(path, "AbCdEf", act(1, "one\n"))
    text = committed.commit.hex().encode() + b"\n"
    assert seen == {MAIN: text}


def test_a_lock_that_somebody_took_away(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And made anew: it is theirs, and so is what they have moved the branch to."""
    path = make_kata(store, "AbCdEf")
    real = GitRepo.main
    lock = path / f".git/{MAIN}.lock"
    theirs: list[int] = []

    def main(repo: GitRepo) -> Oid | None:
        found = real(repo)
        if lock.exists() and not theirs:
            lock.unlink()
            # it stays open, as another file could get its number
            theirs.append(os.open(lock, os.O_CREAT | os.O_EXCL))
            threading.Timer(0.2, lock.unlink).start()
        return found

    monkeypatch.setattr(GitRepo, "main", main)
    record(path, "AbCdEf", act(1, "one\n"))
    assert not os.path.samestat(os.stat(path / ".git" / MAIN), os.fstat(theirs[0]))
    os.close(theirs[0])
    wait_until(lambda: not os.path.lexists(lock), "their end")
    assert assert_sound(path) == 1


def test_the_lock_of_the_repository_stays(store: Path) -> None:
    """Who clears up after a merge has that lock himself: without the file another could take it, too."""
    path = make_kata(store, "AbCdEf")
    record(path, "AbCdEf", act(1, "1\n"))
    before = os.lstat(path / ".git" / MUTEX)
    (path / ".git/.katafs-0123456789abcdef").touch()
    for index in range(2, 18):
        record(path, "AbCdEf", act(index, f"{index}\n"))
    assert os.listdir(path / ".git").count(".katafs-0123456789abcdef") == 0, "packs were not merged"
    assert os.path.samestat(os.lstat(path / ".git" / MUTEX), before)


def test_a_tag_that_is_removed_while_tags_wait_to_be_packed(store: Path) -> None:
    """It was read before ``packed-refs`` could be locked, and is not made again."""
    path = make_kata(store, "AbCdEf")
    record(path, "AbCdEf", act(1, "1\n"))
    git(path, "tag", "mine")
    lock = path / ".git/packed-refs.lock"
    lock.touch()
    packing = threading.Thread(target=RefWriter(GitRepo(path)).pack_tags)
    packing.start()
    wait_until(lambda: os.fspath(lock) in locks._seen, "who waits for the lock")
    (path / ".git/refs/tags/mine").unlink()
    lock.unlink()
    packing.join()
    assert git(path, "tag").split() == [b"0", b"1"]
    assert not list((path / ".git/refs/tags").iterdir())
