"""Odd files where katafs writes: of writers that died, of a full disk, of an owner who means harm."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import socket
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import StorageError
from katafs.git import GitRepo
from katafs.git.format.stored import BLOB, object_id
from katafs.git.refs.locks import RefLocks
from katafs.git.refs.writing import RefWriter
from katafs.git.store.compaction import MOST_SMALL, merge_packs
from katafs.git.store.pack_files import WITHOUT_DELTAS, let_go, remove_left_behind, remove_midx, store_pack
from katafs.git.store.storing import MUTEX
from katafs.kata.fsck.checking import check_kata
from katafs.kata.record.commit import set_option
from tests.katas import add_event, assert_sound, git, make_kata, stored_rows
from tests.mounts import patience


@pytest.fixture
def kata(store: Path) -> Path:
    return make_kata(store, "AbCdEf")


def in_time(call: Callable[[], Any]) -> None:
    """Call it in a thread, which is left alone when it does not come back."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(patience(10))
    assert not thread.is_alive(), "it waits for ever"


def test_nothing_waits_for_a_pipe(kata: Path) -> None:
    """An owner who puts pipes where references and locks are holds no thread of the daemon."""
    add_event(kata, 1)
    repo = GitRepo(kata)
    tip = repo.main()
    assert tip is not None
    os.mkfifo(kata / ".git/packed-refs")
    os.mkfifo(kata / ".git/refs/heads/main.lock")
    in_time(lambda: RefWriter(repo).sync_main())
    in_time(lambda: RefLocks(repo.git_dir).unlock_dead("refs/heads/main", tip))


def test_packed_references_without_end(kata: Path) -> None:
    """They are not read into memory, and nothing is lost: the tags stay files."""
    add_event(kata, 1)
    with open(kata / ".git/packed-refs", "wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(StorageError, match="too large") as caught:
        RefWriter(GitRepo(kata)).pack_tags()
    assert caught.value.errno == errno.EFBIG
    assert len(list((kata / ".git/refs/tags").iterdir())) == 2
    (kata / ".git/packed-refs").unlink()
    assert assert_sound(kata) == 1


def test_a_mark_without_end(kata: Path) -> None:
    """It is not read into memory when an event has been recorded."""
    directory = kata / ".git/objects/pack"
    for name in ("pack-0", "pack-1"):
        with open(directory / f"{name}.keep", "wb") as file:
            file.truncate(1 << 42)
        os.utime(directory / f"{name}.keep", (0, 0))
    remove_left_behind(directory)
    assert len(list(directory.glob("*.keep"))) == 2, "they are somebody's"


def test_a_pack_by_many_names(kata: Path) -> None:
    """An owner who links it a hundred times, at no cost, does not have all of them read into memory at once."""
    directory = kata / ".git/objects/pack"
    data = random.Random(1).randbytes((1 << 20) - 1000)
    first = store_pack(directory, {object_id(BLOB, data): (BLOB, data)})
    let_go(first)
    for number in range(99):
        for suffix in (".pack", ".idx"):
            os.link(first.with_suffix(suffix), directory / f"{WITHOUT_DELTAS}{number:030x}{suffix}")
    tracemalloc.start()
    try:
        assert 2 < merge_packs(directory) < 100
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()
    while merge_packs(directory):
        pass
    assert len(list(directory.glob("*.pack"))) < MOST_SMALL
    assert git(kata, "cat-file", "blob", object_id(BLOB, data).hex()) == data


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):
        one.bind(path.name)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere"), _socket])
def test_what_has_the_name_of_a_lock(kata: Path, make: Callable[[Path], None]) -> None:
    """Nobody is kept from writing, nor from looking for what is wrong."""
    (kata / ".git" / MUTEX).unlink(missing_ok=True)
    make(kata / ".git" / MUTEX)
    (kata / ".git/refs/heads/main.lock").mkdir()
    os.utime(kata / ".git/refs/heads/main.lock", (0, 0))
    set_option(kata, "AbCdEf", "theme", "dark")
    assert assert_sound(kata) == 0
    assert {found.code for found in check_kata(kata, "AbCdEf")} <= {"odd-file"}


def test_logs_that_are_elsewhere(kata: Path, tmp_path: Path) -> None:
    """Nothing is written by way of a link: a line more, and a ``HEAD`` is none."""
    shutil.rmtree(kata / ".git/logs", ignore_errors=True)
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    (kata / ".git/logs").symlink_to(tmp_path)
    set_option(kata, "AbCdEf", "theme", "dark")
    assert (tmp_path / "HEAD").read_text() == "ref: refs/heads/main\n"
    assert not (tmp_path / "refs").exists()
    (kata / ".git/logs").unlink()
    set_option(kata, "AbCdEf", "theme", "light")
    assert (kata / ".git/logs/HEAD").read_bytes().count(b"\n") == 1


def test_layers_of_an_index_that_are_none(kata: Path, tmp_path: Path) -> None:
    """Who may write to the pack directory, and is not the owner, has nobody's files removed by the daemon."""
    directory = kata / ".git/objects/pack"
    layers = directory / "multi-pack-index.d"
    for where in (tmp_path / "elsewhere", layers):
        where.mkdir()
        for name in ("mine.txt", "multi-pack-index-chain"):
            (where / name).touch()
        if where != layers:
            layers.symlink_to(where)
        remove_midx(directory)
        assert (where / "mine.txt").exists()
        assert (where / "multi-pack-index-chain").exists() == (where != layers)
        if where != layers:
            layers.unlink()


def test_marks_of_who_died(kata: Path) -> None:
    """One who had no time to write into his mark had no pack; a power cut leaves a pack of ours with an empty one; what
    git marks without a word is git's."""
    add_event(kata, 1)
    directory = kata / ".git/objects/pack"
    ours, gits = min(directory.glob("*.pack")), directory / f"pack-{'1' * 40}.pack"
    shutil.copy(ours, gits)
    for mark in (directory / "pack-0.keep", ours.with_suffix(".keep"), gits.with_suffix(".keep")):
        mark.touch()
    remove_left_behind(directory)
    assert list(directory.glob("*.keep")) == [gits.with_suffix(".keep")]


def test_a_full_disk_leaves_no_mark(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = kata / ".git/objects/pack"
    before = sorted(directory.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(OSError, match="No space"):
            store_pack(directory, {object_id(BLOB, b"new"): (BLOB, b"new")})
    assert sorted(directory.iterdir()) == before
    add_event(kata, 1)
    assert len(stored_rows(kata)) == 2
    git(kata, "fsck", "--full", "--strict")
