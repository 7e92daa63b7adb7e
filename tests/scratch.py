"""Where tests make what is in no directory of pytest's: one directory in a place, for all that a process makes there.

It is removed at the end of the session, whatever was killed meanwhile; or by the next session, if this one is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import tempfile
from pathlib import Path

from katafs.directories import remove_quietly

_PREFIX = "katafs-tests-"
_DISK, _MEMORY = Path(tempfile.gettempdir()), Path("/dev/shm")
#: held until the end: whoever can lock a directory knows that nobody needs it
_LOCKS: list[int] = []


@functools.cache
def scratch(parent: Path = _DISK) -> Path:
    """This process's directory in a place; every user can make something in it."""
    atexit.register(tidy)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        # who tidies may be faster than the lock
        with contextlib.suppress(FileNotFoundError):
            directory.chmod(0o1777)
            _LOCKS.append(os.open(directory, os.O_RDONLY))
            fcntl.flock(_LOCKS[-1], fcntl.LOCK_EX)
            if directory.exists():
                return directory


def fast_directory() -> Path:
    """Where syncing costs nothing, if there is such a place with some room."""
    if not os.access(_MEMORY, os.W_OK):
        return scratch()
    status = os.statvfs(_MEMORY)
    return scratch(_MEMORY) if status.f_bavail * status.f_frsize > 256 << 20 else scratch()


def tidy() -> None:
    """Remove what this process has there, and what others have left that were killed."""
    while _LOCKS:
        os.close(_LOCKS.pop())
    for parent in (_DISK, _MEMORY):
        for left in parent.glob(f"{_PREFIX}*"):
            # somebody uses it, or it is somebody else's
            with contextlib.suppress(OSError):
                lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_quietly(left)
                finally:
                    os.close(lock)
