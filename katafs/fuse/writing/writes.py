"""The path of whatever changes a kata: bytes → message → job → what the kernel must forget → the answer.

What takes the bytes, and what a message says is to be done, is the node's to say (`katafs.tree.nodes`). A file or
directory that is made is a job without a message.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Hashable, Iterator
from functools import partial

import cachetools
import pyfuse3
import trio

from katafs.errors import DiedError, KataError, StorageError
from katafs.fuse.elsewhere import Elsewhere
from katafs.fuse.fastopen import Asked, FastOpen
from katafs.fuse.invalidating import Invalidator
from katafs.fuse.writing.descriptors import process_of
from katafs.fuse.writing.jobs import Jobs, nobody
from katafs.fuse.writing.journal import ANYWHERE, MAKING, Journal, Request
from katafs.fuse.writing.openings import AmbiguousError, Opening, Openings
from katafs.git import GitRepo
from katafs.kata.record.commit import Announce, Committed, plain_job
from katafs.kata.record.exclusive import Attempt
from katafs.kata.record.inbox import Message
from katafs.kata.record.recorders import commits_before
from katafs.tree.nodes import Node, Writable
from katafs.tree.tree import Tree

log = logging.getLogger(__name__)

_LARGE = 64 << 10  # bytes of a message that takes longer to parse than a thread to start
# Messages that are complete and not yet answered for. Those beyond are refused rather than left waiting: every one
# that waits holds one of the requests that are handled at a time, and readers need some too.
MOST_WAITING = 200
_MOST_BYTES = 256 << 20
_PAGE = 4096
_REMEMBERED, _REMEMBERED_SECONDS = 1024, 2.0
# times: beside many openers one is cut off again and again; what is meant to have zeros is no JSON, and is refused then
_MOST_TRIES = 50


class Writes:
    """Everything that changes katas through the mount. Belongs to the event loop."""

    def __init__(self, tree: Tree, fast: FastOpen, journal: Journal, elsewhere: Elsewhere, kernel: Invalidator) -> None:
        self._tree, self._fast, self._journal, self._elsewhere, self._kernel = tree, fast, journal, elsewhere, kernel
        inbox = tree.ctx.controls.inbox
        self.openings = Openings(
            lambda opening: inbox.is_begun(opening.file, opening), lambda: journal.is_flushed or fast.is_flushed
        )
        self.jobs = Jobs(tree, elsewhere, kernel)
        #: how many messages wait
        self.waiting = 0
        self._bytes = 0
        # how often who was told to try again: not for ever, for he may mean his zeros
        self._tries: cachetools.TTLCache[tuple[int, int], int] = cachetools.TTLCache(_REMEMBERED, _REMEMBERED_SECONDS)

    async def write(self, sink: Writable, asked: Asked, handle: Opening | None, offset: int, data: bytes) -> None:
        """Take one write; ``handle`` is the open file, where the kernel says which. What it completed is durable and
        visible then. Raises what the writer is to hear; then nothing has changed but the outcome."""
        request = self._journal.begin(asked.unique)
        opening = handle
        try:
            committed = await self._recorded_before(sink, request)
            if committed is not None:
                sink.accepted(committed)
                return
            if opening is None and sink.takes_pieces and not sink.by_process:
                try:
                    opening = await self.openings.of_write(sink.key, sink.number, asked, offset, data)
                except AmbiguousError as ambiguous:
                    # it is refused to all to which it may belong
                    for one in ambiguous.openings:
                        sink.refused(ambiguous, (one, one.end))
                        self._journal.over(None, one)
                    raise
            writer: Hashable = (sink.number, process_of(asked.thread)) if sink.by_process else opening
            is_known = sink.is_unfinished(writer) if opening is None else opening.held is not None
            if sink.takes_pieces and handle is None and not is_known:
                is_rest = self._journal.is_continuation(request, sink.number, asked, offset, data)
                if is_rest and not sink.starts(data):
                    error = DiedError("the daemon died while it had the beginning of the message; send it again")
                    sink.refused(error, (writer, offset))
                    raise error
            await self._feed(sink, request, writer, asked, offset, data)
        finally:
            if opening is not None and handle is None:
                await self.openings.settle(opening, asked, offset + len(data))
            self._journal.end(request)

    def whole(self, sink: Writable, asked: Asked, offset: int, data: bytes) -> bytes:
        """The part of a write in the no-OPEN mode that was not cut off on the way; its writer, who is told of fewer
        bytes, sends the rest again. Raises EINTR where there is none.

        Whoever opens the file has the kernel ask for its size, that of the outcome: what others have written beyond it,
        and is not yet sent, has zeros from there to the end of the page.
        """
        at = data.find(b"\0")
        if at < 0:
            return data
        end = at + _PAGE - (offset + at) % _PAGE
        page = (offset + at) // _PAGE * _PAGE
        if data[at:end].strip(b"\0") or not sink.has_told(page, offset + at, is_exact=at > 0):
            return data
        tries = self._tries.get((asked.thread, offset), 0)
        if at == 0 and tries < _MOST_TRIES:
            self._tries[asked.thread, offset] = tries + 1
            raise pyfuse3.FUSEError(errno.EINTR)
        return data[:at] if at > 0 else data

    async def create(self, parent: int, name: bytes, asked: Asked, *, is_directory: bool) -> tuple[Node, float]:
        """Make a new entry: its node, and how long its name holds, in seconds. Raises `LateError` (EEXIST)."""
        request = self._journal.begin(asked.unique)
        try:
            kata_id, make = await self._elsewhere.creator(parent, name, is_directory=is_directory)
            attempt = Attempt(partial(self._journal.announce, request, MAKING), request.announced == MAKING)
            job = plain_job(self._tree.ctx.store.path(kata_id), kata_id, lambda *_, **__: make(attempt))
            # The kernel is told of events that were recorded by the way, but it holds the directory as long as it has
            # no answer: that is not waited for.
            await self.jobs.do(job)
            return await self._elsewhere.child(parent, name)
        finally:
            self._journal.end(request)

    async def record_overdue(self) -> None:
        """Record the events of plain-path services whose rows did not come in a minute."""
        for job in await trio.to_thread.run_sync(self._tree.overdue.jobs, limiter=self.jobs.at_once):
            try:
                if await self.jobs.is_git(job.kata_id):
                    await self.jobs.do(job)
                else:
                    # where it is about to be migrated nothing waits yet, and there is nothing to tell
                    await trio.to_thread.run_sync(job, nobody, nobody, limiter=self.jobs.at_once)
            except KataError as error:
                log.warning("kata %s: an event that has no row cannot be recorded: %s", job.kata_id, error)

    async def _feed(
        self, sink: Writable, request: Request, writer: Hashable, asked: Asked, offset: int, data: bytes
    ) -> None:
        """Add a write to a message; record what is whole."""
        if len(data) > _LARGE and sink.takes_pieces:
            (await trio.to_thread.run_sync(sink.scan, writer, data))()
        try:
            message = sink.feed(writer, offset, data, appends=asked.appends)
        finally:
            if writer is not None and not sink.is_unfinished(writer):
                self._journal.over(request, writer)
        if message is not None:
            again_at = (writer, offset) if message.in_pieces else None
            await self._commit(sink, message, offset, again_at, partial(self._journal.announce, request))
            sink.taken(offset, data, message)
        elif writer is not None and sink.is_unfinished(writer):
            end = ANYWHERE if sink.by_process else offset + len(data)
            self._journal.fed(request, writer, sink.number, asked, end)

    def truncate(self, sink: Writable, opening: Opening) -> None:
        sink.truncate(opening)
        self._journal.over(None, opening)

    async def truncate_by(self, sink: Writable, asked: Asked) -> None:
        """A thread cuts a file to nothing, by an open file: the message in that starts afresh."""
        opening = await self.openings.of_truncation(sink.number, asked)
        if opening is None:
            self._journal.restarted(sink.number, asked)
            return
        self.truncate(sink, opening)
        self.openings.tidy()

    def note_flushed(self) -> None:
        if self._fast.is_flushed and not self._journal.is_flushed:
            self._journal.note_flushed()

    async def expire(self) -> None:
        """Drop the messages that are not finished in time, or whose open files are gone."""
        self.note_flushed()
        gone = await self.openings.gone()
        self._tree.ctx.controls.expire(lambda writer: writer in gone)
        for opening in self.openings.tidy():
            self._journal.over(None, opening)

    async def _recorded_before(self, sink: Writable, request: Request) -> Committed | None:
        """What a write is for, if it was recorded by a daemon that died before it could answer; then this one does what
        that one could not."""
        kata_id = sink.kata_id
        if request.announced is None or not await self.jobs.is_git(kata_id):
            return None
        path = self._tree.ctx.store.path(kata_id)
        committed = await trio.to_thread.run_sync(sink.find_recorded, path, request.announced)
        if committed is None:
            return None
        log.info("kata %s: event %d, commit %s was recorded already", kata_id, committed.index, committed.commit.hex())
        self.jobs.wrote(kata_id)
        # a message may be two commits
        earlier = await trio.to_thread.run_sync(lambda: commits_before(GitRepo(path), committed.commit, 2))
        await self._kernel.since(kata_id, earlier)
        return committed

    async def _commit(
        self, sink: Writable, message: Message, offset: int, again_at: tuple[Hashable, int] | None, announce: Announce
    ) -> None:
        try:
            with self._place_for(message):
                parse = partial(sink.parse, message, offset)
                job = await trio.to_thread.run_sync(parse) if len(message.data) > _LARGE else parse()
                committed, invalidated = await self.jobs.do(job, announce)
        except Exception as error:
            ours = KataError("katafs itself has failed, and its log says how")
            sink.refused(error if isinstance(error, KataError) else ours, again_at)
            raise
        # It is recorded: whatever goes wrong from here on, the writer must hear of success.
        sink.accepted(committed)
        await invalidated.wait()

    @contextlib.contextmanager
    def _place_for(self, message: Message) -> Iterator[None]:
        """Count a message as long as it waits. Raises `StorageError` (EBUSY) when too many do."""
        size = len(message.data)
        if self.waiting >= MOST_WAITING or self._bytes + size > _MOST_BYTES:
            raise StorageError("too many messages are waiting to be recorded", errno.EBUSY)
        self.waiting += 1
        self._bytes += size
        try:
            yield
        finally:
            self.waiting -= 1
            self._bytes -= size
