"""What time it is by the clock that files have their times from: on a network file system that of a server."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import cachetools

from katafs.git.beneath import close_quietly, is_shared

#: how the names of files begin that are ours for a moment
TEMPORARY = ".katafs-"
# by device: how many seconds it is ahead of ours, and how long that holds
_ahead: cachetools.TTLCache[int, float] = cachetools.TTLCache(64, 60.0)


def now(directory: Path) -> float:
    """Seconds since 1970, to be compared with the times of files at ``directory``, in which one is made for it if it is
    on a network file system; where that cannot be, by our own clock. Raises OSError where there is no such directory.
    """
    device = os.stat(directory).st_dev
    ahead = _ahead.get(device)
    if ahead is None:
        ahead = _ahead[device] = _look(directory) if is_shared(directory) else 0.0
    return time.time() + ahead


def _look(directory: Path) -> float:
    path = directory / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError:
        return 0.0
    try:
        return os.fstat(fd).st_mtime - time.time()
    finally:
        close_quietly(fd)
        path.unlink(missing_ok=True)
