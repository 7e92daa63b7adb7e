"""git's locks of references: ``<reference>.lock``, which one can make, renamed to the reference or removed.

Whoever dies leaves one behind, and git and libgit2 wait for it for ever; so those of the dead are removed here. A lock
of ours is a file ``.git/.katafs-…`` that gets a second name by link(2); its first one becomes the reference, and goes
first where a lock is removed. Others' are watched, and their times compared with the clock of their file system; one
that is empty is that of ``git pack-refs``, which then removes the reference's own file (docs/design.md: Durability).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import time
from pathlib import Path

from katafs.errors import RaceLostError, StorageError
from katafs.git.beneath import GONE, is_at, is_direct, is_shared, read_whole
from katafs.git.format.stored import Oid
from katafs.git.store.storing import MUTEX, TEMPORARY, NewFile, now

log = logging.getLogger(__name__)

# How old, in seconds, the lock of a reference must be for its maker to be dead: it is held for some milliseconds.
# git and libgit2 never remove another's lock. Of a tag nothing can be lost: two who make it make the same.
STALE_MAIN, STALE_TAG = 10.0, 1.0
# a host that was cut off may come back with what it held: the lease of a distributed file system is a minute
_LEASE = 90.0
# nobody who lives leaves it empty for so long (git's core.packedRefsTimeout is a second)
_EMPTY_SECONDS = 3.0
# What the times of files say may be wrong, when a clock was set: so long we have seen it ourselves, unchanged.
_WATCHED = 1.0
_MOST_WATCHED = 1000
# bytes; an id and a line end are fewer
_LOCK_LIMIT = 64
_TRIES, _PAUSE = 300, 0.005


class RefLocks:
    """The locks of files in one ``.git``. ``is_alone``: no other writer of ours can be alive (`repository_lock`)."""

    def __init__(self, git_dir: Path, *, is_alone: bool = False) -> None:
        self._git_dir = git_dir
        self._is_alone = is_alone

    def held(self, name: str, stale: float, data: bytes = b"") -> HeldLock:
        """Take the lock of a file, with ``data`` in it if that is known; waits for others, and removes a lock that was
        left behind ``stale`` seconds ago. Raises `StorageError` (EBUSY) when somebody else holds it too long."""
        for _ in range(_TRIES):
            try:
                return HeldLock(self._git_dir, name, NewFile(self._git_dir, data))
            except FileExistsError:
                self.unlock(name, stale)
                time.sleep(_PAUSE)
        raise StorageError(f"{self._git_dir}/{name}.lock is held by another writer", errno.EBUSY)

    def is_locked(self, name: str) -> bool:
        return os.path.lexists(self._git_dir / f"{name}.lock")

    def unlock_dead(self, name: str, commit: Oid) -> None:
        """Remove the lock that a dead writer of ours left while he set a reference to ``commit``: it says so itself."""
        lock = self._git_dir / f"{name}.lock"
        with contextlib.suppress(OSError):
            status = os.lstat(lock)
            if is_direct(lock.parent, self._git_dir) and read_whole(lock, _LOCK_LIMIT).strip() == commit.hex().encode():
                self._remove(lock, status)

    def break_lock(self, name: str, seconds: float) -> None:
        """Do as `unlock`, and watch the lock as long as that takes."""
        end = time.monotonic() + _WATCHED + 1.0
        while self.is_locked(name) and time.monotonic() < end:
            self.unlock(name, seconds)
            time.sleep(_PAUSE)

    def unlock(self, name: str, seconds: float) -> None:
        """Remove a lock whose maker is dead: one of ours, or older than ``seconds``; to be called again and again."""
        lock = self._git_dir / f"{name}.lock"
        try:
            status = os.lstat(lock) if is_direct(lock.parent, self._git_dir) else None
        except OSError as error:
            if error.errno not in GONE:
                raise
            status = None
        if status is None:
            _seen.pop(os.fspath(lock), None)
        elif self._is_dead(lock, status, seconds):
            self._remove(lock, status)
            log.warning("%s was left behind, and is removed", lock)

    def _is_dead(self, lock: Path, status: os.stat_result, seconds: float) -> bool:
        watched = _watched_seconds(os.fspath(lock), status)
        is_ours = status.st_nlink > 1 and (_names_of(self._git_dir, status) or is_at(lock.with_suffix(""), status))
        if is_ours and (self._is_alone or watched > _WATCHED):
            return True
        if not status.st_size:
            seconds = max(seconds, _EMPTY_SECONDS)
        if is_shared(self._git_dir):
            seconds = max(seconds, _LEASE)
        age = now(self._git_dir) - status.st_mtime
        return watched > seconds or (watched > min(_WATCHED, seconds) and age > seconds)

    def _remove(self, lock: Path, status: os.stat_result) -> None:
        """Remove a lock, and no other that has come to have its name; from then on its maker can do nothing with it."""
        for name in _names_of(self._git_dir, status):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._git_dir / name)
        aside = self._git_dir / f"{TEMPORARY}{secrets.token_hex(8)}"
        # one that is a directory, which nobody makes who means it, is only put aside
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.rename(lock, aside)
            if not os.path.samestat(os.lstat(aside), status):
                with contextlib.suppress(FileExistsError):
                    os.link(aside, lock)
            os.unlink(aside)
        _seen.pop(os.fspath(lock), None)


class HeldLock(contextlib.AbstractContextManager["HeldLock"]):
    """The lock of the file ``name``, taken at once, with what is in ``own``. Raises FileExistsError, OSError (ELOOP)
    where a link leads to the file."""

    def __init__(self, git_dir: Path, name: str, own: NewFile) -> None:
        self._file = git_dir / name
        self._path = f"{self._file}.lock"
        self._own = own
        self._is_held = False
        try:
            if not is_direct(self._file.parent, git_dir):
                raise OSError(errno.ELOOP, "a symbolic link leads elsewhere", self._path)
            os.link(own.path, self._path)
            self._is_held = True
        finally:
            if not self._is_held:
                own.drop()

    def write(self, data: bytes) -> None:
        """Put this into it, which was empty, synced."""
        self._own.put(data)

    def become(self, *, is_new: bool = False) -> None:
        """What it holds becomes the file that it locks; ``is_new``: where there is none. Raises `RaceLostError` when
        the lock, or the file, is another's by now, and OSError (EIO) when the lock is at the end: then the file may be
        this one."""
        if not self._is_ours():
            raise RaceLostError(f"{self._path} was removed by another writer")
        try:
            # Not the lock, which may be a third's by now: nobody else has this name of our file. And what seems not to
            # be there, by what a network file system remembers, is not replaced.
            (os.link if is_new else os.rename)(self._own.path, self._file)
        except (FileExistsError, FileNotFoundError) as error:
            raise RaceLostError(f"{self._file} was made, or our lock removed, by another writer") from error
        self._own.has_path = is_new
        if not self._is_ours():
            raise OSError(errno.EIO, "another writer took the lock meanwhile", self._path)
        self._is_held = False
        os.unlink(self._path)

    def __exit__(self, *_: object) -> None:
        try:
            if self._is_held and self._is_ours():
                os.unlink(self._path)
        finally:
            self._is_held = False
            self._own.drop()

    def _is_ours(self) -> bool:
        return is_at(self._path, os.fstat(self._own.fileno()))


def make_file(git_dir: Path, name: str, own: NewFile) -> bool:
    """Make ``own`` the file of a reference, all at once, unless there is one: whether it is. Raises OSError."""
    try:
        if not is_direct((git_dir / name).parent, git_dir):
            raise OSError(errno.ELOOP, "a symbolic link leads elsewhere", git_dir / name)
        os.link(own.path, git_dir / name)
        return True
    except FileExistsError:
        return False
    finally:
        own.drop()


def remove_left(git_dir: Path) -> None:
    """Remove the files of writers of ours that died. To be called by who is alone. Raises OSError."""
    for name in _ours(git_dir):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(git_dir / name)


def _ours(git_dir: Path) -> list[str]:
    """The names of files that are, or were to be, locks of ours."""
    return [name for name in os.listdir(git_dir) if name.startswith(TEMPORARY) and name != MUTEX]


def _names_of(git_dir: Path, status: os.stat_result) -> list[str]:
    """Those that are a certain file."""
    return [name for name in _ours(git_dir) if is_at(git_dir / name, status)]


# by path: which lock was seen there, and since when (monotonic)
_seen: dict[str, tuple[tuple[int, ...], float]] = {}


def _watched_seconds(lock: str, status: os.stat_result) -> float:
    """How long we have seen this lock, unchanged."""
    identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
    if len(_seen) >= _MOST_WATCHED:
        _seen.clear()
    known, since = _seen.setdefault(lock, (identity, time.monotonic()))
    if known != identity:
        since = time.monotonic()
        _seen[lock] = (identity, since)
    return time.monotonic() - since
