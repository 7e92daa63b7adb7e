"""Plain-path services across deaths of the daemon: nothing is lost, nothing is recorded twice, nobody is late after
himself."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import katafs
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import Pending
from katafs.kata.legacy.plain_files import MARKS, PENDING, marked
from katafs.kata.record.exclusive import Attempt
from tests.katas import assert_sound, git, serving, stored_rows
from tests.legacy.test_mount_services import dir_make, event_of, file_append, file_create, file_read, ran_tests
from tests.mounts import DEADLINE, Mount, patience, wait_until
from tests.plain_katas import Written, make_plain_kata, parse_rows
from tests.restarts import EXPECTED, calling, kill

# Run in the mounting process before anything else. Whatever makes something waits while a file is there; what is done
# every 5 s is done more often; and however fast daemons are killed here, there is another.
PATIENT = """
import os, time
import katafs.mount.keeper
import katafs.mount.session
from katafs.kata.record.exclusive import Attempt
make = Attempt.make
def slow(*args, **others):
    make(*args, **others)
    while os.path.exists({hold!r}):
        time.sleep(0.001)
Attempt.make = slow
katafs.mount.session._EXPIRE_SECONDS = 0.1
katafs.mount.keeper.GIVE_UP_SECONDS = 0.0
"""
# what the kernel keeps for half a second it keeps for an hour: it must be told
NO_TIMEOUTS = """
import katafs.tree.timeouts
katafs.tree.timeouts.MUTABLE = 3600.0
"""
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While it is there daemons wait, when they have made something."""
    return tmp_path_factory.mktemp("hold") / "hold"


@contextmanager
def changed(directory: Path, script: str, *options: str) -> Iterator[Mount]:
    """A mount that is kept alive, of processes that run a script first."""
    (directory / "sitecustomize.py").write_text(script)
    path = f"{directory}{os.pathsep}{Path(katafs.__file__).parent.parent}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        with serving(directory, "fast", *options) as mount:
            if mount.daemon == mount.pid:
                pytest.skip("mounts are not kept alive here")
            mount.expected_log = f"{EXPECTED}|the daemon died while"
            yield mount


@pytest.fixture(scope="module")
def kept(fuse: None, hold: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with changed(tmp_path_factory.mktemp("kept"), PATIENT.format(hold=str(hold))) as mount:
        yield mount


class Kata(NamedTuple):
    """A kata of three events in the store, and in the mount."""

    written: Written
    shown: Path

    @property
    def pending(self) -> Pending:
        return Pending(self.written.path, self.written.kata_id)

    def sound(self) -> int:
        return assert_sound(self.written.path)


def plain_kata(mount: Mount, version: int, events: int = 3, seed: int = 3) -> Kata:
    kata_id = f"{next(NUMBERS):06}"
    written = make_plain_kata(mount.store, kata_id, version, seed, events=events)
    return Kata(written, mount.kata(kata_id))


def make(path: Path) -> bool:
    """What is named like a file with O_EXCL, else a directory."""
    if path.suffix != ".json":
        return dir_make(path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@pytest.mark.parametrize(("version", "name"), [(1, "3.event.json"), (0, "3"), (0, "3/event.json")])
def test_nobody_is_late_after_himself(kept: Mount, hold: Path, version: int, name: str) -> None:
    """The daemon dies after it has made something, and before it says so."""
    kata = plain_kata(kept, version)
    if "/" in name:
        assert make(kata.shown / "3")
    across_a_death(kept, hold, kata.shown / name, kata.written.path / PENDING / name)
    event, row = event_of(3, version)
    path = kata.shown / ("3.event.json" if version else "3/event.json")
    assert path.exists() or make(path)
    with open(path, "a") as file:
        file.write(json.dumps(event))
    assert file_append(kata.shown / "events.json", row_text(version, 3))
    assert kata.sound() == 3
    assert stored_rows(kata.written.path)[3]["colour"] == row["colour"]


def across_a_death(kept: Mount, hold: Path, shown: Path, stored: Path) -> None:
    """Make something while the daemon dies; that was ourselves, and whoever comes now is late."""
    hold.touch()
    with calling(lambda: make(shown)) as made:
        wait_until(stored.exists, "the first attempt")
        kill(kept)
        hold.unlink()
        assert made.result(patience(DEADLINE)) is True
    assert not make(shown)


def test_a_new_kata_is_made_across_deaths(kept: Mount, hold: Path) -> None:
    (kept.path / "Py").mkdir()
    (kept.path / "Py/00").mkdir()
    for name in ("Py/00/01", "Py/00/01/manifest.json", "Py/00/01/0.event.json"):
        across_a_death(kept, hold, kept.path / name, kept.store / name)


def test_what_somebody_else_made_is_not_ones_own(tmp_path: Path) -> None:
    notes: list[bool] = []
    attempt = Attempt(lambda: notes.append(True))
    attempt.make(tmp_path / "a", is_directory=False)
    assert notes == [True]
    for again in (attempt, Attempt(lambda: notes.append(True))):
        with pytest.raises(Exception, match="there already"):
            again.make(tmp_path / "a", is_directory=False)
    assert notes == [True], "noted is only what may come to be"
    Attempt(is_again=True).make(tmp_path / "a", is_directory=False)
    for name, is_directory in (("a", True), ("full", False), ("directory", True)):
        (tmp_path / "full").write_text("x")
        (tmp_path / "directory/x").mkdir(parents=True, exist_ok=True)
        with pytest.raises(Exception, match="there already"):
            Attempt(is_again=True).make(tmp_path / name, is_directory=is_directory)


# -- rows


def row_text(version: int, index: int) -> str:
    _, row = event_of(index, version)
    text = json.dumps(row, separators=(",", ":"))
    return f",\n{text}" if version else f"{text}\n"


def begin(kata: Path, version: int, index: int) -> None:
    """Everything but the row."""
    event, _ = event_of(index, version)
    assert version or dir_make(kata / str(index))
    assert file_create(kata / (f"{index}.event.json" if version else f"{index}/event.json"), json.dumps(event))


@pytest.mark.parametrize("version", [0, 1])
def test_a_row_that_was_recorded_is_not_recorded_again(kept: Mount, version: int) -> None:
    """The branch has been moved; its writer has no answer yet."""
    kata = plain_kata(kept, version)
    begin(kata.shown, version, 3)
    path = kata.written.path
    main = git(path, "rev-parse", "main")
    lock = path / ".git/refs/tags/3.lock"
    lock.write_text("")
    with calling(lambda: file_append(kata.shown / "events.json", row_text(version, 3))) as appended:
        wait_until(lambda: git(path, "rev-parse", "main") != main, "the commit")
        kill(kept)
        lock.unlink(missing_ok=True)
        assert appended.result(patience(DEADLINE)) is True
    assert f"{kata.written.kata_id}: event 3, commit {git(path, 'rev-parse', '3').decode().strip()} was recorded" in (
        kept.log_text()
    )
    assert ran_tests(kata.shown, 4, version)
    assert kata.sound() == 4
    assert len(parse_rows(file_read(kata.shown / "events.json"))) == 5
    assert not kata.pending.indexes()


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("then", ["row", "event", "message", "nothing"])
def test_what_was_recorded_and_is_still_there(kept: Mount, version: int, then: str) -> None:
    """All died between the commit and the removal of the event's file: whatever comes next, it is there once."""
    kata = plain_kata(kept, version)
    begin(kata.shown, version, 3)
    pending = kata.pending
    text = pending.file(3).read_text()
    assert file_append(kata.shown / "events.json", row_text(version, 3))
    wait_until(lambda: kata.written.kata_id not in marked(kept.store), "nothing waits")
    pending.file(3).parent.mkdir(parents=True, exist_ok=True)
    pending.file(3).write_text(text)
    if then == "row":
        assert file_append(kata.shown / "events.json", row_text(version, 3))
    elif then == "event":
        assert ran_tests(kata.shown, 4, version)
    elif then == "message":
        (kata.shown / "ran_tests").write_text(json.dumps({"summary": {"colour": "green"}}))
    else:
        (kept.store / MARKS).mkdir(exist_ok=True)
        (kept.store / MARKS / kata.written.kata_id).touch()
    wait_until(lambda: not pending.indexes(), "the end of it")
    assert kata.sound() == (3 if then in ("row", "nothing") else 4)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("cut", ['"col', "[2021"])
def test_a_row_in_two_writes_parted_by_a_death(kept: Mount, version: int, cut: str) -> None:
    """As the kernel cuts it at the end of a page. What is left of it is refused, also where it looks well begun."""
    kata = plain_kata(kept, version)
    begin(kata.shown, version, 3)
    text = row_text(version, 3)
    at = text.index(cut) + len(cut)
    fd = os.open(kata.shown / "events.json", os.O_WRONLY)
    try:
        size = os.fstat(fd).st_size
        assert os.pwrite(fd, text[:at].encode(), size) == at
        kill(kept)
        with pytest.raises(OSError, match="Input/output error") as caught:
            os.pwrite(fd, text[at:].encode(), size + at)
        assert caught.value.errno == errno.EIO
        # as many libraries do
        with pytest.raises(OSError, match="Invalid argument"):
            os.pwrite(fd, text[at:].encode(), size)
    finally:
        os.close(fd)
    assert len(stored_rows(kata.written.path)) == 3
    assert file_append(kata.shown / "events.json", text)
    assert kata.sound() == 3
    assert [row["colour"] for row in parse_rows(file_read(kata.shown / "events.json"))[3:]] == ["red"]


# -- events that wait for their rows


@pytest.mark.parametrize("version", [0, 1])
def test_the_next_daemon_knows_what_waits(kept: Mount, version: int) -> None:
    """Nobody looks at the kata, and it is recorded as if no daemon had died."""
    kata = plain_kata(kept, version)
    begin(kata.shown, version, 3)
    assert kata.written.kata_id in marked(kept.store)
    before = kill(kept)
    wait_until(lambda: kept.daemon not in (0, before), "the next daemon")
    waiting = kata.pending.file(3)
    assert waiting.exists()
    os.utime(waiting, (time.time() - 61, time.time() - 61))
    wait_until(lambda: not waiting.exists() and kata.written.kata_id not in marked(kept.store), "the row")
    assert kata.sound() == 3
    assert sorted(os.listdir(kata.written.path)) == [".git", "manifest.json"]


def test_a_mount_that_is_read_only_records_nothing(fuse: None, hold: Path, tmp_path: Path) -> None:
    with changed(tmp_path, PATIENT.format(hold=str(hold)), "--read-only") as mount:
        kata = plain_kata(mount, 1)
        migrate_kata(kata.written.path, kata.written.kata_id)
        kata.pending.begin(3)
        waiting = kata.pending.file(3)
        waiting.write_text(json.dumps(event_of(3, 1)[0]))
        os.utime(waiting, (time.time() - 61, time.time() - 61))
        assert (kata.shown / "3.event.json").exists()
        time.sleep(0.5)  # there is nothing to be waited for: longer than it takes a mount that is not
        assert waiting.exists()


def test_a_directory_whose_maker_died_is_free_after_a_minute(kept: Mount) -> None:
    """In version 0 it is the directory that decides who has an index."""
    kata = plain_kata(kept, 0)
    assert dir_make(kata.shown / "3")
    assert not dir_make(kata.shown / "3")
    directory = kata.written.path / PENDING / "3"
    os.utime(directory, (time.time() - 61, time.time() - 61))
    wait_until(lambda: not directory.exists(), "the end of it")
    assert ran_tests(kata.shown, 3, 0)
    assert kata.sound() == 3


def test_a_kata_that_waited_and_was_removed(kept: Mount) -> None:
    kata = plain_kata(kept, 1)
    begin(kata.shown, 1, 3)
    shutil.rmtree(kata.written.path)
    wait_until(lambda: kata.written.kata_id not in marked(kept.store), "nothing waits")


def test_the_kernel_is_told_of_rows_that_did_not_come(fuse: None, hold: Path, tmp_path: Path) -> None:
    with changed(tmp_path, PATIENT.format(hold=str(hold)) + NO_TIMEOUTS) as mount:
        kata = plain_kata(mount, 1)
        begin(kata.shown, 1, 3)
        assert look(kata.shown) == ({"0", "1", "2", "latest"}, 2)
        begin(kata.shown, 1, 4)
        wait_until(lambda: look(kata.shown) == ({"0", "1", "2", "3", "latest"}, 3), "the event in the mount")
        os.utime(kata.pending.file(4), (time.time() - 61, time.time() - 61))
        wait_until(lambda: look(kata.shown) == ({"0", "1", "2", "3", "4", "latest"}, 4), "the event in the mount")


def look(kata: Path) -> tuple[set[str], int]:
    """What is listed, and the newest event by its row."""
    return set(os.listdir(kata / "events")), json.loads((kata / "event.json").read_bytes())["index"]


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("dies", [False, True], ids=["no death", "death"])
@pytest.mark.parametrize("events", [0, 1, 2])
def test_who_has_the_rows_open_while_the_kata_is_migrated(kept: Mount, version: int, dies: bool, events: int) -> None:
    """As who waits for the lock has: he reads whole rows, and what he appends goes where it belongs."""
    kata = plain_kata(kept, version)
    rows = kata.shown / "events.json"
    with rows.open("rb", buffering=0) as reader, rows.open("ab", buffering=0) as writer:
        was = parse_rows(file_read(rows))
        begin(kata.shown, version, 3)
        for index in range(3, 3 + events):
            if index > 3:
                begin(kata.shown, version, index)
            assert file_append(rows, row_text(version, index))
        if dies:
            kill(kept)
        now = parse_rows(file_read(rows))
        seen = parse_rows(reader.read(os.fstat(reader.fileno()).st_size).decode())
        assert len(was) <= len(seen)
        assert seen == now[: len(seen)]
        if events:
            begin(kata.shown, version, 3 + events)
        writer.write(row_text(version, 3 + events).encode())
    assert kata.sound() == 3 + events


def test_an_option_that_was_created_and_has_no_value_yet(kept: Mount) -> None:
    kata = plain_kata(kept, 1, events=1, seed=4)
    name = next(name for name in ("predict", "revert_red", "colour") if name not in kata.written.options)
    fd = os.open(kata.shown / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    kill(kept)
    assert os.write(fd, b"\non") == 3
    os.close(fd)
    assert file_append(kata.shown / name, "\non")
    assert file_read(kata.shown / name) == "\non\non"
