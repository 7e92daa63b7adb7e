"""Writing files: what goes wrong, as our own errors; syncing them; what time it is by their clock; one writer of
a repository at a time, among those who ask: katafs' daemons and ``katafs fsck``.

That lock only keeps them from working in vain: two who move ``main`` are told apart by compare-and-swap, which saver
and git take part in too.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import secrets
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

import cachetools

from katafs.errors import DamagedError, StorageError
from katafs.git.beneath import GONE, File, close_quietly, is_at, is_direct, is_shared

#: how the names of files begin that are ours for a moment
TEMPORARY = ".katafs-"


@functools.cache
def _syncing(_process: int) -> ThreadPoolExecutor:
    """For files that are synced at once, those but one; a process that was forked has none of another's threads."""
    return ThreadPoolExecutor(4, "katafs-sync")


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


def write_new(path: str | os.PathLike[str], data: bytes, mode: int | None = None, *, is_durable: bool = True) -> None:
    """Make a file with ``data`` in it where there is none, synced if it is to last. Raises OSError."""
    with File(os.fspath(path), "xb") as file:
        file.write(data)
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        if is_durable:
            os.fsync(file.fileno())


def sync_together(fds: Collection[int]) -> None:
    """Sync files at once, which takes hardly longer than one of them: a file system writes its journal for all. Raises
    OSError when one could not be."""
    left = list(fds)
    waiting: list[Future[None]] = []
    try:
        # where no thread can be started, one after the other
        with suppress(RuntimeError):
            while len(left) > 1:
                waiting.append(_syncing(os.getpid()).submit(os.fsync, left[-1]))
                left.pop()
        for fd in left:
            os.fsync(fd)
    finally:
        wait(waiting)
    for each in waiting:
        each.result()


def replace_file(path: Path, data: bytes, start: str = ".", mode: int | None = None) -> None:
    """Write a file, synced, before it gets its name; what is left of one that was not written to its end begins with
    ``start``. Raises OSError."""
    temporary = path.with_name(f"{start}{path.name}-{secrets.token_hex(4)}")
    try:
        write_new(temporary, data, mode)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Sync a directory: the names in it. Raises OSError."""
    sync_path(path, flag=os.O_DIRECTORY)


def sync_path(*paths: str | os.PathLike[str], flag: int = os.O_NOFOLLOW) -> None:
    """Sync files or directories that are no links. Raises OSError."""
    for path in paths:
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


class NewFile(File):
    """A file of ours that is to become another, complete before it gets that name. It stays open, as the next one could
    have the same inode number otherwise. Raises OSError."""

    def __init__(self, directory: Path, data: bytes = b"", *, is_synced: bool = True) -> None:
        self.path = os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}")
        super().__init__(self.path, "xb", opener=functools.partial(os.open, mode=0o644))
        self.has_path = True
        try:
            self.put(data, is_synced=is_synced)
        except BaseException:
            self.drop()
            raise

    def put(self, data: bytes, *, is_synced: bool = True) -> None:
        """Put this into it, which was empty."""
        if data:
            self.write(data)
            if is_synced:
                os.fsync(self.fileno())

    def drop(self) -> None:
        """Close it, and remove its first name, if it still has it."""
        try:
            if self.has_path:
                with suppress(FileNotFoundError):
                    os.unlink(self.path)
        finally:
            self.close()


# by device: how many seconds the clock of its server is ahead of ours, and how long that holds
_ahead: cachetools.TTLCache[int, float] = cachetools.TTLCache(64, 60.0)


def now(directory: Path) -> float:
    """Seconds since 1970, by the clock that the files at ``directory`` have their times from: on a network file system
    that of a server, for which a file is made there; where that cannot be, our own. Raises OSError where there is no
    such directory."""
    device = os.stat(directory).st_dev
    ahead = _ahead.get(device)
    if ahead is None:
        ahead = _ahead[device] = _look(directory) if is_shared(directory) else 0.0
    return time.time() + ahead


def _look(directory: Path) -> float:
    try:
        file = NewFile(directory)
    except OSError:
        return 0.0
    try:
        return os.fstat(file.fileno()).st_mtime - time.time()
    finally:
        file.drop()


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
