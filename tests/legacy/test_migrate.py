"""Migration of katas that are stored as plain files: what comes of it, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import DamagedError, KataError, NotFoundError, ReadOnlyError
from katafs.git.store.storing import MUTEX
from katafs.kata.legacy.migrate import migrate_kata, needs_migration
from katafs.kata.legacy.plain_paths import plain_event, plain_events
from katafs.kata.model.trees import Listing
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata
from tests.katas import assert_sound, git, git_blobs, git_files, stored_rows, time_ns, unpack
from tests.plain_katas import Written, comparable, make_plain_kata, parse_rows
from tests.scratch import fast_directory

SEEDS = range(16)


@pytest.fixture
def store() -> Iterator[Path]:
    """An empty store where syncing costs nothing."""
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as directory:
        yield Path(directory)


def open_kata(path: Path) -> Kata:
    return Kata("".join(path.parts[-3:]), path, (0, 0), ReadCaches())


def event_in(kata: Kata, index: int, version: int) -> dict[str, Any]:
    """The event file of a kata that is stored as git."""
    snapshot = kata.snapshot(index)
    row = kata.tip().rows.stored[index]
    return plain_event(kata.repo, snapshot, row, Listing(kata.repo, snapshot.files_tree), version)


def assert_migrated(written: Written) -> None:
    """All that was written is in the repository, by git's own word and on the plain paths."""
    path = written.path
    tags = dict(
        line.split(" ")
        for line in git(path, "for-each-ref", "--format=%(refname:strip=2) %(objectname)", "refs/tags")
        .decode()
        .splitlines()
    )
    assert {int(tag) for tag in tags} == set(range(written.last + 1))
    assert git(path, "fsck", "--strict", "--full") == b""
    rows = stored_rows(path)
    kata = open_kata(path)
    for index in range(written.last + 1):
        if index not in written.events:
            later = min(other for other in written.events if other > index)
            assert rows[index] == {"index": index, "event": "outage", "type": "outage"}
            assert tags[str(index)] == tags[str(later)]
            continue
        files = git_files(path, f"refs/tags/{index}")
        blobs = git_blobs(path, files.values())
        texts = {name[6:].decode(): blobs[oid].decode() for name, oid in files.items() if name.startswith(b"files/")}
        assert texts == written.texts(index)
        row = dict(rows[index])
        assert row.pop("type") == list(rows[index].values())[-1]
        expected = written.rows[index] if written.version else {**written.rows[index], "index": index}
        assert list(row.items()) == list(expected.items())
        date = git(path, "show", "--no-patch", "--format=%at %ct", f"refs/tags/{index}^0").decode().split()
        assert {int(part) for part in date} == {time_ns(written.rows[index]["time"]) // 1_000_000_000}
        assert comparable(event_in(kata, index, written.version)) == written.document(index)
    shown = parse_rows(plain_events(kata.tip().rows, written.version).decode())
    assert [list(row.items()) for row in shown] == [list(written.rows[index].items()) for index in sorted(written.rows)]
    for name, values in written.options.items():
        assert git(path, "show", f"main:config/{name}").decode() == values[-1] + "\n"
        subjects = git(path, "log", "--reverse", "--format=%s", f"--grep=set option {name} to").decode().splitlines()
        assert subjects == [f"set option {name} to {value}" for value in values]
    manifest = json.loads(git(path, "show", "main:manifest.json"))
    assert manifest == {key: value for key, value in written.manifest.items() if key != "visible_files"}
    assert json.loads((path / "manifest.json").read_bytes()) == manifest


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_quirk_is_migrated(store: Path, version: int, seed: int) -> None:
    written = make_plain_kata(store, "AbCdEf", version, seed)
    migrated = migrate_kata(written.path, "AbCdEf")
    assert migrated is not None
    assert migrated.events == len(written.events)
    assert_migrated(written)
    assert sorted(os.listdir(written.path)) == [".git", "manifest.json"]
    assert migrate_kata(written.path, "AbCdEf") is None


@pytest.mark.slow
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("seed", range(100, 200))
def test_two_hundred_more_are_migrated(store: Path, version: int, seed: int) -> None:
    test_every_quirk_is_migrated(store, version, seed)


def test_the_generator_has_every_quirk(store: Path) -> None:
    """What the tests above are about is in what they use."""
    made = [
        make_plain_kata(store / str(version), f"AbCd{seed:02}", version, seed) for seed in SEEDS for version in (0, 1)
    ]
    events = [event for kata in made for index, event in kata.events.items() if index]
    assert any(kata.last >= len(kata.events) for kata in made)
    assert any(list(kata.events) != sorted(kata.events) for kata in made if kata.version)
    assert any(list(kata.events) != sorted(kata.events) for kata in made if not kata.version)
    assert {type(event.get("status")) for event in events} == {int, str, type(None)}
    assert {text.get("truncated") for event in events for text in event["files"].values()} == {None, True, False}
    assert any("stdout" not in event for event in events)
    assert any("truncated" not in event["stdout"] for event in events if "stdout" in event)
    assert any(row.get("colour", "").endswith("_special") for kata in made for row in kata.rows.values())
    assert any(kata.options for kata in made)
    stored = [path.read_text() for kata in made for path in kata.path.rglob("*.json")]
    assert any(text.endswith("}\n") for text in stored)
    assert any("\n  " in text for text in stored), "pretty-printed"
    assert any("\\u00fc" in text for text in stored)
    assert any("ü" in text for text in stored)
    files = [
        (kata.version, name, text["content"])
        for kata in made
        for event in kata.events.values()
        for name, text in event["files"].items()
    ]
    assert {(version, type(content)) for version, _, content in files} == {(0, list), (1, str)}
    assert {"", "\n"} <= {content for version, _, content in files if version}
    assert [""] in [content for version, _, content in files if not version]
    assert any("/" in name and not name.isascii() for _, name, _ in files)
    assert {type(row.get("checkout", {}).get("avatarIndex")) for kata in made for row in kata.rows.values()} == {
        int,
        str,
        type(None),
    }
    assert any("version" not in kata.manifest for kata in made)


@pytest.mark.parametrize("kata_id", ["v0-5rTJv5", "v1-5U2J18", "v1-38w9NC"])
def test_real_katas(shared_katas: Path, store: Path, kata_id: str) -> None:
    unpack(shared_katas / f"{kata_id}.tgz", store)
    name = kata_id[3:]
    path = store / name[:2] / name[2:4] / name[4:]
    version = int(kata_id[1])
    before = parse_rows((path / "events.json").read_text())
    pattern = "*.event.json" if version else "*/event.json"
    events = {
        int(str(file.relative_to(path)).split(".")[0].split("/")[0]): json.loads(file.read_bytes())
        for file in path.glob(pattern)
    }
    assert migrate_kata(path, name) is not None
    assert assert_sound(path) == len(events) - 1
    kata = open_kata(path)
    assert [list(row.items()) for row in parse_rows(plain_events(kata.tip().rows, version).decode())] == [
        list(row.items()) for row in before
    ]
    for index, event in events.items():
        # these have nothing that may differ
        assert event_in(kata, index, version) == event


def plain_v1(store: Path) -> Written:
    return make_plain_kata(store, "AbCdEf", 1, 3, events=5)


def change(written: Written, index: int, **fields: Any) -> None:
    path = written.path / written.name(index)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def state(path: Path) -> dict[str, bytes]:
    """What is in all files, but for what writers lock, which is empty."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != MUTEX)
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


HOSTILE: dict[str, dict[str, Any]] = {
    "a path that leads out": {"files": {"../evil": {"content": ""}}},
    "git's directory": {"files": {".git/config": {"content": ""}}},
    "a file that is a directory": {"files": {"a": {"content": ""}, "a/b": {"content": ""}}},
    "no text": {"files": {"a": {"content": 7}}},
    "no file": {"files": {"a": None}},
    "no files": {"files": []},
    "lines that are none": {"files": {"a": {"content": ["x\n", 7]}}},
    "half a character": {"files": {"a": {"content": "\ud800"}}},
    "an unknown key of a file": {"files": {"a": {"content": "", "mode": 7}}},
    "an unknown key": {"more": 1},
    "another row": {"colour": "blue"},
    "a flag that is none": {"stdout": {"content": "", "truncated": "yes"}},
    "a status that is none": {"status": [1]},
}


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_kept_is_refused(store: Path, fields: dict[str, Any]) -> None:
    """Nothing is dropped silently: the kata stays as it was, and the reason names the event."""
    written = plain_v1(store)
    change(written, 3, **fields)
    before = state(written.path)
    with pytest.raises(ReadOnlyError, match="event 3"):
        migrate_kata(written.path, "AbCdEf")
    assert state(written.path) == before


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("manifest.json", b"{", "manifest.json is not JSON"),
        ("manifest.json", b"[]", "not a JSON object"),
        ("manifest.json", b'{"version": 2}', "the manifest's version is 2"),
        ("2.event.json", b'{"files": {"a": {"content": "\xff"}}}', "2.event.json is not JSON"),
        ("2.event.json", b"{", "2.event.json is not JSON"),
        ("2.event.json", b"[" * 100_000, "2.event.json is not JSON"),
        ("2000.event.json", b'{"files": {}}', "more than 1000 are missing"),
        ("7.event.json", b'{"files": {', "event 7 was not finished"),
        ("theme", b"\nblue", "the option theme"),
        ("events.json", b'{"index":0', "row 0 of events.json"),
    ],
)
def test_damage_is_refused(store: Path, name: str, data: bytes, reason: str) -> None:
    written = plain_v1(store)
    (written.path / name).write_bytes(data)
    before = state(written.path)
    with pytest.raises(KataError, match=reason):
        migrate_kata(written.path, "AbCdEf")
    assert state(written.path) == before


def test_rows_that_are_no_events(store: Path) -> None:
    written = plain_v1(store)
    with open(written.path / "events.json", "a") as file:
        file.write(',\n{"index":9,"colour":"red"}')
    with pytest.raises(ReadOnlyError, match="a row for event 9"):
        migrate_kata(written.path, "AbCdEf")
    shutil.rmtree(written.path)
    written = make_plain_kata(store, "AbCdEf", 0, 3, events=5)
    with open(written.path / "events.json", "a") as file:
        file.write('{"colour":"red"}\n')
    with pytest.raises(ReadOnlyError, match="has 6 rows, but there are only 5 events"):
        migrate_kata(written.path, "AbCdEf")


def test_duplicate_rows(store: Path) -> None:
    written = plain_v1(store)
    with open(written.path / "events.json", "a") as file:
        file.write(",\n" + json.dumps(written.rows[4]))
    assert migrate_kata(written.path, "AbCdEf", dry_run=True) is not None
    with open(written.path / "events.json", "a") as file:
        file.write(",\n" + json.dumps({**written.rows[4], "colour": "blue"}))
    with pytest.raises(ReadOnlyError, match="two different rows for event 4"):
        migrate_kata(written.path, "AbCdEf")


def test_a_row_that_never_came(store: Path) -> None:
    """The writer was stopped between the two writes: the event file has a copy of its row."""
    written = plain_v1(store)
    path = written.path / "events.json"
    path.write_text(path.read_text().rpartition(",\n")[0])
    migrate_kata(written.path, "AbCdEf")
    assert_migrated(written)


def test_not_a_kata(store: Path) -> None:
    with pytest.raises(NotFoundError):
        migrate_kata(store / "Ab/Cd/Ef", "AbCdEf")
    (store / "Ab/Cd/Ef").mkdir(parents=True)
    with pytest.raises(NotFoundError):
        migrate_kata(store / "Ab/Cd/Ef", "AbCdEf")
    (store / "Ab/Cd/Ef/manifest.json").write_text("{}")
    (store / "Ab/Cd/Ef/events.json").write_text("")
    with pytest.raises(DamagedError, match="no event 0"):
        migrate_kata(store / "Ab/Cd/Ef", "AbCdEf")


def test_files_that_are_no_katas_stay(store: Path) -> None:
    written = plain_v1(store)
    (written.path / "notes.txt").write_text("mine")
    migrated = migrate_kata(written.path, "AbCdEf")
    assert migrated is not None
    assert migrated.left == ("notes.txt",)
    assert (written.path / "notes.txt").read_text() == "mine"


def test_originals_are_kept(store: Path) -> None:
    written = make_plain_kata(store, "AbCdEf", 0, 5)
    before = state(written.path)
    migrate_kata(written.path, "AbCdEf", keep_originals=True)
    assert state(written.path / ".katafs-original") == before
    assert_migrated(written)
    assert not needs_migration(written.path)


def test_dry_run_changes_nothing(store: Path) -> None:
    written = plain_v1(store)
    before, times = state(written.path), written.path.stat().st_mtime_ns
    migrated = migrate_kata(written.path, "AbCdEf", dry_run=True)
    assert migrated is not None
    assert migrated.events == 5
    assert (state(written.path), written.path.stat().st_mtime_ns) == (before, times)


def test_the_owner_owns_it(store: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    written = plain_v1(store)
    for path in [written.path, *written.path.rglob("*")]:
        os.chown(path, 19663, 65533)
    migrate_kata(written.path, "AbCdEf")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in [written.path, *written.path.rglob("*")]}
    assert owners == {(19663, 65533)}


def test_the_options_of_a_group(store: Path) -> None:
    """The manifest of a kata that joined one has them (FORMAT §1.2); their files were never written."""
    written = make_plain_kata(store, "AbCdEf", 1, 4, events=1)
    written.manifest |= {"theme": "dark", "revert_amber": "on", "predict": "sometimes"}
    for name in ("theme", "revert_amber", "predict"):
        (written.path / name).unlink(missing_ok=True)
        written.options.pop(name, None)
    (written.path / "manifest.json").write_text(json.dumps(written.manifest))
    assert migrate_kata(written.path, "AbCdEf") is not None
    assert_migrated(written)
    for name, value in (("theme", "dark"), ("revert_amber", "on"), ("predict", "off")):
        assert git(written.path, "show", f"0:config/{name}").decode() == f"{value}\n"
    assert not open_kata(written.path).set_options().keys() & {"theme", "revert_amber", "predict"}
