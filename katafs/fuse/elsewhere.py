"""The handlers of what is more than the event loop may do for one request: they ask a process that stays.

A handler of `katafs.fuse.operations` that met a `HeavyError` has done nothing yet; the one of the same name here gives
the same answer. A kata is answered for by one process at a time, which then has in memory what it read.
"""

from __future__ import annotations

import errno
import logging
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

import cachetools
import pyfuse3
import trio

from katafs.errors import ExhaustedError, HeavyError, KataError, NotFoundError, StorageError, TooLargeError
from katafs.fuse.answering import Reading, attributes, reply_dots
from katafs.fuse.fair import Once, Places, Preparer, User, Waiters
from katafs.process.pool import Limits, Pool, SlowError
from katafs.tree.answers import ANSWERS, Place, Question, Seen, answer
from katafs.tree.catalogue import kata_key
from katafs.tree.nodes import Creator, Entry, Writable
from katafs.tree.numbers import Numbers
from katafs.tree.tree import Tree

log = logging.getLogger(__name__)

# where all is asked of them, which then wait for a network most of the time, there are more
_WORKERS, _REMOTE_WORKERS = 3, 8
# for an answer, in seconds: longer than what it has made in a process of its own
_LIMITS = Limits(file=0, processor_seconds=0, seconds=75.0)
_REFUSED, _REFUSED_SECONDS = 1_000, 60.0
_LOOK_SECONDS = 0.5
_MOST_WAITING = 200
# parts of listings that the kernel has yet to take
_PARTS, _PART_SECONDS = 4, 1.0

_Entries = list[tuple[int, bytes, Seen]]


class Elsewhere(Reading):
    """Belongs to the event loop."""

    def __init__(self, tree: Tree, preparer: Preparer) -> None:
        self._tree, self._preparer = tree, preparer
        ctx = tree.ctx
        self._place = Place(ctx.store.root, ctx.uid, ctx.gid, ctx.store.device, ctx.groups)
        workers = _REMOTE_WORKERS if ctx.store.is_remote else _WORKERS
        self.pool = Pool(workers, (answer.__module__,), _LIMITS)
        self._places = Places(workers)
        self._once: Once[object] = Once()
        self._refused: cachetools.TTLCache[Question, KataError] = cachetools.TTLCache(_REFUSED, _REFUSED_SECONDS)
        # a kata has one worker at a time
        self._queues: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        self._parts: cachetools.TTLCache[tuple[int, int], _Entries] = cachetools.TTLCache(_PARTS, _PART_SECONDS)
        self.waiters = Waiters(_MOST_WAITING)

    async def look_at_root(self) -> None:
        """See, for ever, what the root of the store is, where it may not be asked for each request."""
        while self._tree.ctx.store.is_remote:
            await trio.sleep(_LOOK_SECONDS)
            await trio.to_thread.run_sync(self._tree.ctx.store.look, abandon_on_cancel=True)

    # -- requests

    async def ask(self, name: str, inode: int, *arguments: object) -> Any:
        said: Any = await self._answer(Question(name, self._tree.numbers.key(inode), arguments))
        return Entry(self._known(said), said.timeout) if name in ("lookup", "dots", "getattr") else said

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return cast(bytes, await self.ask("read", fh, off, size))

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if start_id <= 1:
            above = fh if fh == pyfuse3.ROOT_INODE else Numbers.number(await self.ask("parent", fh))
            if not reply_dots(token, fh, above, start_id):
                return
        position = max(start_id - 2, 0)
        entries = self._parts.pop((fh, position), None) if position else None
        if entries is None:
            entries = cast(_Entries, await self.ask("readdir", fh, position))
        reply = pyfuse3.EntryAttributes()
        for at, (after, name, node) in enumerate(entries):
            told = self._known(node)
            if not pyfuse3.readdir_reply(token, name, attributes(told, told.timeout, reply), after + 2):
                self._parts[fh, position] = entries[at:]
                return
            self._tree.remember_lookup(told)
            position = after

    def _known(self, said: Seen) -> Seen:
        """A node with its size, where that was found before: the kernel must not hear that it is 0 again."""
        if said.identity is not None:
            made = self._tree.ctx.made
            if (size := said.size()) is not None:
                made.remember_size(said.identity, size)
            else:
                said.known_size = made.size(said.identity)
        return said

    # -- for those who write: asked here, and elsewhere where that is too much

    async def sink(self, inode: int, *, is_again: bool = False) -> Writable:
        """What takes what is written to a file: see `Tree.sink`."""
        try:
            return self._tree.sink(inode, is_again=is_again)
        except HeavyError:
            sink = cast(Writable, await self.ask("sink", inode))
        sink.serve(self._tree.ctx.controls)
        return sink

    async def creator(self, parent: int, name: bytes, *, is_directory: bool) -> tuple[str, Creator]:
        """The kata, and what makes a new entry in it. Raises what `Node.to_create` does."""
        kata_id = self._tree.numbers.key(parent).kata
        try:
            return kata_id, await self._preparer.ask("creator", parent, name, is_directory)
        except HeavyError:
            make = cast(Creator, await self.ask("creator", parent, name, is_directory))
        self._tree.begun(kata_id, name)
        return kata_id, make

    async def child(self, parent: int, name: bytes) -> Entry:
        self._tree.ctx.store.new_epoch()
        try:
            return cast(Entry, await self._preparer.ask("lookup", parent, name))
        except HeavyError:
            return cast(Entry, await self.ask("lookup", parent, name))

    async def of_kata(self, name: str, kata_id: str, *arguments: object) -> Any:
        """The ``tip`` of a kata as it is now, a commit; what is ``stale`` since another was it, or None. Raises what
        reading its events does."""
        self._tree.ctx.store.new_epoch()
        try:
            return ANSWERS[name](self._tree, kata_key(kata_id), *arguments)
        except HeavyError:
            return await self._answer(Question(name, kata_key(kata_id), arguments))

    # -- asking

    async def _answer(self, question: Question) -> object:
        """The answer, asked for once for all who want it at the same time. Raises what it raises, and `BusyError`."""
        if (refused := self._refused.get(question)) is not None:
            # it has the frames of who was told before, and would keep them all
            raise refused.with_traceback(None)
        try:
            with self.waiters.one(question.kata_id):
                return await self._once.of(question, partial(self._find, question))
        finally:
            self._tree.ctx.store.new_epoch()

    async def _find(self, question: Question) -> object:
        queue = self._queues.setdefault(question.kata_id, trio.Lock())
        try:
            async with queue, self._places.place(self._user(question)):
                self._tree.ctx.counters.elsewhere += 1
                outcomes = self._tree.ctx.controls.outcomes(question.kata_id)
                ask = partial(self._in_thread, question, outcomes)
                return await trio.to_thread.run_sync(ask, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
        except TooLargeError as error:
            # what else goes wrong may be over the next time, and most who ask are about to write
            self._refused[question] = error
            raise

    def _user(self, question: Question) -> User:
        try:
            uid = self._tree.ctx.store.status(question.kata_id).st_uid
        except (NotFoundError, HeavyError):
            uid = -1
        return uid, question.kata_id

    def _in_thread(self, question: Question, outcomes: object) -> object:
        kata_id, name = question.kata_id, question.name
        try:
            return self.pool.do(kata_id, answer, self._place, outcomes, question)
        except SlowError as error:
            if not self._tree.ctx.store.is_remote:
                log.warning("kata %s: %s takes too long, and is refused", kata_id, name)
                raise
            log.warning("kata %s: the store has not answered (%s) for %g s", kata_id, name, _LIMITS.seconds)
            raise StorageError(f"kata {kata_id}: the store does not answer", errno.EIO) from error
        except (TooLargeError, ExhaustedError) as error:
            log.warning("kata %s, %s: %s", kata_id, name, error)
            raise
