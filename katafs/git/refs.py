"""Writing references: ``main`` by compare-and-swap, and the tags of events.

Every call returns after what it wrote has been synced. Locks are git's: ``<reference>.lock``, made with O_EXCL.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pygit2

from katafs.errors import DamagedError, RaceLostError, StorageError
from katafs.git.objects import Oid
from katafs.git.ref_file import Log, set_reference
from katafs.git.repo import MAIN, GitRepo, open_plain
from katafs.git.storing import STORAGE_ERRNOS, storing, sync_path

log = logging.getLogger(__name__)

# How old, in seconds, the lock of a reference must be for its maker to be dead: it is held for some milliseconds.
# git and libgit2 never remove another's lock. Of a tag nothing can be lost: two who make it make the same.
_STALE_MAIN, _STALE_TAG = 10.0, 1.0
# nobody who lives leaves it empty for so long
_EMPTY_SECONDS = 0.3
# What the time of the file says may be wrong, when a clock was set: so long we have seen it ourselves, unchanged.
_WATCHED = 1.0
_MOST_WATCHED = 1000
_LOCK_TRIES, _LOCK_PAUSE = 300, 0.005
# a file, and two syncs, for each tag: more of them are written into ``packed-refs`` at once
_MOST_LOOSE = 8

_PACKED_REFS = "packed-refs"
_PACKED_LINE = re.compile(rb"^([0-9a-f]{40}) (\S+)(\n\^[0-9a-f]{40})?$", re.MULTILINE)
_PACKED_HEADER = b"# pack-refs with:"


class RefWriter:
    """Writes the references of one repository, in the thread of its `GitWriter`."""

    def __init__(self, repo: GitRepo, raw: pygit2.Repository) -> None:
        self._repo = repo
        self._raw = raw

    def move_main(self, new: Oid, old: Oid | None) -> None:
        """Move ``main`` from ``old`` to ``new`` by compare-and-swap; None: there was no branch.

        Raises `RaceLostError` when the branch is somewhere else by now, or locked by somebody; then it makes sense to
        try again.
        """
        git_dir = self._repo.git_dir

        def log_it() -> None:
            Log(git_dir, self._raw.config).add(MAIN, old, new)

        try:
            if not set_reference(git_dir, MAIN, new, lambda: self._repo.main() == old, log_it):
                raise RaceLostError(f"{git_dir}: {MAIN} was moved by another writer")
        except FileExistsError as error:
            raise RaceLostError(f"{git_dir}: {MAIN} is locked by another writer") from error
        except OSError as error:
            if self._repo.main() == new:
                # what failed came after: the event is recorded, and must not be recorded again
                log.warning("%s: moving %s: %s", git_dir, MAIN, error)
                return
            if error.errno in STORAGE_ERRNOS:
                raise StorageError(f"cannot move {MAIN}: {error.strerror}", error.errno) from error
            raise DamagedError(f"{git_dir}: {MAIN} cannot be moved: {error}") from error

    def sync_main(self) -> None:
        """Sync ``main`` as it is: somebody else moved it, who may have died before he did."""
        with storing(MAIN, self._repo.git_dir):
            for name in (_PACKED_REFS, MAIN, os.path.dirname(MAIN), ""):
                with suppress(FileNotFoundError):
                    sync_path(os.path.join(self._repo.git_dir, name))

    def set_tags(self, tags: Mapping[int, Oid]) -> None:
        """Make the lightweight tags of events, by index; those that exist are left as they are.

        In ascending order, so that a crash in between leaves out the newest ones.
        """
        missing = {index: tags[index] for index in sorted(tags) if self._repo.tag(index) is None}
        if len(missing) > _MOST_LOOSE:
            self._pack_tags(missing)
        else:
            for index, commit in missing.items():
                self._set_tag(index, commit)

    def _set_tag(self, index: int, commit: Oid) -> None:
        name = f"refs/tags/{index}"
        tries = 0
        while self._repo.tag(index) is None:
            self.unlock(name, _STALE_TAG)
            with storing(f"tag {index}", self._repo.git_dir):
                try:
                    set_reference(self._repo.git_dir, name, commit, lambda: self._repo.tag(index) is None, _no_log)
                except FileExistsError:
                    # Whoever records the next event makes the tag of this one, if he sees none: the same tag.
                    if tries == _LOCK_TRIES:
                        raise
                    tries += 1
                    time.sleep(_LOCK_PAUSE)

    def _pack_tags(self, tags: Mapping[int, Oid]) -> None:
        """Add tags to ``packed-refs``: a line ``<id> SP <name>`` each, sorted by name (git's gitrepository-layout)."""
        path = self._repo.git_dir / _PACKED_REFS
        with storing("tags", self._repo.git_dir):
            lock = self._lock(_PACKED_REFS)
            try:
                with open(lock, "wb") as file:
                    file.write(self._with_tags(_read(path), tags))
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(lock, path)
            except BaseException:
                os.unlink(lock)
                raise
            sync_path(self._repo.git_dir)

    @staticmethod
    def _with_tags(text: bytes, tags: Mapping[int, Oid]) -> bytes:
        # what the first line says of those that are there must stay true: that their tagged objects stand there too
        first = text.partition(b"\n")[0]
        header = first if first.startswith(_PACKED_HEADER) else _PACKED_HEADER + b" "
        if not text:
            header += b"peeled fully-peeled sorted "
        elif b" sorted " not in header:
            header += b"sorted "
        lines = {found[2]: found[0] for found in _PACKED_LINE.finditer(text)}
        for index, commit in tags.items():
            name = b"refs/tags/%d" % index
            lines.setdefault(name, b"%s %s" % (commit.hex().encode(), name))
        return b"\n".join([header, *(lines[name] for name in sorted(lines)), b""])

    def _lock(self, name: str, stale: float = _STALE_TAG) -> str:
        """Take git's lock of a file in ``.git``: its path, which is to be removed, or renamed to the file."""
        lock = os.path.join(self._repo.git_dir, f"{name}.lock")
        for _ in range(_LOCK_TRIES):
            self.unlock(name, stale)
            try:
                os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            except FileExistsError:
                time.sleep(_LOCK_PAUSE)
            else:
                return lock
        raise StorageError(f"{lock} is held by another writer", errno.EBUSY)

    def unlock_main(self) -> None:
        """Remove a lock of ``main`` that somebody left behind who died."""
        self.unlock(MAIN, _STALE_MAIN)

    def unlock_dead(self, name: str, commit: Oid) -> None:
        """Remove the lock of a reference that was left by a writer of whom it is known that he died while he set it to
        ``commit``: the lock says so itself, or he had no time to write into it."""
        lock = self._repo.git_dir / f"{name}.lock"
        end = time.monotonic() + _EMPTY_SECONDS
        while True:
            try:
                text = lock.read_bytes()
            except FileNotFoundError:
                return
            if text.strip() == commit.hex().encode() or (not text and time.monotonic() > end):
                # in vain, if somebody else is looking at the lock at this moment
                self.unlock(name, -1.0)
            elif text:
                return
            if time.monotonic() > end + _EMPTY_SECONDS:
                return
            time.sleep(_LOCK_PAUSE)

    def break_lock(self, name: str, seconds: float) -> None:
        """Do as `unlock`, and watch the lock as long as that takes."""
        end = time.monotonic() + _WATCHED + 1.0
        while (self._repo.git_dir / f"{name}.lock").exists() and time.monotonic() < end:
            self.unlock(name, seconds)
            time.sleep(_LOCK_PAUSE)

    def unlock(self, name: str, seconds: float) -> None:
        """Remove the lock of a reference, or of another file in ``.git``, that is older than ``seconds``.

        Nobody's clock alone decides (see `_is_stale`): to be called again and again by who waits for the lock.
        """
        lock = self._repo.git_dir / f"{name}.lock"
        if not lock.exists():
            _seen.pop(os.fspath(lock), None)
            return
        # not ``.git``, whose lock this thread may hold
        directory = os.open(self._repo.git_dir / "refs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # one at a time, lest a second one remove what is a new lock by then; whoever holds this does it, or is the
            # owner of the kata, for whom nobody waits
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_stale(os.fspath(lock), seconds):
                os.unlink(lock)
                _seen.pop(os.fspath(lock), None)
                log.warning("%s was left behind, and is removed", lock)
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            os.close(directory)


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


def _no_log() -> None:
    """git keeps logs of branches."""


def _read(path: Path) -> bytes:
    """A file of the repository; empty when there is none."""
    try:
        with open(path, "rb", opener=open_plain) as file:
            return file.read()
    except FileNotFoundError:
        return b""
