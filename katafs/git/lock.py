"""One writer of a repository at a time, among those who ask: katafs' daemons and ``katafs fsck``.

The lock only keeps them from working in vain: two who move ``main`` are told apart by compare-and-swap, which saver
and git take part in too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from katafs.errors import StorageError

# what flock(2) says on a file system that has no locks
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_PAUSE, _LONGEST_PAUSE = 0.0005, 0.01  # seconds


@contextmanager
def repository_lock(git_dir: Path, seconds: float) -> Iterator[None]:
    """Hold the lock of the repository whose ``.git`` is ``git_dir``: flock(2) of the directory itself, so that nothing
    is left behind by one who dies.

    Raises `StorageError` (EBUSY) when somebody else has held it for ``seconds``, OSError when the directory cannot be
    opened. Goes on without a lock where the file system has none.
    """
    directory = os.open(git_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _take(directory, git_dir, seconds)
        yield
    finally:
        os.close(directory)


def _take(directory: int, git_dir: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    pause = _PAUSE
    while True:
        try:
            # never waiting in the system call: the owner of a kata could hold his lock, and a thread here, for ever
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise StorageError(f"{git_dir} is locked by another writer", errno.EBUSY) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            raise
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
