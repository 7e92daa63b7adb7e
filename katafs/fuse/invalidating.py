"""Having the kernel forget what a commit has changed; and giving memory back when it has forgotten much."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Awaitable, Callable

import pyfuse3
import trio

from katafs.fuse.elsewhere import Elsewhere
from katafs.fuse.fastopen import FastOpen
from katafs.git import Oid
from katafs.tree.dirs.stored_nodes import plain_key
from katafs.tree.numbers import Numbers
from katafs.tree.tree import Stale, Tree

log = logging.getLogger(__name__)

_THREADS = 100
# so many inodes forgotten in a few seconds are a kernel that needs memory, or a mount that is done with something large
_MANY_FORGOTTEN = 5_000


class Invalidator:
    """Belongs to the event loop."""

    def __init__(self, fast: FastOpen, elsewhere: Elsewhere) -> None:
        self._fast, self._elsewhere = fast, elsewhere
        # not the limit of the other threads: who tells the kernel may wait for a reader whom one of those must serve
        self.limiter = trio.CapacityLimiter(_THREADS)
        self._is_stopping = False

    async def since(self, kata_id: str, before: Oid | None) -> bool:
        """Tell the kernel what changed since a tip, if there was one; whether anything did. Raises nothing: it is
        recorded, and whoever wrote must hear of success, whatever goes wrong from there on."""
        stale = None
        try:
            if before is not None and (stale := await self._elsewhere.of_kata("stale", kata_id, before)) is not None:
                await self.tell(stale)
        except Exception:
            log.exception("kata %s: the kernel was not told of a commit", kata_id)
        return stale is not None

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


class Memory:
    """Sees when the kernel has forgotten much, and which files of ``.git/`` nobody has open. Belongs to the event
    loop."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._forgotten = 0

    def forgotten(self, inodes: int) -> None:
        self._forgotten += inodes

    async def look(self) -> None:
        """To be called every few seconds: forgets what the kernel will hardly ask for again, and gives the memory back.

        The kernel had the answers in its own memory; what it forgot there we need not keep here.
        """
        forgotten, self._forgotten = self._forgotten, 0
        if forgotten < _MANY_FORGOTTEN:
            return
        self._tree.clear_caches()
        # freed memory stays with the process otherwise; takes some milliseconds, without the GIL
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            await trio.to_thread.run_sync(trim, 0)
        log.debug("the kernel has forgotten %d inodes: so have we", forgotten)

    async def invalidate_git_files(self, tell: Callable[[Stale], Awaitable[None]]) -> None:
        """To be called every second or so: have the kernel say which files of ``.git/`` nobody has open any more."""
        files = self._tree.ctx.git_files
        oldest, others = files.looked_up()
        if others:
            oldest += await trio.to_thread.run_sync(lambda: [one.key for one in others if files.is_gone(one)])
        if oldest:
            names = [(plain_key(key.kata, os.path.dirname(key.path)), os.path.basename(key.path)) for key in oldest]
            await tell(Stale([], [(Numbers.number(parent), name) for parent, name in names]))
