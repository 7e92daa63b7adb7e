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
from katafs.git.beneath import GONE, close_quietly, is_at

#: The file that is locked; of a directory flock(2) excludes nobody on another host. It is empty; in ``.git`` it stays.
MUTEX = ".katafs-mutex"
# what flock(2) says on a file system that has no locks, or on NFS of a file that may only be read
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
# the last three: something else has that name
_NOT_MADE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENXIO)
_PAUSE, _LONGEST_PAUSE = 0.0005, 0.01  # seconds


@contextmanager
def repository_lock(directory: Path, seconds: float = 15.0) -> Iterator[bool]:
    """Hold the lock of the repository whose ``.git`` is ``directory``, or of another directory: flock(2) of a file in
    it, so that nobody is locked out by one who dies. Gives whether others are locked out: not where the file system has
    no locks, or the file cannot be made.

    Raises `StorageError` (EBUSY) when somebody else has held it for ``seconds``, OSError when there is no such
    directory.
    """
    end = time.monotonic() + seconds
    while (fd := _open(directory, end)) >= 0:
        try:
            is_alone = _take(fd, directory, end)
            if is_alone and not is_at(directory / MUTEX, fd):
                # whoever had it has removed it
                continue
            try:
                yield is_alone
            finally:
                if is_alone and directory.name != ".git":
                    (directory / MUTEX).unlink(missing_ok=True)
            return
        finally:
            close_quietly(fd)
    yield False


def _open(directory: Path, end: float) -> int:
    """A descriptor of the file; -1 where it cannot be made, and nobody can write."""
    # To be written to: on NFS only such a file is locked. CephFS gives up a dead host after a minute where another one
    # wants to write what it writes, and else, with its lock, after five.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            return os.open(directory / MUTEX, flags, 0o644)
        except OSError as error:
            os.lstat(directory)
            if error.errno == errno.EACCES and flags & os.O_RDWR:
                flags &= ~os.O_RDWR
                continue
            if error.errno in _NOT_MADE:
                return -1
            # another host may have removed it this moment
            if error.errno not in GONE or time.monotonic() > end:
                raise
        time.sleep(_PAUSE)


def _take(fd: int, directory: Path, end: float) -> bool:
    pause = _PAUSE
    while True:
        try:
            # never waiting in the system call: the owner of a kata could hold his lock, and a thread here, for ever
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise StorageError(f"{directory} is locked by another writer", errno.EBUSY) from error
        except OSError as error:
            if error.errno in GONE:
                # removed by another host since it was opened, which `is_at` says
                return True
            if error.errno in _NO_LOCKS:
                return False
            raise
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
