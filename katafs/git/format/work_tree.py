"""The index of a work tree, ``.git/index`` (version 2; git's gitformat-index)."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable

from katafs.git.format.loose import Oid
from katafs.git.format.pack import checksummed
from katafs.git.format.tree_object import MODE_BLOB, MODE_EXECUTABLE, MODE_SYMLINK


def index_file(entries: Iterable[tuple[bytes, int, Oid, int]], mtime: int) -> bytes:
    """An index that says: each file is in the work tree as it is in the tip, last changed at ``mtime``.

    Each has its path from the top, its mode in the tree, id and size. What git does not look at is zero, with
    ``core.checkStat=minimal`` and ``core.trustctime=false``.
    """
    ordered = sorted(entries)
    seconds = mtime & 0xFFFFFFFF
    data = bytearray(struct.pack(">4sII", b"DIRC", 2, len(ordered)))
    for path, mode, oid, size in ordered:
        kept = MODE_SYMLINK if stat.S_ISLNK(mode) else MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB
        data += struct.pack(">10I", seconds, 0, seconds, 0, 0, 0, kept, 0, 0, size & 0xFFFFFFFF)
        data += oid + struct.pack(">H", min(len(path), 0xFFF)) + path
        # at least one NUL, to a multiple of eight from the start of the entry
        data += b"\0" * (8 - (62 + len(path)) % 8)
    return checksummed(data)
