"""``katafs demo``: a store with a few katas that have a history, the same bytes every time.

One of them is old, and stored as plain files, to be looked at and migrated. There may be a class of six more.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from katafs.errors import StorageError, storage_errors
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.model.rows import moment_of, time_of
from katafs.kata.record.commit import record
from katafs.kata.record.create import create_kata, place_kata
from katafs.kata.record.message import parse_act
from katafs.text import compact

#: the group of the demo
CLASS_ID = "C1ass0"
# Its members: they are told the same story, each at a pace of its own, from an offset in seconds on, and leave out some
# of it. Each event has all files, so what remains is as true.
_CLASS_STORY = "PyFzBz"
_CLASS = {
    "C1assA": (0, 1.0, range(17)),
    "C1assB": (25, 1.2, (0, 1, 3, 5, 6, 8, 9, 10, 11, 12)),
    "C1assC": (70, 1.5, (0, 1, 2, 3, 4)),
    "C1assD": (40, 0.8, (0, 2, 3, 4, 5, 7, 8, 10, 12, 14, 15)),
    "C1assE": (10, 1.8, (2, 3, 4, 6)),
    "C1assF": (95, 1.1, (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 16)),
}


def make_demo(store: Path, groups: Path | None = None) -> Iterator[tuple[str, str]]:
    """Make the katas that are not there yet, one after the other; yields (id, what it is) of each. With a directory for
    ``groups`` there is a class, too.

    A kata appears with all its history, or not at all. Raises `KataError`: EEXIST when another kata has the id.
    """
    folder = resources.files("katafs").joinpath("demo_data")
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    stories = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    (told,) = (story for story in stories if story["id"] == _CLASS_STORY)
    if groups is not None:
        stories += [_of_member(told, index, kata_id) for index, kata_id in enumerate(_CLASS)]
    for story in stories:
        kata_id = story["id"]
        path = kata_path(store, kata_id)
        # what is left when a process is killed between the last two steps of `create_kata`
        with contextlib.suppress(OSError):
            path.rmdir()
        if not path.exists():
            if _is_plain(story):
                place_kata(store, kata_id, partial(_write_plain, story))
            else:
                create_kata(store, story["manifest"], kata_id, moment_of(story["created"]), partial(_tell, story))
        elif not _is_ours(path, story):
            raise StorageError(f"{path} is there already, and is not a demo kata; take another store", errno.EEXIST)
        manifest = story["manifest"]
        what = f"{manifest['display_name']}, {manifest['exercise']}, {len(story['events'])} events"
        yield kata_id, f"{what}, of version 1" if _is_plain(story) else what
    if groups is not None:
        _make_class(kata_path(groups, CLASS_ID), told["manifest"])
        yield CLASS_ID, f"a class of {len(_CLASS)} katas"


def _of_member(story: dict[str, Any], index: int, kata_id: str) -> dict[str, Any]:
    """The story as a member of the class has it."""
    offset, pace, kept = _CLASS[kata_id]
    began = moment_of(story["created"])

    def retold(time: list[int]) -> list[int]:
        return time_of(began + timedelta(seconds=offset) + pace * (moment_of(time) - began))

    events = [{**story["events"][at], "time": retold(story["events"][at]["time"])} for at in kept]
    manifest = {**story["manifest"], "group_id": CLASS_ID, "group_index": index}
    return {"id": kata_id, "created": retold(story["created"]), "manifest": manifest, "events": events}


def _make_class(path: Path, manifest: dict[str, Any]) -> None:
    """Write the group as cyber-dojo does (FORMAT, version 2), unless it is there. Raises `StorageError`."""
    with storage_errors(f"group {path}"):
        path.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("manifest.json", compact({**manifest, "version": 2, "id": CLASS_ID})),
            ("katas.txt", "".join(f"{kata_id} {index}\n" for index, kata_id in enumerate(_CLASS))),
        ):
            if not (path / name).exists():
                (path / name).write_text(text, encoding="utf-8")


def _tell(story: dict[str, Any], path: Path) -> None:
    """Record all events of a story in the new kata at ``path``: each at its index, after those that were skipped."""
    for index, event in enumerate(story["events"], start=1):
        if event is None:
            continue
        message = json.dumps({"index": index, **event["message"]}).encode()
        act = parse_act(Kind(event.get("control", Kind.RAN_TESTS.value)), message)
        record(path, story["id"], act, moment_of(event["time"]))


def _is_plain(story: dict[str, Any]) -> bool:
    return story.get("version") == 1


def _write_plain(story: dict[str, Any], path: Path) -> None:
    """Write a story as the services of 2020 did (FORMAT, version 1): compact JSON, the times of files those of events,
    an option as it was set."""
    kata_id, created = story["id"], story["created"]
    manifest = {**story["manifest"], "version": 1, "created": created, "id": kata_id}
    _write(path / "manifest.json", compact(manifest), created)
    first = {"index": 0, "time": created, "event": "created"}
    _write(path / "0.event.json", compact({"files": manifest["visible_files"], **first}), created)
    rows, last = [first], created
    for index, event in enumerate(story["events"], start=1):
        if event is None:
            continue
        last = event["time"]
        said = {key: value for key, value in event["message"].items() if key != "summary"}
        rows.append({**event["message"]["summary"], "index": index, "time": last})
        _write(path / f"{index}.event.json", compact({**said, **rows[-1]}), last)
    _write(path / "events.json", ",\n".join(map(compact, rows)), last)
    for name, (values, when) in story["options"].items():
        _write(path / name, "".join(f"\n{value}" for value in [values[0], *values]), when)


def _write(path: Path, text: str, when: list[int]) -> None:
    path.write_text(text, encoding="utf-8")
    seconds = moment_of(when).timestamp()
    os.utime(path, (seconds, seconds))


def _is_ours(path: Path, story: dict[str, Any]) -> bool:
    """Whether the kata that is there was made from this story; its events may have gone on."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return False
    # a plain one may have been migrated since
    is_stored = (path / ".git").is_dir() or _is_plain(story)
    return isinstance(manifest, dict) and manifest.get("created") == story["created"] and is_stored
