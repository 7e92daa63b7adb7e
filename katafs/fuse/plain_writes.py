"""The handlers of what plain-path services write: CREATE, MKDIR, and WRITE to what is stored as it comes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

import cachetools
import trio

from katafs.errors import KataError
from katafs.kata.pending import PENDING, ROW_SECONDS, Pending, flush_pending
from katafs.kata.plain_rows import is_part_of_row
from katafs.tree.nodes import Node
from katafs.tree.pending import Stored

_LONGEST_ROW = 1 << 20  # bytes
_MOST_BYTES = 64 << 20  # of rows that are not whole

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from katafs.fuse.making import Makers
    from katafs.fuse.writes import Writes
    from katafs.tree.tree import Tree


def _flush(path: Path, kata_id: str) -> bool:
    """Record what has waited for long enough; whether something goes on waiting."""
    if not os.path.isdir(path / PENDING):
        return False
    flush_pending(path, kata_id, older_than=ROW_SECONDS)
    return bool(Pending(path, kata_id).indexes())


class PlainWrites:
    """Creating, and writing to what was created. Belongs to the event loop."""

    def __init__(self, tree: Tree, makers: Makers, writes: Writes) -> None:
        self._tree, self._makers, self._writes = tree, makers, writes
        self._counters = tree.ctx.counters
        # a kata's writers wait for one another anyway
        self._parts: cachetools.TTLCache[tuple[int, Hashable], tuple[int, bytes]] = cachetools.TTLCache(
            _MOST_BYTES, 10, getsizeof=lambda part: 1024 + len(part[1])
        )
        self._limiter = trio.CapacityLimiter(16)

    async def create(self, parent: int, name: bytes, *, is_directory: bool) -> tuple[Node, float]:
        """Make a new entry: its node, and how long the name holds. Raises `LateError` (EEXIST)."""
        directory = await self._makers.made(self._tree.node(parent))
        make = directory.to_create(name, is_directory=is_directory)
        await trio.to_thread.run_sync(make, limiter=self._limiter)
        return (await self._makers.made(self._tree.node(parent))).child(name)

    async def expire(self) -> None:
        """Record the events whose rows did not come in a minute."""
        for kata_id in sorted(self._tree.ctx.waiting):
            self._tree.ctx.waiting.discard(kata_id)
            path = self._tree.ctx.store.path(kata_id)
            try:
                left = await trio.to_thread.run_sync(_flush, path, kata_id, limiter=self._limiter)
            except KataError as error:
                log.warning("kata %s: an event that has no row cannot be recorded: %s", kata_id, error)
                continue
            if left:
                self._tree.ctx.waiting.add(kata_id)

    async def write(self, node: Stored, writer: Hashable | None, offset: int, data: bytes) -> None:
        """Write to a file. What it completes is visible everywhere when this returns."""
        if node.is_appended:
            # the parts of a row come one after another from one writer, who is told of the whole
            expected, begun = self._parts.pop((node.number, writer), (offset, b""))
            end = offset + len(data)
            data = begun + data if expected == offset else data
            if is_part_of_row(data) and len(data) <= _LONGEST_ROW:
                self._parts[node.number, writer] = (end, data)
                return
        before = None
        with contextlib.suppress(KataError):
            before = self._tree.tip(node.kata_id)
        await trio.to_thread.run_sync(node.store, offset, data, limiter=self._limiter)
        if before is None:
            # what made a new kata whole is its first commit
            self._counters.commits["plain"] += self._tree.ctx.store.is_git(node.kata_id)
            return
        # It is recorded: whatever goes wrong from here on, the writer must hear of success.
        try:
            after = self._tree.tip(node.kata_id)
            if after.commit.oid != before.commit.oid:
                self._writes.wrote(node.kata_id)
                self._counters.commits["plain"] += 1
                await self._writes.tell(self._tree.stale_after(node.kata_id, before, after))
        except Exception:
            log.exception("kata %s: the kernel was not told of a commit", node.kata_id)
