"""Reading what takes longer than some milliseconds: in a thread, so that the event loop can go on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from katafs.errors import DamagedError
from katafs.git import GitRepo, Oid
from katafs.kata.events import Rows, parse_rows
from katafs.kata.listing import Listing
from katafs.kata.recent import keep_rows

#: bytes of rows, and paths below one tree, that are read in the event loop: 5 ms
LARGE_ROWS = 256 << 10
MANY_PATHS = 2_000


def read_large_rows(path: Path, oid: Oid, earlier: Rows | None) -> Rows:
    """The rows in a blob of the repository at ``path``, with their texts. Others have a turn now and then."""
    repo = GitRepo(path)
    text = repo.blob(oid)
    stored = parse_rows(text, gently=True)
    keep_rows(repo, oid, text, stored)
    rows = Rows(stored, earlier)
    # what is wrong with a text is for whoever asks for it
    with suppress(DamagedError):
        rows.summary_size(rows.last)
    return rows


def read_large_listing(path: Path, tree: Oid | None) -> Listing:
    """All paths below a tree of the repository at ``path``."""
    listing = Listing(GitRepo(path), tree, tolerant=True)
    listing.position(b"")
    return listing
