"""Repositories that git must not write to, and what of a `.git` the mount passes on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from katafs.errors import ReadOnlyError
from katafs.kata.compact import compact_kata
from katafs.kata.fsck import Outcome, check_ids
from katafs.kata.model.kinds import Kind
from katafs.kata.read.caches import Notes
from katafs.kata.record.commit import record, set_option
from katafs.kata.record.message import parse_act
from tests.katas import add_event, assert_sound, git, loosen, make_kata, message
from tests.mounts import MakeMount, wait_until

ACT = parse_act(Kind.RAN_TESTS, json.dumps(message()).encode())
UNKNOWN = {
    "version": [("core.repositoryformatversion", "2")],
    "extension": [("core.repositoryformatversion", "1"), ("extensions.fromTheFuture", "true")],
    "references": [("core.repositoryformatversion", "1"), ("extensions.refStorage", "reftable")],
}


def configure(path: Path, settings: list[tuple[str, str]]) -> None:
    for name, value in settings:
        git(path, "config", "-f", ".git/config", name, value)


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_git_must_not_write_to(name: str, store: Path, mount: MakeMount) -> None:
    """It is shown, and nothing in it changes, whoever asks for it; the log and fsck say why, once."""
    path = make_kata(store, "AbCdEf")
    add_event(path, 1)
    loosen(path)
    configure(path, UNKNOWN[name])
    before = files_of(path)
    with pytest.raises(ReadOnlyError, match="is only read"):
        record(path, "AbCdEf", ACT)
    with pytest.raises(ReadOnlyError, match="is only read"):
        set_option(path, "AbCdEf", "theme", "dark")
    with pytest.raises(ReadOnlyError, match="left as it is"):
        compact_kata(path, "AbCdEf")
    for gone in (path / ".git/refs/tags/1", path / ".git/.katafs-mutex"):
        gone.unlink()
        del before[str(gone)]
    found = [finding for _, result in check_ids(store, ["AbCdEf"], repair=True) for finding in result.findings]
    # what could be mended elsewhere is left, and nobody is told that --repair would
    assert {finding.code for finding in found if finding.state is Outcome.LEFT} == {"config-refused", "tag-missing"}
    assert {finding.state for finding in found} <= {Outcome.LEFT, Outcome.NOTE}
    mounted = mount(store)
    kata = mounted.kata("AbCdEf")
    assert not {"ran_tests", "control"} & set(os.listdir(kata))
    assert (kata / "events/1/files/hiker.py").read_bytes()
    assert (kata / "config/theme").stat().st_mode & 0o777 == 0o444
    for file in ("ran_tests", "config/theme"):
        with pytest.raises(OSError, match="Read-only") as caught:
            (kata / file).write_text("dark")
        assert caught.value.errno == errno.EROFS
    assert files_of(path) == before
    assert mounted.log_text().count("kata AbCdEf") == 1


def test_precious_objects(store: Path) -> None:
    """Written to, and no pack or object is removed."""
    path = make_kata(store, "AbCdEf")
    configure(path, [("core.repositoryformatversion", "1"), ("extensions.preciousObjects", "true")])
    there = set(os.listdir(path / ".git/objects/pack"))
    for index in range(1, 40):
        add_event(path, index)
        now = {name for name in os.listdir(path / ".git/objects/pack") if not name.endswith(".keep")}
        assert there <= now
        there = now
    with pytest.raises(ReadOnlyError, match="preciousObjects"):
        compact_kata(path, "AbCdEf")
    assert assert_sound(path) == 39


def test_objects_named_by_sha256(store: Path, mount: MakeMount) -> None:
    """Such a repository is its `.git` alone, and git reads it there."""
    path = store / "Ab/Cd/Ef"
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main", "--object-format=sha256")
    git(path, "-c", "user.name=k", "-c", "user.email=k@example.org", "commit", "-q", "--allow-empty", "-m", "0 x")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    mounted = mount(store)
    kata = mounted.kata("AbCdEf")
    assert os.listdir(kata) == [".git"]
    assert git(kata, "rev-parse", "main") == git(path, "rev-parse", "main")
    assert os.listdir(kata) == [".git"]
    assert mounted.log_text().count("kata AbCdEf: it is shown as its .git alone") == 1
    found = [finding for _, result in check_ids(store, ["AbCdEf"]) for finding in result.findings]
    assert [finding.code for finding in found if finding.state is not Outcome.NOTE] == ["config-refused"]


def test_a_kata_that_git_is_making(store: Path, mount: MakeMount) -> None:
    """As saver does, step by step: what is not there yet is not there, and the log is silent. A branch that was lost is
    still an error."""
    path = store / "Ab/Cd/Ef"
    mounted = mount(store)
    kata = mounted.kata("AbCdEf")

    def look() -> None:
        assert os.listdir(kata) == [".git"]
        for name in ("manifest.json", "files", "ran_tests", "config"):
            with pytest.raises(FileNotFoundError):
                os.stat(kata / name)

    (path / ".git").mkdir(parents=True)
    wait_until(lambda: kata.is_dir() and os.listdir(kata) == [".git"], "the new directory")
    look()
    git(path, "init", "-q", "-b", "main")
    look()
    (store.parent / "other").mkdir()
    whole = make_kata(store.parent / "other", "AbCdEf")
    for name in ("manifest.json", "events_summary.json", "event.json"):
        (path / name).write_bytes(git(whole, "show", f"main:{name}"))
        look()
    git(path, "fetch", "-q", str(whole), "refs/tags/0")
    look()
    git(path, "update-ref", "refs/heads/main", "FETCH_HEAD")
    wait_until((kata / "manifest.json").exists, "the first commit")
    assert not [line for line in mounted.log_text().splitlines() if "ERROR" in line or "shown as" in line]
    git(path, "update-ref", "refs/tags/0", "main")
    mounted.expected_log = "ERROR"
    git(path, "update-ref", "-d", "refs/heads/main")
    wait_until(lambda: os.listdir(kata) == [".git"], "the loss of the branch")
    with pytest.raises(OSError, match="Input/output error"):
        os.stat(kata / "history")


def test_what_git_obeys_and_katafs_does_not(store: Path, mount: MakeMount) -> None:
    """Replacements, in whatever form, are not passed on; where the history ends is."""
    path = make_kata(store, "AbCdEf")
    for index in (1, 2):
        add_event(path, index, files={"a.txt": f"event {index}\n"})
    first, second = (git(path, "rev-parse", f"refs/tags/{index}").decode().strip() for index in (1, 2))
    git(path, "replace", first, second)
    kata = mount(store).kata("AbCdEf")
    references = git(path, "for-each-ref", "refs/heads", "refs/tags")
    assert git(kata, "for-each-ref") == references
    git(path, "pack-refs", "--all")
    wait_until((kata / ".git/packed-refs").exists, "the packed references")
    wait_until(lambda: git(kata, "for-each-ref") == references, "the same references")
    assert b"refs/replace" not in (kata / ".git/packed-refs").read_bytes()
    assert git(kata, "show", "refs/tags/1:files/a.txt") == b"event 1\n"
    (path / ".git/info").mkdir(exist_ok=True)
    (path / ".git/info/grafts").write_text(f"{second}\n")
    (path / ".git/objects/info").mkdir(exist_ok=True)
    for name in ("alternates", "http-alternates"):
        (path / ".git/objects/info" / name).write_text("/nowhere\n")
        assert not (kata / ".git/objects/info" / name).exists()
    assert not (kata / ".git/info").exists()
    shallow = store.parent / "shallow"
    git(store, "clone", "-q", "--depth", "1", f"file://{path}", shallow)
    (path / ".git/shallow").write_bytes((shallow / ".git/shallow").read_bytes())
    wait_until(lambda: git(kata, "rev-list", "--count", "main") == b"1\n", "the shallow history")


def test_the_log_is_not_filled(caplog: pytest.LogCaptureFixture) -> None:
    """A line a kata, a hundred an hour, then how many more there were."""
    caplog.set_level("INFO")
    notes = Notes()
    for number in [*range(150), *range(150)]:
        notes.note(f"kata{number}", "why\n")
    assert len(caplog.messages) == 100
    notes._hour -= 4_000
    notes.expire()
    assert caplog.messages[100:] == ["and 50 more katas within an hour"]
    assert "\n" not in caplog.text.strip().split("\n")[0]
