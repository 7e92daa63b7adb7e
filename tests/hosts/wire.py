"""What the kernel sends to a file system, and what it wants back (<linux/fuse.h>, protocol 7.31)."""

from __future__ import annotations

import os
import stat
import struct
from enum import IntEnum

HEADER = struct.Struct("=IIQQIIIHH")  # length, opcode, unique, node, uid, gid, pid, of extensions, padding
REPLY = struct.Struct("=IiQ")  # length, minus errno, unique
INIT = struct.Struct("=IIIIHHIIHHII24x")
GETATTR = struct.Struct("=IIQ")
SETATTR = struct.Struct("=IIQQQQQQ8I")
MKDIR = struct.Struct("=II")
RENAME2 = struct.Struct("=QII")
OPEN = struct.Struct("=II")
OPENED = struct.Struct("=QIi")
CREATE = struct.Struct("=IIII")
READ = struct.Struct("=QQIIQII")  # of a write, too
WRITTEN = struct.Struct("=II")
LOCK = struct.Struct("=QQQQIIII")  # handle, owner, start, end, type, pid, flags, padding
FLOCK = struct.Struct("=hh4xqqi4x")  # fcntl(2)
LAST = (1 << 63) - 2
STATFS = struct.Struct("=5Q4I24x")
DIRENT = struct.Struct("=QQII")
FORGET = struct.Struct("=QQ")
_ATTR = struct.Struct("=6Q10I")
_ENTRY = struct.Struct("=4Q2I")
_VALID = struct.Struct("=QII")
LONG = struct.Struct("=Q")

BIG_WRITES, LOCKS, FLOCKS, MAX_PAGES = 1 << 5, 1 << 1, 1 << 10, 1 << 22
PAGES = 32
IS_FLOCK = 1
KEEP_CACHE = 1 << 1
# what SETATTR sets
MODE, UID, GID, SIZE, ATIME, MTIME, HANDLE, ATIME_NOW, MTIME_NOW = (1 << bit for bit in range(9))


class Op(IntEnum):
    """Requests."""

    LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK = 1, 2, 3, 4, 5, 6
    MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE = 9, 10, 11, 12, 13, 14, 15, 16
    STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR = 17, 18, 20, 25, 26, 27, 28
    RELEASEDIR, FSYNCDIR, SETLK, SETLKW, CREATE, INTERRUPT = 29, 30, 32, 33, 35, 36
    BATCH_FORGET, RENAME2 = 42, 45


NO_REPLY = (Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT)


def attr(status: os.stat_result, ahead_ns: int) -> bytes:
    """The attributes of a file, its times so much later."""
    times = [divmod(ns + ahead_ns, 10**9) for ns in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)]
    return _ATTR.pack(
        status.st_ino,
        status.st_size,
        status.st_blocks,
        *(seconds for seconds, _ in times),
        *(ns for _, ns in times),
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        0,
        status.st_blksize,
        0,
    )


def told(seconds: float, attributes: bytes) -> bytes:
    """The answer to GETATTR, which holds for so long."""
    return _VALID.pack(*_parts(seconds), 0) + attributes


def entry(node: int, name_seconds: float, seconds: float, attributes: bytes = bytes(_ATTR.size)) -> bytes:
    """The answer to LOOKUP, of which the name holds for so long, and the attributes; node 0: there is none."""
    whole, ns = _parts(name_seconds)
    attr_whole, attr_ns = _parts(seconds)
    return _ENTRY.pack(node, 0, whole, attr_whole, ns, attr_ns) + attributes


def dirent(entry: os.DirEntry[bytes], after: int) -> bytes:
    """An entry of a listing; ``after`` is where the next one is."""
    # it may be gone, and is listed all the same
    mode = stat.S_IFLNK if entry.is_symlink() else stat.S_IFDIR if entry.is_dir() else stat.S_IFREG
    kind = mode >> 12
    data = DIRENT.pack(entry.inode(), after, len(entry.name), kind) + entry.name
    return data.ljust(-(-len(data) // 8) * 8, b"\0")


def _parts(seconds: float) -> tuple[int, int]:
    whole, rest = divmod(seconds, 1)
    return int(whole), int(rest * 1e9)
