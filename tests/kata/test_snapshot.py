"""What saver and others have left in their repositories over the years, and what somebody might put there.

One store of katas made by git itself, each odd in its own way; one mount.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from katafs.kata.model.ids import kata_path
from katafs.kata.model.rows import event_type, shown_row
from katafs.kata.read.snapshot import event_document
from katafs.kata.record.create import create_kata
from katafs.kata.store import Store
from tests.katas import (
    START,
    GitCommit,
    GitFile,
    add_event,
    git,
    import_commits,
    make_kata,
    pretty_json,
    row_time,
    unpack,
)
from tests.mounts import Mount

OPTIONS = dict.fromkeys(("predict", "revert_red", "revert_amber", "revert_green"), "off")
OPTIONS = {"theme": "light", "colour": "on", **OPTIONS}
EPOCH = int(START.timestamp())
SAVER, OUTAGE, UNTAGGED, EMPTY, MAY, ODD = "rG63fy", "0utAge", "N0TAGS", "N0FLES", "MAY202", "0DDkat"
UNREADABLE, UNBORN, BARE, VERSION_1, HOSTILE = "BADR0W", "EMPTYG", "0NLYDR", "VERSN1", "H0STLE"


def saver_files(kata_id: str, rows: list[Any], *more: GitFile, **changes: Any) -> list[GitFile]:
    """The tree of a commit as saver writes it."""
    manifest = {"display_name": "x", "exercise": "", "version": 2, "created": row_time(0), "id": kata_id}
    content = {
        "README.md": "README",
        "manifest.json": json.dumps({**manifest, **changes.get("manifest", {})}, indent=2),
        "options.json": json.dumps({**OPTIONS, **changes.get("options", {})}, indent=2),
        "events.json": json.dumps(rows, indent=2),
    }
    if len(rows) > 1:
        content |= {"stdout": f"out {len(rows) - 1}", "stderr": "err", "status": "2"}
        content["truncations.json"] = json.dumps({"stdout": True, "stderr": False}, indent=2)
    return [*(GitFile(name, text.encode()) for name, text in content.items()), *more]


def created() -> dict[str, Any]:
    return {"index": 0, "event": "created", "time": row_time(0)}


def test_row(index: int, **more: Any) -> dict[str, Any]:
    return {"colour": "red", "index": index, "time": row_time(index * 10), **more}


test_row.__test__ = False  # type: ignore[attr-defined]


def make_outage(path: Path) -> None:
    """FORMAT §2.1: rows 1, 2, 3 were never heard of until 4 came; then an option; then 5. Two tags are missing."""
    outages: list[Any] = [{"index": index, "event": "outage"} for index in (1, 2, 3)]
    outages[2]["time"] = row_time(7)
    rows = [created(), *outages, test_row(4), test_row(5)]
    file = [GitFile(f"files/{name}", name.encode()) for name in ("first", "fourth", "fifth")]
    dark = {"theme": "dark"}
    commits = [
        GitCommit("0 kata creation\n", saver_files(OUTAGE, rows[:1], file[0]), [0]),
        GitCommit("4 ran tests, no prediction\n", saver_files(OUTAGE, rows[:5], file[1]), [1, 4], 41),
        GitCommit("set option theme to dark\n", saver_files(OUTAGE, rows[:5], file[1], options=dark), seconds=45),
        GitCommit("5 ran tests, no prediction\n", saver_files(OUTAGE, rows, file[2], options=dark), [5], 51),
        GitCommit(
            "set option colour to off", saver_files(OUTAGE, rows, file[2], options={**dark, "colour": "off"}), (), 60
        ),
    ]
    import_commits(path, commits)


def make_may(path: Path) -> None:
    """The first version 2, of one week in 2021: rows without brackets, no options, no README."""
    manifest = GitFile("manifest.json", json.dumps({"version": 2, "created": row_time(0), "id": MAY}).encode())
    rows = [created(), test_row(1)]
    texts = [json.dumps(row).encode() for row in rows]
    file = GitFile("files/hiker.rb", b"puts 42\n")
    outputs = [GitFile("stdout", b"out"), GitFile("stderr", b""), GitFile("status", b"1")]
    commits = [
        GitCommit("0", [manifest, file, GitFile("events_summary.json", texts[0])], [0]),
        GitCommit("1", [manifest, file, *outputs, GitFile("events_summary.json", b",\n".join(texts))], [1], 11),
    ]
    import_commits(path, commits)


def make_odd(path: Path) -> None:
    """Bytes that are no text, modes, names, rows with odd keys; the first event of a commit with a bad subject."""
    rows = [created(), test_row(1, files=7, stdout="x"), {"index": 2, "colour": "green"}, test_row(3, deep=deep(450))]
    files = [
        GitFile("files/latin1.txt", b"gr\xfc\xdfe\r\n"),
        GitFile("files/run.sh", b"#!/bin/sh\n", "100755"),
        GitFile("files/link", b"/etc/passwd", "120000"),
        GitFile("files/na\udcff\udcfeme", b"name"),
    ]
    extra = GitFile("stdout", b"\xff\xfe\x00end")
    subjects = ("0 kata creation", "1 ran", f"{'9' * 5000} of them", "3 ran")
    commits = [
        GitCommit(
            subjects[index],
            [file for file in saver_files(ODD, rows[: index + 1], *files) if file.path != "stdout"] + [extra],
            [index] if index != 1 else [],
            index * 10,
        )
        for index in range(4)
    ]
    import_commits(path, commits)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture(scope="module")
def katas(tmp_path_factory: pytest.TempPathFactory, shared_katas: Path) -> Path:
    store = tmp_path_factory.mktemp("snapshot") / "store"
    store.mkdir()
    unpack(shared_katas / "saver-v2-rG63fy.tgz", store)
    make_outage(kata_path(store, OUTAGE))
    make_may(kata_path(store, MAY))
    make_odd(kata_path(store, ODD))
    native = make_kata(store, UNTAGGED)
    truncated = {"content": "cut", "truncated": True}
    for index in (1, 2, 3):
        add_event(native, index, files={"hiker.py": f"{index}\n"}, stdout=truncated, status=str(index))
    (native / ".git/refs/tags/1").write_text("1" * 40 + "\n")
    (native / ".git/refs/tags/2").write_text("")
    (native / ".git/refs/tags/3").unlink()
    empty = kata_path(store, EMPTY)
    rows = [created(), test_row(1)]
    file = GitFile("files/hiker.py", b"x\n")
    first, second = saver_files(EMPTY, rows[:1], file), saver_files(EMPTY, rows)
    import_commits(empty, [GitCommit("0 kata creation", first, [0]), GitCommit("1 ran", second, [1], 10)])
    bad = [file for file in saver_files(UNREADABLE, rows) if file.path != "events.json"]
    import_commits(kata_path(store, UNREADABLE), [GitCommit("0", [*bad, GitFile("events.json", b"[{")], [0])])
    import_commits(kata_path(store, UNBORN), [])
    one = saver_files(VERSION_1, rows[:1], file, manifest={"version": 1})
    import_commits(kata_path(store, VERSION_1), [GitCommit("0 kata creation", one, [0])])
    kata_path(store, BARE).mkdir(parents=True)
    (kata_path(store, BARE) / "events.json").write_text("[]")
    (kata_path(store, BARE) / "link").symlink_to("/etc/passwd")
    return store


@pytest.fixture(scope="module")
def mounted(fuse: None, katas: Path) -> Iterator[Mount]:
    with Mount(katas, katas.parent / "mnt", "fast", ()) as mount:
        yield mount


def load(path: Path) -> Any:
    data = path.read_bytes()
    value = json.loads(data)
    assert data == pretty_json(value)
    return value


def read(directory: Path, *names: str) -> list[bytes]:
    return [(directory / name).read_bytes() for name in names]


NO_FLAGS = {"files": {}, "stdout": False, "stderr": False, "status": False}


def test_outages(mounted: Mount) -> None:
    kata = mounted.kata(OUTAGE)
    assert sorted(os.listdir(kata / "events")) == ["0", "1", "2", "3", "4", "5", "latest"]
    for index in (1, 2, 3):
        event = kata / "events" / str(index)
        assert os.listdir(event / "files") == ["fourth"]
        assert read(event, "stdout", "stderr", "status", "files/fourth") == [b"", b"", b"0", b"fourth"]
        assert load(event / "truncations.json") == NO_FLAGS
        row = load(event / "event.json")
        time = {"time": row_time(7)} if index == 3 else {}
        assert row == {"index": index, "event": "outage", **time, "type": "outage"}
        assert [row["index"] for row in load(event / "events_summary.json")] == list(range(index + 1))
        document = load(kata / f"events/{index}.json")
        output = {"content": "", "truncated": False}
        files = {"fourth": {"content": "fourth", "truncated": False}}
        assert document == {"files": files, **row, "stdout": output, "stderr": output, "status": "0"}
        assert {(event / name).stat().st_mtime for name in (".", "files/fourth", "event.json")} == {EPOCH + 41}
    fourth = kata / "events/4"
    assert read(fourth, "stdout", "stderr", "status") == [b"out 4", b"err", b"2"]
    assert load(fourth / "truncations.json") == {**NO_FLAGS, "stdout": True}
    assert [row["type"] for row in load(fourth / "events_summary.json")] == ["created"] + ["outage"] * 3 + ["test"]
    assert fourth.stat().st_mtime_ns == (EPOCH + 40) * 10**9 + START.microsecond * 1000
    assert read(kata, "diff/1..4", "diff/0..0") == [b"", b""]
    assert b"rename" in (kata / "diff/4..5").read_bytes() or b"fifth" in (kata / "diff/4..5").read_bytes()


def test_an_option_is_no_event_and_dates_its_file(mounted: Mount) -> None:
    kata = mounted.kata(OUTAGE)
    themes = {index: (kata / f"events/{index}/config/theme").read_text() for index in range(6)}
    assert themes == {**dict.fromkeys(range(5), "light\n"), 5: "dark\n"}
    assert read(kata, "config/theme", "config/colour", "events/5/config/colour") == [b"dark\n", b"off\n", b"on\n"]
    times = {name: (kata / "config" / name).stat().st_mtime for name in OPTIONS}
    assert times == {**dict.fromkeys(OPTIONS, EPOCH), "theme": EPOCH + 45, "colour": EPOCH + 60}
    # the newest commit is the option's
    assert {int((kata / name).stat().st_mtime) for name in (".", "files", "events", "options.json")} == {EPOCH + 60}
    assert (kata / "stdout").stat().st_mtime_ns == (EPOCH + 50) * 10**9 + START.microsecond * 1000


def test_a_tag_that_is_missing_or_wrong_takes_nothing_away(mounted: Mount) -> None:
    kata = mounted.kata(UNTAGGED)
    assert (kata / "events/latest").readlink() == Path("3")
    for index in (1, 2, 3):
        event = kata / "events" / str(index)
        assert read(event, "files/hiker.py", "status", "stdout") == [b"%d\n" % index, b"%d" % index, b"cut"]
        assert load(event / "truncations.json") == {**NO_FLAGS, "files": {"hiker.py": False}, "stdout": True}
    assert b"+3" in (kata / "diff/latest").read_bytes()
    assert load(kata / "events/3.json")["stdout"] == {"content": "cut", "truncated": True}


def test_a_kata_without_files(mounted: Mount) -> None:
    kata = mounted.kata(EMPTY)
    assert os.listdir(kata / "files") == os.listdir(kata / "events/1/files") == []
    assert os.listdir(kata / "events/0/files") == ["hiker.py"]
    assert load(kata / "events/1.json")["files"] == {}
    assert list(load(kata / "manifest.json")["visible_files"]) == ["hiker.py"]
    assert b"deleted file mode 100644" in (kata / "diff/0..1").read_bytes()
    assert read(kata, "diff/1..1", "diff/1..1.json") == [b"", b"[]\n"]


def test_the_first_version_2_is_shown_and_read_only(mounted: Mount) -> None:
    kata = mounted.kata(MAY)
    top = {"manifest.json", "files", "stdout", "stderr", "status", "truncations.json", "config", "event.json", ".git"}
    assert set(os.listdir(kata)) == top | {"events_summary.json", "events.json", "events", "diff", "download"} | {
        "download.tgz",
        "history",
        "html",
    }
    rows = [{**created(), "type": "created"}, {**test_row(1), "type": "test"}]
    assert load(kata / "events.json") == load(kata / "events_summary.json") == rows
    assert load(kata / "events/0/events_summary.json") == rows[:1]
    assert read(kata, "files/hiker.rb", "stdout", "status", "config/theme") == [b"puts 42\n", b"out", b"1", b"light\n"]
    assert read(kata, "events/0/stdout", "events/0/status") == [b"", b"0"]
    assert load(kata / "truncations.json") == NO_FLAGS
    for name in ("ran_tests", "control", "control/ran_tests"):
        assert not (kata / name).exists()


def test_what_cannot_be_read_as_a_kata(mounted: Mount) -> None:
    assert os.listdir(mounted.kata(UNREADABLE)) == os.listdir(mounted.kata(UNBORN)) == [".git"]
    assert git(mounted.kata(UNREADABLE), "rev-parse", "main") != b""
    assert not (mounted.kata(UNREADABLE) / "events").exists()
    assert os.listdir(mounted.kata(BARE)) == []
    for name in ("events.json", "link"):
        assert not os.path.lexists(mounted.kata(BARE) / name)
    assert ".git" not in os.listdir(mounted.kata(VERSION_1))
    assert not (mounted.kata(VERSION_1) / ".git").exists()


def test_bytes_modes_and_rows_that_are_odd(mounted: Mount) -> None:
    kata = mounted.kata(ODD)
    files = kata / "events/1/files"
    name = os.fsdecode(b"na\xff\xfeme")
    assert sorted(os.listdir(files)) == sorted(["latin1.txt", "run.sh", "link", name])
    assert read(files, "latin1.txt", "link", name) == [b"gr\xfc\xdfe\r\n", b"/etc/passwd", b"name"]
    for path in files.iterdir():
        assert path.lstat().st_mode == stat.S_IFREG | 0o444
    document = load(kata / "events/1.json")
    assert document["files"]["latin1.txt"]["content"] == "gr\ufffd\ufffde\r\n"
    assert document["files"]["na\ufffd\ufffdme"]["content"] == "name"
    assert document["stdout"] == {"content": "\ufffd\ufffd\0end", "truncated": True}
    assert read(kata / "events/1", "stdout", "status") == [b"\xff\xfe\0end", b"2"]
    assert load(kata / "events/1/event.json")["files"] == 7
    # the row of event 2 has no time
    assert (kata / "events/2").stat().st_mtime == EPOCH + 20
    # of a row that is nested more deeply than Ruby's JSON takes, as much is shown as it does take
    shown = (kata / "events/3/event.json").read_text()
    assert shown.count("[") < 110
    assert json.loads(shown)["type"] == "test"
    assert {"event.json", "files", "stdout"} <= set(os.listdir(kata / "events/3")) & set(os.listdir(kata))
    assert (kata / "events/3/files/latin1.txt").read_bytes() == b"gr\xfc\xdfe\r\n"
    assert len(load(kata / "events/2/events_summary.json")) == 3


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"event": "created"}, "created"),
        ({"event": "outage"}, "outage"),
        ({"colour": "red", "predicted": "green"}, "test"),
        ({"colour": "timed_out_special"}, "test"),
        ({"colour": "red", "revert": ["rG63fy", 1]}, "reverted"),
        ({"colour": "red", "checkout": {"id": "rG63fy", "index": 1}}, "checked_out"),
        ({"colour": "file_create", "filename": "x"}, "file_create"),
        ({"colour": "rename-file"}, "file_rename"),
        ({"event": "edit-file"}, "file_edit"),
        ({"event": "file-delete"}, "file_delete"),
        ({"colour": "switch-file"}, "file_edit"),
        ({"colour": "red", "type": "outage"}, "outage"),
    ],
)
def test_the_type_of_a_row_is_derived(row: dict[str, Any], shown: str) -> None:
    assert event_type(row, 0 if shown == "created" else 3) == shown
    assert list(shown_row({"type": "x", **row}, 3))[-1] == "type"


def test_a_file_that_was_cut_at_creation(store: Path) -> None:
    files = {"cut.txt": {"content": "c", "truncated": True}, "whole.txt": {"content": "w"}}
    create_kata(store, {"visible_files": files}, UNTAGGED, START)
    kata = Store(store).kata(UNTAGGED)
    snapshot = kata.snapshot(0)
    flags = {"cut.txt": True, "whole.txt": False}
    assert snapshot.truncation_flags(kata.repo) == {**NO_FLAGS, "files": flags}
    document = json.loads(event_document(kata.repo, snapshot, kata.tip().rows))
    assert {name: file["truncated"] for name, file in document["files"].items()} == flags
