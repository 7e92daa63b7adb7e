"""Setting one reference, as git does it: its lock, the log, the file, each on disk before the next.

libgit2 would do the same, but pygit2 holds Python's lock meanwhile: on a disk that takes long to sync every other
request would wait.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pygit2

from katafs.git.objects import Oid
from katafs.git.repo import open_plain
from katafs.git.storing import sync_directory

_NONE = bytes(20)
# what libgit2 calls who has no name
_UNKNOWN = ("unknown", "unknown")


def set_reference(git_dir: Path, name: str, new: Oid, may_set: Callable[[], bool], log: Callable[[], None]) -> bool:
    """Set a reference if ``may_set()`` says so, which is called while nobody else can set it; whether that was done.

    ``log`` is called before. Raises FileExistsError while somebody else has the lock, and OSError.
    """
    path = git_dir / name
    lock = git_dir / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            if not may_set():
                os.unlink(lock)
                return False
            _write(fd, new.hex().encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        log()
        os.rename(lock, path)
    except BaseException:
        lock.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return True


class Log:
    """The log of a branch and of HEAD (git's gitrepository-layout, ``logs``), of who is in the configuration."""

    def __init__(self, git_dir: Path, config: pygit2.Config) -> None:
        self._git_dir = git_dir
        self._who = [_value(config, key) or _UNKNOWN[0] for key in ("user.name", "user.email")]
        # git makes logs by itself in a repository with a work tree, unless it is told not to
        self._makes = (_value(config, "core.logallrefupdates") or "true").lower() not in ("false", "no", "off", "0")

    def add(self, branch: str, old: Oid | None, new: Oid) -> None:
        """A line for the move of a branch. Raises OSError."""
        name, email = ("".join(each.split("\n")).strip("<> ") for each in self._who)
        line = f"{(old or _NONE).hex()} {new.hex()} {name} <{email}> {int(time.time())} +0000\n".encode()
        self._append(branch, line)
        if self._head() == branch:
            self._append("HEAD", line)

    def _head(self) -> str:
        try:
            with open(self._git_dir / "HEAD", "rb", opener=open_plain) as file:
                return file.read(4096).removeprefix(b"ref:").strip().decode("utf-8", "replace")
        except OSError:
            return ""

    def _append(self, name: str, line: bytes) -> None:
        path = self._git_dir / "logs" / name
        try:
            fd = open_plain(os.fspath(path), os.O_WRONLY | os.O_APPEND)
            is_new = False
        except FileNotFoundError:
            if not self._makes:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            is_new = True
        try:
            # a log that is something else is nobody's loss, but must not be waited for
            if stat.S_ISREG(os.fstat(fd).st_mode):
                _write(fd, line)
                os.fsync(fd)
        finally:
            os.close(fd)
        if is_new:
            sync_directory(path.parent)


def _value(config: pygit2.Config, key: str) -> str | None:
    try:
        return str(config[key])
    except (KeyError, ValueError):
        return None


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
