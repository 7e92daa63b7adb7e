"""The repositories that were written to last, for who writes next: a new one reads the indexes of all packs again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from katafs.caching import Shared
from katafs.git import GitRepo

# bytes of all, and of each with its trees and commits, a reader for each pack, and what was stored last
_MOST, _EACH = 3 << 19, 21 << 10

# by path and what tells one ``.git`` from another; writers are threads
_known: Shared[tuple[Path, int, int], GitRepo] = Shared(
    _MOST, lambda repo: _EACH + repo.objects.bytes_at_hand(), 1, "repositories"
)


@contextmanager
def repository(path: Path) -> Iterator[GitRepo]:
    """The repository at ``path``, for this thread alone, with what was read of it last time; for the next one if all
    goes well, and it is not a large one. Raises as `GitRepo` does."""
    try:
        status = os.stat(path / ".git")
    except OSError:
        yield GitRepo(path)
        return
    key = path, status.st_dev, status.st_ino
    repo = _known.pop(key) or GitRepo(path)
    yield repo
    if repo.is_small():
        _known.keep(key, repo)
