"""The work tree of a new repository, for who reads it there."""

from __future__ import annotations

import errno
from pathlib import Path

import pygit2
from pygit2.enums import CheckoutStrategy, RepositoryOpenFlag

from katafs.errors import StorageError


def check_out(path: Path) -> None:
    """Put the files of ``main`` in the directory of its repository, with an index. Raises `StorageError`."""
    try:
        repo = pygit2.Repository(str(path / ".git"), RepositoryOpenFlag.NO_SEARCH)
        try:
            repo.checkout_head(strategy=CheckoutStrategy.FORCE)  # type: ignore[no-untyped-call]
        finally:
            repo.free()
    except (OSError, pygit2.GitError) as error:
        raise StorageError(f"cannot write a work tree: {error}", errno.EIO) from error
