"""Extended attributes of katas and events, with ``--xattr`` only."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import record
from katafs.kata.record.message import parse_act
from tests.katas import START, add_event, git, git_commit, make_kata, pretty_json, stored_rows, unpack
from tests.mounts import MakeMount
from tests.tree.test_stats import stats_of


def attributes(path: Path) -> dict[str, str]:
    """All of a file or directory, by listxattr(2) and getxattr(2)."""
    return {name: os.getxattr(path, name).decode() for name in os.listxattr(path)}


@pytest.fixture
def kata(store: Path) -> Path:
    path = make_kata(store, "AbCdEf")
    message = {"summary": {"colour": "red", "predicted": "green", "duration": 0.5}, "files": {"a": {"content": "a\n"}}}
    record(path, "AbCdEf", parse_act(Kind.PREDICTED_WRONG, json.dumps(message).encode()), START)
    add_event(path, 3, colour="amber")
    return path


def test_what_an_event_and_a_kata_say(mount: MakeMount, store: Path, kata: Path, mode: str) -> None:
    shown = mount(store, mode, ("--xattr",)).kata("AbCdEf")
    row = stored_rows(kata)[1]
    assert attributes(shown / "events" / "1") == {
        "user.katafs.index": "1",
        "user.katafs.type": "test",
        "user.katafs.colour": "red",
        "user.katafs.time": f"{START:%Y-%m-%dT%H:%M:%S.%f}Z",
        "user.katafs.duration": "0.5",
        "user.katafs.predicted": "green",
        "user.katafs.added": str(row["diff_added_count"]),
        "user.katafs.deleted": str(row["diff_deleted_count"]),
        "user.katafs.commit": git(kata, "rev-parse", "refs/tags/1").decode().strip(),
    }
    assert attributes(shown / "events" / "0")["user.katafs.type"] == "created"
    outage = attributes(shown / "events" / "2")
    assert outage["user.katafs.type"] == "outage"
    assert "user.katafs.colour" not in outage
    assert attributes(shown) == {
        "user.katafs.id": "AbCdEf",
        "user.katafs.events": "4",
        "user.katafs.version": "2",
        "user.katafs.layout": "native",
        "user.katafs.commit": git(kata, "rev-parse", "main").decode().strip(),
        "user.katafs.display_name": "Python, pytest",
        "user.katafs.exercise": "Fizz Buzz",
    }
    # they follow what is written
    (shown / "ran_tests").write_text('{"summary": {"colour": "green"}}')
    assert os.getxattr(shown, "user.katafs.events") == b"5"
    assert os.getxattr(shown / "events" / "latest", "user.katafs.colour") == b"green"


def test_nothing_else_has_any(mount: MakeMount, store: Path, kata: Path, mode: str) -> None:
    """And asking makes nothing, not even a download."""
    mounted = mount(store, mode, ("--xattr",))
    shown = mounted.kata("AbCdEf")
    for path in (
        mounted.path,
        shown / "files",
        shown / "stdout",
        shown / "download.tgz",
        shown / "html" / "index.html",
    ):
        assert os.listxattr(path) == []
        with pytest.raises(OSError, match="No data") as caught:
            os.getxattr(path, "user.katafs.index")
        assert caught.value.errno == errno.ENODATA
    for name in ("user.katafs.nothing", "user.katafs.", "user.other", "security.capability", "user.katafs.\udcff"):
        with pytest.raises(OSError, match="No data"):
            os.getxattr(shown / "events" / "1", name)
    with pytest.raises(OSError, match="Read-only") as caught:
        os.setxattr(shown / "events" / "1", "user.katafs.colour", b"green")
    assert caught.value.errno == errno.EROFS


def test_without_the_option_the_kernel_asks_once(mount: MakeMount, store: Path, kata: Path, mode: str) -> None:
    mounted = mount(store, mode)
    shown = mounted.kata("AbCdEf")
    for _ in range(3):
        for path in (shown, shown / "events" / "1"):
            with pytest.raises(OSError, match="not supported") as caught:
                os.getxattr(path, "user.katafs.index")
            assert caught.value.errno == errno.EOPNOTSUPP
            with pytest.raises(OSError, match="not supported"):
                os.listxattr(path)
    subprocess.run(["ls", "-lR", shown / "events"], check=True, capture_output=True)
    stats = stats_of(mounted)
    for operation in ("getxattr", "listxattr"):
        assert stats("katafs_request_duration_seconds_count", operation=operation) == 1
        assert stats("katafs_request_errors_total", operation=operation, errno="ENOSYS") == 1


def test_tools_show_them(mount: MakeMount, store: Path, kata: Path) -> None:
    shown = mount(store, "fast", ("--xattr",)).kata("AbCdEf")
    printed = subprocess.run(["getfattr", "-d", "events/1"], cwd=shown, check=True, capture_output=True, text=True)
    assert 'user.katafs.colour="red"\n' in printed.stdout
    assert 'user.katafs.predicted="green"\n' in printed.stdout
    assert printed.stdout.startswith("# file: events/1\n")
    one = ["getfattr", "--only-values", "-n", "user.katafs.colour", "events/latest"]
    assert subprocess.run(one, cwd=shown, check=True, capture_output=True).stdout == b"amber"
    listed = subprocess.run(["ls", "-l", "events"], cwd=shown, check=True, capture_output=True, text=True).stdout
    # no + or @ behind the modes: nothing there is a list of who may what
    assert re.findall(r"^d\S+", listed, re.MULTILINE) == ["dr-xr-xr-x"] * 4
    assert "getfattr -d" in (shown.parents[2] / ".katafs" / "README.md").read_text()


def test_what_a_kata_holds_is_not_believed(mount: MakeMount, store: Path) -> None:
    path = make_kata(store, "AbCdEf", exercise="\x1b[31m" + "x" * 70_000)
    row = {
        "colour": "\x1b]0;\x07\ud800" + "y" * 70_000,
        "duration": "long",
        "time": "now",
        "predicted": ["red"],
        "index": 1,
    }
    data = json.dumps([*stored_rows(path), row]).encode()
    assert git_commit(path, "1 odd", {"events_summary.json": data, "event.json": pretty_json({})})
    git(path, "update-ref", "refs/tags/1", "main")
    shown = mount(store, "fast", ("--xattr",)).kata("AbCdEf")
    told = attributes(shown / "events" / "1")
    assert {name.rpartition(".")[2] for name in told} == {"index", "type", "colour", "commit"}
    for text in (told["user.katafs.colour"], attributes(shown)["user.katafs.exercise"]):
        assert len(text) < 300
        assert "\x1b" not in text


@pytest.mark.parametrize("archive", ["v0-5rTJv5", "v1-5U2J18"])
def test_katas_that_are_stored_plain(shared_katas: Path, mount: MakeMount, store: Path, archive: str) -> None:
    unpack(shared_katas / f"{archive}.tgz", store)
    kata_id = archive.rpartition("-")[2]
    shown = mount(store, "fast", ("--xattr",)).kata(kata_id)
    told = attributes(shown)
    assert told["user.katafs.layout"] == "plain"
    assert told["user.katafs.version"] == archive[1]
    assert told["user.katafs.events"] == str(len(os.listdir(shown / "events")) - 1)
    assert attributes(shown / "events" / "1")["user.katafs.colour"] in ("red", "amber", "green")
