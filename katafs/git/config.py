"""temporary"""

from __future__ import annotations

import os
import re
import stat

import pygit2
from pygit2.enums import RepositoryOpenFlag

from katafs.errors import DamagedError
from katafs.git.files import open_plain
from katafs.git.repo import GitRepo
from katafs.git.store.storing import storing

_CONFIG_LIMIT = 1 << 16  # bytes
_INCLUDE = re.compile(rb"\[\s*include", re.IGNORECASE)


def check_config(repo: GitRepo) -> None:
    """Whether git could write to a repository, as its configuration is; katafs itself reads none.

    Raises `DamagedError`, also for a configuration that sends libgit2 to other files: to one that never ends, for
    instance.
    """
    path = repo.git_dir / "config"
    try:
        with open(path, "rb", opener=open_plain) as file:
            # libgit2 would wait for a pipe
            is_plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            text = file.read(_CONFIG_LIMIT + 1) if is_plain else b""
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
    if not is_plain or len(text) > _CONFIG_LIMIT or _INCLUDE.search(text):
        raise DamagedError(f"{path} is not a configuration that is obeyed")
    with storing("to the repository", repo.git_dir):
        # NO_SEARCH, so that a damaged kata is never taken for a repository around the store
        pygit2.Repository(str(repo.git_dir), RepositoryOpenFlag.NO_SEARCH).free()
