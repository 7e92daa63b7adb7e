"""The path of one write: bytes → message → commit in a worker thread → what the kernel must forget → the answer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Hashable

import pyfuse3
import trio

from katafs.errors import KataError
from katafs.kata.inbox import Message
from katafs.kata.message import RanTests
from katafs.tree.control import RanTestsFile
from katafs.tree.tree import Stale, Tree

log = logging.getLogger(__name__)


class Writes:
    """Writes to control files. Belongs to the event loop."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def write(self, node: RanTestsFile, writer: Hashable | None, offset: int, data: bytes) -> None:
        """Take one write. When this returns the event, if the write completed one, is durable and visible.

        Raises what the writer is to hear; then nothing has changed but the outcome.
        """
        message = node.feed(writer, offset, data)
        if message is not None:
            await self._commit(node, message, (writer, offset) if message.in_pieces else None)

    async def _commit(self, node: RanTestsFile, message: Message, again_at: tuple[Hashable | None, int] | None) -> None:
        event: RanTests | None = None
        try:
            event = node.parse(message)
            before = self._tree.tip(node.kata_id)
            committed = await trio.to_thread.run_sync(node.commit, node.path, node.kata_id, event)
        except KataError as error:
            node.refused(error, event, again_at)
            raise
        # The event is recorded: whatever goes wrong from here on, the writer must hear of success.
        node.accepted(event, committed)
        log.info("kata %s: event %d", node.kata_id, committed.index)
        try:
            after = self._tree.tip(node.kata_id)
            stale = self._tree.stale_after(node.kata_id, before, after)
            await trio.to_thread.run_sync(invalidate, stale)
        except Exception:
            log.exception("kata %s: the kernel was not told of event %d", node.kata_id, committed.index)

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
