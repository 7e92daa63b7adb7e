"""Opening files of a repository, and of nothing else, whatever links are put there meanwhile."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from functools import cache
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import cachetools

from katafs.engine.mount_table import holding
from katafs.engine.trust import LOCAL

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# openat2(2), which is where the kernel has it (5.6), and nobody forbids it
_OPENAT2, _AT_FDCWD, _NO_SYMLINKS = 437, -100, 4
_SYSCALL = ctypes.CDLL(None, use_errno=True).syscall
_SYSCALL.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
_SYSCALL.restype = ctypes.c_long
_TRIES = 3
# seconds: a little more than a network file system may be mounted with (docs/hosts.md)
_REMEMBERED, _PAUSE = 1.5, 0.05
# what the kernel adds to the path of a file that was removed, or replaced, after it was opened
_GONE = " (deleted)"
#: what opening, or reading on, says of a file that is gone; the last of one that another host removed
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


def real_path(directory: str | os.PathLike[str]) -> str:
    """The path of a directory without links, which `open_beneath` wants. Raises OSError."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removesuffix(_GONE)
    finally:
        os.close(fd)


def is_direct(directory: Path, top: Path) -> bool:
    """Whether no link is on the way from a directory to one below it. Raises OSError."""
    return real_path(directory) == real_path(top) + os.fspath(directory)[len(os.fspath(top)) :]


def open_beneath(path: str, flags: int = os.O_RDONLY, *, is_verified: bool = False) -> int:
    """A descriptor of the file at ``path``, one without links; opening waits for nothing, such as the other end of a
    pipe. Raises OSError, ELOOP where a part of the path is a symbolic link, EACCES as `_readable`, but where what is
    read is verified (by its id): there is no secret in it."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    if _has_openat2():
        fd = _openat2(path, flags)
        return fd if is_verified else _readable(fd, path)
    found = path
    for _ in range(_TRIES):
        fd = os.open(path, flags)
        try:
            # the kernel knows where it has got to; to look before opening would leave time to put a link there
            found = os.readlink(f"/proc/self/fd/{fd}")
        except BaseException:
            os.close(fd)
            raise
        if found == path or found == path + _GONE:
            return fd if is_verified else _readable(fd, path)
        # a file that is just being replaced has another name on some file systems
        os.close(fd)
    raise OSError(errno.ELOOP, f"a symbolic link leads to {found}", path)


def _openat2(path: str, flags: int) -> int:
    """A descriptor of the file at ``path`` if no part of that is a link. Raises OSError. To open it, and ask where that
    has led to, takes three times as long."""
    if "\0" in path:
        raise ValueError("embedded null byte")
    how = struct.pack("QQQ", flags, 0, _NO_SYMLINKS)
    while (fd := _SYSCALL(_OPENAT2, _AT_FDCWD, os.fsencode(path), how, len(how))) < 0:
        if (error := ctypes.get_errno()) != errno.EINTR:
            raise OSError(error, os.strerror(error), path)
    return int(fd)


@cache
def _has_openat2() -> bool:
    try:
        os.close(_openat2("/", os.O_PATH))
    except OSError:
        return False
    return True


def open_plain(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file whose name is no link; waits for nothing. Also an opener for ``open``."""
    return _readable(os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), path)


def may_read(owner: os.stat_result, status: os.stat_result) -> bool:
    """Whether the owner of a directory may read a file that has come to be there."""
    is_of_group = status.st_gid == owner.st_gid and status.st_mode & stat.S_IRGRP
    return bool(status.st_mode & stat.S_IROTH or status.st_uid == owner.st_uid or is_of_group)


def _readable(fd: int, path: str | os.PathLike[str]) -> int:
    """The descriptor, of what the owner of its directory may read: who may write there may move a file of somebody
    else's there, and root would read it for him. Else it is closed. Raises OSError (EACCES)."""
    status = os.fstat(fd)
    if status.st_mode & stat.S_IROTH or not stat.S_ISREG(status.st_mode) or os.geteuid():
        return fd
    try:
        owner = os.stat(os.path.dirname(path) or ".")
        if not owner.st_uid or may_read(owner, status):
            return fd
        raise PermissionError(errno.EACCES, "its directory's owner may not read it", path)
    except OSError:
        os.close(fd)
        raise


def names_in(directory: str | os.PathLike[str]) -> list[str]:
    """The names in a directory whose own name is no link. Raises OSError."""
    fd = open_plain(directory, os.O_DIRECTORY)
    try:
        return os.listdir(fd)
    finally:
        close_quietly(fd)


def read_part(path: str, size: int, offset: int = 0) -> bytes:
    """Some bytes of a file, as `open_beneath` opens it. Raises OSError."""
    fd = open_beneath(path)
    try:
        return os.pread(fd, size, offset)
    finally:
        close_quietly(fd)


def read_whole(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a file whose name is no link. Raises OSError, EFBIG when it has more than ``limit`` bytes."""
    with File(open_plain(path)) as file:
        return read_all(file.fileno(), limit)


def read_all(fd: int, limit: int) -> bytes:
    """All of an open file. Raises as `read_whole` does."""
    pieces: list[bytes] = []
    size = 0
    while size <= limit and (piece := os.pread(fd, limit + 1 - size, size)):
        pieces.append(piece)
        size += len(piece)
    if size > limit:
        raise OSError(errno.EFBIG, "it is too large")
    return b"".join(pieces)


def close_quietly(fd: int) -> None:
    """Close what was only read, or synced: on a network file system that may fail, and says nothing of the bytes."""
    try:
        os.close(fd)
    except OSError:
        pass


class File(FileIO):
    """A file that is only read, or synced before it is closed: see `close_quietly`. All is read or written at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) or b""

    def write(self, data: ReadableBuffer, /) -> int:
        left = memoryview(data).cast("B")
        while left:
            left = left[super().write(left) :]
        return len(memoryview(data).cast("B"))

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            pass


def is_at(path: str | os.PathLike[str], file: os.stat_result | int) -> bool:
    """Whether what has that name is a certain file, or one that is open. Raises OSError."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file) if isinstance(file, int) else file)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return False


def appears(path: str | os.PathLike[str]) -> bool:
    """Whether something is there; asked for as long as this host may remember that it was not, where another may have
    made it."""
    end = time.monotonic() + (_REMEMBERED if is_shared(os.path.dirname(path)) else 0.0)
    while not os.path.lexists(path):
        if time.monotonic() >= end:
            return False
        time.sleep(_PAUSE)
    return True


def is_shared(path: str | os.PathLike[str]) -> bool:
    """Whether other hosts may write to the file system at ``path``, or it is not known what it is."""
    try:
        device = os.stat(path).st_dev
        if (known := _shared.get(device)) is None:
            mounted = holding(path)
            known = _shared[device] = mounted is None or mounted.file_system not in LOCAL
        return known
    except OSError:
        return True


# by device: what is mounted may become another
_shared: cachetools.TTLCache[int, bool] = cachetools.TTLCache(64, 60.0)
