"""Writes whose pages were cut off on the way, in the no-OPEN mode: whoever opens the file has the kernel ask for its
size, that of the outcome, and what others have written beyond it and is not yet sent has zeros to the end of the page.

So only what stands before is taken, and the writer, who is told of fewer bytes, sends the rest again.
"""

from __future__ import annotations

import errno

import cachetools
import pyfuse3

from katafs.fuse.fastopen import Asked
from katafs.tree.nodes import Writable

_PAGE = 4096
_REMEMBERED, _REMEMBERED_SECONDS = 1024, 2.0
# times: beside many openers one is cut off again and again; what is meant to have zeros is no JSON, and is refused then
_MOST_TRIES = 50


class Torn:
    """How often who was told to try again: not for ever, for he may mean his zeros. Belongs to the event loop."""

    def __init__(self) -> None:
        self._tries: cachetools.TTLCache[tuple[int, int], int] = cachetools.TTLCache(_REMEMBERED, _REMEMBERED_SECONDS)

    def whole(self, node: Writable, asked: Asked, offset: int, data: bytes) -> bytes:
        """The part of a write that is whole. Raises EINTR where there is none."""
        at = data.find(b"\0")
        if at < 0:
            return data
        end = at + _PAGE - (offset + at) % _PAGE
        page = (offset + at) // _PAGE * _PAGE
        if data[at:end].strip(b"\0") or not node.has_told(page, offset + at, is_exact=at > 0):
            return data
        tries = self._tries.get((asked.thread, offset), 0)
        if at == 0 and tries < _MOST_TRIES:
            self._tries[asked.thread, offset] = tries + 1
            raise pyfuse3.FUSEError(errno.EINTR)
        return data[:at] if at > 0 else data
