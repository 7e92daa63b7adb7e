"""Migration that is killed at any step, and beside somebody who writes: either the original or the migrated kata."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from katafs.errors import KataError, ReadOnlyError
from katafs.git.store.storing import MUTEX
from katafs.kata.fsck import Outcome
from katafs.kata.fsck.checking import check_kata
from katafs.kata.legacy import migrate
from katafs.kata.legacy.migrate import migrate_kata, needs_migration
from katafs.kata.legacy.plain_kata import PlainKata
from katafs.kata.legacy.plain_paths import differences
from katafs.kata.read.kata import Kata
from tests.katas import git
from tests.legacy.test_migrate import assert_migrated, state
from tests.mounts import katafs, patience, wait_until
from tests.plain_katas import Written, make_plain_kata
from tests.scratch import fast_directory

# what changes a directory; audit events of Python
_STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}


@pytest.fixture
def store() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as directory:
        yield Path(directory)


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Call something in a process that is killed right before its ``step``-th step; whether it was."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = step

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        makes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in _STEPS or makes:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(count)
        work()
        status = 0
    finally:
        os._exit(status)


def tip(path: Path) -> bytes:
    """The newest commit: the same plain files always become the same commits."""
    assert git(path, "fsck", "--strict", "--full") == b""
    return git(path, "for-each-ref")


@pytest.mark.parametrize("keep_originals", [False, True], ids=["removed", "kept"])
@pytest.mark.parametrize("version", [0, 1])
def test_killed_at_any_step(store: Path, version: int, keep_originals: bool) -> None:
    """Whoever is killed leaves a whole kata, and the next one who migrates does the rest."""
    written = make_plain_kata(store / "another", "AbCdEf", version, 3, events=3)
    original = state(written.path)
    migrate_kata(written.path, "AbCdEf")
    assert_migrated(written)
    expected = tip(written.path)
    seen: list[bool] = []
    was_killed = True
    while was_killed:
        path = make_plain_kata(store, "AbCdEf", version, 3, events=3).path
        migration = functools.partial(migrate_kata, path, "AbCdEf", keep_originals=keep_originals)
        was_killed = killed_at(len(seen) + 1, migration)
        seen.append((path / ".git").is_dir())
        if seen[-1]:
            assert tip(path) == expected
        else:
            found = state(path).items()
            assert {name: data for name, data in found if not name.startswith(".katafs-new/")} == original
        if needs_migration(path):
            migration()
        assert tip(path) == expected
        assert not needs_migration(path)
        kept = [".katafs-original"] if keep_originals else []
        # what writers lock is removed by the next one who has done
        assert set(os.listdir(path)) - {MUTEX} == {".git", "manifest.json", *kept}
        if keep_originals:
            assert state(path / ".katafs-original") == original
        shutil.rmtree(path)
    assert len(seen) > 20
    assert seen == sorted(seen)


def add_event(written: Written) -> None:
    """Write an event as a version 1 service does, past the mount."""
    index = written.last + 1
    row = {"colour": "green", "index": index, "time": [2021, 5, 1, 2, 3, 4, 5]}
    event = {"files": {}, "stdout": {"content": "", "truncated": False}, "stderr": {"content": "", "truncated": False}}
    written.events[index], written.rows[index] = {**event, "status": "0"}, row
    with open(written.path / f"{index}.event.json", "x") as file:
        json.dump({**written.events[index], **row}, file)
    with open(written.path / "events.json", "a") as file:
        file.write(",\n" + json.dumps(row))


@pytest.mark.parametrize("moment", ["before the comparison", "before the swap", "after the swap"])
def test_somebody_writes_meanwhile(store: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is written past the mount at the worst moment is migrated, too."""
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    real_differences, real_rename = differences, os.rename
    done: list[str] = []

    def once() -> None:
        if not done:
            done.append(moment)
            add_event(written)

    def meanwhile(plain: PlainKata, kata: Kata) -> list[str]:
        if moment == "before the comparison":
            once()
        return real_differences(plain, kata)

    def rename(source: str | Path, target: str | Path, **directories: int) -> None:
        is_swap = source == ".git" and "src_dir_fd" in directories
        if is_swap and moment == "before the swap":
            once()
        real_rename(source, target, **directories)
        if is_swap and moment == "after the swap":
            once()

    monkeypatch.setattr(migrate, "differences", meanwhile)
    monkeypatch.setattr(os, "rename", rename)
    migrated = migrate_kata(written.path, "AbCdEf")
    assert migrated is not None
    assert migrated.events == 4
    assert_migrated(written)


def test_somebody_never_stops_writing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    real = differences

    def meanwhile(plain: PlainKata, kata: Kata) -> list[str]:
        add_event(written)
        return real(plain, kata)

    monkeypatch.setattr(migrate, "differences", meanwhile)
    with pytest.raises(KataError, match="written to by others") as caught:
        migrate_kata(written.path, "AbCdEf")
    assert caught.value.errno_name == "EBUSY"
    assert not (written.path / ".git").exists()
    assert not (written.path / ".katafs-new").exists()


def test_plain_files_that_came_after_a_crash(store: Path) -> None:
    """A writer past the mount after the swap, and nobody looked: nothing is removed, and it is said."""
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    step = 0
    while not (written.path / ".git").exists():
        step += 1
        killed_at(step, lambda: migrate_kata(written.path, "AbCdEf"))
    assert (written.path / ".katafs-new").exists()
    add_event(written)
    before = state(written.path)
    with pytest.raises(ReadOnlyError, match="event 3 is missing"):
        migrate_kata(written.path, "AbCdEf")
    assert state(written.path) == before


def test_two_migrations_at_once(store: Path) -> None:
    made = [make_plain_kata(store, f"AbCd{number:02}", number % 2, number) for number in range(20)]
    runs = [
        subprocess.Popen([sys.executable, "-m", "katafs", "migrate", store], stdout=subprocess.DEVNULL) for _ in (1, 2)
    ]
    assert [run.wait(patience(60)) for run in runs] == [0, 0]
    for written in made:
        assert_migrated(written)


def test_fsck_leaves_alone_what_was_not_finished(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain manifest, for one: it is to be among the originals."""
    written = make_plain_kata(store, "AbCdEf", 1, 5, events=4)
    manifest = (written.path / "manifest.json").read_bytes()

    def die(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrate._Migration, "_clear_away", die)
        with pytest.raises(KeyboardInterrupt):
            migrate_kata(written.path, "AbCdEf", keep_originals=True)
    (finding,) = check_kata(written.path, "AbCdEf", repair=True)
    assert (finding.code, finding.state) == ("migration-left", Outcome.NOTE)
    assert migrate_kata(written.path, "AbCdEf") is not None
    assert (written.path / ".katafs-original" / "manifest.json").read_bytes() == manifest
    assert check_kata(written.path, "AbCdEf") == []
    assert_migrated(written)


@pytest.mark.slow
def test_killed_ten_times(store: Path) -> None:
    """The command is killed ten times on its way through many katas, and the result is complete."""
    made = [make_plain_kata(store, f"{number:06}", number % 2, number) for number in range(400)]
    for _ in range(10):
        run = subprocess.Popen([sys.executable, "-m", "katafs", "migrate", store], stdout=subprocess.DEVNULL)
        done = len(list(store.glob("*/*/*/.git")))
        wait_until(lambda: len(list(store.glob("*/*/*/.git"))) > done + 10, "some more katas")  # noqa: B023
        run.kill()
        run.wait()
    assert len(list(store.glob("*/*/*/.git"))) < 400
    katafs("migrate", store)
    for written in made:
        assert_migrated(written)
        assert sorted(os.listdir(written.path)) == [".git", "manifest.json"]
