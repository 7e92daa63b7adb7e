"""The path of one write: bytes → message → commit in a worker thread → what the kernel must forget → the answer."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from weakref import WeakValueDictionary

import trio

from katafs.errors import DiedError, HeavyError, KataError, StorageError
from katafs.fuse.attributes import invalidate
from katafs.fuse.elsewhere import Elsewhere
from katafs.fuse.fastopen import Asked, FastOpen
from katafs.fuse.journal import Journal, Request
from katafs.fuse.openings import AmbiguousError, Opening, Openings
from katafs.git import GitRepo, Oid
from katafs.kata.commit import Announce, Committed, Job
from katafs.kata.inbox import Message
from katafs.kata.recorded import commits_before, find_recorded
from katafs.kata.recorders import MOST, Recorders
from katafs.tree.tree import Stale, Tree
from katafs.tree.writable import Writable

log = logging.getLogger(__name__)

_LARGE = 64 << 10  # bytes of a message that takes longer to parse than a thread to start
_TELLING = 100  # threads
# Messages that are complete and not yet answered for. Those beyond are refused rather than left waiting: every one
# that waits holds one of the requests that are handled at a time, and readers need some too.
MOST_WAITING = 200
_MOST_BYTES = 256 << 20


class Writes:
    """Writes to control files and options. Belongs to the event loop."""

    def __init__(self, tree: Tree, fast: FastOpen, journal: Journal, elsewhere: Elsewhere) -> None:
        self._fast = fast
        self._tree = tree
        inbox = tree.ctx.controls.inbox
        self._openings = Openings(
            lambda opening: inbox.is_begun(opening.file, opening),
            lambda: journal.is_flushed or fast.is_flushed,
        )
        #: is told the id of each kata in which something was recorded
        self.wrote: Callable[[str], None] = lambda _kata_id: None
        self._journal = journal
        self.elsewhere = elsewhere
        # not the limit of the other threads: who tells the kernel may wait for a reader whom one of those must serve
        self._limiter = trio.CapacityLimiter(_TELLING)
        self._telling = 0
        self._told = trio.Event()
        self._is_stopping = False
        self.recorders = Recorders()
        self._recording = trio.CapacityLimiter(MOST)
        # in the order of arrival: a lock that is only tried again and again could leave one out for long
        self._queues: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        self._waiting = self._bytes = 0

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return self._waiting

    @property
    def telling(self) -> int:
        """How many threads tell the kernel of something."""
        return self._telling

    async def write(self, node: Writable, asked: Asked, handle: Opening | None, offset: int, data: bytes) -> None:
        """Take one write; ``handle`` is the open file, where the kernel says which. What it completed is durable and
        visible then. Raises what the writer is to hear; then nothing has changed but the outcome."""
        request = self._journal.begin(asked.unique)
        opening = handle
        try:
            committed = await self.recorded_before(node.kata_id, request)
            if committed is not None:
                node.accepted(committed)
                return
            if opening is None and node.takes_pieces:
                opening = await self._opening(node, asked, offset, data)
                self._refuse_rest(node, request, opening, asked, offset, data)
            await self._feed(node, request, opening, asked, offset, data)
        finally:
            if opening is not None and handle is None:
                await self._openings.settle(opening, asked, offset + len(data))
            self._journal.end(request)

    async def _opening(self, node: Writable, asked: Asked, offset: int, data: bytes) -> Opening | None:
        """The open file that a write is for. Raises `InvalidError` where that may be more than one, to all of them."""
        try:
            return await self._openings.of_write(node.key, node.number, asked, offset, data)
        except AmbiguousError as error:
            for one in error.openings:
                node.refused(error, (one, one.end))
                self._journal.over(None, one)
            raise

    def _refuse_rest(
        self, node: Writable, request: Request, opening: Opening | None, asked: Asked, offset: int, data: bytes
    ) -> None:
        """Refuse what goes on with a message whose beginning died with another daemon."""
        is_known = opening is not None and opening.held is not None
        if is_known or not self._journal.is_rest(request, node.number, asked, offset, data):
            return
        error = DiedError("the daemon died while it had the beginning of the message; send it again")
        node.refused(error, (opening, offset))
        raise error

    async def _feed(
        self, node: Writable, request: Request, opening: Opening | None, asked: Asked, offset: int, data: bytes
    ) -> None:
        """Add a write to a message; record what is whole."""
        if len(data) > _LARGE:
            (await trio.to_thread.run_sync(node.scan, opening, data))()
        try:
            message = node.feed(opening, offset, data, appends=asked.appends)
        finally:
            if opening is not None and not node.is_unfinished(opening):
                self._journal.over(request, opening)
        if message is not None:
            again_at = (opening, offset) if message.in_pieces else None
            await self._commit(node, message, again_at, partial(self._journal.announce, request))
            node.taken(offset, data, message)
        elif opening is not None and node.is_unfinished(opening):
            self._journal.fed(request, opening, node.number, asked, offset + len(data))

    def truncate(self, node: Writable, opening: Opening) -> None:
        """The writer starts afresh."""
        node.truncate(opening)
        self._journal.over(None, opening)

    async def truncate_by(self, node: Writable, asked: Asked) -> None:
        """A thread cuts a file to nothing, by an open file: the message in that starts afresh."""
        opening = await self._openings.of_truncation(node.number, asked)
        if opening is None:
            self._journal.restarted(node.number, asked)
            return
        self.truncate(node, opening)
        self._openings.tidy()

    def note_flushed(self) -> None:
        """Note for daemons to come that the kernel sends no FLUSH any more."""
        if self._fast.is_flushed and not self._journal.is_flushed:
            self._journal.flushed()

    async def expire(self) -> None:
        """Drop the messages that are not finished in time, or whose open files are gone."""
        self.note_flushed()
        gone = await self._openings.gone()
        self._tree.ctx.controls.expire(lambda writer: writer in gone)
        for opening in self._openings.tidy():
            self._journal.over(None, opening)

    async def recorded_before(self, kata_id: str, request: Request) -> Committed | None:
        """What a write is for, if it was recorded by a daemon that died before it could answer; then this one does what
        that one could not."""
        if request.announced is None or not self._tree.ctx.store.is_git(kata_id):
            return None
        path = self._tree.ctx.store.path(kata_id)
        committed = await trio.to_thread.run_sync(find_recorded, path, kata_id, request.announced)
        if committed is None:
            return None
        log.info("kata %s: event %d, commit %s was recorded already", kata_id, committed.index, committed.commit.hex())
        self.wrote(kata_id)
        # a message may be two commits
        earlier = await trio.to_thread.run_sync(lambda: commits_before(GitRepo(path), committed.commit, 2))
        await self.tell_committed(kata_id, earlier)
        return committed

    async def _commit(
        self, node: Writable, message: Message, again_at: tuple[Hashable | None, int] | None, announce: Announce
    ) -> None:
        try:
            with self._place_for(message):
                large = len(message.data) > _LARGE
                job = await trio.to_thread.run_sync(node.parse, message) if large else node.parse(message)
                committed, told = await self._record(job, announce)
        except KataError as error:
            node.refused(error, again_at)
            raise
        except Exception:
            node.refused(KataError("katafs itself has failed, and its log says how"), again_at)
            raise
        # It is recorded: whatever goes wrong from here on, the writer must hear of success.
        node.accepted(committed)
        if committed is None:
            return
        if committed.is_new:
            self._tree.ctx.counters.commits[node.counted_as] += 1
        else:
            self._tree.ctx.counters.repetitions += 1
        log.info("kata %s: event %d, commit %s", node.kata_id, committed.index, committed.commit.hex())
        self.wrote(node.kata_id)
        await told.wait()

    async def tell_committed(self, kata_id: str, before: Oid | None) -> None:
        """Tell the kernel what changed since a tip, if there was one and anything did.

        Raises nothing: it is recorded, and whoever wrote must hear of success, whatever goes wrong from there on.
        """
        if before is None:
            return
        try:
            if await self.tip(kata_id) != before:
                await self.tell(await self.stale_after(kata_id, before))
        except Exception:
            log.exception("kata %s: the kernel was not told of a commit", kata_id)

    @contextlib.contextmanager
    def _place_for(self, message: Message) -> Iterator[None]:
        """Count a message as long as it waits. Raises `StorageError` (EBUSY) when too many do."""
        size = len(message.data)
        if self._waiting >= MOST_WAITING or self._bytes + size > _MOST_BYTES:
            raise StorageError("too many messages are waiting to be recorded", errno.EBUSY)
        self._waiting += 1
        self._bytes += size
        try:
            yield
        finally:
            self._waiting -= 1
            self._bytes -= size

    async def _record(self, job: Job, announce: Announce) -> tuple[Committed | None, trio.Event]:
        """Do a job when it is its turn. Returns its result, and what is set when the kernel has been told of it: that
        begins while the job still makes tags."""
        queue = self._queues.setdefault(job.kata_id, trio.Lock())
        async with queue:
            before = await self.tip(job.kata_id)
            landed, told = trio.Event(), trio.Event()
            trio.lowlevel.spawn_system_task(self._tell_landed, job.kata_id, before, landed, told)
            soon = trio.lowlevel.current_trio_token().run_sync_soon
            do = partial(self.recorders.do, job, announce, lambda _: soon(landed.set))
            try:
                committed = await trio.to_thread.run_sync(do, limiter=self._recording)
            finally:
                # also when nothing was recorded: then there is nothing to tell
                landed.set()
        return committed, told

    async def _tell_landed(self, kata_id: str, before: Oid, landed: trio.Event, told: trio.Event) -> None:
        try:
            await landed.wait()
            await self.tell_committed(kata_id, before)
        finally:
            told.set()

    async def tip(self, kata_id: str) -> Oid:
        """The tip of a kata as it is now. Raises what reading its events does."""
        self._tree.ctx.store.look_again()
        try:
            return self._tree.tip(kata_id).commit.oid
        except HeavyError:
            return await self.elsewhere.tip(kata_id)

    async def stale_after(self, kata_id: str, before: Oid) -> Stale:
        """What the kernel must forget of a kata whose tip was another."""
        self._tree.ctx.store.look_again()
        try:
            return self._tree.stale_since(kata_id, before)
        except HeavyError:
            return await self.elsewhere.stale(kata_id, before)

    async def tell(self, stale: Stale) -> None:
        """Tell the kernel what to forget; when this returns it has."""
        if self._is_stopping:
            return
        self._telling += 1
        try:
            await trio.to_thread.run_sync(self._invalidate, stale, limiter=self._limiter)
        finally:
            self._telling -= 1
            self._told.set()

    def _invalidate(self, stale: Stale) -> None:
        if not self._fast.forget(stale.entries, stale.inodes):
            invalidate(stale)

    def forget_pages(self, inode: int) -> None:
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
        await self._openings.stop()
        while self._telling:
            self._told = trio.Event()
            await self._told.wait()
