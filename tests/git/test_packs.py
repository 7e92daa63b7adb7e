"""One pack for each event, and one of many: what is written, beside whom, and what is left by who dies meanwhile."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from katafs.errors import DamagedError
from katafs.git import GitRepo
from katafs.git.format.delta import apply_delta, piecewise_delta
from katafs.git.format.stored import BLOB, COMMIT, TREE, object_id
from katafs.git.store.compaction import MOST_SMALL, merge_packs
from katafs.git.store.pack_files import KEPT, NewPack, let_go, remove_left_behind, store_pack
from katafs.git.store.storing import MUTEX
from katafs.kata.record.commit import set_option
from tests.katas import add_event, assert_sound, git, loosen, make_kata, stored_rows
from tests.killing import deaths
from tests.mounts import patience


@pytest.fixture
def kata(store: Path) -> Path:
    return make_kata(store, "AbCdEf")


def packs(path: Path) -> set[str]:
    """The packs of a kata that have an index."""
    directory = path / ".git/objects/pack"
    return {idx.stem for idx in directory.glob("*.idx") if idx.with_suffix(".pack").exists()}


def objects(path: Path) -> set[str]:
    """The ids of all objects, as git has them."""
    listed = git(path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objectsize)").decode()
    assert "missing" not in listed
    return {line.split()[0] for line in listed.splitlines()}


# -- an event


def test_an_event_is_one_pack(kata: Path) -> None:
    before = packs(kata)
    add_event(kata, 1, files={"hiker.py": "first\n", "a/b.txt": "second\n"})
    assert len(packs(kata) - before) == 1
    set_option(kata, "AbCdEf", "theme", "dark")
    assert len(packs(kata) - before) == 2
    assert not list((kata / ".git/objects").glob("[0-9a-f][0-9a-f]"))
    add_event(kata, 2, files={"hiker.py": "first\n", "a/b.txt": "second\n"})
    assert assert_sound(kata) == 2
    blob = git(kata, "rev-parse", "1:files/a/b.txt").decode().strip()
    (newest,) = packs(kata) - before - {name for name in packs(kata) if blob in verify(kata, name)} - option_pack(kata)
    assert git(kata, "rev-parse", "2").decode().strip() in verify(kata, newest), "what is there is not stored again"


def verify(path: Path, name: str) -> str:
    return git(path, "verify-pack", "-v", path / f".git/objects/pack/{name}.idx").decode()


def option_pack(path: Path) -> set[str]:
    commit = git(path, "rev-parse", "main~1").decode().strip()
    return {name for name in packs(path) if commit in verify(path, name)}


def test_an_event_with_a_heavy_diff_is_one_pack(kata: Path) -> None:
    """Its lines are counted by another process, which is told what is not stored yet."""
    before = packs(kata)
    lines = [f"{number} {number * number}\n" for number in range(40_000)]
    add_event(kata, 1, files={"hiker.py": "".join(lines)})
    add_event(kata, 2, files={"hiker.py": "".join(lines[:100] + lines[200:])})
    assert len(packs(kata) - before) == 2
    assert stored_rows(kata)[2]["diff_deleted_count"] == 100


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_dying_at_any_step_of_an_event(kata: Path, tmp_path: Path, stride: int) -> None:
    """What was there is there; the next event is recorded; nobody is asked to clean up."""
    add_event(kata, 1)
    before = objects(kata)
    saved = tmp_path / "saved"
    shutil.copytree(kata, saved, symlinks=True)
    died: list[int] = []
    for step in deaths(lambda: add_event(kata, 2, files={"hiker.py": "second\n"}), stride):
        assert objects(kata) >= before
        git(kata, "fsck", "--full", "--strict", "--connectivity-only")
        recorded = len(stored_rows(kata)) - 1
        assert recorded in (1, 2)
        (kata / ".git/refs/heads/main.lock").unlink(missing_ok=True)
        add_event(kata, recorded + 1, files={"hiker.py": "third\n"})
        assert assert_sound(kata) == recorded + 1
        died.append(step)
        shutil.rmtree(kata)
        shutil.copytree(saved, kata, symlinks=True)
    assert len(died) > 10


# -- many


def test_packs_are_merged(kata: Path) -> None:
    for index in range(1, 3 * MOST_SMALL):
        add_event(kata, index, files={"hiker.py": f"{index}\n"})
        assert len(packs(kata)) < MOST_SMALL
    assert assert_sound(kata) == 3 * MOST_SMALL - 1
    assert not list((kata / ".git/objects/pack").glob("tmp_*"))


def test_what_is_large_is_not_merged_with_every_sixteen_events(kata: Path) -> None:
    add_event(kata, 1, files={"hiker.py": os.urandom(400_000).hex()})
    (large,) = [path.stem for path in (kata / ".git/objects/pack").glob("*.pack") if path.stat().st_size > 400_000]
    for index in range(2, 3 * MOST_SMALL):
        add_event(kata, index, files={"hiker.py": f"{index}\n"})
        assert len(packs(kata)) < MOST_SMALL
    assert large in packs(kata)
    assert assert_sound(kata) == 3 * MOST_SMALL - 1


def many_packs(path: Path) -> None:
    """As many packs of one event as are merged."""
    for index in range(1, MOST_SMALL - 1):
        add_event(path, index, files={"hiker.py": f"{index}\n"})
    assert len(packs(path)) == MOST_SMALL - 1


def test_packs_that_are_somebodys_or_damaged_stay(kata: Path) -> None:
    many_packs(kata)
    directory = kata / ".git/objects/pack"
    kept, damaged, *_ = sorted(packs(kata))
    (directory / f"{kept}.keep").write_text("mine\n")
    file = directory / f"{damaged}.pack"
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:-30] + bytes(10) + whole[-20:])
    for index in range(MOST_SMALL - 1, MOST_SMALL + 3):
        with_more = packs(kata)
        merge_packs(directory)
        assert {kept, damaged} <= with_more
        data = b"one more %d" % index
        let_go(store_pack(directory, {object_id(BLOB, data): (BLOB, data)}))
    assert {kept, damaged} <= packs(kata)
    assert len(packs(kata)) < MOST_SMALL
    file.write_bytes(whole)
    assert assert_sound(kata) == MOST_SMALL - 2


def test_what_was_left_behind_goes(kata: Path) -> None:
    """Temporary files of writers that died, and their marks, by who is alone; not those of who compacts, nor another's
    mark. No clock is asked."""
    many_packs(kata)
    directory = kata / ".git/objects/pack"
    whole, others, cut, empty, nuls = sorted(packs(kata))[:5]
    marks = {whole: KEPT, others: b"receive-pack 1 on host\n", cut: KEPT[:5], empty: b"", nuls: bytes(len(KEPT))}
    for name, text in marks.items():
        (directory / f"{name}.keep").write_bytes(text)
    (directory / "tmp_pack_other").touch()
    (directory / "tmp_pack_katafs_dead").touch()
    for content in (b"one more", b"another", b"a third"):
        let_go(store_pack(directory, {object_id(BLOB, content): (BLOB, content)}))
    with NewPack(directory) as living:
        alive = Path(living.temporary[0]).name
        assert merge_packs(directory) >= MOST_SMALL - 2
        left = {name for name in os.listdir(directory) if not name.endswith((".pack", ".idx", ".rev"))}
        assert left == {f"{others}.keep", "tmp_pack_other", alive}
    assert others in packs(kata)
    assert assert_sound(kata) == MOST_SMALL - 2


def test_a_keep_is_another_name_of_the_mutex(kata: Path) -> None:
    """So that no file is made and removed for each event; where there is none to be named it has one of its own. Either
    goes when its writer has died, and the mutex stays."""
    directory, mutex = kata / ".git/objects/pack", kata / ".git" / MUTEX
    mutex.unlink(missing_ok=True)
    own = store_pack(directory, {object_id(BLOB, b"one"): (BLOB, b"one")}).with_suffix(".keep")
    mutex.touch()
    named = store_pack(directory, {object_id(BLOB, b"two"): (BLOB, b"two")}).with_suffix(".keep")
    assert own.read_bytes() == KEPT
    assert named.samefile(mutex)
    remove_left_behind(directory)
    assert not own.exists()
    assert not named.exists()
    assert mutex.stat().st_nlink == 1


@pytest.mark.parametrize("what", ["link", "pipe", "text"])
def test_a_keep_is_seen_and_goes_whatever_has_the_name_of_the_mutex(kata: Path, what: str) -> None:
    directory, mutex = kata / ".git/objects/pack", kata / ".git" / MUTEX
    mutex.unlink(missing_ok=True)
    if what == "link":
        mutex.symlink_to("nowhere")
    elif what == "pipe":
        os.mkfifo(mutex)
    else:
        mutex.write_text("x")
    keep = store_pack(directory, {object_id(BLOB, b"one"): (BLOB, b"one")}).with_suffix(".keep")
    # as git looks: by access(2), which follows links
    assert os.access(keep, os.F_OK)
    remove_left_behind(directory)
    assert not os.path.lexists(keep)
    assert os.path.lexists(mutex)


def test_a_temporary_file_that_was_just_made_is_not_left_behind(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is alone removes it in the moment before its writer, who compacts, says that he is alive."""
    directory = kata / ".git/objects/pack"
    said: list[list[str]] = []

    real = fcntl.flock

    def flock(file: IO[bytes], how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        said.append(remove_left_behind(directory))
        if len(said) < 3:
            monkeypatch.setattr(fcntl, "flock", flock)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    data = b"one more"
    with NewPack(directory) as new:
        new.writer.add(object_id(BLOB, data), BLOB, b"", data)
        new.finish()
        new.install()
    assert GitRepo(kata).blob(object_id(BLOB, data)) == data
    assert len(said) == 3


def test_no_pack_stays_whose_index_was_pruned(kata: Path) -> None:
    """`git gc --prune=now` removes temporary files, also between two renames."""
    directory = kata / ".git/objects/pack"
    before = sorted(os.listdir(directory))
    with NewPack(directory) as new:
        new.finish()
        Path(new.temporary[1]).unlink()
        with pytest.raises(FileNotFoundError):
            new.install(is_kept=True)
    assert sorted(os.listdir(directory)) == before


@pytest.mark.parametrize("stride", [31, pytest.param(3, marks=pytest.mark.slow)])
def test_dying_at_any_step_of_a_merge(kata: Path, tmp_path: Path, stride: int) -> None:
    many_packs(kata)
    loosen(kata)
    repo = GitRepo(kata)
    for oid in map(bytes.fromhex, sorted(objects(kata))[:MOST_SMALL]):
        let_go(store_pack(kata / ".git/objects/pack", {oid: repo.objects.read_any(oid)}))
    git(kata, "prune-packed")
    before = objects(kata)
    saved = tmp_path / "saved"
    shutil.copytree(kata, saved, symlinks=True)
    died: list[int] = []
    for step in deaths(lambda: merge_packs(kata / ".git/objects/pack"), stride):
        assert objects(kata) == before
        git(kata, "fsck", "--full", "--strict")
        add_event(kata, MOST_SMALL - 1)
        died.append(step)
        shutil.rmtree(kata)
        shutil.copytree(saved, kata, symlinks=True)
    assert len(died) > 12
    assert len(packs(kata)) == 1


@pytest.mark.parametrize("merges", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_readers_while_packs_are_merged(kata: Path, merges: int) -> None:
    """Long-lived readers, and new ones, find every object at every moment."""
    events = merges * MOST_SMALL
    check_readers(kata, lambda index: add_event(kata, index, files={"hiker.py": f"{index}\n"}), events)


def check_readers(path: Path, change: Callable[[int], object], events: int) -> None:
    """Call ``change`` with 1, 2, … while four threads read all that the tip reaches."""
    wrong: list[BaseException] = []
    counts = [0] * 4
    end = threading.Event()

    def read(which: int) -> None:
        repo = GitRepo(path)
        dice = random.Random(which)
        try:
            while not end.is_set():
                if dice.random() < 0.2:
                    repo = GitRepo(path)
                tip = repo.main()
                assert tip is not None
                commits = list(repo.history(tip))
                for commit in dice.sample(commits, min(5, len(commits))):
                    repo.objects.read(commit.oid, COMMIT)
                    for entry in repo.tree(commit.tree):
                        repo.objects.read(entry.oid, TREE if entry.is_tree else BLOB)
                counts[which] += 1
        except BaseException as error:  # noqa: BLE001 - told by the test
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    try:
        for index in range(1, events + 1):
            change(index)
    finally:
        end.set()
        for thread in threads:
            thread.join(patience(30))
    assert not wrong
    assert all(counts)


def test_a_pack_that_was_mended_is_read(kata: Path) -> None:
    """A reader who has met a damaged pack, under the same name."""
    add_event(kata, 1)
    tip = GitRepo(kata).main()
    assert tip is not None
    for suffix in (".pack", ".idx"):
        files = list((kata / ".git/objects/pack").glob(f"*{suffix}"))
        whole = {file: file.read_bytes() for file in files}
        for file, data in whole.items():
            file.unlink()
            file.write_bytes(data[:25])
        repo = GitRepo(kata)
        with pytest.raises(DamagedError, match=r"damaged|missing"):
            repo.commit(tip)
        for file, data in whole.items():
            file.unlink()
            file.write_bytes(data)
        assert repo.commit(tip).oid == tip


def test_few_descriptors_are_open(kata: Path) -> None:
    """None by who has written, two by who reads, however many packs there are."""
    before = len(os.listdir("/proc/self/fd"))
    for index in range(1, 10):
        add_event(kata, index, files={"hiker.py": f"{index}\n"})
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    repo = GitRepo(kata)
    for oid in objects(kata):
        repo.objects.read_any(bytes.fromhex(oid))
    assert len(packs(kata)) == 10
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    git(kata, "repack", "-adq")
    add_event(kata, 10)
    tip = repo.main()
    assert tip is not None
    assert tip in repo.objects
    listed = subprocess.run(["ls", "-l", f"/proc/{os.getpid()}/fd"], capture_output=True, check=False).stdout
    assert not [line for line in listed.splitlines() if str(kata).encode() in line and b".pack (deleted)" in line]


# -- beside git


@pytest.mark.parametrize("seconds", [1.5, pytest.param(10.0, marks=pytest.mark.slow)])
def test_beside_git_gc(kata: Path, seconds: float) -> None:
    """Events are recorded while git packs the repository again and again: all of them are there."""
    end = time.monotonic() + seconds
    index = 0
    command = "while :; do git gc -q --prune=now 2>/dev/null; git repack -adq 2>/dev/null; done"
    with subprocess.Popen(["sh", "-c", command], cwd=kata, start_new_session=True) as process:
        try:
            while time.monotonic() < end:
                index += 1
                add_event(kata, index, files={"hiker.py": f"{index}\n"})
        finally:
            os.killpg(process.pid, 9)
    for lock in ("gc.pid", "packed-refs.lock", "HEAD.lock"):
        (kata / ".git" / lock).unlink(missing_ok=True)
    assert index > 5
    assert len(stored_rows(kata)) == index + 1


def test_differences_piece_by_piece() -> None:
    dice = random.Random(3)
    words = [b"one\n", b"two two\n", b"a much longer line than the others\n", b"\n", b"no end", b"\0\xff"]
    for _ in range(400):
        base = b"".join(dice.choices(words, k=dice.randrange(30)))
        data = b"".join(dice.choices(words, k=dice.randrange(30)))
        for kind in (BLOB, TREE):
            assert apply_delta(base, piecewise_delta(base, data, kind)) == data
    large = b"x" * (1 << 25) + b"\n"
    assert apply_delta(large, piecewise_delta(large, b"y\n" + large, BLOB)) == b"y\n" + large
