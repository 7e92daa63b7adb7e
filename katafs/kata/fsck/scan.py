"""Files: how old they are; and one walk through a kata's ``.git``: locks, temporary files, owners, modes, odd ones."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from katafs.directories import walk
from katafs.git.beneath import close_quietly
from katafs.git.store.storing import TEMPORARY, now

# git: tmp_obj_*, tmp_pack_*, tmp_idx_*, .tmp-*-pack; libgit2: tmp_object_git2_*, pack_git2_*
_TEMPORARY = re.compile(r"tmp_|\.tmp-|pack_git2_|tmp_object_git2_")
# what becomes a lock of ours by a second name, with which it goes
_OURS = re.compile(rf"\.git/{re.escape(TEMPORARY)}[0-9a-f]+")
_GIT, _OBJECTS = ".git", ".git/objects"
_DEEPEST = 23


def newest_mtime(path: Path, most: int = 100_000) -> float:
    """The time of the newest thing in a directory, itself included; links are not followed."""
    newest = os.lstat(path).st_mtime
    for directory in walk(path):
        for name in (*directory.directories, *directory.names):
            with suppress(OSError):
                newest = max(newest, directory.status(name).st_mtime)
            most -= 1
            if not most:
                return newest
    return newest


def age(path: Path) -> float:
    """Seconds since something was written to, links not followed; 0 for what is not there."""
    try:
        return now(path.parent) - os.lstat(path).st_mtime
    except OSError:
        return 0.0


@dataclass
class Scan:
    """What was found; paths are relative to the kata."""

    #: by the clock of the files
    now: float = 0.0
    #: how many files and directories were looked at
    count: int = 0
    #: age in seconds by path, of lock files, and of temporary files among the objects
    locks: dict[str, float] = field(default_factory=dict)
    temporary: dict[str, float] = field(default_factory=dict)
    #: not the owner's: what he can read anyway, and may be given; what he may only have moved here; too closed for the
    #: owner, or open to everybody
    foreign: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    wrong_modes: list[str] = field(default_factory=list)
    #: neither files nor directories
    odd: list[str] = field(default_factory=list)
    #: what could not be looked at
    unreadable: list[str] = field(default_factory=list)


def scan(path: Path, *, with_objects: bool) -> Scan:
    """Walk through ``.git``, and look at the kata's directory and its manifest, without following links; without
    objects not into their directories."""
    found = Scan()
    owner = os.lstat(path).st_uid
    found.now = now(path)
    _look(found, "", os.lstat(path), owner)
    for name in (_GIT, "manifest.json"):
        # that it is not there is another check's
        with suppress(OSError):
            _look(found, name, os.lstat(path / name), owner)

    def unreadable(below: str, error: OSError) -> None:
        if error.errno != errno.ENOENT:
            found.unreadable.append(_GIT if below == "." else f"{_GIT}/{below}")

    for directory in walk(path / _GIT, unreadable):
        below = "/".join([_GIT, *directory.way])
        for name in (*directory.directories, *directory.names):
            # it may be gone
            with suppress(OSError):
                _look(found, f"{below}/{name}", directory.status(name), owner)
        if below == _OBJECTS and not with_objects:
            directory.directories = [name for name in directory.directories if len(name) != 2]
        if len(directory.way) >= _DEEPEST:
            directory.directories = []
    return found


def _look(found: Scan, name: str, status: os.stat_result, owner: int) -> None:
    mode = status.st_mode
    is_directory = stat.S_ISDIR(mode)
    if not is_directory and not stat.S_ISREG(mode):
        found.odd.append(name)
        return
    found.count += 1
    if status.st_uid != owner:
        (found.foreign if may_be_given(status) else found.closed).append(name)
    elif is_wrong_mode(mode):
        found.wrong_modes.append(name)
    if not is_directory:
        base = name.rpartition("/")[2]
        if name.endswith(".lock"):
            found.locks[name] = found.now - status.st_mtime
        elif _TEMPORARY.match(base) if name.startswith(_OBJECTS) else _OURS.fullmatch(name) and status.st_nlink == 1:
            found.temporary[name] = found.now - status.st_mtime


def is_wrong_mode(mode: int) -> bool:
    """Whether the owner cannot use a file or directory, or everybody can write to it."""
    needed = stat.S_IRWXU if stat.S_ISDIR(mode) else stat.S_IRUSR
    return mode & needed != needed or bool(mode & stat.S_IWOTH)


def may_be_given(status: os.stat_result) -> bool:
    """Whether a file or directory of somebody else's gives its new owner nothing that he could not have: he may have
    moved it to where it is, and may be waiting for just that."""
    if stat.S_ISDIR(status.st_mode):
        return status.st_mode & 0o005 == 0o005
    return bool(status.st_mode & stat.S_IROTH) and status.st_nlink == 1


def mend_owners_and_modes(path: Path) -> None:
    """Give what is in ``.git``, and the manifest, to the owner of the kata's directory, and make it usable for him.
    With root's powers in a directory of somebody else, who may move and link there what he cannot read: each file is
    opened without following links, and must have no other name, be a plain one, and readable for everybody already."""
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = os.fstat(top)
        _mend(top, owner)
        for name in (_GIT, "manifest.json"):
            _mend_at(name, top, owner)
        for directory in walk(f"/proc/self/fd/{top}/{_GIT}"):
            for name in (*directory.directories, *directory.names):
                _mend_at(name, directory.fd, owner)
    finally:
        close_quietly(top)


def _mend_at(name: str, directory: int, owner: os.stat_result) -> None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            return
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return  # it is gone, or not ours to open: it is found again if it is still there
    try:
        _mend(fd, owner)
    finally:
        close_quietly(fd)


def _mend(fd: int, owner: os.stat_result) -> None:
    status = os.fstat(fd)
    is_directory = stat.S_ISDIR(status.st_mode)
    if not is_directory and (not stat.S_ISREG(status.st_mode) or status.st_nlink != 1):
        return
    if status.st_uid != owner.st_uid:
        if not may_be_given(status):
            return
        os.fchown(fd, owner.st_uid, owner.st_gid)
        status = os.fstat(fd)
    if is_wrong_mode(status.st_mode):
        needed = stat.S_IRWXU if is_directory else stat.S_IRUSR
        os.fchmod(fd, (stat.S_IMODE(status.st_mode) | needed) & ~stat.S_IWOTH)
