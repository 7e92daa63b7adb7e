"""Reading what takes longer than some milliseconds: in a thread, so that the event loop can go on.

What is damaged is an answer as well: whoever asked goes on without it.
"""

from __future__ import annotations

from pathlib import Path

from katafs.errors import DamagedError
from katafs.git import GitRepo, Oid
from katafs.kata.events import Rows, parse_rows
from katafs.kata.listing import Listing
from katafs.kata.recent import keep_rows
from katafs.kata.snapshot import Content, shown_json

#: bytes of rows, and paths below one tree, that are read in the event loop: 5 ms
LARGE_ROWS = 256 << 10
MANY_PATHS = 2_000


def read_large_rows(path: Path, oid: Oid, earlier: Rows | None) -> Rows | DamagedError:
    """The rows in a blob of the repository at ``path``, with their texts. Others have a turn now and then."""
    repo = GitRepo(path)
    try:
        text = repo.blob(oid)
        stored = parse_rows(text, gently=True)
    except DamagedError as error:
        return error
    keep_rows(repo, oid, text, stored)
    rows = Rows(stored, earlier)
    rows.summary_size(rows.last)
    return rows


def read_large_listing(path: Path, tree: Oid | None) -> Listing | DamagedError:
    """All paths below a tree of the repository at ``path``."""
    try:
        listing = Listing(GitRepo(path), tree, tolerant=True)
    except DamagedError as error:
        return error
    listing.position(b"")
    return listing


def read_large_json(path: Path, oid: Oid) -> Content:
    """What `shown_json` says of a blob of the repository at ``path``."""
    return shown_json(oid, GitRepo(path).blob(oid))
