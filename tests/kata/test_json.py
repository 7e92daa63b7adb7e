"""JSON that every parser takes is what katafs writes and shows, whatever somebody stored."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from katafs.git import GitRepo
from katafs.kata.model.kinds import Kind
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.kata.read.state import read_state
from katafs.kata.record.commit import record, set_option
from katafs.kata.record.message import parse_act
from katafs.text import compact, is_portable, is_portable_json, parse_stored, pretty
from tests.katas import GitCommit, GitFile, git, import_commits, message, row_time
from tests.mounts import Mount, wait_until

# what is stored in the place of a value, and what becomes of it
ODD = {
    "nan": (b"NaN", None),
    "infinity": (b"-Infinity", None),
    "too-large": (b"1e400", None),
    "integer": (b"9" * 400, None),
    "endless-integer": (b"-" + b"7" * 5000, None),
    "surrogate": (b'"a\\ud800b"', "a\ufffdb"),
    "key": (b'{"\\udfff": 1}', {"\ufffd": 1}),
    "no-utf-8": (b'"a\xffb"', "a\ufffdb"),
}
DEEP = b"[" * 300 + b"]" * 300


def strict(data: bytes) -> Any:
    """What a parser says that takes no more than RFC 8259, a double and a hundred levels."""

    def refuse(text: str) -> Any:
        raise ValueError(text)

    def number(text: str) -> float:
        return float(text) if abs(float(text)) < 1.8e308 else refuse(text)

    def integer(text: str) -> int:
        float(int(text))
        return int(text)

    text = data.decode()
    assert not re.search(r"\\u[dD][89a-fA-F]", text)
    value = json.loads(text, parse_constant=refuse, parse_float=number, parse_int=integer)
    assert depth(value) <= 100
    return value


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def make(path: Path, layout: str, odd: bytes) -> Path:
    """A kata of two events, with that in a row, in the manifest, the options and the truncations."""

    def text(value: object) -> bytes:
        return json.dumps(value).encode().replace(b'"ODD"', odd)

    manifest = {"display_name": "X", "exercise": "Y", "version": 2, "created": row_time(0), "more": "ODD"}
    rows: list[dict[str, Any]] = [
        {"index": 0, "event": "created", "time": row_time(0)},
        {"colour": "red", "duration": "ODD", "index": 1, "time": row_time(60)},
    ]
    commits = []
    for index, subject in enumerate(("0 kata creation", "1 ran tests, no prediction, got red")):
        files = {"manifest.json": text(manifest), "files/a.txt": b"%d\n" % index, "status": b"0"}
        cut = {"files": {"a.txt": False}, "stdout": False, "stderr": False, "status": False, "more": "ODD"}
        if layout == "saver":
            files["events.json"] = text(rows[: index + 1])
            files["options.json"] = text({**OPTION_DEFAULTS, "more": "ODD"})
        else:
            files |= {"events_summary.json": text(rows[: index + 1]), "event.json": text(rows[index])}
            files |= {f"config/{name}": f"{value}\n".encode() for name, value in OPTION_DEFAULTS.items()}
        files["truncations.json"] = text(cut)
        commits.append(GitCommit(subject, [GitFile(*file) for file in files.items()], [index], 60 * index))
    return import_commits(path, commits)


def documents(kata: Path) -> Iterator[Path]:
    """All JSON files of a kata in a mount; in a download are the very bytes that git has."""
    for parent, directories, names in os.walk(kata):
        directories[:] = [name for name in directories if name != "download"]
        yield from (Path(parent, name) for name in names if name.endswith(".json"))
    last = len(os.listdir(kata / "events")) - 2
    yield from (kata / f"events/{index}.json" for index in range(last + 1))
    yield from (kata / f"diff/{name}" for name in ("0..1.json", "0..1.summary.json"))


@pytest.mark.parametrize("layout", ["native", "saver"])
def test_all_that_is_shown_is_json(layout: str, store: Path, mount: Any) -> None:
    katas = {
        name: make(store / "Ab/Cd" / f"{number:02}", layout, odd) for number, (name, (odd, _)) in enumerate(ODD.items())
    }
    katas["deep"] = make(store / "Ab/Cd/De", layout, DEEP)
    mounted: Mount = mount(store)
    for name, path in katas.items():
        kata = mounted.path / path.relative_to(store)
        shown = {file.relative_to(kata): strict(file.read_bytes()) for file in documents(kata)}
        if name in ODD:
            wanted = ODD[name][1]
            assert shown[Path("event.json")]["duration"] == shown[Path("events.json")][1]["duration"] == wanted
            assert shown[Path("manifest.json")]["more"] == wanted
        before = len(shown[Path("events_summary.json")])
        (kata / "ran_tests").write_text(json.dumps(message({"a.txt": "2\n"})))
        (kata / "config/theme").write_text("dark")
        wait_until(lambda: len(strict((kata / "events_summary.json").read_bytes())) > before, "the event is shown")  # noqa: B023
        assert {strict(file.read_bytes()) is not None for file in documents(kata)} == {True}
        strict((kata / "ran_tests").read_bytes())
        stored = git(path, "show", "main:events.json" if layout == "saver" else "main:events_summary.json")
        assert len(strict(stored)) >= 3


def test_bytes_that_every_parser_takes_stay(store: Path) -> None:
    """Only what has to be is written anew."""
    path = make(store / "Ab/Cd/00", "saver", b'"NaN and \\u0001"')
    before = git(path, "show", "main:events.json")
    git(path, "checkout", "-q", "main")
    (path / "events.json").write_bytes(b"[\n  " + before[1:-1] + b"\n]")
    git(path, "-c", "user.name=k", "-c", "user.email=k@example.org", "commit", "-qam", "set option theme to light")
    record(path, "AbCd00", parse_act(Kind.RAN_TESTS, json.dumps(message()).encode()))
    set_option(path, "AbCd00", "theme", "dark")
    assert git(path, "show", "main:events.json").startswith(b"[\n  " + before[1:-1])
    tip = GitRepo(path).main()
    assert tip is not None
    assert read_state(GitRepo(path), tip).rows.is_portable


@pytest.mark.parametrize("name", ODD)
def test_values_that_not_every_parser_takes(name: str) -> None:
    odd, wanted = ODD[name]
    data = b'{"a": [1, %b]}' % odd
    value: Any = parse_stored(data.decode("utf-8", "replace"))
    assert not is_portable_json(data)
    assert name == "no-utf-8" or not is_portable(value)
    for text in (pretty(value), pretty(value, ruby=True), compact(value)):
        assert strict(text.encode()) == {"a": [1, wanted]}
    assert strict(compact(parse_stored((b'{"a": %b}' % DEEP).decode())).encode())


@pytest.mark.parametrize(
    "text", ['{"a":"NaN"}', '"1e999"', '"\\u0001"', "[1e-999]", '"\\u00e9"', "9" * 300, "[[]]", '"]"']
)
def test_values_that_every_parser_takes(text: str) -> None:
    value: Any = parse_stored(text)
    assert is_portable_json(text.encode())
    assert json.loads(pretty(value)) == json.loads(compact(value)) == value
