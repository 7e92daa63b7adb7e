"""What a file handle stands for: the inode itself, except for a file that was opened with OPEN to be written to.

In the no-OPEN mode the handle *is* the inode number (see `katafs.fuse.writing.openings`).
"""

from __future__ import annotations

from katafs.errors import StaleError
from katafs.fuse.fastopen import Asked
from katafs.fuse.writing.openings import Opening

_FIRST = 1 << 63  # no inode number is that large


class Handles:
    """Handles of files opened with OPEN to be written to; forgotten at RELEASE."""

    def __init__(self) -> None:
        self._openings: dict[int, tuple[Opening, int]] = {}
        self._next = _FIRST

    def open(self, inode: int, flags: int) -> int:
        """A new handle, for a file that was opened with these flags."""
        handle = self._next
        self._next += 1
        self._openings[handle] = (Opening(None, inode, Asked(flags=flags)), flags)
        return handle

    def inode(self, handle: int) -> int:
        """The inode of a handle. Raises `StaleError`."""
        if handle < _FIRST:
            return handle
        try:
            return self._openings[handle][0].inode
        except KeyError as error:
            raise StaleError(f"file handle {handle} is not known") from error

    def opening(self, handle: int | None, asked: Asked) -> tuple[Opening | None, Asked]:
        """The open file of a handle, None in the no-OPEN mode; and what its request says, with how it was opened."""
        opening, flags = self._openings.get(handle or 0, (None, asked.flags))
        return opening, asked._replace(flags=flags)

    def release(self, handle: int) -> Opening | None:
        """Forget a handle; its open file, if it could be written to."""
        return self._openings.pop(handle, (None, 0))[0]
