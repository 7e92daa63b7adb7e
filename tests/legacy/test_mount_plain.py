"""Katas of versions 0 and 1 in a real mount: stored plain, being migrated, and stored as git."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.katas import assert_sound, git, time_ns, trust, unpack
from tests.legacy.test_migrate import state
from tests.mounts import MakeMount, Mount, katafs, wait_until
from tests.plain_katas import Written, comparable, make_plain_kata, parse_rows
from tests.scratch import fast_directory

OUTPUTS = ("stdout", "stderr", "status")
NATIVE_NAMES = {
    *("config", "control", "diff", "download", "download.tgz", "events", "events_summary.json", "event.json", "files"),
    *("manifest.json", "ran_tests", "truncations.json", "events.json", *OUTPUTS),
}


@pytest.fixture
def store() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as directory:
        yield Path(directory)


def shared(shared_katas: Path, store: Path) -> list[str]:
    for name in ("v0-5rTJv5", "v1-5U2J18", "v1-38w9NC"):
        unpack(shared_katas / f"{name}.tgz", store)
    return ["5rTJv5", "5U2J18", "38w9NC"]


def tree_of(kata: Path) -> dict[str, bytes]:
    """Everything that is shown of a kata in one shape, by path: neither plain paths, nor what a write makes."""
    found = {}
    for top in ("events", "files", "diff", "config", "stdout", "stderr", "status", "truncations.json", "event.json"):
        for path in [kata / top, *sorted((kata / top).rglob("*"))]:
            if path.is_symlink():
                found[str(path.relative_to(kata))] = os.readlink(path).encode()
            elif path.is_file():
                found[str(path.relative_to(kata))] = path.read_bytes()
    found["events_summary.json"] = (kata / "events_summary.json").read_bytes()
    last = int(os.readlink(kata / "events/latest"))
    for index in range(last + 1):
        found[f"events/{index}.json"] = (kata / f"events/{index}.json").read_bytes()
        found[f"diff/0..{index}.json"] = (kata / f"diff/0..{index}.json").read_bytes()
    found["download.tgz"] = (kata / "download.tgz").read_bytes()
    return found


def plain_values(written_or_path: Path, version: int) -> dict[str, Any]:
    """What a service reads on the plain paths, as JSON values."""
    path = written_or_path
    events = path.glob("*.event.json") if version else path.glob("[0-9]*/event.json")
    values: dict[str, Any] = {str(file.relative_to(path)): comparable(json.loads(file.read_bytes())) for file in events}
    rows = parse_rows((path / "events.json").read_text())
    # in the order of the indexes, which version 0 has not
    order = sorted(rows, key=lambda row: row["index"]) if version else rows
    values["events.json"] = [list(row.items()) for row in order]
    for name in ("theme", "colour", "predict", "revert_red", "revert_amber", "revert_green"):
        if (path / name).exists():
            values[name] = (path / name).read_bytes()
    return values


def assert_plain_tree(kata: Path, written: Written) -> None:
    """The one shape of INTERFACE §3, of a kata that is known."""
    assert set(os.listdir(kata)) >= NATIVE_NAMES
    assert ".git" not in os.listdir(kata)
    assert set(os.listdir(kata / "events")) == {"latest", *map(str, range(written.last + 1))}
    rows = json.loads((kata / "events_summary.json").read_bytes())
    assert [row["index"] for row in rows] == list(range(written.last + 1))
    for index in range(written.last + 1):
        event = kata / "events" / str(index)
        texts = {
            str(path.relative_to(event / "files")): path.read_bytes().decode()
            for path in (event / "files").rglob("*")
            if path.is_file()
        }
        if index in written.events:
            assert texts == written.texts(index)
            assert event.stat().st_mtime_ns == time_ns(written.rows[index]["time"])
            shown = json.loads((event / "event.json").read_bytes())
            assert {key: value for key, value in shown.items() if key not in ("index", "type")} == {
                key: value for key, value in written.rows[index].items() if key != "index"
            }
        else:
            assert rows[index] == {"index": index, "event": "outage", "type": "outage"}
            assert [(event / name).read_text() for name in OUTPUTS] == ["", "", "0"]


@pytest.mark.parametrize("version", [0, 1])
def test_stored_plain_and_then_as_git(store: Path, mount: MakeMount, mode: str, version: int) -> None:
    """One tree, before migration, beside it, and after it; plain paths hold the same values."""
    made = [make_plain_kata(store, f"{seed:06}", version, seed) for seed in (4, 9)]
    mounted = mount(store, mode)
    before = {}
    for written in made:
        kata = mounted.kata(written.kata_id)
        assert_plain_tree(kata, written)
        for name, data in state(written.path).items():
            assert (kata / name).read_bytes() == data
        before[written.kata_id] = (tree_of(kata), plain_values(kata, version), numbers(kata))
    # the command, while the store is mounted
    assert katafs("migrate", store).stdout.decode().startswith("2 katas with")
    for written in made:
        kata = mounted.kata(written.kata_id)
        tree, values, inodes = before[written.kata_id]
        wait_until(lambda: not is_stored(kata, written), "the migrated kata")  # noqa: B023
        assert tree_of(kata) == tree
        after = plain_values(kata, version)
        assert after.pop("events.json") == in_index_order(written)
        values.pop("events.json")
        assert after.keys() == values.keys()
        assert after == values
        assert_plain_tree(kata, written)
        # but the plain paths have others: who has one open goes on with what it was
        same = {name for name, inode in numbers(kata).items() if inodes.get(name) == inode}
        assert inodes.keys() - same == set(state_names(written))
        types(kata, written)


def state_names(written: Written) -> list[str]:
    """The names of the plain files that were written."""
    events = [written.name(index) for index in written.events]
    return ["manifest.json", "events.json", *events, *written.options]


def is_stored(kata: Path, written: Written) -> bool:
    """Whether the manifest is still the very file: it gets another shape."""
    return (kata / "manifest.json").read_bytes() == json.dumps(written.manifest).encode()


def in_index_order(written: Written) -> list[list[tuple[str, Any]]]:
    return [list(written.rows[index].items()) for index in sorted(written.rows)]


def numbers(kata: Path) -> dict[str, int]:
    """The inode number of everything but the download, whose members come and go, and the pages of the history, which
    are made for whoever asks for their sizes. Not as listed: the kernel may have that from before."""
    found, directories = {}, [kata]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.name not in ("download", "html"):
                    found[os.path.relpath(entry.path, kata)] = os.lstat(entry.path).st_ino
                    directories += [Path(entry.path)] * entry.is_dir(follow_symlinks=False)
    return found


def types(kata: Path, written: Written) -> None:
    """The types of what INTERFACE §3 says of migrated katas."""
    for index in written.events:
        event = json.loads((kata / written.name(index)).read_bytes())
        assert "type" not in event
        contents = [text["content"] for text in event["files"].values()]
        assert {type(content) for content in contents} <= {str if written.version else list}
        if not written.version:
            assert all(contents)
        if "status" in event:
            assert type(event["status"]) is (str if written.version else int)


def test_real_katas(shared_katas: Path, store: Path, mount: MakeMount) -> None:
    ids = shared(shared_katas, store)
    mounted = mount(store)
    katas = [mounted.kata(kata_id) for kata_id in ids]
    versions = [0, 1, 1]
    trees = [tree_of(kata) for kata in katas]
    values = [plain_values(kata, version) for kata, version in zip(katas, versions, strict=True)]
    for kata, kata_id in zip(katas, ids, strict=True):
        with tarfile.open(fileobj=io.BytesIO((kata / "download.tgz").read_bytes())) as tar:
            trust(tar)
            tar.extractall(store / "out")
        (unpacked,) = (store / "out").glob(f"*{kata_id}*")
        dates = git(unpacked, "log", "--format=%at", "--reverse").split()
        rows = json.loads((kata / "events_summary.json").read_bytes())
        assert [int(date) for date in dates] == [time_ns(row["time"]) // 1_000_000_000 for row in rows]
        assert git(unpacked, "status", "--short") == b""
    subprocess.run(["rm", "-r", store / "out"], check=True)
    manifests = [(kata / "manifest.json").read_bytes() for kata in katas]
    katafs("migrate", store)
    for kata, version, tree, value in zip(katas, versions, trees, values, strict=True):
        wait_until(lambda: (kata / "manifest.json").read_bytes() not in manifests, "the migrated kata")  # noqa: B023
        assert tree_of(kata) == tree
        assert plain_values(kata, version) == value


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("begun", [True, False])
def test_a_large_file_that_is_read_while_it_is_migrated(
    store: Path, mount: MakeMount, mode: str, version: int, begun: bool
) -> None:
    """Of one that is read in many requests, some of them answered before, nobody hears a wrong byte: ESTALE, and then
    it is read again."""
    written = make_plain_kata(store, "AbCdEf", version, 3, events=3)
    path = written.path / written.name(2)
    document = json.loads(path.read_bytes())
    lines = [f"line {number}\n" for number in range(100_000)]
    document["files"]["large.txt"] = {"content": "".join(lines) if version else lines}
    # as services do not write it: it has another size when it is made from git
    path.write_text(json.dumps(document, indent=2))
    data = path.read_bytes()
    kata = mount(store, mode).kata("AbCdEf")
    with open(kata / written.name(2), "rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == len(data)
        read = [file.read(1000)] if begun else []
        katafs("migrate", store)
        with pytest.raises(OSError, match="Stale file handle"):
            read.extend(iter(lambda: file.read(65536), b""))
        # and what the kernel had read ahead
        assert data.startswith(b"".join(read))
    wait_until(lambda: (kata / written.name(2)).stat().st_size != len(data), "the migrated kata")
    assert comparable(json.loads((kata / written.name(2)).read_bytes())) == comparable(document)


@pytest.mark.parametrize("version", [0, 1])
def test_writing_migrates_first(store: Path, mount: MakeMount, mode: str, version: int) -> None:
    """A control file and an option of a plain kata can be written to; the rest stays as it was."""
    one, other = (make_plain_kata(store, kata_id, version, 4, events=3) for kata_id in ("AbCdEf", "AbCdEg"))
    mounted = mount(store, mode)
    kata = mounted.kata("AbCdEf")
    before = plain_values(kata, version)
    message = {"summary": {"colour": "green", "predicted": "none"}, "stdout": {"content": "fine\n"}, "index": 3}
    (kata / "ran_tests").write_text(json.dumps(message))
    assert json.loads((kata / "ran_tests").read_bytes())["index"] == 3
    assert assert_sound(one.path) == 3
    assert sorted(os.listdir(one.path)) == [".git", "manifest.json"]
    assert (kata / "events/3/stdout").read_text() == "fine\n"
    after = plain_values(kata, version)
    event = after.pop(f"{3}.event.json" if version else "3/event.json")
    assert event["stdout"] == {"content": "fine\n", "truncated": False}
    row = dict(after["events.json"].pop())
    assert list(row) == ["colour", "predicted", *(["index"] if version else []), "time"]
    assert after == before
    config = mounted.kata("AbCdEg") / "config"
    value = "light" if (config / "theme").read_text() == "dark\n" else "dark"
    (config / "theme").write_text(value)
    assert (config / "theme").read_text() == f"{value}\n"
    assert (mounted.kata("AbCdEg") / "theme").read_text().split("\n")[-1] == value
    assert git(other.path, "log", "-1", "--format=%s").decode().strip() == f"set option theme to {value}"


def test_a_new_plain_event_is_seen(store: Path, mount: MakeMount) -> None:
    """A service that writes to the store directly is followed."""
    written = make_plain_kata(store, "AbCdEf", 1, 4, events=3)
    kata = mount(store).kata("AbCdEf")
    assert os.readlink(kata / "events/latest") == "2"
    row = {"colour": "green", "index": 3, "time": [2021, 5, 1, 2, 3, 4, 5]}
    (written.path / "3.event.json").write_text(json.dumps({"files": {"new.txt": {"content": "new\n"}}, **row}))
    with open(written.path / "events.json", "a") as file:
        file.write(",\n" + json.dumps(row))
    wait_until(lambda: os.readlink(kata / "events/latest") == "3", "the new event", 2)
    assert (kata / "files/new.txt").read_text() == "new\n"
    assert (kata / "events.json").read_bytes() == (written.path / "events.json").read_bytes()


def test_a_kata_that_cannot_be_converted_shows_its_files(store: Path, mount: MakeMount) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 4, events=3)
    (written.path / "1.event.json").write_text("{")
    kata = mount(store).kata("AbCdEf")
    assert sorted(os.listdir(kata)) == sorted(os.listdir(written.path))
    assert (kata / "1.event.json").read_text() == "{"
    assert (kata / "2.event.json").read_bytes() == (written.path / "2.event.json").read_bytes()


def test_unfinished_migrations_are_not_seen(store: Path, mount: MakeMount) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 4, events=3)
    (written.path / ".katafs-new/.git").mkdir(parents=True)
    (written.path / ".katafs-new/.git/HEAD").write_text("x")
    kata = mount(store).kata("AbCdEf")
    assert not [name for name in os.listdir(kata) if name.startswith(".")]
    assert not (kata / ".katafs-new").exists()
    assert not (kata / ".git").exists()


def test_after_a_restart(store: Path, tmp_path: Path, mount: MakeMount) -> None:
    """Nothing is left of a daemon that was killed, once another one needs the place; numbers are the same."""
    make_plain_kata(store, "AbCdEf", 0, 4, events=3)
    first = mount(store)
    before = numbers(first.kata("AbCdEf"))
    spools = spools_of(first)
    assert len(spools) == 1
    first.kill()
    second = mount(store)
    assert numbers(second.kata("AbCdEf")) == before
    assert not spools[0].exists()
    (spool,) = spools_of(second)
    assert not second.stop()
    assert not spool.exists()


def spools_of(mounted: Mount) -> list[Path]:
    """Where a daemon keeps its conversions: the directory in which it holds a file locked."""
    children = Path(f"/proc/{mounted.pid}/task/{mounted.pid}/children").read_text().split()
    fds = [fd for pid in (mounted.pid, *children) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    targets = {os.readlink(fd) for fd in fds if fd.is_symlink()}
    return [Path(target).parent for target in targets if "katafs-plain-" in target and target.endswith("/lock")]


def test_plain_files_in_the_place_of_a_repository(store: Path, mount: MakeMount) -> None:
    """As when a copy of before a migration is put back: the directory stays the same, and what is in it does not."""
    written = make_plain_kata(store, "AbCdEf", 1, 4)
    mounted = mount(store)
    kata = mounted.kata("AbCdEf")
    files = state(written.path)
    katafs("migrate", store)
    wait_until(lambda: not is_stored(kata, written), "the migrated kata")
    shutil.rmtree(written.path / ".git")
    for name, data in files.items():
        (written.path / name).write_bytes(data)
    wait_until((kata / "history").exists, "the plain kata")
    assert_plain_tree(kata, written)
