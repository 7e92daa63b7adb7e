"""Every limit on reading has its twin on writing, and what was made unreadable shows its `.git`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import DamagedError, StorageError, TooLargeError
from katafs.git import GitRepo
from katafs.git.refs.writing import RefWriter
from katafs.git.store.storing import make_parents
from katafs.kata.legacy.plain_create import write_plain
from katafs.kata.model.kinds import Kind
from katafs.kata.model.rows import MOST_ROWS
from katafs.kata.model.trees import MAX_PATHS
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import record, set_option
from katafs.kata.record.create import create_kata
from katafs.kata.record.message import parse_act
from katafs.kata.record.placing import check_files
from katafs.kata.store import Store
from katafs.text import pretty
from tests.katas import GitCommit, GitFile, add_event, assert_sound, git, import_commits, make_kata, message
from tests.mounts import MakeMount

DEEP = "[" * 58 + ",".join("0" * 32_000) + "]" * 58


ROW = pretty(json.loads(DEEP), indent="    ")


@pytest.mark.thorough
def test_rows_that_could_not_be_read(store: Path) -> None:
    """Each message is small; the rows of all are not. One too many is refused, and what is small goes on."""
    path = make_kata(store, "AbCdEf")
    act = parse_act(Kind.RAN_TESTS, b'{"summary": {"colour": "red", "x": %b}}' % DEEP.encode())
    accepted = MOST_ROWS // len(ROW)
    for _ in range(accepted):
        record(path, "AbCdEf", act)
    with pytest.raises(TooLargeError, match="rows of all events") as caught:
        record(path, "AbCdEf", act)
    assert caught.value.errno_name == "EFBIG"
    kata = Kata("AbCdEf", path, (0, 0), ReadCaches())
    assert kata.tip().last == accepted
    add_event(path, accepted + 1)
    set_option(path, "AbCdEf", "theme", "dark")
    assert assert_sound(path) == accepted + 1


def test_tab_seq_is_part_of_a_row() -> None:
    with pytest.raises(TooLargeError, match="tab_seq"):
        parse_act(Kind.RAN_TESTS, json.dumps(message(tab_seq="t" * 70_000)).encode())


def test_a_file_too_many() -> None:
    """The files of one message are as many as can be shown; one that is added to them is refused."""
    before = {b"%d" % number for number in range(MAX_PATHS - 1)}
    for name in ("one", "in/directory"):
        act = parse_act(Kind.FILE_CREATE, json.dumps({"filename": name}).encode())
        if name == "one":
            check_files(act, before)
        else:
            with pytest.raises(TooLargeError, match="files and directories"):
                check_files(act, before)


@pytest.mark.thorough
def test_a_manifest_that_could_not_be_read(store: Path) -> None:
    """Deep arrays take more room in a pretty file than in a message."""
    manifest = {"visible_files": {}, "x": json.loads("[" * 58 + ",".join("0" * 200_000) + "]" * 58)}
    with pytest.raises(TooLargeError):
        create_kata(store, manifest)
    assert os.listdir(store) == []


def test_plain_files_that_could_not_be_read(store: Path) -> None:
    path = store / "Ab/Cd/Ef"
    path.mkdir(parents=True)
    (path / "manifest.json").write_bytes(bytes(16 << 20))
    with pytest.raises(TooLargeError):
        write_plain(path, "AbCdEf", b"manifest.json", 16 << 20, b"x")
    assert (path / "manifest.json").stat().st_size == 16 << 20


def unreadable(path: Path, version: int) -> Path:
    """A kata whose rows another made larger than any that are read."""
    row = {"index": 0, "event": "created", "x": "x" * (18 << 20)}
    files = {"events_summary.json": json.dumps([row]), "manifest.json": json.dumps({"version": version})}
    files |= {"config/theme": "dark\n", "event.json": "{}", "files/a.txt": "a"}
    return import_commits(path, [GitCommit("0 x", [GitFile(name, text.encode()) for name, text in files.items()], [0])])


@pytest.mark.parametrize("version", [0, 1, 2])
def test_what_cannot_be_read_shows_its_repository(version: int, store: Path, mount: MakeMount) -> None:
    path = unreadable(store / "Ab/Cd/Ef", version)
    with pytest.raises(DamagedError):
        Kata("AbCdEf", path, (0, 0), ReadCaches()).tip()
    kata = mount(store).kata("AbCdEf")
    for _ in range(2):
        assert os.listdir(kata) == [".git"]
        assert git(kata, "rev-parse", "main") == git(path, "rev-parse", "main")


def test_a_repository_that_has_gone_is_not_built_up(store: Path) -> None:
    """Nor any directory above it: something is to be moved, or mounted, back there."""
    path = make_kata(store, "AbCdEf")
    refs = RefWriter(GitRepo(path))
    tip = GitRepo(path).main()
    assert tip is not None
    store.rename(store.with_name("away"))
    with pytest.raises((StorageError, DamagedError)):
        refs.move_main(tip, tip)
    with pytest.raises(FileNotFoundError):
        make_parents(path / ".git/refs/tags", path / ".git")
    assert not store.exists()


def test_a_store_that_was_unmounted(store: Path) -> None:
    """In the empty directory that is left nothing is made; where it is another, with katas, they are served."""
    found = Store(store)
    found.check_there()
    found.device += 1
    with pytest.raises(StorageError, match="unmounted"):
        found.check_there()
    make_kata(store, "AbCdEf")
    found.check_there()


def test_a_clock_before_1970(store: Path) -> None:
    """git has no such time."""
    path = make_kata(store, "AbCdEf")
    act: Any = parse_act(Kind.RAN_TESTS, json.dumps(message()).encode())
    record(path, "AbCdEf", act, datetime(1969, 12, 31, 23, 0, 0, tzinfo=UTC))
    assert git(path, "log", "-1", "--format=%ct %at", "main") == b"0 0\n"
    assert assert_sound(path) == 1
