"""``katafs demo``: a store with a few katas that have a history, the same bytes every time."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from katafs.errors import StorageError
from katafs.kata.commit import record
from katafs.kata.create import create_kata
from katafs.kata.events import moment_of
from katafs.kata.ids import kata_path
from katafs.kata.kinds import Kind
from katafs.kata.message import parse_act


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
            create_kata(store, story["manifest"], kata_id, moment_of(story["created"]), partial(_tell, story))
        elif not _is_ours(path, story):
            raise StorageError(f"{path} is there already, and is not a demo kata; take another store", errno.EEXIST)
        manifest = story["manifest"]
        yield kata_id, f"{manifest['display_name']}, {manifest['exercise']}, {len(story['events'])} events"


def _tell(story: dict[str, Any], path: Path) -> None:
    """Record all events of a story in the new kata at ``path``: each at its index, after those that were skipped."""
    for index, event in enumerate(story["events"], start=1):
        if event is None:
            continue
        message = json.dumps({"index": index, **event["message"]}).encode()
        act = parse_act(Kind(event.get("control", Kind.RAN_TESTS.value)), message)
        record(path, story["id"], act, moment_of(event["time"]))


def _is_ours(path: Path, story: dict[str, Any]) -> bool:
    """Whether the kata that is there was made from this story; its events may have gone on."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("created") == story["created"] and (path / ".git").is_dir()
