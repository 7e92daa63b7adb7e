"""The path of one write: bytes → message → commit in a worker thread → what the kernel must forget → the answer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Hashable

import pyfuse3
import trio

from katafs.errors import KataError
from katafs.kata.inbox import Message
from katafs.kata.message import Act
from katafs.tree.control import RanTestsFile
from katafs.tree.tree import Stale, Tree

log = logging.getLogger(__name__)

_LARGE = 64 << 10  # bytes of a message that takes longer to parse than a thread to start
_TELLING = 100  # as many as pyfuse3 handles requests at a time


class Writes:
    """Writes to control files. Belongs to the event loop."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        # not the limit of the other threads: who tells the kernel may wait for a reader whom one of those must serve
        self._limiter = trio.CapacityLimiter(_TELLING)
        self._telling = 0
        self._told = trio.Event()
        self._is_stopping = False

    async def write(
        self, node: RanTestsFile, writer: Hashable | None, offset: int, data: bytes, *, appends: bool
    ) -> None:
        """Take one write. When this returns the event, if the write completed one, is durable and visible.

        Raises what the writer is to hear; then nothing has changed but the outcome.
        """
        message = node.feed(writer, offset, data, appends=appends)
        if message is not None:
            await self._commit(node, message, (writer, offset) if message.in_pieces else None)

    async def _commit(self, node: RanTestsFile, message: Message, again_at: tuple[Hashable | None, int] | None) -> None:
        event: Act | None = None
        try:
            large = len(message.data) > _LARGE
            event = await trio.to_thread.run_sync(node.parse, message) if large else node.parse(message)
            before = self._tree.tip(node.kata_id)
            committed = await trio.to_thread.run_sync(node.commit, node.path, node.kata_id, event)
        except KataError as error:
            node.refused(error, event, again_at)
            raise
        except Exception:
            node.refused(KataError("katafs itself has failed, and its log says how"), event, again_at)
            raise
        # The event is recorded: whatever goes wrong from here on, the writer must hear of success.
        node.accepted(event, committed)
        log.info("kata %s: event %d", node.kata_id, committed.index)
        try:
            after = self._tree.tip(node.kata_id)
            await self._tell(self._tree.stale_after(node.kata_id, before, after))
        except Exception:
            log.exception("kata %s: the kernel was not told of event %d", node.kata_id, committed.index)

    async def _tell(self, stale: Stale) -> None:
        """Tell the kernel what to forget; when this returns it has."""
        if self._is_stopping:
            return
        self._telling += 1
        try:
            await trio.to_thread.run_sync(invalidate, stale, limiter=self._limiter)
        finally:
            self._telling -= 1
            self._told.set()

    def forget_pages(self, inode: int) -> None:
        """Have the kernel forget the pages of a file that somebody tried to write to: later, for it holds them now."""
        trio.lowlevel.spawn_system_task(self._tell_later, Stale([inode], []))

    async def _tell_later(self, stale: Stale) -> None:
        # told before it has the answer, the kernel leaves them
        await trio.sleep(0.05)
        try:
            await self._tell(stale)
        except Exception:
            log.exception("the kernel was not told to forget %s", stale)

    async def stop(self) -> None:
        """Tell the kernel nothing more, and wait until it has been told what it is being told now.

        That may wait for the answer to a request which the kernel has yet to send: a daemon that takes no more
        requests would wait for ever, and could not even be killed.
        """
        self._is_stopping = True
        while self._telling:
            self._told = trio.Event()
            await self._told.wait()

    def is_unfinished(self, node: RanTestsFile, writer: Hashable | None) -> bool:
        """Whether that writer has begun a message and not finished it."""
        return self._tree.ctx.controls.inbox.is_unfinished(node.key, writer)


def invalidate(stale: Stale) -> None:
    """Tell the kernel; in a worker thread, since it may wait for requests that the event loop must answer."""
    # ENOENT: the kernel does not know the thing, so it need not forget it
    for directory, name in stale.entries:
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_entry(directory, name)
    for inode in stale.inodes:
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_inode(inode)
