"""The handlers of what plain-path services write: CREATE, MKDIR, and WRITE to what is stored as it comes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING

import cachetools
import trio

from katafs.errors import DiedError, HeavyError, InvalidError, KataError
from katafs.fuse.descriptors import process_of
from katafs.fuse.journal import ANYWHERE, Journal, Request
from katafs.git import Oid
from katafs.kata.exclusive import Attempt
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import ROW_SECONDS, flush_pending
from katafs.kata.legacy.plain_rows import begins_row, is_part_of_row
from katafs.kata.legacy.waiting import marked
from katafs.tree.legacy.pending import Stored, begun_in
from katafs.tree.nodes import Creator, Node

_LONGEST_ROW = 1 << 20  # bytes
_MOST_BYTES = 64 << 20  # of rows that are not whole
# how long a kata is left alone in which something waits that cannot be recorded
_FAILED_SECONDS = 600

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from katafs.fuse.fastopen import Asked
    from katafs.fuse.making import Makers
    from katafs.fuse.writes import Writes
    from katafs.tree.tree import Tree


class PlainWrites:
    """Creating, and writing to what was created. Belongs to the event loop."""

    def __init__(self, tree: Tree, makers: Makers, writes: Writes, journal: Journal) -> None:
        self._tree, self._makers, self._writes, self._journal = tree, makers, writes, journal
        self._counters = tree.ctx.counters
        # a kata's writers wait for one another anyway
        self._parts: cachetools.TTLCache[tuple[int, Hashable], tuple[int, bytes]] = cachetools.TTLCache(
            _MOST_BYTES, 10, getsizeof=lambda part: 1024 + len(part[1])
        )
        self._failed: cachetools.TTLCache[str, bool] = cachetools.TTLCache(10_000, _FAILED_SECONDS)
        self._limiter = trio.CapacityLimiter(16)

    async def create(self, parent: int, name: bytes, unique: int, *, is_directory: bool) -> tuple[Node, float]:
        """Make a new entry, for the request ``unique``: its node, and how long the name holds.

        Raises `LateError` (EEXIST).
        """
        request = self._journal.begin(unique)
        try:
            kata_id, make = await self._creator(parent, name, is_directory=is_directory)
            attempt = Attempt(partial(self._journal.announce_making, request), request.was_making)
            before = await self._tip(kata_id)
            await trio.to_thread.run_sync(make, attempt, limiter=self._limiter)
            # Events that waited may have been recorded before. The kernel is told of them later, for it holds the
            # directory as long as it has no answer.
            if before is not None:
                trio.lowlevel.spawn_system_task(self._told, kata_id, before)
            return await self._made(parent, name)
        finally:
            self._journal.end(request)

    async def expire(self) -> None:
        """Record the events whose rows did not come in a minute, those of daemons that died too."""
        ctx = self._tree.ctx
        ctx.store.plain.partly_read.expire()
        waiting = ctx.waiting | await trio.to_thread.run_sync(marked, ctx.store.root, limiter=self._limiter)
        for kata_id in sorted(waiting - set(self._failed)):
            ctx.waiting.discard(kata_id)
            # where it is about to be migrated nothing waits yet
            before = await self._tip(kata_id) if ctx.store.is_git(kata_id) else None
            try:
                flush = partial(flush_pending, ctx.store.path(kata_id), kata_id, ROW_SECONDS)
                left = await trio.to_thread.run_sync(flush, limiter=self._limiter)
            except KataError as error:
                log.warning("kata %s: an event that has no row cannot be recorded: %s", kata_id, error)
                self._failed[kata_id] = True
                continue
            if left:
                ctx.waiting.add(kata_id)
            if before is not None:
                await self._told(kata_id, before)

    async def write(self, node: Stored, asked: Asked, offset: int, data: bytes) -> None:
        """Write to a file. What it completes is visible everywhere when this returns."""
        request = self._journal.begin(asked.unique)
        try:
            if await self._writes.recorded_before(node.kata_id, request) is not None:
                # it may be a migration that was not finished
                migrate = partial(migrate_kata, self._tree.ctx.store.path(node.kata_id), node.kata_id)
                await trio.to_thread.run_sync(migrate, limiter=self._limiter)
                return
            whole = self._whole_row(node, request, asked, offset, data) if node.is_appended else data
            if whole is None:
                return
            before = await self._tip(node.kata_id)
            announce = partial(self._journal.announce, request)
            await trio.to_thread.run_sync(node.store, offset, whole, announce, limiter=self._limiter)
            await self._told(node.kata_id, before)
        finally:
            self._journal.end(request)

    def _whole_row(self, node: Stored, request: Request, asked: Asked, offset: int, data: bytes) -> bytes | None:
        """The row that a write completes; None when a part of it is still to come.

        The kernel cuts a write at the end of a page, and its parts come one after another from one writer, who is told
        of the whole. A part whose beginning died with another daemon is refused, as is one that begins in mid-row: who
        was told of an error sends the rest once more.
        """
        key = (node.number, process_of(asked.thread))
        expected, begun = self._parts.pop(key, (offset, b""))
        data, end = begun + data if expected == offset else data, offset + len(data)
        # where one appends says nothing
        appended = asked._replace(flags=os.O_APPEND)
        if self._journal.is_rest(request, node.number, appended, offset, data) and not begun and not begins_row(data):
            raise DiedError("the daemon died while it had the beginning of the row; send it again")
        if not begins_row(data):
            raise InvalidError("what is appended begins in the middle of a row")
        is_part = is_part_of_row(data) and len(data) <= _LONGEST_ROW
        if is_part:
            self._parts[key] = (end, data)
            self._journal.fed(request, key, node.number, asked, ANYWHERE)
        else:
            self._journal.over(request, key)
        return None if is_part else data

    async def _told(self, kata_id: str, before: Oid | None) -> None:
        """Count what was recorded since a tip, and tell the kernel. Raises nothing, as it is recorded."""
        try:
            after = await self._tip(kata_id)
            # what made a new kata whole is its first commit
            is_first = before is None and self._tree.ctx.store.is_git(kata_id)
            is_new = before is not None and after is not None and after != before
            self._counters.commits["plain"] += is_first or is_new
            if is_first or is_new:
                self._writes.wrote(kata_id)
        except Exception:
            log.exception("kata %s: what was recorded cannot be looked at", kata_id)
        await self._writes.tell_committed(kata_id, before)

    async def _tip(self, kata_id: str) -> Oid | None:
        """The tip of a kata that is there and can be read."""
        with contextlib.suppress(KataError):
            return await self._writes.tip(kata_id)
        return None

    async def _made(self, parent: int, name: bytes) -> tuple[Node, float]:
        """What was made."""
        self._tree.ctx.store.look_again()
        try:
            return (await self._makers.made(self._tree.node(parent))).child(name)
        except HeavyError:
            said = await self._writes.elsewhere.child(parent, name)
            return said, said.timeout

    async def _creator(self, parent: int, name: bytes, *, is_directory: bool) -> tuple[str, Creator]:
        """The kata, and what makes a new entry in it."""
        try:
            directory = await self._makers.made(self._tree.node(parent))
            return directory.key.kata, directory.to_create(name, is_directory=is_directory)
        except HeavyError:
            make = await self._writes.elsewhere.creator(parent, name, is_directory=is_directory)
        kata_id = self._tree.numbers.key(parent).kata
        begun_in(self._tree.ctx, kata_id, name)
        return kata_id, make
