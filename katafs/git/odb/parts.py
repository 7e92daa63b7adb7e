"""A file that is read in parts, which are kept for a while: packs and their indexes."""

from __future__ import annotations

import itertools
import os

from katafs.caching import Kept, Shared
from katafs.git.beneath import close_quietly, open_beneath

# what an entry of a cache takes beside its data, in bytes
OVERHEAD = 300
#: Parts of files, of the whole process: who lists files reads the heads of all their entries, which stand near to each
#: other.
_parts: Shared[tuple[int, int], bytes] = Shared(4 << 20, lambda part: len(part) + OVERHEAD)
PART = 1 << 15
_keys = itertools.count()


def kept_parts() -> Kept:
    """What is in memory."""
    return _parts.kept()


def clear_parts() -> None:
    """Give up what was kept to be quicker."""
    _parts.clear()


class PartFile:
    """A file at a path without links, opened when it is first read."""

    __slots__ = ("_fd", "_stays_open", "key", "path")

    def __init__(self, path: str, *, stays_open: bool = True) -> None:
        self.path = path
        self._stays_open = stays_open
        #: another number whenever what was read before does not count
        self.key = next(_keys)
        self._fd = -1

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close it; it is opened again when it is read."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_quietly(fd)

    def discard(self) -> None:
        """What was read may have been damaged: read it again, from the file that has that name now."""
        self.key = next(_keys)
        self.close()

    def size(self) -> int:
        """In bytes. Raises OSError."""
        return os.stat(self.path, follow_symlinks=False).st_size

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, or fewer at the end. Raises OSError."""
        at = offset % PART
        if at + size > PART:
            return self._pread(size, offset)
        key = self.key, offset - at
        part = _parts.get(key)
        if part is None:
            part = self._pread(PART, offset - at)
            _parts.keep(key, part)
        return part[at : at + size]

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._opened(), size, offset)
        finally:
            if not self._stays_open:
                self.close()

    def _opened(self) -> int:
        if self._fd < 0:
            self._fd = open_beneath(self.path)
        return self._fd
