"""What a person and a service read in the mount: shapes, names, numbers, ``.git``. The real thing, in both modes."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MODES
from tests.katas import ODD_FILES, git, make_odd_kata, pretty_json, unpack
from tests.mounts import MakeMount, Mount

SAVER, NATIVE = "rG63fy", "Nt1veK"
PLAIN = {"v0-5rTJv5": "5rTJv5", "v1-5U2J18": "5U2J18", "v1-38w9NC": "38w9NC"}
DEFAULTS = {
    "theme": "light",
    "colour": "on",
    "predict": "off",
    "revert_red": "off",
    "revert_amber": "off",
    "revert_green": "off",
}


@pytest.fixture(scope="module")
def katas(tmp_path_factory: pytest.TempPathFactory, shared_katas: Path) -> Path:
    """A store with a kata of each layout."""
    store = tmp_path_factory.mktemp("read") / "store"
    store.mkdir()
    for archive in ("saver-v2-rG63fy", *PLAIN):
        unpack(shared_katas / f"{archive}.tgz", store)
    make_odd_kata(store, NATIVE)
    return store


@pytest.fixture(scope="module", params=MODES)
def mounted(request: pytest.FixtureRequest, fuse: None, katas: Path) -> Iterator[Mount]:
    with Mount(katas, katas.parent / f"mnt-{request.param}", request.param, ()) as mount:
        yield mount


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


def load(path: Path) -> Any:
    """A JSON file, which is pretty and ends in a newline."""
    data = path.read_bytes()
    value = json.loads(data)
    assert data == pretty_json(value), path
    return value


# -- names


def test_the_names_in_a_kata(mounted: Mount) -> None:
    events = {"files", "stdout", "stderr", "status", "truncations.json", "manifest.json", "config", "event.json"}
    events |= {"events_summary.json"}
    top = events | {"events.json", "events", "diff", "download", "download.tgz", ".git", "ran_tests", "control"}
    top |= {"history", "html"}
    assert names(mounted.kata(NATIVE)) == top
    assert names(mounted.kata(SAVER)) == top | {"README.md", "options.json"}
    for kata_id in (NATIVE, SAVER):
        kata = mounted.kata(kata_id)
        last = len(load(kata / "events_summary.json")) - 1
        assert names(kata / "events") == {"latest", *(str(index) for index in range(last + 1))}
        assert names(kata / "diff") == {"latest", *(f"{index}..{index + 1}" for index in range(last))}
        assert (kata / "events/latest").readlink() == Path(str(last))
        assert (kata / "diff/latest").readlink() == Path(f"{last - 1}..{last}")
        assert all(names(kata / "events" / str(index)) == events for index in range(last + 1))
        assert names(kata / "config") == names(kata / "events/0/config") == set(DEFAULTS)
        target = (kata / "download.tgz").readlink()
        assert names(kata / "download") == {target.name, target.name.removesuffix(".tgz")}
        assert target.parent == Path("download")


def test_the_way_to_a_kata(mounted: Mount) -> None:
    assert names(mounted.path) == {".katafs", *(kata_id[:2] for kata_id in (SAVER, NATIVE, *PLAIN.values()))}
    assert names(mounted.path / "rG") == {"63"}
    assert names(mounted.path / "rG/63") == {"fy"}
    assert names(mounted.path / ".katafs") >= {"README.md", "version"}
    for name in ("rg", "rG6", "r", "IO", "groups", "rG/64", "rG/63/fx", "rG/63/fy/nothing", ".git", "..git"):
        assert not (mounted.path / name).exists(), name
    for kata in (mounted.path, mounted.path / "rG", mounted.path / "rG/63", mounted.kata(SAVER)):
        assert stat.S_IMODE(kata.stat().st_mode) == 0o755


@pytest.mark.parametrize("kata_id", [SAVER, NATIVE])
def test_what_opens_by_name_only(mounted: Mount, kata_id: str) -> None:
    kata = mounted.kata(kata_id)
    for name in ("events/0.json", "events/3.json", "diff/0..1.json", "diff/3..0.summary.json", "diff/2..2.json"):
        assert load(kata / name) is not None
        assert os.path.basename(name) not in names((kata / name).parent)
        assert (kata / name).stat().st_size == len((kata / name).read_bytes())
    assert (kata / "diff/3..3").read_bytes() == b""
    assert b"diff --git" in (kata / "diff/4..1").read_bytes()
    assert (kata / "diff/latest").read_bytes() == (kata / "diff" / (kata / "diff/latest").readlink()).read_bytes()
    lines, summary = load(kata / "diff/0..3.json"), load(kata / "diff/0..3.summary.json")
    assert summary == [{key: value for key, value in file.items() if key != "lines"} for file in lines]
    files = kata / "events/3/files"
    shown = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()}
    assert {file["new_filename"] for file in summary} - {None} == shown


NO_DIFF = ["00..1", "0..999", "0..01", "0...1", "..1", "0..", "0..1.json.json", "-1..0", "0..1.summary", "+0..1"]
NO_DIFF += ["0..٣", "0..99999999999999999999", "a..b", ".json", "0"]
NO_EVENT = ["00", "999", "01.json", "latest.json", "0.json.json", "-1", ".json", "0/README.md", "0/events.json"]
NO_EVENT += ["0/config/other", "0/files/..x", "0.summary.json", "1/2"]
NOT_THERE = ["config/other", "files/nothing", "control/x", "download/x", "download/x.tgz", "4.event.json", "4", "x"]
NOT_THERE += [".git/hooks", ".git/info", ".git/branches", ".git/x", ".git/refs/heads/x"]


@pytest.mark.parametrize(
    "name", [*(f"diff/{name}" for name in NO_DIFF), *(f"events/{name}" for name in NO_EVENT), *NOT_THERE]
)
def test_there_is_no_such_thing(mounted: Mount, name: str) -> None:
    for kata_id in (SAVER, NATIVE):
        with pytest.raises(FileNotFoundError):
            os.lstat(mounted.kata(kata_id) / name)


# -- shapes


def test_shapes_are_the_same_for_both_layouts(mounted: Mount) -> None:
    for kata_id in (SAVER, NATIVE):
        kata = mounted.kata(kata_id)
        rows = load(kata / "events_summary.json")
        assert [row["index"] for row in rows] == list(range(len(rows)))
        assert [row["type"] for row in rows] == ["created"] + ["test"] * (len(rows) - 1)
        assert all(list(row)[-1] == "type" for row in rows)
        assert load(kata / "event.json") == rows[-1]
        for index in range(len(rows)):
            event = kata / "events" / str(index)
            assert load(event / "event.json") == rows[index]
            assert load(event / "events_summary.json") == rows[: index + 1]
            flags = load(event / "truncations.json")
            assert list(flags) == ["files", "stdout", "stderr", "status"]
            assert {type(flag) for flag in (*flags["files"].values(), *list(flags.values())[1:])} == {bool}
            shown = {name: (event / "config" / name).read_text() for name in DEFAULTS}
            assert shown == {name: f"{value}\n" for name, value in DEFAULTS.items()}
            assert json.loads((event / "manifest.json").read_bytes())["id"] == kata_id
        first = {name: (kata / "events/0" / name).read_bytes() for name in ("stdout", "stderr", "status")}
        assert first == {"stdout": b"", "stderr": b"", "status": b"0"}
        manifest = load(kata / "manifest.json")
        assert list(manifest)[-1] == "visible_files"
        listed = git(
            mounted.store / kata.relative_to(mounted.path), "ls-tree", "-r", "-z", "--name-only", "0", "files/"
        )
        assert list(manifest["visible_files"]) == [name[6:] for name in listed.decode().split("\0")[:-1]]
        for name, file in manifest["visible_files"].items():
            assert file == {"content": (kata / "events/0/files" / name).read_bytes().decode()}


def test_events_json_is_what_saver_stored_or_the_array(mounted: Mount) -> None:
    stored = git(mounted.store / "rG/63/fy", "cat-file", "blob", "main:events.json")
    assert (mounted.kata(SAVER) / "events.json").read_bytes() == stored
    native = mounted.kata(NATIVE)
    assert (native / "events.json").read_bytes() == (native / "events_summary.json").read_bytes()


def test_an_event_as_one_document(mounted: Mount) -> None:
    for kata_id, last in ((SAVER, 7), (NATIVE, 4)):
        kata = mounted.kata(kata_id)
        path = mounted.store / kata.relative_to(mounted.path)
        for index in range(last + 1):
            event, document = kata / "events" / str(index), load(kata / "events" / f"{index}.json")
            row = load(event / "event.json")
            wanted_row = list(row) if index else [*list(row)[:-1], "colour", "type"]
            assert list(document) == ["files", *wanted_row, "stdout", "stderr", "status"]
            assert document == {**document, **row}
            listed = (
                git(path, "ls-tree", "-r", "-z", "--name-only", f"refs/tags/{index}", "files/").decode().split("\0")
            )
            assert list(document["files"]) == [name[6:] for name in listed[:-1]]
            for name, file in document["files"].items():
                content = (event / "files" / name).read_bytes().decode()
                assert list(file.items()) == [("content", content), ("truncated", False)]
            flags = load(event / "truncations.json")
            for name in ("stdout", "stderr"):
                output = {"content": (event / name).read_bytes().decode(), "truncated": flags[name]}
                assert list(document[name].items()) == list(output.items())
            assert document["status"] == (event / "status").read_text()
        assert (load(kata / "events/0.json")["colour"], load(kata / "events/0.json")["status"]) == ("create", "0")
    assert load(mounted.kata(SAVER) / "events/2.json")["stderr"]["content"] != ""


# -- plain katas, owners


def test_plain_katas_are_as_they_are(mounted: Mount) -> None:
    for kata_id in PLAIN.values():
        kata = mounted.kata(kata_id)
        path = mounted.store / kata.relative_to(mounted.path)
        stored = sorted(item.relative_to(path) for item in path.rglob("*"))
        assert set(stored) < {item.relative_to(kata) for item in kata.rglob("*")}
        assert len(stored) >= 4
        for name in stored:
            shown, real = (kata / name).lstat(), (path / name).lstat()
            assert (shown.st_mtime_ns, shown.st_uid, shown.st_gid) == (real.st_mtime_ns, real.st_uid, real.st_gid)
            written = 0o644 if str(name) == "events.json" else 0o444
            assert stat.S_IMODE(shown.st_mode) == (0o555 if stat.S_ISDIR(real.st_mode) else written)
            assert stat.S_IFMT(shown.st_mode) == stat.S_IFMT(real.st_mode)
            if (path / name).is_file():
                assert (kata / name).read_bytes() == (path / name).read_bytes()


def test_owners(mounted: Mount, mount: MakeMount, katas: Path) -> None:
    """The owner is that of the kata's directory, or of the mount's options."""
    files = ("", "files", "events/1/stdout", "diff", "diff/0..1.json", "download.tgz", ".git/HEAD", "events/latest")
    owner = (katas / "rG/63/fy").stat()
    assert owner.st_uid == 501
    assert {(mounted.kata(SAVER) / name).lstat().st_uid for name in files} == {501}
    assert {(mounted.kata(SAVER) / name).lstat().st_gid for name in files} == {owner.st_gid}
    other = mount(katas, mounted.mode, ("--uid", "1234", "--gid", "4321"))
    places = [other.kata(SAVER) / name for name in files] + [other.kata(NATIVE), other.path, other.path / ".katafs"]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in places} == {(1234, 4321)}


# -- numbers, listings, directories


def test_a_tip_file_is_the_file_of_the_newest_event(mounted: Mount) -> None:
    top = mounted.kata(NATIVE)
    for name in (*(f"files/{name}" for name in ODD_FILES), "stdout", "event.json", "truncations.json"):
        assert (top / name).stat().st_ino == (top / "events/latest" / name).stat().st_ino
    assert (top / "files/a").stat().st_ino != (top / "events/latest/files/a").stat().st_ino


def entries(directory: Path) -> list[tuple[bytes, int, int]]:
    """Name, number and type of what getdents64(2) gives for a directory, ``.`` and ``..`` too."""
    libc, found = ctypes.CDLL(None, use_errno=True), []
    buffer = ctypes.create_string_buffer(32768)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while (length := libc.syscall(217, fd, buffer, len(buffer))) > 0:
            at = 0
            while at < length:
                number, _, size, kind = struct.unpack_from("=QqHB", buffer, at)
                found.append((ctypes.string_at(ctypes.byref(buffer, at + 19)), number, kind))
                at += size
    finally:
        os.close(fd)
    assert length == 0, os.strerror(ctypes.get_errno())
    return found


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of getdents64 is another")
def test_listings_agree_with_stat(mounted: Mount) -> None:
    """Numbers and types, ``.`` and ``..`` included; each name once."""
    kinds = {stat.S_IFDIR: 4, stat.S_IFREG: 8, stat.S_IFLNK: 10}
    for kata_id in (NATIVE, PLAIN["v0-5rTJv5"]):
        top = mounted.kata(kata_id)
        for directory in (mounted.path, top.parent, top, *(item for item in top.rglob("*") if item.is_dir())):
            if directory.is_symlink():
                continue
            listed = entries(directory)
            assert len({name for name, _, _ in listed}) == len(listed)
            assert {b".", b".."} <= {name for name, _, _ in listed}
            for name, number, kind in listed:
                status = os.lstat(os.path.join(os.fsencode(directory), name))
                if (directory, name) != (mounted.path, b".."):  # that is outside
                    assert (number, kind) == (status.st_ino, kinds[stat.S_IFMT(status.st_mode)]), (directory, name)
            if directory != mounted.path:
                assert (directory / "..").stat().st_ino == directory.parent.stat().st_ino


def test_the_current_directory_is_where_one_went(mounted: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    top = mounted.kata(NATIVE)
    places = [path for path in top.rglob("*") if path.is_dir() and not path.is_symlink()]
    assert len({path.name for path in places}) < len(places), "some must have the same name"
    monkeypatch.chdir("/")
    try:
        for path in places * 2:
            os.chdir(path)
            assert os.getcwd() == str(path)
            os.chdir("..")
            assert os.getcwd() == str(path.parent)
    finally:
        os.chdir("/")
