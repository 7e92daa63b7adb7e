"""``katafs demo``: a store that is the same every time, and never does harm."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from katafs.kata.model.ids import kata_path
from tests.conftest import unavailable
from tests.katas import add_event, git, make_kata
from tests.mounts import OTHER, CommandLine, command_line, wait_until

STORIES: list[dict[str, Any]] = [
    json.loads(file.read_text(encoding="utf-8")) for file in resources.files("katafs").joinpath("demo_data").iterdir()
]
IDS = sorted(story["id"] for story in STORIES)
PLAIN = [story for story in STORIES if "version" in story]
NATIVE = [story for story in STORIES if "version" not in story]


def in_memory(cli: CommandLine) -> None:
    """Have the store in memory, if that can be done: a demo waits for the disk some hundred times."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", cli.directory / "store"], check=True)


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    """The command line in a directory with an empty ``store``."""
    with command_line() as started:
        in_memory(started)
        yield started


@pytest.fixture(scope="module")
def demo() -> Iterator[Path]:
    """A demo store, to look at."""
    with command_line() as started:
        in_memory(started)
        started.done("demo", "store")
        yield started.directory / "store"


def references(store: Path) -> dict[str, bytes]:
    """All references of all katas, with the objects that they name; of the plain one its files and their times."""
    found = {story["id"]: git(kata_path(store, story["id"]), "for-each-ref") for story in NATIVE}
    for story in PLAIN:
        files = sorted(kata_path(store, story["id"]).iterdir())
        found[story["id"]] = repr([(file.name, file.stat().st_mtime_ns, file.read_bytes()) for file in files]).encode()
    return found


def snapshot(store: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in a directory: inode, time and content."""
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in store.rglob("*")
    }


def test_the_same_every_time(cli: CommandLine, demo: Path) -> None:
    """Also in a store whose directory must be made first; what is there already stays as it is."""
    printed = cli.done("demo", "store/new/deep")
    assert [line[:8].replace("/", "") for line in printed.splitlines()] == IDS
    made = cli.directory / "store/new/deep"
    assert references(made) == references(demo)
    before = snapshot(made)
    assert cli.done("demo", "store/new/deep") == printed
    assert snapshot(made) == before


@pytest.mark.parametrize("story", NATIVE, ids=lambda story: str(story["id"]))
def test_the_history_of_each_kata(demo: Path, story: dict[str, Any]) -> None:
    path = kata_path(demo, story["id"])
    last = len(story["events"])
    assert last >= 15
    assert git(path, "fsck", "--full", "--strict") == b""
    assert sorted(map(int, git(path, "tag").split())) == list(range(last + 1))
    assert git(path, "rev-parse", f"refs/tags/{last}") == git(path, "rev-parse", "HEAD")
    rows = json.loads(git(path, "cat-file", "blob", "HEAD:events_summary.json"))
    # what is null was skipped
    events = {index: event for index, event in enumerate(story["events"], start=1) if event is not None}
    summaries = {index: event["message"].get("summary", {}) for index, event in events.items()}
    colours = [summaries[index].get("colour", events[index].get("control")) for index in events]
    assert [rows[index]["colour"] for index in events] == colours
    assert [row["type"] for row in rows if row["index"] not in events] == [
        "created",
        *["outage"] * (last - len(events)),
    ]
    assert {"red", "amber", "green"} <= set(colours)
    assert [rows[index]["time"] for index in (0, *events)] == [story["created"], *(e["time"] for e in events.values())]
    for index, event in events.items():
        if "files" not in event["message"]:
            continue
        with_files = event["message"]["files"]
        listed = git(path, "ls-tree", "-r", "-z", "--name-only", f"refs/tags/{index}:files").decode().split("\0")[:-1]
        assert sorted(listed) == sorted(with_files)
        name = listed[index % len(listed)]
        stored = git(path, "cat-file", "blob", f"refs/tags/{index}:files/{name}")
        assert stored == with_files[name]["content"].encode()


def test_the_histories_have_what_a_demo_is_to_show(demo: Path) -> None:
    """Renamed files, deleted and new ones, empty ones, CRLF, names with a space and non-ASCII letters; predictions,
    a revert, file events and an outage."""
    kinds: set[str] = set()
    types: set[str] = set()
    names: set[str] = set()
    contents: list[bytes] = []
    subjects = ""
    for kata_id in (story["id"] for story in NATIVE):
        path = kata_path(demo, kata_id)
        told = git(path, "log", "-M", "--name-status", "--format=", "-z", "--", "files").decode().split("\0")
        kinds |= {word[0] for word in told if re.fullmatch(r"[ACDMR]\d*", word)}
        types |= {row["type"] for row in json.loads(git(path, "cat-file", "blob", "HEAD:events_summary.json"))}
        subjects += git(path, "log", "--format=%s").decode()
        names |= {word.removeprefix("files/") for word in told if word.startswith("files/")}
        contents += [file["content"].encode() for story in STORIES for event in filter(None, story["events"])
                     for file in event["message"].get("files", {}).values()]  # fmt: skip
    assert {"A", "D", "M", "R"} <= kinds
    assert types == {"created", "test", "reverted", "outage", "file_delete", "file_rename"}
    assert re.search(r"predicted red, got red\n", subjects)
    assert re.search(r"predicted green, got red\n", subjects)
    assert any(" " in name for name in names)
    assert not all(name.isascii() for name in names)
    assert b"" in contents
    assert any(b"\r\n" in content for content in contents)


@pytest.mark.thorough
def test_one_kata_is_old(cli: CommandLine) -> None:
    """Of version 1, with an index that was skipped; it reads the same, is migrated without a word, and stays ours."""
    (story,) = PLAIN
    store = cli.directory / "store"
    cli.done("demo", "store")
    path = kata_path(store, story["id"])
    assert not (path / ".git").exists()
    before = cli.done("log", path)
    assert "nothing recorded" in before.splitlines()[7]
    assert re.search(r"11 +green", before.splitlines()[-1])
    # the first and the last, and those around the index that was skipped
    shown = {index: cli.done("show", path, index) for index in (0, 6, 7, 8, 11)}
    assert cli.done("migrate", "store") == "1 kata with 11 events migrated\n"
    assert cli.done("log", path) == before
    for index, text in shown.items():
        assert cli.done("show", path, index) == text
    assert git(path, "show", "HEAD:config/theme") == b"dark\n"
    assert cli.done("fsck", "store").endswith("5 katas: 0 findings\n")
    assert story["id"][:2] in cli.done("demo", "store")
    assert (path / ".git").is_dir()


@pytest.mark.thorough
def test_a_class(cli: CommandLine, fuse: None) -> None:
    """Six katas more, which a mount shows as one class; made once."""
    cli.done("demo", "--groups", "new/groups", "store")
    before = snapshot(cli.directory / "new"), references(cli.directory / "store")
    assert cli.done("demo", "--groups", "new/groups", "store").splitlines()[-1] == "C1/as/s0  a class of 6 katas"
    assert (snapshot(cli.directory / "new"), references(cli.directory / "store")) == before
    cli.mount("--groups", "new/groups", "store", "mnt")
    shown = cli.directory / "mnt/.katafs/groups/C1ass0"
    assert len([name for name in os.listdir(shown) if name.startswith("0")]) == 6
    with open(shown / "events.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["light"] for row in rows} == {"", "red", "amber", "green"}
    assert {row["time"][:10] for row in rows} == {"2026-03-02"}
    newest = {row["member"]: row["light"] for row in rows}
    assert sorted(newest.values()) == ["green", "green", "green", "green", "red", "red"]
    assert "Longest since" in (shown / "index.html").read_text()


def test_an_interrupted_demo_is_completed_by_the_next(cli: CommandLine, demo: Path) -> None:
    """Killed when the first kata is there, in the middle of another; a kata is never there in part."""
    store = cli.directory / "store"
    with subprocess.Popen(cli.command("demo", "store"), cwd=cli.directory, env=cli.environment) as process:
        try:
            wait_until(lambda: len(list(store.glob("??/??/??/.git"))) >= 1, "the first kata")
            wait_until(lambda: len(list(store.glob(".new-*/.git/refs/tags/3"))) >= 1, "the middle of another")
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 1 <= len(list(store.glob("??/??/??"))) < len(IDS)
    cli.done("demo", "store")
    assert references(store) == references(demo)
    for story in NATIVE:
        path = kata_path(store, story["id"])
        assert git(path, "fsck", "--full", "--strict") == b""


def test_all_belongs_to_the_owner_of_the_store(cli: CommandLine, demo: Path) -> None:
    """And an empty directory, which a `create` leaves that was killed at its very end, is in nobody's way."""
    if os.geteuid() != 0:
        unavailable("only root makes files that are another user's")
    store = cli.directory / "store"
    kata_path(store, IDS[0]).mkdir(parents=True)
    for path in (store, *store.rglob("*")):
        os.chown(path, OTHER, OTHER - 1)
    cli.done("demo", "store")
    assert references(store) == references(demo)
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in store.rglob("*")} == {(OTHER, OTHER - 1)}


def test_what_is_in_the_store_already_is_left_alone(cli: CommandLine) -> None:
    """Other katas and files, and a demo kata that somebody has gone on with."""
    store = cli.directory / "store"
    make_kata(store, "AbCdEf")
    (store / "notes.txt").write_text("mine")
    cli.done("demo", "store")
    path = kata_path(store, IDS[0])
    add_event(path, len(git(path, "tag").split()), colour="green")
    before = snapshot(store)
    cli.done("demo", "store")
    assert snapshot(store) == before


@pytest.mark.parametrize("kind", ["native", "plain"])
def test_another_kata_of_the_same_id_is_left_alone(cli: CommandLine, kind: str) -> None:
    store = cli.directory / "store"
    path = kata_path(store, IDS[0])
    if kind == "native":
        make_kata(store, IDS[0])
    else:
        path.mkdir(parents=True)
        (path / "manifest.json").write_text("{}")
    before = snapshot(store)
    said = cli.refused("demo", "store")
    assert said == f"{path} is there already, and is not a demo kata; take another store"
    assert snapshot(store) == before


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("file", "store file is not a directory"),
        ("file/store", "store file/store: Not a directory"),
        ("/proc/store", "store /proc/store: No such file or directory"),
        ("/proc", "cannot make a kata in /proc: "),
    ],
)
def test_errors_are_one_sentence(cli: CommandLine, store: str, said: str) -> None:
    (cli.directory / "file").touch()
    assert cli.refused("demo", store).startswith(said)
    assert os.listdir(cli.directory / "store") == []


def test_it_does_not_matter_who_reads_what_it_prints(cli: CommandLine, demo: Path) -> None:
    assert "Traceback" not in cli.shell("katafs demo store | true; katafs demo store >&-").stderr
    assert references(cli.directory / "store") == references(demo)
