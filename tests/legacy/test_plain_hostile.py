"""What the owner of a kata, or a service that went wrong, may put where plain paths are written."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import DamagedError, InvalidError, KataError, StorageError
from katafs.git.beneath import open_beneath
from katafs.kata.legacy import pending as pending_module
from katafs.kata.legacy import plain_files
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import Pending, flush_pending
from katafs.kata.legacy.plain_files import PENDING
from katafs.kata.legacy.plain_rows import begins_row, is_part_of_row, parse_plain_rows
from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import record
from katafs.kata.record.message import parse_act
from tests.katas import assert_sound, make_kata, stored_rows
from tests.mounts import OTHER, MakeMount, patience
from tests.plain_katas import make_plain_kata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A kata of version 1 with events 0 to 2, stored as git."""
    path = make_plain_kata(tmp_path / "store", "AbCdEf", 1, 3, events=3).path
    migrate_kata(path, "AbCdEf")
    return path


@pytest.mark.parametrize(
    ("data", "is_part"),
    [
        (b'{"a": "' + b'\\"' * 500_000, True),
        (b'{"a": "' + b'\\"' * 500_000 + b"\\", True),
        (b'{"a": [' + b"1," * 500_000, True),
        (b'"' * 1_000_001, False),
        (b"{" * 1_000_000, False),
    ],
)
def test_a_row_is_looked_at_in_no_time(data: bytes, is_part: bool) -> None:
    started = time.monotonic()
    assert is_part_of_row(data) is is_part
    assert time.monotonic() - started < patience(1)


ROW = ',\n{"colour":"gr\u00fcn { \\" }","revert":["AbCdEf",1.5e-3],"more":{"x":null,"y":true},"index":3}'.encode()


def test_whether_a_row_is_whole() -> None:
    for row in (b'{"a": "}"}', b',\n{"a\\"": "\\\\"}\n', ROW):
        assert not is_part_of_row(row)
    for part in (b'{"a": "}', b'{"a": "\\', b'{"a": "\\"}', b'{"a": 1', b",\n", b'{"a": "\\u12'):
        assert is_part_of_row(part)


@pytest.mark.parametrize("at", range(1, len(ROW)))
def test_a_row_that_is_cut_anywhere(at: int) -> None:
    """The beginning is a part of a row; the rest is none, nor a row: who has only that hears of it."""
    assert begins_row(ROW[:at])
    assert is_part_of_row(ROW[:at])
    rest = ROW[at:]
    if rest.lstrip(b",\n") != ROW.lstrip(b",\n"):
        rows, wrong = parse_plain_rows(rest)
        assert not begins_row(rest) or (not is_part_of_row(rest) and (wrong or len(rows) != 1))


def test_no_link_is_followed_and_no_pipe_waited_for(path: Path, mount: MakeMount, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (path / PENDING).mkdir()
    (path / PENDING / "3.event.json").symlink_to(secret)
    os.mkfifo(path / PENDING / "4.event.json")
    kata = mount(path.parents[2]).kata("AbCdEf")
    for index in (3, 4):
        with pytest.raises(FileNotFoundError):
            (kata / f"{index}.event.json").read_bytes()
    (path / PENDING / "5.event.json").write_text("half")
    assert (kata / "5.event.json").read_text() == "half"
    for index in (3, 4):
        with pytest.raises(StorageError):
            Pending(path, "AbCdEf").write(index, 0, b"{}")


def test_no_directory_of_others_is_shown(path: Path, mount: MakeMount, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "3.event.json").write_text("secret")
    (path / PENDING).symlink_to(other)
    kata = mount(path.parents[2]).kata("AbCdEf")
    with pytest.raises(FileNotFoundError):
        (kata / "3.event.json").read_bytes()


def test_an_event_that_cannot_be_read_now_is_not_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pending = Pending(path, "AbCdEf")
    pending.begin(3)
    pending.write(3, 0, b'{"files": {}, "colour": "red"}')
    os.utime(pending.file(3), (1, 1))

    def fail(*_args: object) -> bytes:
        raise DamagedError("3.event.json cannot be read: Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(plain_files, "read_file", fail)
        with pytest.raises(DamagedError):
            flush_pending(path, "AbCdEf")
    flush_pending(path, "AbCdEf")
    assert assert_sound(path) == 3


@pytest.mark.parametrize("own", [{"colour": 7}, {"colour": "red", "revert": 7}])
def test_an_event_whose_own_row_would_not_do(path: Path, own: dict[str, object]) -> None:
    """It is refused at once: accepted, it would keep every later event out."""
    pending = Pending(path, "AbCdEf")
    pending.begin(3)
    with pytest.raises(InvalidError):
        pending.write(3, 0, json.dumps({"files": {}, **own}).encode())
    Pending(path, "AbCdEf").begin(3)
    flush_pending(path, "AbCdEf")


def test_an_event_that_is_too_large(path: Path) -> None:
    pending = Pending(path, "AbCdEf")
    pending.begin(3)
    with pytest.raises(Exception, match="16 MiB") as caught:
        pending.write(3, 1 << 40, b"x")
    assert getattr(caught.value, "errno", None) == errno.EFBIG
    assert pending.file(3).stat().st_size == 0


def test_who_is_late_again_and_again_removes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody records events between the look at the rows and the commit."""
    pending = Pending(path, "AbCdEf")
    for index in (3, 4):
        pending.begin(index)
    for index in (3, 4):
        pending.write(index, 0, b'{"files": {}, "colour": "red"}')
    left = [1, 1]

    def slow(*args: Any, **others: Any) -> Any:
        if left:
            left.pop()
            record(path, "AbCdEf", parse_act(Kind.RAN_TESTS, b'{"summary": {"colour": "green"}}'))
        return record(*args, **others)

    monkeypatch.setattr(pending_module, "record", slow)
    flush_pending(path, "AbCdEf")
    assert [row["colour"] for row in stored_rows(path)[3:]] == ["green", "green", "red", "red"]
    assert not pending.indexes()


def test_what_the_owner_may_not_read_is_not_shown(store: Path, mount: MakeMount) -> None:
    """He can move files of others into his directory, and the daemon is root."""
    path = make_kata(store, "AbCdEf")
    for name, mode in (("description", 0o600), ("COMMIT_EDITMSG", 0o640), ("ORIG_HEAD", 0o644)):
        (path / ".git" / name).write_text("secret\n")
        (path / ".git" / name).chmod(mode)
        os.chown(path / ".git" / name, 4711, 4711)
    shown = mount(store).kata("AbCdEf") / ".git"
    assert (shown / "ORIG_HEAD").read_text() == "secret\n"
    for name in ("description", "COMMIT_EDITMSG"):
        assert not (shown / name).exists()


@pytest.mark.parametrize("name", ["manifest.json", "events.json", "1.event.json"])
def test_what_the_owner_may_not_read_is_not_migrated(store: Path, mount: MakeMount, name: str) -> None:
    """Nor shown, and what he moves into `.git` or a group is not read either."""
    path = make_plain_kata(store, "AbCdEf", 1, 3, events=3).path
    for file in (path, *path.iterdir()):
        os.chown(file, OTHER, OTHER)
    os.chown(path / name, 0, 0)
    (path / name).chmod(0o600)
    with pytest.raises(KataError, match="may not read"):
        migrate_kata(path, "AbCdEf")
    mounted = mount(store)
    mounted.expected_log = "ERROR"
    assert not (mounted.kata("AbCdEf") / name).exists()
    assert not (mounted.kata("AbCdEf") / "events/1").exists()
    with pytest.raises(PermissionError):
        open_beneath(os.path.realpath(path / name))
    os.chown(path / name, OTHER, 0)
    assert migrate_kata(path, "AbCdEf") is not None
