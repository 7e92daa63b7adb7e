"""Making files and directories where there must be none (O_EXCL, mkdir), once, though the daemon may die over it.

A request whose daemon died before it answered is sent again to the next daemon, which may find what the dead one made:
EEXIST would then be the answer to the request's own success. So right before something is made it is noted that nothing
was there. Who finds such a note of the request that it handles, and something that is still empty, takes it for what
the dead daemon made. (It may be somebody else's who made it in the store, past this mount, in the microseconds between
the note and the making: none of the kernel's requests in one directory overtakes another.)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from katafs.errors import LateError
from katafs.git.beneath import close_quietly


@dataclass(frozen=True)
class Attempt:
    """An attempt to make something. For a worker thread."""

    #: called right before something is made where nothing is
    note: Callable[[], None] | None = None
    #: whether a daemon that died noted it for this very request
    is_again: bool = False

    def has_made(self, path: Path, *, is_directory: bool) -> bool:
        """Whether a dead daemon made what is at ``path``."""
        if not self.is_again:
            return False
        try:
            status = os.lstat(path)
            if is_directory:
                return stat.S_ISDIR(status.st_mode) and not os.listdir(path)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == 0

    def make(self, path: Path, *, is_directory: bool) -> None:
        """Make an empty file or directory. Raises `LateError` (EEXIST) where something is, OSError."""
        if self.has_made(path, is_directory=is_directory):
            return
        if self.note is not None and not os.path.lexists(path):
            self.note()
        try:
            if is_directory:
                os.mkdir(path, 0o755)
            else:
                close_quietly(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
        except FileExistsError as error:
            raise LateError(f"{path} is there already") from error


#: of which nobody takes notes
UNNOTED = Attempt()
