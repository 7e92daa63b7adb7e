"""Checks of katas that are plain files, versions 0 and 1 (FORMAT §1.1, §1.2). They are only read: nothing is mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from katafs.errors import DamagedError, NotFoundError
from katafs.git.store.storing import now
from katafs.kata.fsck.exam import Problem
from katafs.kata.fsck.file_checks import BEING_MADE, STALE_WORK
from katafs.kata.fsck.scan import newest_mtime
from katafs.kata.fsck.words import printable, ranges, reason
from katafs.kata.legacy.plain_files import event_file, event_indexes, read_file
from katafs.kata.legacy.plain_rows import parse_object, parse_plain_rows
from katafs.kata.model.layouts import plain_version

_BACKUP = "take it from a backup"


def check(path: Path, *, is_quick: bool) -> Iterator[Problem]:
    """All that can be wrong with a directory that has no ``.git``."""
    if next(path.iterdir(), None) is None:
        if now(path) - path.stat().st_mtime > STALE_WORK:
            message = "the directory is empty: whoever was making the kata died"
            yield Problem("kata-empty", message, path.rmdir)
        return
    if _is_being_made(path):
        return
    try:
        manifest = parse_object(read_file(path, b"manifest.json"), "its manifest.json")
    except (DamagedError, NotFoundError) as error:
        yield Problem("manifest-lost", reason(error), advice=_BACKUP)
        return
    version = plain_version(manifest or {"version": 0})
    if version is None:
        message = f"its manifest says version {printable(repr(manifest['version']), 40)}, but there is no .git"
        yield Problem("git-lost", message, advice=_BACKUP)
        return
    try:
        rows, wrong = parse_plain_rows(read_file(path, b"events.json"))
    except (DamagedError, NotFoundError) as error:
        rows, wrong = [], reason(error)
    if wrong or not rows:
        yield Problem("events-unreadable", wrong or "its events.json has no rows", advice=_BACKUP)
        return
    indexes = _indexes_0(path, len(rows)) if version == 0 else [row.get("index", at) for at, row in enumerate(rows)]
    lacking, damaged = [], []
    for index in indexes:
        file = event_file(version, index) if type(index) is int else ""
        if not file or not (path / file).is_file():
            lacking.append(index)
        elif not is_quick and not _is_object(path, file):
            damaged.append(index)
    for code, which, what in (("event-missing", lacking, "is not there"), ("event-damaged", damaged, "is not JSON")):
        known = [index for index in which if type(index) is int]
        if which:
            yield Problem(code, f"the file of event {ranges(known) or '?'} {what}", advice=_BACKUP)


def _is_being_made(path: Path) -> bool:
    """Whether somebody made one of the first files a moment ago, and has not come to the others yet, or to its content
    (FORMAT §3.1)."""
    first = next((name for name in ("0.event.json", "0/event.json") if (path / name).exists()), "0.event.json")
    files = [path / name for name in ("manifest.json", "events.json", first)]
    is_whole = all(file.exists() and file.stat().st_size for file in files)
    return not is_whole and 0 <= now(path) - newest_mtime(path) < BEING_MADE


def _indexes_0(path: Path, rows: int) -> list[int]:
    """The events that rows of version 0 are of, which do not say so: those that are there. If there are fewer, it was
    not a skipped index."""
    there = sorted(event_indexes(path, 0))
    missing = sorted(set(range(max(rows, 1 + max(there, default=0)))) - set(there))
    return sorted([*there, *missing[: max(0, rows - len(there))]])


def _is_object(path: Path, file: str) -> bool:
    try:
        parse_object(read_file(path, file.encode()), file)
    except (DamagedError, NotFoundError):
        return False
    return True
