"""``katafs demo``: a store with a few katas that have a history, the same bytes every time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from katafs.errors import LateError
from katafs.kata.commit import append
from katafs.kata.create import create_kata
from katafs.kata.events import moment_of
from katafs.kata.ids import kata_path
from katafs.kata.message import parse_ran_tests


def make_demo(store: Path) -> Iterator[tuple[str, str]]:
    """Make the katas that are not there yet, one after the other; yields (id, what it is) of each.

    Raises `KataError`.
    """
    folder = resources.files("katafs").joinpath("demo_data")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        story = json.loads(file.read_text(encoding="utf-8"))
        kata_id = story["id"]
        _tell(store, kata_id, story)
        manifest = story["manifest"]
        yield kata_id, f"{manifest['display_name']}, {manifest['exercise']}, {len(story['events'])} test runs"


def _tell(store: Path, kata_id: str, story: dict[str, Any]) -> None:
    """Make what is missing of a kata: all of it, or the rest of one that was interrupted."""
    path = kata_path(store, kata_id)
    if not (path / ".git").exists():
        create_kata(store, story["manifest"], kata_id, moment_of(story["created"]))
    for index, event in enumerate(story["events"], start=1):
        message = parse_ran_tests(json.dumps({**event["message"], "index": index}).encode())
        with contextlib.suppress(LateError):
            append(path, kata_id, message, moment_of(event["time"]))
