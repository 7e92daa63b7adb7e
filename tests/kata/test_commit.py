"""Recording an event, without a mount: every byte of both layouts, the order of questions, locks, races, failures."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import DamagedError, InvalidError, KataError, LateError, ReadOnlyError, StorageError
from katafs.git import GitRepo
from katafs.git.format.stored import BLOB, object_id
from katafs.git.store.pack_files import let_go, store_pack
from katafs.kata.model.kinds import Kind
from katafs.kata.record import commit, repositories
from katafs.kata.record.commit import Committed
from katafs.kata.record.commit import record as record_act
from katafs.kata.record.message import parse_act
from katafs.kata.record.recorders import find_recorded
from tests.katas import (
    START,
    GitCommit,
    GitFile,
    assert_sound,
    git,
    git_commit,
    git_event,
    import_commits,
    loose,
    loosen,
    make_kata,
    message,
    pretty_json,
    repository_state,
    row_time,
    stored_rows,
)

LAPTOP = "0123456789abcdef" * 4
FLOATS = {"colour": "red", "duration": 1e-05, "time": "then", "predicted": "none", "extra": {"a": [], "é": 1e20}}


def record(path: Path, **fields: Any) -> Committed:
    """Record a test run in the kata at ``path``."""
    return record_act(path, "".join(path.parts[-3:]), parse_act(Kind.RAN_TESTS, json.dumps(message(**fields)).encode()))


@pytest.fixture
def kata(store: Path) -> Path:
    """A native kata with event 0."""
    return make_kata(store, "AbCdEf")


def show(path: Path, name: str) -> bytes:
    """A file of the newest commit."""
    return git(path, "show", f"main:{name}")


def raw_commit(path: Path) -> tuple[list[str], bytes]:
    """The header and the message of the newest commit."""
    header, _, text = git(path, "cat-file", "commit", "main").partition(b"\n\n")
    return header.decode().splitlines(), text


# -- what is stored


def test_a_native_event(kata: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    committed = record(
        kata,
        files={"hiker.py": "def answer():\n    return 42\n", "a/é b.txt": "\r\nno end"},
        stdout={"content": "1 passed\n", "truncated": True},
        stderr={"content": ""},
        status="145",
        summary=FLOATS,
        laptop_id=LAPTOP,
        tab_seq=None,
        index=1,
    )
    assert assert_sound(kata) == committed.index == 1
    assert git(kata, "rev-parse", "main").decode().strip() == committed.commit.hex()
    names = git(kata, "ls-tree", "-r", "-z", "--name-only", "main").decode().split("\0")[:-1]
    options = ["colour", "predict", "revert_amber", "revert_green", "revert_red", "theme"]
    top = ["manifest.json", "status", "stderr", "stdout", "truncations.json"]
    files = ["files/a/é b.txt", "files/hiker.py"]
    assert names == [*(f"config/{name}" for name in options), "event.json", "events_summary.json", *files, *top]
    assert [show(kata, name) for name in ("stdout", "stderr", "status")] == [b"1 passed\n", b"", b"145"]
    assert [show(kata, name) for name in files] == [b"\r\nno end", b"def answer():\n    return 42\n"]
    flags = {"files": {"a/é b.txt": False, "hiker.py": False}, "stdout": True, "stderr": False, "status": False}
    assert show(kata, "truncations.json") == pretty_json(flags)
    rows = stored_rows(kata)
    assert show(kata, "events_summary.json") == pretty_json(rows)
    assert show(kata, "event.json") == pretty_json(rows[1])
    added = {"index": 1, "diff_added_count": 3, "diff_deleted_count": 2, "laptop_id": LAPTOP, "tab_seq": None}
    assert {**rows[1], "time": None} == {**FLOATS, **added, "time": None, "type": "test"}
    order = [*FLOATS, "index", "diff_added_count", "diff_deleted_count", "laptop_id", "tab_seq", "type"]
    assert list(rows[1]) == order
    recorded = datetime(*rows[1]["time"], tzinfo=UTC)  # type: ignore[misc]
    assert before <= recorded <= datetime.now(UTC)
    header, text = raw_commit(kata)
    assert text == b"1 ran tests, no prediction, got red"
    who = f"AbCdEf <AbCdEf@cyber-dojo.org> {int(recorded.timestamp())} +0000"
    assert header[2:] == [f"author {who}", f"committer {who}"]


def test_a_saver_event(saver_kata: Path) -> None:
    before = {name: show(saver_kata, name) for name in ("events.json", "options.json", "README.md", "manifest.json")}
    working_tree = {path: path.read_bytes() for path in saver_kata.iterdir() if path.is_file()}
    files = {"hiker.js": "exports.answer = () => 42;\n", "read/me": "é"}
    committed = record(saver_kata, files=files, summary=FLOATS, stderr={"content": "x", "truncated": True}, tab_seq="3")
    assert assert_sound(saver_kata) == committed.index == 8
    after = {name: show(saver_kata, name) for name in before}
    assert {**after, "events.json": b""} == {**before, "events.json": b""}
    row = stored_rows(saver_kata)[8]
    assert before["events.json"].endswith(b"\n  }\n]") or before["events.json"].endswith(b"\n  }\n]\n")
    head, tail = before["events.json"].rstrip()[:-2], after["events.json"]
    assert tail.startswith(head + b",\n  {\n    ")
    assert tail.endswith(b'    "tab_seq": "3"\n  }\n]')
    assert b'"duration": 1.0e-05,\n' in tail
    assert '"é": 1.0e+20\n'.encode() in tail
    assert list(row) == [*FLOATS, "index", "diff_added_count", "diff_deleted_count", "tab_seq"]
    assert show(saver_kata, "truncations.json") == b'{\n  "stdout": false,\n  "stderr": true\n}'
    assert [show(saver_kata, name) for name in ("stdout", "stderr", "status")] == [b"", b"x", b"0"]
    assert {name: show(saver_kata, f"files/{name}").decode() for name in files} == files
    root = git(saver_kata, "ls-tree", "--name-only", "main").decode().split()
    top = ["README.md", "events.json", "files", "manifest.json", "options.json"]
    assert root == [*top, "status", "stderr", "stdout", "truncations.json"]
    header, text = raw_commit(saver_kata)
    assert text == b"8 ran tests, no prediction, got red"
    assert header[2].startswith("author rG63fy <rG63fy@cyber-dojo.org> ")
    assert {path: path.read_bytes() for path in working_tree} == working_tree


def test_whose_the_new_files_are(saver_kata: Path) -> None:
    owner = saver_kata.stat()
    assert owner.st_uid != os.geteuid(), "the kata is somebody else's"
    record(saver_kata, files={f"{number}.txt": f"{number}\n" for number in range(40)})
    for parent, directories, files in os.walk(saver_kata):
        for name in (*directories, *files):
            status = Path(parent, name).lstat()
            assert (status.st_uid, status.st_gid) == (owner.st_uid, owner.st_gid), Path(parent, name)


def test_files_left_out_stay_as_they_are(kata: Path) -> None:
    files = {"a.txt": {"content": "cut", "truncated": True}, "é.txt": {"content": "whole"}}
    record_act(kata, "AbCdEf", parse_act(Kind.RAN_TESTS, json.dumps({**message(), "files": files}).encode()))
    tree, flags = git(kata, "rev-parse", "main:files"), show(kata, "truncations.json")
    assert json.loads(flags)["files"] == {"a.txt": True, "é.txt": False}
    record(kata)
    assert (git(kata, "rev-parse", "main:files"), show(kata, "truncations.json")) == (tree, flags)
    rows = stored_rows(kata)
    assert (rows[2]["diff_added_count"], rows[2]["diff_deleted_count"]) == (0, 0)


def test_no_files_at_all_and_files_again(kata: Path) -> None:
    record(kata, files={})
    assert b"files" not in git(kata, "ls-tree", "--name-only", "main").split()
    record(kata)
    record(kata, files={"a/b/c.txt": "here\n"})
    assert show(kata, "files/a/b/c.txt") == b"here\n"
    assert assert_sound(kata) == 3


def test_an_event_after_one_that_others_recorded(kata: Path) -> None:
    git_event(kata, "theirs\n")
    assert record(kata).index == 2
    assert git_commit(kata, "set option theme to dark", {"config/theme": b"dark\n"})
    assert record(kata).index == 3
    assert show(kata, "config/theme") == b"dark\n"
    assert assert_sound(kata) == 3


# -- the index


def test_the_index(kata: Path) -> None:
    assert record(kata, index=1).index == 1
    state = repository_state(kata)
    for late in (0, 1):
        with pytest.raises(LateError) as caught:
            record(kata, files={"new.txt": f"{late}"}, index=late)
        assert caught.value.errno == errno.EEXIST
    for gap in (1003, 10**30):
        with pytest.raises(InvalidError):
            record(kata, files={"new.txt": f"{gap}"}, index=gap)
    assert repository_state(kata) == state
    assert record(kata, index=2).index == 2


# -- tags and locks


def test_a_missing_tag_is_made(kata: Path) -> None:
    git_event(kata, "no tag\n", tag=False)
    record(kata)
    assert assert_sound(kata) == 2


def test_whoever_moved_the_branch_makes_the_tag(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment: to saver it is a failure when the tag is there already."""
    monkeypatch.setattr(commit, "_TAG_SECONDS", 20.0)
    git_event(kata, "by somebody else\n", tag=False)
    made = threading.Thread(target=git, args=(kata, "update-ref", "refs/tags/1", "main", "0" * 40))
    made.start()
    record(kata)
    made.join()
    assert GitRepo(kata).tag(1) == bytes.fromhex(git(kata, "rev-parse", "main~1").decode())
    assert assert_sound(kata) == 2


def test_a_tag_that_cannot_be_made(kata: Path, caplog: pytest.LogCaptureFixture) -> None:
    git(kata, "update-ref", "refs/tags/1/in-the-way", "main")
    assert record(kata, files={"a.txt": "1\n"}).index == 1
    assert record(kata, files={"b.txt": "2\n"}).index == 2
    assert "events [1] have no tags" in caplog.text
    tip = GitRepo(kata).main()
    assert tip is not None
    assert GitRepo(kata).commit_of_event(tip, 1).subject == b"1 ran tests, no prediction, got red"


@pytest.mark.parametrize("form", [["-f"], ["-f", "-a", "-m", "mine"]])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_tag_that_somebody_set_too_early(kata: Path, form: list[str], is_packed: bool) -> None:
    """At an event that there was: what is recorded under that number is shown, not the other."""
    for index in (1, 2):
        git(kata, "-c", "user.name=k", "-c", "user.email=k@x", "tag", *form, str(index), "main")
    if is_packed:
        git(kata, "pack-refs", "--all")
    for index in (1, 2):
        assert record(kata, files={f"{index}.txt": "1\n"}).index == index
        assert git(kata, "show", f"{index}:files/{index}.txt") == b"1\n"
    assert assert_sound(kata) == 2


def test_a_tag_ahead_of_the_branch_is_left(kata: Path) -> None:
    """It may be all that refers to an event which a power cut took from the branch."""
    record(kata, files={"a.txt": "lost\n"})
    git(kata, "update-ref", "refs/heads/main", "main~1")
    lost = GitRepo(kata).tag(1)
    record(kata, files={"a.txt": "new\n"})
    assert GitRepo(kata).tag(1) == lost


@pytest.mark.parametrize("name", ["refs/heads/main.lock", "refs/tags/1.lock"])
def test_a_lock_that_was_left_behind(kata: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    lock = kata / ".git" / name
    lock.touch()
    os.utime(lock, (time.time() - 60,) * 2)
    assert record(kata).index == 1
    assert not lock.exists()
    assert f"{name} was left behind" in caplog.text
    assert assert_sound(kata) == 1


def test_a_lock_that_is_released_in_time(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = kata / ".git/refs/heads/main.lock"
    lock.touch()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        assert lock.exists(), "it is not ours to remove"
        waits.append(seconds)
        if len(waits) == 5:
            lock.unlink()

    monkeypatch.setattr(time, "sleep", wait)
    assert record(kata).index == 1
    assert len(waits) == 5


def test_a_lock_that_is_held(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = kata / ".git/refs/heads/main.lock"
    lock.touch()
    monkeypatch.setattr(commit, "PATIENCE_SECONDS", 0.05)
    refs = git(kata, "for-each-ref")
    with pytest.raises(StorageError) as caught:
        record(kata)
    assert caught.value.errno == errno.EBUSY
    assert lock.exists()
    assert git(kata, "for-each-ref") == refs


def test_writers_in_several_threads(kata: Path) -> None:
    found: list[int] = []

    def write(number: int) -> None:
        found.extend(record(kata, files={f"{number} {turn}.txt": f"{turn}\n"}).index for turn in range(8))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 33))
    assert assert_sound(kata) == 32


# -- failures


def test_a_kata_that_is_not_there(store: Path) -> None:
    with pytest.raises(StorageError) as caught:
        record(store / "No" / "Th" / "ng")
    assert caught.value.errno == errno.ENOENT


def test_a_layout_that_is_only_read(store: Path) -> None:
    rows = b'{"index":0,"event":"created","time":[2021,5,31,1,2,3,4]}'
    path = import_commits(store / "Ab/Cd/Ef", [GitCommit("0", [GitFile("events_summary.json", rows)], tags=[0])])
    with pytest.raises(ReadOnlyError):
        record(path)


def test_damaged_repositories(kata: Path) -> None:
    loosen(kata)
    stored = loose(kata, "main:events_summary.json")
    content = stored.read_bytes()
    refs = git(kata, "for-each-ref")
    # not the half of it: libgit2 1.9.7 reads a loose object that is cut off for ever (its issue 7342)
    for damage in (b"", b"rubbish", content[:20] + bytes(20) + content[40:]):
        stored.chmod(0o644)
        stored.write_bytes(damage)
        with pytest.raises(DamagedError):
            record(kata)
    stored.write_bytes(content)
    assert git(kata, "for-each-ref") == refs
    git(kata, "update-ref", "-d", "refs/heads/main")
    with pytest.raises(DamagedError):
        record(kata)


def test_an_object_that_is_damaged_is_stored_again(kata: Path) -> None:
    """By an event that has the same content: what is acknowledged can be read."""
    record(kata, files={"a.txt": "the same\n"})
    blob = git(kata, "rev-parse", "main:files/a.txt").decode().strip()
    stored = loose(kata, "main:files/a.txt")
    for damage in (b"rubbish", b"", b"x\x01"):
        loosen(kata)
        stored.chmod(0o644)
        stored.write_bytes(damage)
        record(kata, files={"b.txt": "the same\n"}, index=len(stored_rows(kata)))
        assert GitRepo(kata).blob(bytes.fromhex(blob)) == b"the same\n"
        stored.unlink()
        assert show(kata, "files/b.txt") == b"the same\n"
    assert assert_sound(kata) == 4


def test_a_store_of_which_the_owner_may_not_write(kata: Path) -> None:
    os.chown(kata, 65534, 65534)
    with pytest.raises(StorageError) as caught:
        record(kata, files={"new.txt": "new\n"})
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("small_store", ["1m"], indirect=True)
def test_a_full_disk(small_store: Path) -> None:
    kata = make_kata(small_store, "AbCdEf")
    ballast = small_store / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(2 << 20))
    refs = git(kata, "for-each-ref")
    with pytest.raises(KataError) as caught:
        record(kata, files={"random.txt": os.urandom(40_000).hex()})
    assert caught.value.errno == errno.ENOSPC
    assert git(kata, "for-each-ref") == refs
    ballast.unlink()
    assert record(kata, files={"random.txt": "short\n"}).index == 1
    assert assert_sound(kata) == 1


def test_times_of_a_row_are_utc(kata: Path) -> None:
    record_act(kata, "AbCdEf", parse_act(Kind.RAN_TESTS, json.dumps(message()).encode()), START)
    assert stored_rows(kata)[1]["time"] == row_time(0)


# -- what is kept of a repository for the next event


def test_what_others_did_between_two_events(kata: Path) -> None:
    """The same process records again: after git has packed all anew, and after git has committed."""
    for index in (1, 3, 5):
        assert record(kata, stdout={"content": f"{index}\n"}).index == index
        git(kata, "repack", "-adfq")
        assert record(kata, stdout={"content": f"{index + 1}\n"}).index == index + 1
        git_commit(kata, "set option theme to dark", {"config/theme": b"dark\n"})
    assert assert_sound(kata) == 6


def test_another_repository_at_the_same_path(store: Path, kata: Path) -> None:
    record(kata)
    kata.rename(store / "away")
    other = make_kata(store, "AbCdEf")
    assert record(other).index == 1
    assert assert_sound(other) == assert_sound(store / "away") == 1


def test_objects_that_are_gone_are_missed(kata: Path) -> None:
    """What was read for one event does not make the next one build on what is there no longer; and once it is back the
    next one is recorded."""
    record(kata)
    for pack in (kata / ".git/objects/pack").iterdir():
        pack.rename(kata / pack.name)
    with pytest.raises(DamagedError):
        record(kata)
    for pack in kata.glob("pack-*"):
        pack.rename(kata / ".git/objects/pack" / pack.name)
    assert record(kata).index == 2


def _packed_refs(kata: Path) -> None:
    """Without a head line that says that it is sorted it is read whole."""
    lines = b"".join(b"%040x refs/x/%09d\n" % (number + 1, number) for number in range(20_000))
    (kata / ".git/packed-refs").write_bytes(b"# pack-refs with: peeled \n" + lines)


def _parents(kata: Path) -> None:
    """A tip that has 20,000 parents, which are one and the same."""
    head = git(kata, "cat-file", "commit", "main")
    parent = b"parent " + git(kata, "rev-parse", "main").strip() + b"\n"
    tree, rest = head.split(b"\n", 1)
    data = tree + b"\n" + parent * 20_000 + rest
    tip = git(kata, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=data).decode().strip()
    git(kata, "update-ref", "refs/heads/main", tip)
    git(kata, "tag", "-f", "0", tip)


def _packs(kata: Path) -> None:
    for number in range(120):
        data = b"%d" % number
        pack = store_pack(kata / ".git/objects/pack", {object_id(BLOB, data): (BLOB, data)})
        let_go(pack)
        for suffix in (".pack", ".idx"):
            # others are merged
            pack.with_suffix(suffix).rename(pack.with_name(f"pack-{number:040}{suffix}"))


@pytest.mark.parametrize("enlarge", [_packed_refs, _parents, _packs])
def test_little_is_kept_of_a_repository(kata: Path, enlarge: Callable[[Path], None]) -> None:
    """However much there is to be read for an event: 32 of them are kept, by up to five processes, and what they hold
    is somebody else's choice."""
    enlarge(kata)
    tracemalloc.start()
    record(kata)
    held = tracemalloc.get_traced_memory()[0]
    repositories._known.clear()
    gc.collect()
    held -= tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 150_000


def test_a_main_that_is_the_name_of_another_branch(kata: Path) -> None:
    """git moves the branch that is named; so does who finds what a daemon had recorded that died."""
    git(kata, "branch", "master", "main")
    git(kata, "symbolic-ref", "refs/heads/main", "refs/heads/master")
    git(kata, "pack-refs", "--all")
    for index in (1, 2):
        committed = record(kata)
        assert committed.index == index
        assert git(kata, "symbolic-ref", "refs/heads/main") == b"refs/heads/master\n"
        assert git(kata, "rev-parse", "master").strip().decode() == committed.commit.hex()
    assert assert_sound(kata) == 2
    tip = bytes.fromhex(git(kata, "rev-parse", "master").strip().decode())
    lock = kata / ".git/refs/heads/master.lock"
    lock.write_text(f"{tip.hex()}\n")
    assert find_recorded(kata, "AbCdEf", tip) == Committed(2, tip)
    assert not lock.exists()


def test_a_main_that_leads_around_git_is_damaged(kata: Path) -> None:
    """git takes no such name, and what is there is no branch."""
    tip = git(kata, "rev-parse", "main").decode()
    other = kata / ".git/ORIG_HEAD"
    other.write_text(tip)
    (kata / ".git/refs/heads/main").write_text("ref: refs/heads/../../ORIG_HEAD\n")
    with pytest.raises(DamagedError):
        record(kata)
    assert other.read_text() == tip


@pytest.mark.parametrize("size", [1_000_000, 2_500_000, 4_000_000])
def test_a_large_file_goes_and_another_comes(kata: Path, size: int) -> None:
    """They are compared as a rename is: by libgit2, for which what costs too much here looked like what is missing."""
    assert record(kata, files={"large": "x" * size, "cyber-dojo.sh": "pytest\n"}).index == 1
    assert record(kata, files={"other": "y\n", "cyber-dojo.sh": "pytest\n"}).index == 2
    row = stored_rows(kata)[-1]
    assert (row["diff_added_count"], row["diff_deleted_count"]) == (1, 1)
