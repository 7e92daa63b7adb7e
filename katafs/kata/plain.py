"""Real files of a kata's directory, read-only: ``.git/**``, and katas that are still stored as plain files.

Paths are relative to the kata's directory. Symbolic links are neither shown nor followed, at any depth.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from katafs.errors import NotFoundError, unreadable
from katafs.git.inside import open_inside, real_path

# All that git needs to read a repository; nothing that makes it run a program, lock files left out.
_GIT_SHOWN = frozenset(b"HEAD ORIG_HEAD COMMIT_EDITMSG config description index logs objects packed-refs refs".split())
GIT_CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = false\n\tbare = false\n"


def is_shown(path: bytes) -> bool:
    """Whether a path may be seen at all."""
    parts = path.split(b"/")
    if b".git" in parts[1:]:
        # nobody's but who put it there, and its configuration is obeyed by a git that merely looks around
        return False
    if parts[0] != b".git" or len(parts) == 1:
        return True
    name = parts[-1]
    if parts[1] not in _GIT_SHOWN or name.endswith(b".lock") or name.startswith(b"tmp_"):
        return False
    # alternates would be read from wherever they point to
    return parts[1:3] != [b"objects", b"info"] or len(parts) == 3 or name in (b"packs", b"commit-graph")


def status(root: Path, path: bytes) -> os.stat_result:
    """The status of a file or directory. Raises `NotFoundError`."""
    here = os.fsencode(root)
    found: os.stat_result | None = None
    for name in path.split(b"/"):
        here += b"/" + name
        try:
            found = os.lstat(here)
        except OSError as error:
            raise NotFoundError(f"{here!r}: {error.strerror}") from error
        if stat.S_ISLNK(found.st_mode):
            raise NotFoundError(f"{here!r} is a symbolic link")
    if found is None or not is_shown(path) or not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise NotFoundError(f"{here!r} is not shown")
    return found


def names(root: Path, path: bytes) -> list[bytes]:
    """The names in a directory, sorted; ``b""`` is the kata's own. Raises `NotFoundError`."""
    if path:
        status(root, path)
    try:
        with os.scandir(os.path.join(os.fsencode(root), path)) as entries:
            found = [entry.name for entry in entries if not entry.is_symlink() and (entry.is_dir() or entry.is_file())]
    except OSError as error:
        raise NotFoundError(f"{path!r}: {error.strerror}") from error
    prefix = path + b"/" if path else b""
    return sorted(name for name in found if is_shown(prefix + name))


def size(root: Path, path: bytes) -> int:
    """The size of a file in bytes."""
    return len(GIT_CONFIG) if path == b".git/config" else status(root, path).st_size


def read(root: Path, path: bytes, offset: int, length: int) -> bytes:
    """Bytes of a file. Raises `NotFoundError`, or `DamagedError` (EIO) when it cannot be read."""
    if path == b".git/config":
        return GIT_CONFIG[offset : offset + length]
    status(root, path)
    try:
        # `status` found no link; there may be one by now
        fd = open_inside(os.path.join(real_path(root), os.fsdecode(path)))
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(f"{path!r}", error) from error
