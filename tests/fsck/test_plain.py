"""``katafs fsck`` of katas that are plain files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from katafs.kata.fsck import Outcome
from katafs.kata.fsck.checking import check_kata
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata
from tests.fsck.cases import check, codes
from tests.plain_katas import make_plain_kata


def test_a_skipped_index_of_version_0(store: Path) -> None:
    """Its rows do not say whose they are: nothing is missing where there is an event for each."""
    path = store / "Ab" / "Cd" / "Ef"
    for index in (0, 1, 3):
        (path / str(index)).mkdir(parents=True)
        (path / str(index) / "event.json").write_text("{}")
    (path / "manifest.json").write_text("{}")
    (path / "events.json").write_text("{}\n" * 3)
    assert check_kata(path, "AbCdEf") == []
    (path / "1" / "event.json").unlink()
    (finding,) = check_kata(path, "AbCdEf")
    assert (finding.code, finding.message) == ("event-missing", "the file of event 1 is not there")


@pytest.mark.parametrize("version", [0, 1])
def test_plain_katas(store: Path, version: int) -> None:
    path = store / "Ab" / "Cd" / "Ef"
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"version": version, "id": "AbCdEf"}))
    rows = [{"index": 0, "event": "created"}, {"index": 1, "colour": "red"}]
    (path / "events.json").write_text((",\n" if version else "\n").join(map(json.dumps, rows)))
    names = [f"{index}.event.json" if version else f"{index}/event.json" for index in (0, 1)]
    for name in names:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("{}")
    assert check(path) == []
    (path / names[1]).write_text("{")
    assert codes(check(path, repair=True)) == [("event-damaged", Outcome.LEFT)]
    assert check(path, is_quick=True) == []
    (path / names[1]).unlink()
    assert codes(check(path, is_quick=True)) == [("event-missing", Outcome.LEFT)]
    (path / "events.json").write_text("[")
    assert codes(check(path)) == [("events-unreadable", Outcome.LEFT)]
    (path / "manifest.json").write_text('{"version": 2}')
    assert codes(check(path)) == [("git-lost", Outcome.LEFT)]
    (path / "manifest.json").unlink()
    grow_old(path)
    assert codes(check(path)) == [("manifest-lost", Outcome.LEFT)]


def grow_old(path: Path) -> None:
    for file in (path, *path.rglob("*")):
        os.utime(file, (time.time() - 61, time.time() - 61))


def test_a_version_in_digits(store: Path) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    (written.path / "manifest.json").write_text(json.dumps({**written.manifest, "version": "1"}))
    assert check(written.path) == []
    assert migrate_kata(written.path, "AbCdEf") is not None
    assert check(written.path) == []
    kata = Kata("AbCdEf", written.path, (0, 0), ReadCaches())
    assert kata.plain_version() == 1
    assert kata.manifest()["version"] == "1"


@pytest.mark.parametrize("version", [0, 1])
def test_a_plain_kata_that_is_being_made(store: Path, version: int) -> None:
    """At no moment anything is wrong with it, but when its maker does not go on."""
    path = store / "Ab" / "Cd" / "Ef"
    path.mkdir(parents=True)
    row = {"index": 0, "time": [2021, 5, 15, 7, 0, 0, 5], "event": "created"}
    texts = {"manifest.json": json.dumps({"version": version, "id": "AbCdEf"}), "events.json": json.dumps(row)}
    texts["0.event.json" if version else "0/event.json"] = json.dumps({"files": {}})
    for name, text in texts.items():
        (path / name).parent.mkdir(exist_ok=True)
        for content in ("", text):
            (path / name).write_text(content)
            assert check(path) == [], name
        if name != list(texts)[-1]:
            grow_old(path)
            assert codes(check(path)) != [], name
