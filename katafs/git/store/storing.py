"""What goes wrong when something is written, as katafs' own errors."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pygit2

from katafs.errors import DamagedError, StorageError

#: refusals of the operating system
STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
# libgit2 gives the reason in words only
_BY_WORDS = {os.strerror(number): number for number in STORAGE_ERRNOS}


@contextmanager
def storing(what: str, directory: Path, size: int = 4096) -> Iterator[None]:
    """Turn pygit2's exceptions into ours: a full disk is not a damaged repository.

    ``size`` is how much was to be written below ``directory``.
    """
    try:
        yield
    except (OSError, pygit2.GitError, KeyError, ValueError) as error:
        # pygit2 raises bare OSError(message) for some libgit2 errors
        number = (isinstance(error, OSError) and error.errno) or errno_in(str(error)) or _errno_of(directory, size)
        if number is not None:
            raise StorageError(f"cannot write {what}: {os.strerror(number)}", number) from error
        raise DamagedError(f"cannot write {what}: {error}") from error


def errno_in(message: str) -> int | None:
    """The errno whose words are in a message of libgit2's."""
    return next((number for text, number in _BY_WORDS.items() if text in message), None)


def _errno_of(directory: Path, size: int) -> int | None:
    """What the operating system says to a file of that size: libgit2 may tell of the error before (seen: an object
    that was not found, when the disk was full)."""
    try:
        with tempfile.TemporaryFile(dir=directory, prefix="tmp_obj_") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in STORAGE_ERRNOS else None
    return None


def make_parents(directory: Path, top: Path) -> list[Path]:
    """Make a directory below ``top``, and those between; returns the directories in which something was made. Raises
    OSError (ENOENT) when ``top`` is not there: a store that has vanished is not built up again."""
    missing: list[Path] = []
    while directory != top and not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return [each.parent for each in missing]


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Sync a directory: the names in it. Raises OSError."""
    _sync(path, os.O_DIRECTORY)


def sync_path(path: str | os.PathLike[str]) -> None:
    """Sync a file or a directory that is no link. Raises OSError."""
    _sync(path, os.O_NOFOLLOW)


def _sync(path: str | os.PathLike[str], flag: int) -> None:
    # a pipe that somebody put there would be waited for
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flag)
    try:
        os.fsync(fd)
    except OSError as error:
        # fsync(2): of what is neither file nor directory there is nothing on the disk
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)
