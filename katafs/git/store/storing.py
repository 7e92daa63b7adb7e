"""What goes wrong when something is written, as katafs' own errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from katafs.errors import DamagedError, StorageError
from katafs.git.beneath import File, close_quietly, is_direct

# of files that are synced at once, those but one; no thread is started before there are such
_syncing = ThreadPoolExecutor(4, "katafs-sync")


@contextmanager
def storing(what: str, directory: Path) -> Iterator[None]:
    """Turn what the operating system refuses below ``directory`` into a `StorageError`, and what makes no sense there
    into a `DamagedError`: a full disk is not a damaged repository."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {what}: {error.strerror}", error.errno or errno.EIO) from error
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{directory}: cannot write {what}: {error}") from error


def make_parents(directory: Path, top: Path) -> list[Path]:
    """Make a directory below ``top``, and those between; returns the directories in which something was made. Raises
    OSError: ENOENT when ``top`` is not there, as a store that has vanished is not built up again, ELOOP where a link
    leads elsewhere."""
    missing: list[Path] = []
    while directory != top and not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    if not is_direct(directory, top):
        raise OSError(errno.ELOOP, "a symbolic link leads elsewhere", os.fspath(directory))
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return [each.parent for each in missing]


def write_new(path: str | os.PathLike[str], data: bytes, sync: Callable[[int], None] = os.fsync) -> None:
    """Make a file with ``data`` in it where there is none; ``sync`` makes a descriptor's file last. Raises OSError."""
    with File(os.fspath(path), "xb") as file:
        file.write(data)
        sync(file.fileno())


def sync_together(fds: Collection[int]) -> None:
    """Sync files at once, which takes hardly longer than one of them: a file system writes its journal for all. Raises
    OSError when one could not be."""
    last, *others = fds
    waiting = [_syncing.submit(os.fsync, fd) for fd in others]
    try:
        os.fsync(last)
    finally:
        wait(waiting)
    for each in waiting:
        each.result()


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
        close_quietly(fd)
