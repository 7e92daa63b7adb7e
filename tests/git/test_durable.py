"""What is acknowledged is on disk, whoever wrote what it builds on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from katafs.errors import StorageError
from katafs.git import GitRepo
from katafs.git.format.stored import TREE
from katafs.git.odb.packs import OURS
from katafs.git.store import compaction, durable
from katafs.git.store.compaction import Repack
from katafs.git.store.storing import sync_path
from katafs.kata.model.kinds import Act, Kind
from katafs.kata.record.commit import record
from katafs.kata.record.message import parse_act
from tests.katas import add_event, git, make_kata


@pytest.fixture
def kata(store: Path) -> Path:
    path = make_kata(store, "AbCdEf")
    add_event(path, 1, files={"a.txt": "1\n", "b/c.txt": "c\n"})
    return path


def act(index: int, **more: object) -> Act:
    message = {"index": index, "files": {"a.txt": {"content": f"{index}\n"}}, "summary": {"colour": "red"}, **more}
    return parse_act(Kind.RAN_TESTS, json.dumps(message).encode())


def commit_by_git(path: Path, name: str, text: str) -> set[bytes]:
    """A commit as a service makes it with git, whose objects are files of their own: their ids."""
    before = set(objects(path))
    blob = git(path, "hash-object", "-w", "--stdin", stdin=text.encode()).decode().strip()
    for words in (["read-tree", "main"], ["update-index", "--add", "--cacheinfo", f"100644,{blob},{name}"]):
        git(path, *words)
    tree = git(path, "write-tree").decode().strip()
    commit = git(path, "commit-tree", "-p", "main", "-m", f"set {name}", tree).decode().strip()
    git(path, "update-ref", "refs/heads/main", commit)
    return set(objects(path)) - before


def watched_syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that will have been synced where they are."""
    synced: list[str] = []

    def sync(path: Path) -> None:
        synced.append(str(path))
        sync_path(path)

    monkeypatch.setattr(durable, "sync_path", sync)
    return synced


def objects(path: Path) -> list[bytes]:
    shown = git(path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").decode().split()
    return [bytes.fromhex(oid) for oid in shown]


def ours(path: Path) -> set[bytes]:
    """What is in packs that katafs wrote, and so synced."""
    found: set[bytes] = set()
    for idx in (path / ".git/objects/pack").glob(f"{OURS}*.idx"):
        found |= {
            bytes.fromhex(line.split()[1].decode())
            for line in git(path, "show-index", stdin=idx.read_bytes()).splitlines()
        }
    return found


def test_what_git_stored_is_stored_again_with_the_event(kata: Path) -> None:
    theirs = commit_by_git(kata, "config/theme", "dark\n") | commit_by_git(kata, "x/y/z", "deep\n")
    assert not theirs & ours(kata)
    record(kata, "AbCdEf", act(2))
    assert theirs <= ours(kata)
    # and once: the next event has nothing but its own
    before = ours(kata)
    record(kata, "AbCdEf", act(3))
    assert not theirs & (ours(kata) - before)
    git(kata, "fsck", "--full", "--strict")


def test_what_git_packed_is_synced(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_by_git(kata, "config/theme", "dark\n")
    git(kata, "repack", "-adq")
    (pack,) = (kata / ".git/objects/pack").glob("*.pack")
    synced = watched_syncs(monkeypatch)
    record(kata, "AbCdEf", act(2))
    assert sorted(synced) == sorted([str(pack), str(pack.with_suffix(".idx"))])
    record(kata, "AbCdEf", act(3))
    assert len(synced) == 2, "once"


def test_what_a_repetition_is_answered_with_is_synced(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is written."""
    again = act(2, laptop_id="ab" * 32, tab_seq=1)
    committed = record(kata, "AbCdEf", again)
    theirs = commit_by_git(kata, "config/theme", "dark\n")
    before = ours(kata)
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_path", synced.append)
    assert record(kata, "AbCdEf", again) == committed
    assert {kata / ".git/objects" / oid.hex()[:2] / oid.hex()[2:] for oid in theirs} <= set(synced)
    assert ours(kata) == before


def test_a_history_that_is_too_long_for_that(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_by_git(kata, "config/theme", "dark\n")
    monkeypatch.setattr(durable, "_MOST", 1)
    synced: list[None] = []
    monkeypatch.setattr(os, "sync", lambda: synced.append(None))
    record(kata, "AbCdEf", act(2))
    assert synced == [None]


def test_very_many_packs(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every object is looked for in each of them: that took minutes, in which others could not record."""
    directory = kata / ".git/objects/pack"
    for index in (2, 3):
        commit_by_git(kata, "config/theme", f"{index}\n")
        monkeypatch.setattr(durable, "_MOST", 20)
        synced: list[None] = []
        monkeypatch.setattr(os, "sync", lambda said=synced: said.append(None))
        record(kata, "AbCdEf", act(index))
        assert synced == [None] * (index - 2)
        first = min(directory.glob("*.pack"))
        for number in range(300 * (index == 2)):
            for suffix in (".pack", ".idx"):
                os.link(first.with_suffix(suffix), directory / f"pack-{number:040x}{suffix}")
    assert git(kata, "show", "main:files/a.txt") == b"3\n"


def test_what_is_looked_for_is_looked_for_once(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object in the packs once, each commit read once for where it leads, and once to be stored again."""
    for index in range(5):
        commit_by_git(kata, "config/theme", f"new {index}\n")
    repo = GitRepo(kata)
    tip = repo.main()
    assert tip is not None
    asked: Counter[bytes] = Counter()
    read: Counter[bytes] = Counter()
    holders, inflate = repo.objects.packs.holders, repo.objects.loose.read

    def count_holders(oid: bytes) -> list[str]:
        asked[oid] += 1
        return holders(oid)

    def count_reads(oid: bytes, largest: float) -> tuple[int, bytes]:
        read[oid] += 1
        return inflate(oid, largest)

    monkeypatch.setattr(repo.objects.packs, "holders", count_holders)
    monkeypatch.setattr(repo.objects.loose, "read", count_reads)
    assert len(durable.make_durable(repo, tip)) == 20
    assert max(asked.values()) == 1
    assert max(read.values()) == 2


def test_damage_below_keeps_nobody_from_recording(kata: Path) -> None:
    theirs = commit_by_git(kata, "x.txt", "x\n")
    blob = git(kata, "rev-parse", "main:x.txt").decode().strip()
    (kata / ".git/objects" / blob[:2] / blob[2:]).unlink()
    record(kata, "AbCdEf", act(2))
    assert theirs - {bytes.fromhex(blob)} <= ours(kata)


@pytest.mark.parametrize("where", ["refs/heads", "objects/pack"])
def test_a_sync_that_fails_is_told(kata: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """And the same message again is no second event."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(where):
            raise OSError(5, os.strerror(5))
        real(fd)

    told: list[str] = []
    message = act(2, laptop_id="ab" * 32, tab_seq=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        for _ in range(2):
            with pytest.raises(StorageError) as caught:
                record(kata, "AbCdEf", message)
            assert caught.value.errno == 5
            told.append(str(caught.value))
    assert ("event 2 may be there" in told[0]) == (where == "refs/heads")
    assert record(kata, "AbCdEf", message).index == 2
    assert len(list(GitRepo(kata).history(GitRepo(kata).main() or b""))) == 3


def test_a_large_object_of_git_is_synced_as_it_is(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in no memory of ours, and stays a file."""
    commit_by_git(kata, "large.bin", "x" * (18 << 20))
    blob = git(kata, "rev-parse", "main:large.bin").decode().strip()
    synced = watched_syncs(monkeypatch)
    record(kata, "AbCdEf", act(2))
    assert str(kata / ".git/objects" / blob[:2] / blob[2:]) in synced


def test_what_git_makes_while_a_compaction_lists_is_synced(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit may be in the list, and so in the pack, and its tree not: nobody looks below a pack of ours again."""
    came = commit_by_git(kata, "new.txt", "new\n")
    repo = GitRepo(kata)
    late = next(oid for oid in came if repo.objects.kind(oid) == TREE)
    synced: list[Path] = []
    monkeypatch.setattr(compaction, "sync_path", synced.append)
    with Repack(repo) as repack:
        repack._loose.remove(late)
        assert repack.write()
    assert Path(repo.objects.loose.path(late)) in synced


NO_THREADS = """
import os, resource, sys, threading
from katafs.git.store.storing import sync_together
os.setgroups([]); os.setgid(54321); os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    sync_together([0, 1, 2])
    print("synced")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without threads")
def test_where_no_thread_can_be_started(tmp_path: Path) -> None:
    """A commit needs none: its files are then synced one after the other."""
    with open(tmp_path / "a", "w+b") as a, open(tmp_path / "b", "w+b") as b, open(tmp_path / "c", "w+b") as c:
        done = subprocess.run([sys.executable, "-c", NO_THREADS], stdin=a, stdout=b, stderr=c, check=False)
        assert (done.returncode, b.seek(0), b.read(), c.seek(0), c.read()) == (0, 0, b"synced\n", 0, b"")
