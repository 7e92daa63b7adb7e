"""git's locks of references: ``<reference>.lock``, made with O_EXCL, renamed to the reference or removed.

Whoever dies leaves one behind, and git and libgit2 wait for it for ever; so those that are too old are removed here.

A lock of ours appears with what it is to hold (where the file system has O_TMPFILE), so that one that a writer of ours
left says so. One that is empty is git's: ``git pack-refs`` has it so for up to a second, while it waits for the lock of
``packed-refs``, and then removes the reference's own file, whatever is in there by then.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from katafs.errors import RaceLostError, StorageError
from katafs.git.objects import Oid
from katafs.git.repo import MAIN, GitRepo, open_plain

log = logging.getLogger(__name__)

# How old, in seconds, the lock of a reference must be for its maker to be dead: it is held for some milliseconds.
# git and libgit2 never remove another's lock. Of a tag nothing can be lost: two who make it make the same.
STALE_MAIN, STALE_TAG = 10.0, 1.0
# nobody who lives leaves it empty for so long (git's core.packedRefsTimeout is a second)
_EMPTY_SECONDS = 3.0
# What the time of the file says may be wrong, when a clock was set: so long we have seen it ourselves, unchanged.
_WATCHED = 1.0
_MOST_WATCHED = 1000
# bytes; an id and a line end are fewer
_LOCK_LIMIT = 64
LOCK_TRIES, LOCK_PAUSE = 300, 0.005


class RefLocks:
    """The locks of one repository's references."""

    def __init__(self, repo: GitRepo) -> None:
        self._repo = repo
        self._git_dir = repo.git_dir

    @contextmanager
    def _locked(self, name: str, stale: float, data: bytes | None = None) -> Iterator[HeldLock]:
        """Hold git's lock of a file in ``.git``, with ``data`` in it if that is known."""
        lock = self._lock(name, stale, data)
        try:
            yield lock
        finally:
            lock.release()

    def _lock(self, name: str, stale: float, data: bytes | None = None) -> HeldLock:
        """Take git's lock of a file in ``.git``.

        Raises `StorageError` (EBUSY) when somebody else holds it too long.
        """
        for _ in range(LOCK_TRIES):
            self.unlock(name, stale)
            try:
                return self._take(name, data)
            except FileExistsError:
                time.sleep(LOCK_PAUSE)
        raise StorageError(f"{self._git_dir}/{name}.lock is held by another writer", errno.EBUSY)

    def _take(self, name: str, data: bytes | None = None) -> HeldLock:
        """Take such a lock at once, with ``data`` in it if that is known. Raises FileExistsError."""
        return HeldLock(os.path.join(self._git_dir, f"{name}.lock"), data)

    def is_main_locked(self) -> bool:
        """Whether somebody has the lock of ``main`` at this moment."""
        return os.path.lexists(self._git_dir / f"{MAIN}.lock")

    def unlock_main(self) -> None:
        """Remove a lock of ``main`` that somebody left behind who died."""
        self.unlock(MAIN, STALE_MAIN)

    def unlock_dead(self, name: str, commit: Oid) -> None:
        """Remove the lock of a reference that was left by a writer of whom it is known that he died while he set it to
        ``commit``: the lock says so itself, or he had no time to write into it."""
        lock = self._git_dir / f"{name}.lock"
        end = time.monotonic() + _EMPTY_SECONDS
        while True:
            try:
                with open(lock, "rb", opener=open_plain) as file:
                    text = file.read(_LOCK_LIMIT)
                    if text.strip() == commit.hex().encode() or (not text and time.monotonic() > end):
                        # in vain, if somebody else is looking at the lock at this moment
                        self.unlock(name, -1.0, os.fstat(file.fileno()))
                    elif text:
                        return
            except FileNotFoundError:
                return
            if time.monotonic() > end + _EMPTY_SECONDS:
                return
            time.sleep(LOCK_PAUSE)

    def break_lock(self, name: str, seconds: float) -> None:
        """Do as `unlock`, and watch the lock as long as that takes."""
        end = time.monotonic() + _WATCHED + 1.0
        while (self._git_dir / f"{name}.lock").exists() and time.monotonic() < end:
            self.unlock(name, seconds)
            time.sleep(LOCK_PAUSE)

    def unlock(self, name: str, seconds: float, only: os.stat_result | None = None) -> None:
        """Remove the lock of a reference, or of another file in ``.git``, that is older than ``seconds``; ``only`` that
        file, which is open.

        Nobody's clock alone decides (see `_is_stale`): to be called again and again by who waits for the lock.
        """
        lock = self._git_dir / f"{name}.lock"
        if not lock.exists():
            _seen.pop(os.fspath(lock), None)
            return
        # not ``.git``, whose lock this thread may hold
        directory = os.open(self._git_dir / "refs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # one at a time, lest a second one remove what is a new lock by then; whoever holds this does it, or is the
            # owner of the kata, for whom nobody waits
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_it = only is None or os.path.samestat(only, os.lstat(lock))
            if is_it and _is_stale(os.fspath(lock), seconds):
                os.unlink(lock)
                _seen.pop(os.fspath(lock), None)
                log.warning("%s was left behind, and is removed", lock)
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            os.close(directory)


class HeldLock:
    """A lock that we made; once it has become the file, a lock of that name is another's.

    Its file stays open, as the next one could have the same inode number otherwise.
    """

    def __init__(self, path: str, data: bytes | None = None) -> None:
        """Take it, and put ``data`` into it, synced. Raises FileExistsError."""
        self._path = path
        made = _make_whole(path, data) if data is not None else None
        self._fd = (
            made if made is not None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        )
        self._is_held = True
        if made is None and data is not None:
            try:
                self.write(data)
            except BaseException:
                self.release()
                raise

    def write(self, data: bytes) -> None:
        """Put this into it, which was empty, synced."""
        _put(self._fd, data)

    def become(self, path: Path) -> None:
        """The lock is renamed to what it locks. Raises `RaceLostError` when it is not ours any more."""
        if not self._is_ours():
            raise RaceLostError(f"{self._path} was removed by another writer")
        os.rename(self._path, path)
        self._is_held = False

    def release(self) -> None:
        """It is removed, if it is still there."""
        try:
            if self._is_held and self._is_ours():
                os.unlink(self._path)
        finally:
            self._is_held = False
            os.close(self._fd)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False


def _make_whole(path: str, data: bytes) -> int | None:
    """Make a file that appears with what is in it, synced: a descriptor of it; None where that cannot be done. Raises
    FileExistsError."""
    try:
        fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    except OSError:
        return None
    try:
        _put(fd, data)
        # with a descriptor of a directory Python follows the link, as it says that it does in any case
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    except BaseException as error:
        os.close(fd)
        # no /proc
        if isinstance(error, FileNotFoundError):
            return None
        raise
    return fd


def _put(fd: int, data: bytes) -> None:
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.fsync(fd)


# by path: which lock was seen there, and since when (monotonic)
_seen: dict[str, tuple[tuple[int, ...], float]] = {}


def _is_stale(lock: str, seconds: float) -> bool:
    """Whether a lock was watched for ``seconds``; or for a shorter time, and its file is that old. Raises OSError."""
    status = os.lstat(lock)
    identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    if len(_seen) >= _MOST_WATCHED:
        _seen.clear()
    known, since = _seen.setdefault(lock, (identity, time.monotonic()))
    if known != identity:
        since = time.monotonic()
        _seen[lock] = (identity, since)
    watched = time.monotonic() - since
    return watched > seconds or (watched > min(_WATCHED, seconds) and time.time() - status.st_mtime > seconds)
