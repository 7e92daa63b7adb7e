"""The work tree of a new repository, for who reads it there."""

from __future__ import annotations

from pathlib import Path

import pygit2
from pygit2.enums import CheckoutStrategy, RepositoryOpenFlag

from katafs.git.store.storing import storing


def check_out(path: Path) -> None:
    """Put the files of ``main`` in the directory of its repository, with an index. Raises `StorageError`."""
    with storing("a work tree", path):
        repo = pygit2.Repository(str(path / ".git"), RepositoryOpenFlag.NO_SEARCH)
        try:
            repo.checkout_head(strategy=CheckoutStrategy.FORCE)  # type: ignore[no-untyped-call]
        finally:
            repo.free()
