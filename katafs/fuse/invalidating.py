"""Having the kernel forget what a commit has changed."""

from __future__ import annotations

import contextlib
import logging

import pyfuse3
import trio

from katafs.fuse.elsewhere import Elsewhere
from katafs.fuse.fastopen import FastOpen
from katafs.git import Oid
from katafs.tree.tree import Stale

log = logging.getLogger(__name__)

_THREADS = 100


class Invalidator:
    """Belongs to the event loop."""

    def __init__(self, fast: FastOpen, elsewhere: Elsewhere) -> None:
        self._fast, self._elsewhere = fast, elsewhere
        # not the limit of the other threads: who tells the kernel may wait for a reader whom one of those must serve
        self.limiter = trio.CapacityLimiter(_THREADS)
        self._is_stopping = False

    async def since(self, kata_id: str, before: Oid | None) -> bool:
        """Tell the kernel what changed since a tip, if there was one; whether anything did.

        Raises nothing: it is recorded, and whoever wrote must hear of success, whatever goes wrong from there on.
        """
        has_moved = False
        try:
            has_moved = before is not None and await self._elsewhere.tip(kata_id) != before
            if before is not None and has_moved:
                await self.tell(await self._elsewhere.stale(kata_id, before))
        except Exception:
            log.exception("kata %s: the kernel was not told of a commit", kata_id)
        return has_moved

    async def tell(self, stale: Stale) -> None:
        """Tell the kernel what to forget; when this returns it has."""
        if not self._is_stopping:
            await trio.to_thread.run_sync(self._invalidate, stale, limiter=self.limiter)

    def _invalidate(self, stale: Stale) -> None:
        if not self._fast.invalidate(stale.entries, stale.inodes):
            invalidate(stale)

    def invalidate_pages(self, inode: int) -> None:
        """Have the kernel forget the pages of a file that somebody tried to write to: later, for it holds them now."""
        trio.lowlevel.spawn_system_task(self._tell_later, Stale([inode], []))

    async def _tell_later(self, stale: Stale) -> None:
        # told before it has the answer, the kernel leaves them
        await trio.sleep(0.05)
        try:
            await self.tell(stale)
        except Exception:
            log.exception("the kernel was not told to forget %s", stale)

    async def stop(self) -> None:
        """Tell the kernel nothing more, and wait until it has been told what it is being told now: that may need the
        answer to a request which is yet to come, and a daemon that takes none could not even be killed."""
        self._is_stopping = True
        while self.limiter.borrowed_tokens:  # noqa: ASYNC110 - once, at the end
            await trio.sleep(0.001)


def invalidate(stale: Stale) -> None:
    """Tell the kernel; in a worker thread, since it may wait for requests that the event loop must answer."""
    # ENOENT: the kernel does not know the thing, so it need not forget it
    for directory, name in stale.entries:
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_entry(directory, name)
    for inode in stale.inodes:
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_inode(inode)
