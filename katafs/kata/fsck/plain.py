"""Checks of katas that are plain files, versions 0 and 1 (FORMAT §1.1, §1.2). They are only read: nothing is mended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from katafs.git.files import open_plain
from katafs.kata.fsck.files import BEING_MADE, STALE_WORK
from katafs.kata.fsck.findings import Problem, printable, ranges
from katafs.kata.fsck.keeping import newest_mtime
from katafs.kata.legacy.plain_files import event_indexes, plain_version

_LARGEST = 64 << 20
_BACKUP = "take it from a backup"


def check(path: Path, *, is_quick: bool) -> Iterator[Problem]:
    """All that can be wrong with a directory that has no ``.git``."""
    if next(path.iterdir(), None) is None:
        if time.time() - path.stat().st_mtime > STALE_WORK:
            message = "the directory is empty: whoever was making the kata died"
            yield Problem("kata-empty", message, path.rmdir)
        return
    if _is_being_made(path):
        return
    manifest = _read(path / "manifest.json")
    if not isinstance(manifest, dict):
        message = f"its manifest.json {manifest or 'is not a JSON object'}"
        yield Problem("manifest-lost", message, advice=_BACKUP)
        return
    version = plain_version(manifest or {"version": 0})
    if version is None:
        message = f"its manifest says version {printable(repr(manifest['version']), 40)}, but there is no .git"
        yield Problem("git-lost", message, advice=_BACKUP)
        return
    rows = _rows(path / "events.json")
    if isinstance(rows, str):
        yield Problem("events-unreadable", f"its events.json {rows}", advice=_BACKUP)
        return
    indexes = _indexes_0(path, len(rows)) if version == 0 else [row.get("index", at) for at, row in enumerate(rows)]
    lacking, wrong = [], []
    for index in indexes:
        file = path / f"{index}/event.json" if version == 0 else path / f"{index}.event.json"
        if type(index) is not int or not file.is_file():
            lacking.append(index)
        elif not is_quick and not isinstance(_read(file), dict):
            wrong.append(index)
    for code, which, what in (("event-missing", lacking, "is not there"), ("event-damaged", wrong, "is not JSON")):
        known = [index for index in which if type(index) is int]
        if which:
            yield Problem(code, f"the file of event {ranges(known) or '?'} {what}", advice=_BACKUP)


def _is_being_made(path: Path) -> bool:
    """Whether somebody made one of the first files a moment ago, and has not come to the others yet, or to its content
    (FORMAT §3.1)."""
    first = next((name for name in ("0.event.json", "0/event.json") if (path / name).exists()), "0.event.json")
    files = [path / name for name in ("manifest.json", "events.json", first)]
    is_whole = all(file.exists() and file.stat().st_size for file in files)
    return not is_whole and 0 <= time.time() - newest_mtime(path) < BEING_MADE


def _indexes_0(path: Path, rows: int) -> list[int]:
    """The events that rows of version 0 are of, which do not say so: those that are there. If there are fewer, it was
    not a skipped index."""
    there = sorted(event_indexes(path, 0))
    missing = sorted(set(range(max(rows, 1 + max(there, default=0)))) - set(there))
    return sorted([*there, *missing[: max(0, rows - len(there))]])


def _read(path: Path) -> Any:
    """The JSON value in a file; a text that says why there is none."""
    text = _text(path)
    if text is None:
        return "cannot be read"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return "is not JSON"


def _rows(path: Path) -> list[dict[str, Any]] | str:
    """Objects, one a line, or with commas between them, and no brackets; or why there are none."""
    text = _text(path)
    if text is None:
        return "cannot be read"
    decoder = json.JSONDecoder()
    rows, at = [], 0
    try:
        while at < len(text):
            if text[at] in " \t\r\n,":
                at += 1
                continue
            row, at = decoder.raw_decode(text, at)
            rows.append(row)
    except (ValueError, RecursionError):
        return "is not JSON"
    return rows if rows and all(isinstance(row, dict) for row in rows) else "has no rows"


def _text(path: Path) -> str | None:
    try:
        with open(path, "rb", opener=open_plain) as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return None
