"""``katafs demo``: a store with a few katas that have a history, the same bytes every time.

One of them is old, and stored as plain files, to be looked at and migrated.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from katafs.errors import StorageError
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.model.rows import moment_of
from katafs.kata.record.commit import record
from katafs.kata.record.create import create_kata, place_kata
from katafs.kata.record.message import parse_act


def make_demo(store: Path) -> Iterator[tuple[str, str]]:
    """Make the katas that are not there yet, one after the other; yields (id, what it is) of each.

    A kata appears with all its history, or not at all. Raises `KataError`: EEXIST when another kata has the id.
    """
    folder = resources.files("katafs").joinpath("demo_data")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        story = json.loads(file.read_text(encoding="utf-8"))
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
    _write(path / "manifest.json", _compact(manifest), created)
    first = {"index": 0, "time": created, "event": "created"}
    _write(path / "0.event.json", _compact({"files": manifest["visible_files"], **first}), created)
    rows, last = [first], created
    for index, event in enumerate(story["events"], start=1):
        if event is None:
            continue
        last = event["time"]
        said = {key: value for key, value in event["message"].items() if key != "summary"}
        rows.append({**event["message"]["summary"], "index": index, "time": last})
        _write(path / f"{index}.event.json", _compact({**said, **rows[-1]}), last)
    _write(path / "events.json", ",\n".join(map(_compact, rows)), last)
    for name, (values, when) in story["options"].items():
        _write(path / name, "".join(f"\n{value}" for value in [values[0], *values]), when)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
