"""Real files of a kata's directory, read-only: ``.git/**``, and katas that are still stored as plain files.

Paths are relative to the kata's directory. Symbolic links are neither shown nor followed, at any depth.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from katafs.caching import Shared
from katafs.errors import DamagedError, NotFoundError, absent, unreadable
from katafs.git import read_config
from katafs.git.beneath import may_read, read_part, real_path
from katafs.git.budget import NAME, Budget

# All that git needs to read a repository; nothing that makes it run a program, lock files left out.
_GIT_SHOWN = frozenset(
    b"HEAD ORIG_HEAD COMMIT_EDITMSG config description index logs objects packed-refs refs shallow".split()
)
GIT_CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = false\n\tbare = false\n"
_SHA256_CONFIG = GIT_CONFIG.replace(b"= 0", b"= 1") + b"[extensions]\n\tobjectformat = sha256\n"
# git's gitrepository-layout: the id, a blank, the name; the id of what an annotated tag stands for in the next line
_REPLACEMENT = re.compile(rb"^[0-9a-fA-F]{40,64}[ \t]refs/replace/[^\n]*+(?:\n\^[^\n]*+)?(?:\n|\Z)", re.MULTILINE)
# bytes; of those without replacements more would not be read either
_LARGEST_CORRECTED, _LARGEST_REFS = 512 << 10, 16 << 20


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
    # git would obey what katafs does not, and say something else than the files beside it
    if parts[1:3] == [b"refs", b"replace"] or parts[1:4] == [b"logs", b"refs", b"replace"]:
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
            raise absent(f"{here!r}", error) from error
        if stat.S_ISLNK(found.st_mode):
            raise NotFoundError(f"{here!r} is a symbolic link")
    if found is None or not is_shown(path) or not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise NotFoundError(f"{here!r} is not shown")
    # who moves somebody else's file there is not shown what is in it
    if stat.S_ISREG(found.st_mode) and not found.st_mode & stat.S_IROTH and not may_read(os.lstat(root), found):
        raise NotFoundError(f"{here!r} is another's")
    return found


def names(root: Path, path: bytes, budget: Budget) -> list[bytes]:
    """The names in a directory, sorted; ``b""`` is the kata's own. Raises `NotFoundError`."""
    if path:
        status(root, path)
    try:
        with os.scandir(os.path.join(os.fsencode(root), path)) as entries:
            found = []
            for entry in entries:
                budget.spend(NAME)
                if not entry.is_symlink() and (entry.is_dir() or entry.is_file()):
                    found.append(entry.name)
    except OSError as error:
        raise absent(f"{path!r}", error) from error
    prefix = path + b"/" if path else b""
    return sorted(name for name in found if is_shown(prefix + name))


def size(root: Path, path: bytes) -> int:
    made = _made(root, path)
    return len(made) if made is not None else status(root, path).st_size


def read(root: Path, path: bytes, offset: int, length: int) -> bytes:
    """Bytes of a file. Raises `NotFoundError`, or `DamagedError` (EIO) when it cannot be read."""
    if (made := _made(root, path)) is not None:
        return made[offset : offset + length]
    status(root, path)
    return _read(root, path, offset, length)


def _read(root: Path, path: bytes, offset: int, length: int) -> bytes:
    try:
        # `status` found no link; there may be one by now
        return read_part(os.path.join(real_path(root), os.fsdecode(path)), length, offset)
    except OSError as error:
        raise unreadable(f"{path!r}", error) from error


def is_corrected(root: Path, path: bytes) -> bool:
    """Whether something else is shown in the place of a file that is there. Raises `NotFoundError`, `DamagedError`."""
    return _made(root, path) is not None


def _made(root: Path, path: bytes) -> bytes | None:
    """What is shown in the place of a file; None where it is the file itself."""
    if path == b".git/config":
        return _SHA256_CONFIG if read_config(root / ".git").object_format == "sha256" else GIT_CONFIG
    if path != b".git/packed-refs":
        return None
    found = status(root, path)
    key = (root, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if (known := _corrected.get(key)) is None:
        text = _read(root, path, 0, _LARGEST_REFS + 1)
        known = _REPLACEMENT.sub(b"", text) if b"refs/replace/" in text else b""
        if len(text) > _LARGEST_REFS or len(known) > _LARGEST_CORRECTED:
            raise DamagedError(f"{root}: its packed-refs is too large")
        _corrected.keep(key, known)
    return known or None


# by path and state of a ``packed-refs``: what is shown instead, empty where it is the file itself
_corrected: Shared[tuple[Path, int, int, int, int], bytes] = Shared(
    1 << 20, lambda text: 600 + len(text), shares=1, name="corrected"
)
