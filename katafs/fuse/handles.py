"""What a file handle stands for: the inode itself, except for a control file that was opened with OPEN.

In the no-OPEN mode the handle *is* the inode number, and writers are told apart by their thread. With OPEN each open
of a control file is a writer of its own, whatever threads use it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable

from katafs.errors import StaleError
from katafs.fuse.fastopen import Asked

_FIRST = 1 << 63  # no inode number is that large


class Handles:
    """Handles of control files opened with OPEN; forgotten at RELEASE."""

    def __init__(self) -> None:
        self._inodes: dict[int, tuple[int, bool]] = {}
        self._next = _FIRST

    def open_control(self, inode: int, *, appends: bool) -> int:
        """A new handle for a control file; ``appends`` if it was opened with O_APPEND."""
        handle = self._next
        self._next += 1
        self._inodes[handle] = (inode, appends)
        return handle

    def inode(self, handle: int) -> int:
        """The inode of a handle. Raises `StaleError`."""
        if handle < _FIRST:
            return handle
        try:
            return self._inodes[handle][0]
        except KeyError as error:
            raise StaleError(f"file handle {handle} is not known") from error

    def writer(self, handle: int, asked: Asked) -> Hashable | None:
        """Who writes with this handle; None if nobody can tell."""
        if handle >= _FIRST:
            return ("handle", handle)
        return ("thread", asked.thread) if asked.thread else None

    def appends(self, handle: int, asked: Asked) -> bool:
        """Whether a write appends."""
        return self._inodes[handle][1] if handle in self._inodes else bool(asked.flags & os.O_APPEND)

    def release(self, handle: int) -> int | None:
        """Forget a handle; its inode if it was a control file's."""
        return self._inodes.pop(handle, (None, False))[0]
