"""The adapter: FUSE requests to nodes, errors to errnos, commits to invalidations. It knows no file name and no git.

A handler is: number → node, one question, answer. Handlers run in one thread, each to its end unless it waits; what
takes long is called in a worker thread. Two rules keep the kernel and the daemon from waiting for each other: no
handler of a LOOKUP, GETATTR or READ waits for a write, and invalidations are sent from a worker thread while the event
loop goes on answering, never for the file that is being written.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import Any, cast

import pyfuse3
import trio

from katafs.caching import CountedCache, Kept
from katafs.errors import HeavyError, InvalidError, KataError, NotFoundError, ReadOnlyError
from katafs.fuse.answering import Reading, WritingHandler, attributes, describe_entry, refuse, reply_dots, watch
from katafs.fuse.elsewhere import Elsewhere
from katafs.fuse.fair import Preparer
from katafs.fuse.fastopen import Asked, FastOpen
from katafs.fuse.invalidating import Invalidator, Memory
from katafs.fuse.readahead import ReadAhead
from katafs.fuse.tables import Tables
from katafs.fuse.writing.journal import Journal
from katafs.fuse.writing.openings import Handles
from katafs.fuse.writing.writes import Writes
from katafs.git.budget import ENTRY
from katafs.tree.catalogue import kata_key
from katafs.tree.nodes import Node, PlusEntry
from katafs.tree.numbers import Numbers
from katafs.tree.timeouts import IMMUTABLE
from katafs.tree.tree import Tree

# entries of all listings that are being read, and bytes in memory of each
_LISTED, _ENTRY = 9_600, 203


class Operations(Reading, pyfuse3.Operations):
    """The handlers of one mount, each watched: see `katafs.fuse.answering`."""

    supports_dot_lookup = True

    def __init__(self, tree: Tree, fast: FastOpen, journal: Journal | None = None) -> None:
        super().__init__()
        self._tree = tree
        self._handles = Handles()
        self.memory = Memory(tree)
        self._preparer = Preparer(tree)
        self.ask = self._preparer.ask  # type: ignore[method-assign]
        self.elsewhere = Elsewhere(tree, self._preparer)
        self.kernel = Invalidator(fast, self.elsewhere)
        self.writes = Writes(tree, fast, journal or Journal(None), self.elsewhere, self.kernel)
        tables = Tables(fast.library)
        self.ahead = ReadAhead(tree, tables)
        tree.ctx.store.read_caches.on_change = lambda kata_id: tables.drop(Numbers.number(kata_key(kata_id)))
        tree.ctx.keepers["tables"] = tables.kept
        tree.ctx.counters.ahead = lambda: {"readdir": tables.listings.value, "read": tables.reads.value}
        # what a listing began with, for its later parts
        self._listings: CountedCache[int, Sequence[PlusEntry | bytes]] = CountedCache(_LISTED, getsizeof=len)
        tree.ctx.keepers["entries"] = lambda: Kept.of(self._listings, _ENTRY)
        waiters = (self._preparer.waiters, self.elsewhere.waiters)
        tree.ctx.counters.waiting = lambda: self.writes.waiting + sum(each.count for each in waiters)
        writing: dict[str, WritingHandler] = {"write": self._write, "setattr": self._setattr}
        writing |= {"create": self._create, "mkdir": self._mkdir}
        watch(self, writing, tree.ctx, self.elsewhere, fast.asked)

    def busy(self) -> int:
        """How many requests, or what comes of them, other tasks and threads are at."""
        return self._tree.ctx.counters.waiting() + self.kernel.limiter.borrowed_tokens

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.memory.forgotten(len(inode_list))
        for inode, count in inode_list:
            self._tree.forgotten(inode, count)

    # -- directories

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory = await self._preparer.prepared(self._tree.node(fh))
        entries = self._listings.get(fh) if start_id else None
        if entries is None:
            entries = directory.fast_listing() or directory.names()
            self._listings.keep(fh, entries)
        if start_id <= 1:
            above = fh if fh == pyfuse3.ROOT_INODE else Numbers.number(directory.parent())
            if not reply_dots(token, fh, above, start_id):
                return
        if start_id == 0 and entries and isinstance(entries[0], PlusEntry):
            self.ahead.listed(directory)
        self._reply(token, directory, entries[max(start_id - 2, 0) :], max(start_id, 2) + 1)

    def _reply(
        self, token: pyfuse3.ReaddirToken, directory: Node, entries: Sequence[PlusEntry | bytes], start: int
    ) -> None:
        """Look up what has no more than a name: what is gone by now is left out."""
        answer = pyfuse3.EntryAttributes()
        budget = self._tree.ctx.store.budget
        for position, entry in enumerate(entries, start):
            if isinstance(entry, PlusEntry):
                describe_entry(answer, directory, entry)
                if not pyfuse3.readdir_reply(token, entry.name, answer, position):
                    return
                continue
            try:
                budget.spend(ENTRY)
                node, timeout = directory.child(entry)
                attributes(node, timeout, answer)
            except NotFoundError:
                continue
            except HeavyError:
                # what there is is an answer; the rest is asked for next
                if position == start:
                    raise
                return
            if not pyfuse3.readdir_reply(token, entry, answer, position):
                return
            self._tree.remember_lookup(node)

    async def releasedir(self, fh: int) -> None:
        self._listings.pop(fh, None)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """What a write acknowledged is on disk already."""

    fsyncdir = fsync

    # -- files

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Only in the slower mode. O_TRUNC changes nothing: each open of a control file is a new writer."""
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            keeps = False
            with contextlib.suppress(HeavyError):
                keeps = self._tree.node(inode).attr_timeout == IMMUTABLE
            return pyfuse3.FileInfo(fh=inode, keep_cache=keeps)
        sink = await self.elsewhere.sink(inode)
        if flags & os.O_TRUNC:
            sink.check_settable(0)
        # what is written to pages that are mapped says not for whom: directly, there are none that are shared
        return pyfuse3.FileInfo(fh=self._handles.open(inode, flags), direct_io=sink.is_direct)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        node = await self._preparer.prepared(self._tree.node(self._handles.inode(fh)))
        self.ahead.read(node)
        return node.read_behind(off, size)

    async def _write(self, asked: Asked, fh: int, off: int, buf: bytes) -> int:
        opening, asked = self._handles.opening(fh, asked)
        inode = self._handles.inode(fh)
        try:
            sink = await self.elsewhere.sink(inode, is_again=asked.is_again)
        except ReadOnlyError:
            # Without OPEN it is here that root is refused, whose bytes the kernel may have in the file's pages by now.
            self.kernel.invalidate_pages(inode)
            raise
        if asked.is_page:
            raise InvalidError("what is written by way of mapped memory says not who writes it")
        if sink.takes_pieces and opening is None:
            buf = self.writes.whole(sink, asked, off, buf)
        await self.writes.write(sink, asked, opening, off, buf)
        return len(buf)

    async def _setattr(
        self,
        asked: Asked,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """What tools set after they have copied changes nothing. What is cut to 0 is a message that starts afresh."""
        sink = await self.elsewhere.sink(inode)
        length = attr.st_size if fields.update_size else None
        sink.check_settable(length)
        opening, _ = self._handles.opening(fh, asked)
        if length == 0 and opening is not None:
            self.writes.truncate(sink, opening)
        elif length == 0 and asked.by_file:
            await self.writes.truncate_by(sink, asked)
        self._tree.ctx.store.new_epoch()
        try:
            answer = attributes(self._tree.node(inode), 0)
        except HeavyError:
            answer = await self.elsewhere.getattr(inode, ctx)
        # for now, so that the next write with O_APPEND starts there; every later question gets the real size
        answer.st_size = answer.st_size if length is None else length
        return answer

    async def flush(self, fh: int) -> None:
        """Only in the slower mode. Closing says nothing: a shell closes copies of a descriptor in mid-message."""

    async def release(self, fh: int) -> None:
        if (opening := self._handles.release(fh)) is not None:
            with contextlib.suppress(KataError):
                self.writes.truncate(await self.elsewhere.sink(opening.inode), opening)

    async def stop(self) -> None:
        """Get ready for the end, while requests are answered. To be called before ``pyfuse3.terminate()``."""
        await self.kernel.stop()
        await self.writes.openings.stop()

    # -- the file system

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        root = self._tree.ctx.store.root
        store = await trio.to_thread.run_sync(os.statvfs, root, limiter=trio.CapacityLimiter(1))
        answer = pyfuse3.StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(answer, name, getattr(store, name))
        answer.f_namemax = 255
        return answer

    async def _create(
        self, asked: Asked, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node, timeout = await self.writes.create(parent_inode, name, asked, is_directory=False)
        return pyfuse3.FileInfo(fh=self._handles.open(node.number, flags)), self._found(node, timeout)

    async def _mkdir(
        self, asked: Asked, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._found(*await self.writes.create(parent_inode, name, asked, is_directory=True))

    async def _change_xattr(self, inode: int, *_: object) -> None:
        # whoever copies with access control lists does without where there are none
        (await self.elsewhere.sink(inode)).check_settable(None)
        raise pyfuse3.FUSEError(errno.EOPNOTSUPP)

    setxattr = removexattr = cast(Any, _change_xattr)
    mknod = unlink = rmdir = symlink = rename = link = cast(Any, refuse)
