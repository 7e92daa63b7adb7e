"""The rows of katas that were read last: those of the next tip are the same, and some more."""

from __future__ import annotations

import threading
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

import cachetools

from katafs.caching import Kept
from katafs.errors import DamagedError
from katafs.git import GitRepo, Oid
from katafs.git.budget import JSON_BYTE
from katafs.kata.model.rows import StoredRows, parse_rows

# bytes as stored, of all together and of one kata's; in memory rows take so many times as many
_MOST, _LARGEST = 1 << 20, 1 << 19
_IN_MEMORY = 3.4
_END = b"\n]"


class _Known(NamedTuple):
    """The rows in a blob; those of later blobs begin with ``size`` bytes that have this digest."""

    oid: Oid
    size: int
    digest: bytes
    rows: StoredRows


# by repository; writers are threads
_known: cachetools.LRUCache[Path, _Known] = cachetools.LRUCache(_MOST, getsizeof=lambda known: known.size)
_lock = threading.Lock()


def rows_in(repo: GitRepo, oid: Oid, text: bytes | None = None) -> StoredRows:
    """The rows in a blob, whose ``text`` may be at hand; not to be changed. Raises `DamagedError`."""
    rows = grown_rows(repo, oid, text)
    if rows is None:
        repo.budget.spend(JSON_BYTE * (repo.blob_size(oid) if text is None else len(text)))
        text = repo.blob(oid) if text is None else text
        rows = parse_rows(text)
        keep_rows(repo, oid, text, rows)
    return rows


def grown_rows(repo: GitRepo, oid: Oid, text: bytes | None = None) -> StoredRows | None:
    """The same where they are known, or some follow those that are: that takes a millisecond, however many there are.
    None elsewhere."""
    with _lock:
        known = _known.get(repo.path)
    if known is None:
        return None
    if known.oid == oid:
        return known.rows
    if text is None:
        if repo.blob_size(oid) > _LARGEST:
            return None
        text = repo.blob(oid)
    rows = _with_added(known, text)
    if rows is not None:
        keep_rows(repo, oid, text, rows)
    return rows


def _with_added(known: _Known, text: bytes) -> StoredRows | None:
    """The rows where some follow those that are known; None where something else is there.

    To compare a digest takes a tenth of parsing.
    """
    if (
        text[known.size : known.size + 1] != b","
        or sha1(text[: known.size], usedforsecurity=False).digest() != known.digest
    ):
        return None
    try:
        return known.rows.grown(parse_rows(b"[" + text[known.size + 1 :]))
    except DamagedError:
        return None


def keep_rows(repo: GitRepo, oid: Oid, text: bytes, rows: StoredRows) -> None:
    """Keep what `parse_rows` says of the text of a blob."""
    stripped = text.rstrip()
    if len(text) > _LARGEST or not (stripped.startswith(b"[") and stripped.endswith(_END)):
        return
    begin = stripped[: -len(_END)]
    known = _Known(oid, len(begin), _digest(begin), rows)
    with _lock:
        _known[repo.path] = known


def _digest(text: bytes) -> bytes:
    return sha1(text, usedforsecurity=False).digest()


def kept_rows() -> Kept:
    """What is in memory."""
    with _lock:
        return Kept.of(_known, _IN_MEMORY)


def clear_rows() -> None:
    """Give up the memory."""
    with _lock:
        _known.clear()
