"""Giving memory back when the kernel has forgotten what it was asked for."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Awaitable, Callable

import trio

from katafs.tree.dirs.stored_nodes import plain_key
from katafs.tree.numbers import Numbers
from katafs.tree.tree import Stale, Tree

log = logging.getLogger(__name__)

# so many inodes forgotten in a few seconds are a kernel that needs memory, or a mount that is done with something large
_MANY_FORGOTTEN = 5_000
_M_ARENA_MAX = -8  # <malloc.h>
_HEAPS = 2


def keep_few_heaps() -> None:
    """Have all threads share two heaps. glibc gives each thread one of its own, up to eight a processor, and what a
    worker thread has freed in its own is of use to nobody else. Without glibc nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _HEAPS)


class Memory:
    """Sees when it is time. Belongs to the event loop."""

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
        gone = oldest + await trio.to_thread.run_sync(files.gone, others) if others else oldest
        if gone:
            names = [(plain_key(key.kata, os.path.dirname(key.path)), os.path.basename(key.path)) for key in gone]
            await tell(Stale([], [(Numbers.number(parent), name) for parent, name in names]))
