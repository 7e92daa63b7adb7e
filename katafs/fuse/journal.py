"""What the next daemon must know of the writes under way, should this one die: kept in memory that outlives it.

A request that was taken and not answered is sent again to the next daemon, under the same number. A write may have been
carried out already. So right before a branch is moved to a new commit, the commit is noted under the number of the
request; if the next daemon finds that commit in the history, the request is answered and nothing is done again.

The same goes for files and directories that are made where there must be none (`katafs.kata.exclusive`): that one is
about to be made is noted instead of a commit.

And where a message comes in several writes, the parts that were acknowledged die with the daemon. So it is noted who
has begun a message, and the next daemon refuses the rest of it.

The memory is an array of slots of 64 bytes, each with a checksum, written with one pwrite(2): one that was not finished
reads as an empty one. Which is right: its daemon died before the branch could be moved, or the part acknowledged.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from katafs.fuse.device import UNIQUE_RESEND
from katafs.git import Oid
from katafs.kata.inbox import UNFINISHED_SECONDS

_SLOT = 64  # bytes
_COMMITS = 2048  # slots: far more than requests are handled at a time
_BEGUN = 4096  # slots
_REFRESH_SECONDS = 1.0

_CHECKSUM = struct.Struct("=I")
_COMMIT = struct.Struct("=Q20s")  # the request, the commit
# in the place of a commit
_MAKING: Oid = bytes(20)
_BEGINNING = struct.Struct("=QqQd")  # the inode, the writer's thread, the request of the first part, when (monotonic)


@dataclass
class _Begun:
    """A message that somebody has begun."""

    first: int
    slot: int
    when: float


@dataclass
class Request:
    """One write that is being handled."""

    unique: int
    writer: tuple[int, int] | None
    starts: bool
    #: the commit that an earlier daemon announced for this very request
    announced: Oid | None = None
    #: whether an earlier daemon was about to make something for this very request
    was_making: bool = False
    slot: int | None = None
    done: list[int] = field(default_factory=list)


class Journal:
    """The notes of one mount. ``fd`` is a memfd that several daemons use, one after the other; None: nobody will read
    them, and nothing is written.

    All but `announce` and `announce_making` is called in the event loop.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._announced: dict[int, tuple[Oid, int]] = {}
        self._lost: dict[tuple[int, int], _Begun] = {}
        self._begun: dict[tuple[int, int], _Begun] = {}
        # taken from the left; what an earlier daemon has written is used last, the oldest first
        self._free: deque[int] = deque()
        self._free_begun: deque[int] = deque()
        # what is not needed any more once the answer has been sent, which is right after the handler has returned
        self._done: list[int] = []
        if fd is not None:
            self._load(fd)

    def _load(self, fd: int) -> None:
        os.ftruncate(fd, (_COMMITS + _BEGUN) * _SLOT)
        memory = os.pread(fd, (_COMMITS + _BEGUN) * _SLOT, 0)
        for slot in range(_COMMITS + _BEGUN):
            begin = slot * _SLOT + _CHECKSUM.size
            form = _COMMIT if slot < _COMMITS else _BEGINNING
            data = memory[begin : begin + form.size]
            (checksum,) = _CHECKSUM.unpack_from(memory, slot * _SLOT)
            if not checksum or zlib.crc32(data) != checksum:
                (self._free if form is _COMMIT else self._free_begun).append(slot)
            elif form is _COMMIT:
                unique, commit = _COMMIT.unpack(data)
                self._announced[unique] = (Oid(commit), slot)
            else:
                inode, thread, first, when = _BEGINNING.unpack(data)
                self._load_lost((inode, thread), _Begun(first, slot, when))
        self._free += [self._announced[unique][1] for unique in sorted(self._announced)]

    def _load_lost(self, writer: tuple[int, int], begun: _Begun) -> None:
        """The newest of each writer's counts."""
        known = self._lost.get(writer)
        if known is not None and known.when > begun.when:
            known, begun = begun, known
        if known is not None:
            self._free_begun.append(known.slot)
        self._lost[writer] = begun

    def begin(self, unique: int, inode: int, writer: Hashable | None, *, starts: bool) -> Request:
        """A write was taken. ``starts``: its position says that it begins a message."""
        self._erase()
        thread = writer[1] if isinstance(writer, tuple) and isinstance(writer[1], int) else None
        request = Request(unique & ~UNIQUE_RESEND, (inode, thread) if thread is not None else None, starts)
        known = self._announced.get(request.unique)
        if known is not None:
            request.was_making = known[0] == _MAKING
            request.announced = known[0] if not request.was_making else None
            if known[1] in self._free:
                self._free.remove(known[1])
                request.slot = known[1]
        return request

    def is_rest(self, request: Request) -> bool:
        """Whether the write goes on with a message whose beginning died with an earlier daemon; asked once."""
        lost = self._lost.pop(request.writer, None) if request.writer is not None else None
        if lost is None:
            return False
        request.done.append(lost.slot)
        is_old = time.monotonic() - lost.when > UNFINISHED_SECONDS
        return not (is_old or request.starts or lost.first == request.unique)

    def truncated(self, inode: int, writer: Hashable | None) -> None:
        """The writer starts afresh."""
        request = self.begin(0, inode, writer, starts=True)
        self.is_rest(request)
        self._end_message(request)
        self.end(request)
        # at once: a truncation that is sent again does no harm
        self._erase()

    def fed(self, request: Request, *, was_unfinished: bool, is_unfinished: bool) -> None:
        """The write was added to a message, which is complete or not."""
        if self._fd is None or request.writer is None:
            return
        if not is_unfinished:
            self._end_message(request)
            return
        now = time.monotonic()
        known = self._begun.get(request.writer)
        if known is None or not was_unfinished or request.starts:
            slot = known.slot if known is not None else self._slot_for_beginning()
            known = self._begun[request.writer] = _Begun(request.unique, slot, 0.0)
        if now - known.when > _REFRESH_SECONDS:
            known.when = now
            self._write(known.slot, _BEGINNING.pack(*request.writer, known.first, now))

    def _slot_for_beginning(self) -> int:
        if self._free_begun:
            return self._free_begun.popleft()
        # The oldest gives way: the rest of that message would be refused with another errno, no more.
        oldest = self._lost or self._begun
        return oldest.pop(next(iter(oldest))).slot

    def _end_message(self, request: Request) -> None:
        known = self._begun.pop(request.writer, None) if request.writer is not None else None
        if known is not None:
            request.done.append(known.slot)

    def announce(self, request: Request, commit: Oid) -> None:
        """A branch is about to be moved to ``commit`` for this request. Called in a worker thread."""
        if self._fd is None:
            return
        if request.slot is None:
            request.slot = self._free.popleft()
        self._write(request.slot, _COMMIT.pack(request.unique, bytes(commit)))

    def announce_making(self, request: Request) -> None:
        """Something is about to be made for this request where nothing is. Called in a worker thread."""
        self.announce(request, _MAKING)

    def end(self, request: Request) -> None:
        """The handler returns."""
        self._announced.pop(request.unique, None)
        if request.slot is not None:
            request.done.append(request.slot)
        self._done += request.done

    def _erase(self) -> None:
        for slot in self._done:
            self._write(slot, b"")
            (self._free if slot < _COMMITS else self._free_begun).append(slot)
        self._done.clear()

    def _write(self, slot: int, data: bytes) -> None:
        if self._fd is not None:
            checksum = zlib.crc32(data) or 1
            os.pwrite(self._fd, _CHECKSUM.pack(checksum if data else 0) + data, slot * _SLOT)
