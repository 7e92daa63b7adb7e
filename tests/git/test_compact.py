"""Compaction: nothing is lost or changed, whoever reads and writes meanwhile, and whatever stops it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.errors import DamagedError, StorageError
from katafs.git import GitRepo
from katafs.git.refs.locks import HeldLock, RefLocks
from katafs.git.refs.writing import RefWriter
from katafs.git.store.compaction import Repack, parts
from katafs.kata.compact import compact_kata
from katafs.kata.model.ids import kata_path
from tests.git.test_packs import check_readers, objects, packs
from tests.katas import (
    GitCommit,
    GitFile,
    add_event,
    assert_sound,
    git,
    import_commits,
    loose,
    loosen,
    make_kata,
    make_long_kata,
    message,
    serve_kata,
    serving,
    stored_rows,
    tags_of,
)
from tests.killing import deaths
from tests.mounts import CommandLine, command_line, wait_until

EVENTS = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kata with a history of packs."""
    return make_long_kata(tmp_path_factory.mktemp("made"), "AbCdEf", EVENTS)


@pytest.fixture
def kata(made: Path, store: Path) -> Path:
    path = kata_path(store, "AbCdEf")
    shutil.copytree(made, path, symlinks=True)
    return path


def contents(path: Path) -> dict[str, bytes]:
    """Every object, as git has it."""
    oids = "\n".join(sorted(objects(path))).encode()
    text = git(path, "cat-file", "--batch", stdin=oids)
    found = {}
    while text:
        head, _, rest = text.partition(b"\n")
        oid, kind, size = head.decode().split()
        found[oid], text = kind.encode() + rest[: int(size)], rest[int(size) + 1 :]
    return found


def references(path: Path) -> bytes:
    return git(path, "for-each-ref")


@pytest.mark.parametrize("is_loose", [False, True], ids=["packs", "loose objects"])
def test_all_is_there_in_one_pack(kata: Path, *, is_loose: bool) -> None:
    if is_loose:
        loosen(kata)
    unreferenced = git(kata, "hash-object", "-w", "--stdin", stdin=b"nothing refers to it").decode().strip()
    before, refs = contents(kata), references(kata)
    reader = GitRepo(kata)
    tip = reader.main()
    assert tip is not None
    commits = list(reader.history(tip))
    files = len(list((kata / ".git").rglob("*")))
    assert compact_kata(kata, "AbCdEf")
    assert len(list((kata / ".git").rglob("*"))) < min(files / 2, 25)
    assert contents(kata) == before
    assert unreferenced in before
    assert references(kata) == refs
    assert parts(GitRepo(kata)) == (1, 0, 0)
    assert assert_sound(kata) == EVENTS
    assert list(reader.history(tip)) == commits
    assert GitRepo(kata).tag(3) == tags_of(kata)[3]
    assert not compact_kata(kata, "AbCdEf"), "there is nothing more to be done"
    add_event(kata, EVENTS + 1)
    assert assert_sound(kata) == EVENTS + 1


@pytest.mark.parametrize("times", [1, 2])
def test_beside_another(kata: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """What was listed has been packed anew by somebody else before it is read: it is listed once more, and then said
    so, in no case that an object is missing."""
    left = [times]

    class Late(Repack):
        def write(self) -> bool:
            if left[0]:
                left[0] -= 1
                git(kata, "repack", "-a", "-d", "-q", "-f")
                add_event(kata, EVENTS + times - left[0])
            return super().write()

    monkeypatch.setattr("katafs.kata.compact.Repack", Late)
    if times == 1:
        assert compact_kata(kata, "AbCdEf")
    else:
        with pytest.raises(StorageError, match="somebody else") as caught:
            compact_kata(kata, "AbCdEf")
        assert caught.value.errno == errno.EBUSY
    monkeypatch.undo()
    assert assert_sound(kata) > EVENTS
    assert compact_kata(kata, "AbCdEf") or times == 1


def test_it_is_small(kata: Path) -> None:
    """Smaller than what git's own packer makes of it."""
    compact_kata(kata, "AbCdEf")
    ours = sum(file.stat().st_size for file in (kata / ".git/objects/pack").iterdir())
    git(kata, "repack", "-adfq", "--window=10")
    theirs = sum(file.stat().st_size for file in (kata / ".git/objects/pack").iterdir())
    assert ours < theirs * 1.25


def test_what_is_not_katafs_own(store: Path) -> None:
    """Loose objects of git, annotated and odd tags, other branches, a symbolic tag: all as it was."""
    commits = [GitCommit(f"{index}", [GitFile("a.txt", b"%d\n" % index)], [index]) for index in range(20)]
    path = import_commits(kata_path(store, "AbCdEf"), commits)
    git(path, "branch", "other", "main~3")
    git(path, "-c", "user.name=k", "-c", "user.email=k@k", "tag", "-a", "-m", "annotated", "annotated", "main~2")
    git(path, "tag", "a/b", "main~1")
    git(path, "symbolic-ref", "refs/tags/symbolic", "refs/heads/other")
    git(path, "tag", "blob", "main:a.txt")
    before, refs = contents(path), references(path)
    assert compact_kata(path, "AbCdEf")
    assert (contents(path), references(path)) == (before, refs)
    assert sorted(entry.name for entry in (path / ".git/refs/tags").iterdir()) == ["a", "annotated", "blob", "symbolic"]
    git(path, "fsck", "--full", "--strict")


def test_a_pack_that_is_somebodys_stays(kata: Path) -> None:
    kept = min(packs(kata))
    (kata / f".git/objects/pack/{kept}.keep").write_text("mine\n")
    before = contents(kata)
    compact_kata(kata, "AbCdEf")
    assert kept in packs(kata)
    assert len(packs(kata)) == 2
    assert contents(kata) == before


def test_damage_is_left_to_fsck(kata: Path) -> None:
    loosen(kata)
    file = loose(kata, "main:stdout")
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"rubbish")
    before = sorted(kata.rglob("*"))
    with pytest.raises(DamagedError):
        compact_kata(kata, "AbCdEf")
    assert sorted(kata.rglob("*")) == before
    file.write_bytes(whole)
    assert compact_kata(kata, "AbCdEf")


def test_a_lock_that_somebody_holds(kata: Path) -> None:
    """A tag that is being made stays in its file; packed references that are being written are waited for, in vain."""
    (kata / ".git/refs/tags/7.lock").touch()
    os.utime(kata / ".git/refs/tags/7.lock", (time.time() + 1000,) * 2)
    refs = references(kata)
    (kata / ".git/packed-refs.lock").touch()
    os.utime(kata / ".git/packed-refs.lock", (time.time() + 1000,) * 2)
    # its maker touches it as long as he works
    touching = "while :; do touch -c .git/packed-refs.lock; sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", touching], cwd=kata) as maker:
        try:
            with pytest.raises(StorageError, match="held by another"):
                RefWriter(GitRepo(kata)).pack_tags()
        finally:
            maker.kill()
    (kata / ".git/packed-refs.lock").unlink()
    assert RefWriter(GitRepo(kata)).pack_tags() >= EVENTS
    assert references(kata) == refs


def test_a_tag_that_is_moved_meanwhile(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was packed, before its file is removed."""
    other = git(kata, "rev-parse", "refs/tags/5").decode().strip()
    real = RefLocks.held

    def move_first(locks: RefLocks, name: str, stale: float, data: bytes = b"") -> HeldLock:
        if name == "refs/tags/4":
            git(kata, "update-ref", name, other)
        return real(locks, name, stale, data)

    monkeypatch.setattr(RefLocks, "held", move_first)
    RefWriter(GitRepo(kata)).pack_tags()
    assert git(kata, "rev-parse", "refs/tags/4").decode().strip() == other
    assert tags_of(kata).keys() == set(range(EVENTS + 1))


@pytest.mark.parametrize("stride", [97, pytest.param(11, marks=pytest.mark.slow)])
def test_dying_at_any_step(kata: Path, tmp_path: Path, stride: int) -> None:
    before, refs = objects(kata), references(kata)
    saved = tmp_path / "saved"
    shutil.copytree(kata, saved, symlinks=True)
    count = 0
    for _ in deaths(lambda: compact_kata(kata, "AbCdEf"), stride):
        count += 1
        assert objects(kata) == before
        assert references(kata) == refs
        git(kata, "fsck", "--full", "--strict")
        add_event(kata, EVENTS + 1)
        assert len(stored_rows(kata)) == EVENTS + 2
        assert compact_kata(kata, "AbCdEf")
        assert objects(kata) > before
        shutil.rmtree(kata)
        shutil.copytree(saved, kata, symlinks=True)
    assert count > 12
    assert parts(GitRepo(kata)) == (1, 0, 0)


@pytest.mark.parametrize("events", [4, pytest.param(24, marks=pytest.mark.slow)])
def test_beside_readers_and_writers(kata: Path, events: int) -> None:
    """Of four readers each finds every object at every moment, whatever is replaced."""

    def change(index: int) -> None:
        add_event(kata, EVENTS + index, files={"hiker.py": f"{index}\n"})
        if index % 3 == 0:
            assert compact_kata(kata, "AbCdEf")

    check_readers(kata, change, events)
    assert assert_sound(kata) == EVENTS + events


@pytest.mark.parametrize("seconds", [1.5, pytest.param(10.0, marks=pytest.mark.slow)])
def test_beside_another_and_git(kata: Path, seconds: float) -> None:
    """Two compact, git packs all, and one records: every event is there."""
    script = """
import sys
from pathlib import Path
from katafs.errors import KataError
from katafs.kata.compact import compact_kata
while True:
    try:
        compact_kata(Path(sys.argv[1]), "AbCdEf")
    except KataError as error:
        print(error, flush=True)
"""
    commands = [["python", "-c", script, str(kata)]] * 2
    commands.append(["sh", "-c", "while :; do git gc -q 2>/dev/null; git repack -adq 2>/dev/null; done"])
    others = [
        subprocess.Popen(command, cwd=kata, start_new_session=True, stdout=subprocess.PIPE) for command in commands
    ]
    index, end = EVENTS, time.monotonic() + seconds
    try:
        while time.monotonic() < end or index < EVENTS + 6:
            index += 1
            add_event(kata, index, files={"hiker.py": f"{index}\n"})
    finally:
        for other in others:
            os.killpg(other.pid, signal.SIGKILL)
            other.communicate()
    for lock in kata.rglob("*.lock"):
        lock.unlink()
    assert assert_sound(kata) == index


# -- by a mount


def test_a_mount_compacts_what_is_quiet(fuse: None, tmp_path: Path) -> None:
    with serving(tmp_path, "fast", "--compact-after", "0.3") as mount:
        kata, few = serve_kata(mount), serve_kata(mount)
        few.ran_tests.write_text(message_of(1))
        for index in range(1, 12):
            kata.ran_tests.write_text(message_of(index))
        seen = [(kata.shown / f"events/{index}/files/hiker.py").read_text() for index in range(12)]
        wait_until(lambda: parts(GitRepo(kata.stored)) == (1, 0, 0), "the compaction", seconds=20.0)
        wait_until(lambda: ": compacted" in mount.log_text(), "the line in the log")
        assert [(kata.shown / f"events/{index}/files/hiker.py").read_text() for index in range(12)] == seen
        subprocess.run(["sh", "-c", "cat diff/*..* download.tgz > /dev/null"], cwd=kata.shown, check=True)
        kata.ran_tests.write_text(message_of(12))
        assert kata.accepted() == 12
        assert parts(GitRepo(few.stored)) == (2, 0, 2), "it is not worth the work"


def test_a_kata_that_was_removed_is_no_fault(fuse: None, tmp_path: Path) -> None:
    """No line of the log says that it is not compacted."""
    with serving(tmp_path, "fast", "--compact-after", "0.3") as mount:
        gone, kata = serve_kata(mount), serve_kata(mount)
        gone.ran_tests.write_text(message_of(1))
        shutil.rmtree(gone.stored)
        for index in range(1, 12):
            kata.ran_tests.write_text(message_of(index))
        wait_until(lambda: parts(GitRepo(kata.stored)) == (1, 0, 0), "the compaction of the next one", seconds=20.0)


def message_of(index: int) -> str:
    return json.dumps(message({"hiker.py": f"{index}\n", "cyber-dojo.sh": "pytest\n"}, index=index))


# -- by a command


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    with command_line() as started:
        yield started


def test_the_command(cli: CommandLine, made: Path) -> None:
    store = cli.directory / "store"
    for kata_id in ("AbCdEf", "ABCDEF"):
        shutil.copytree(made, kata_path(store, kata_id), symlinks=True)
    (store / "Ab/Cd/Eg").mkdir()
    said = cli.done("compact", "store", "ABCDEF")
    assert said == "1 kata compacted\n"
    assert parts(GitRepo(kata_path(store, "AbCdEf"))).tags == EVENTS + 1
    assert cli.done("compact", "store").startswith("1 kata compacted")
    assert cli.done("compact", "store") == "0 katas compacted\n"
    result = cli.run("compact", "store", "AbCdEg")
    assert (result.returncode, result.stdout) == (1, "0 katas compacted, 1 not compacted\n")
    assert result.stderr == "katafs: AbCdEg is not compacted: kata AbCdEg is not stored as git\n"
    assert "no kata id" not in cli.refused("compact", "store", "AbCdE", status=2)
    assert assert_sound(kata_path(store, "AbCdEf")) == EVENTS


def test_the_command_on_a_terminal(cli: CommandLine, made: Path) -> None:
    """It says how far it is and how long it will take, and nothing of it when it is to be quiet."""
    store = cli.directory / "store"
    for number in range(20):
        shutil.copytree(made, kata_path(store, f"Zz{number:02}aa"), symlinks=True)
    output, seen = cli.on_terminal("compact", "store")
    assert output.startswith("20 katas compacted")
    assert re.search(r"\r\x1b\[K[0-9]+ of 20 katas, [0-9]+ compacted, [0-9]+ katas/s, 0:00:[0-9]{2} left", seen)
    assert seen.endswith("\r\x1b[K")
    assert cli.on_terminal("compact", "--quiet", "store") == ("", "")


def test_one_that_cannot_be_compacted(cli: CommandLine, made: Path) -> None:
    store = cli.directory / "store"
    shutil.copytree(made, kata_path(store, "AbCdEf"), symlinks=True)
    broken = make_kata(store, "ABCDEF")
    loosen(broken)
    next((broken / ".git/objects").glob("??/*")).unlink()
    result = cli.run("compact", "store")
    assert result.returncode == 1
    assert re.search(r"^katafs: ABCDEF is not compacted: .* is missing$", result.stderr, re.MULTILINE)
    assert result.stdout.startswith("1 kata compacted")
    assert result.stdout.endswith(", 1 not compacted\n")
