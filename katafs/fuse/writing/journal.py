"""What the next daemon must know of the writes under way, should this one die: kept in memory that outlives it.

A request that was taken and not answered is sent again to the next daemon, under the same number. A write may have been
carried out already. So right before a branch is moved to a new commit, the commit is noted under the number of the
request; if the next daemon finds that commit in the history, the request is answered and nothing is done again.

The same goes for files and directories that are made where there must be none (`katafs.kata.record.exclusive`): that
one is about to be made is noted instead of a commit.

And where a message comes in several writes, the parts that were acknowledged die with the daemon. So it is noted which
file they are of, which process sent them, and where the next part is expected; the next daemon refuses that.

The memory is an array of slots of 64 bytes, each with a checksum, written with one pwrite(2): one that was not finished
reads as an empty one. Which is right: its daemon died before the branch could be moved, or the part acknowledged. The
last slot says which version of katafs wrote it. Each reads what the one before it has written; of what it cannot read
nothing is guessed: requests that are sent again, and parts of messages, are then refused.
"""

from __future__ import annotations

import logging
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from katafs.errors import DiedError
from katafs.fuse.fastopen import UNIQUE_RESEND, Asked
from katafs.fuse.writing.descriptors import process_of
from katafs.git import Oid
from katafs.kata.record.inbox import is_overdue

log = logging.getLogger(__name__)

#: of the form of the memory; 0 had no slot for it
VERSION = 1
READABLE = (0, 1)

_SLOT = 64  # bytes
_COMMITS = 2048  # slots: far more than requests are handled at a time
_BEGUN = 4096  # slots
_HEADER = _COMMITS + _BEGUN  # the last slot

_CHECKSUM = struct.Struct("=I")
_COMMIT = struct.Struct("=Q20s")  # the request, the commit
#: in the place of a commit: something is about to be made
MAKING: Oid = bytes(20)
# the inode, the process, where the next part is expected (-1: O_APPEND), the first and the last request, when
# (monotonic); and as version 0 had it: the inode, the thread, the first request, when
_PART = struct.Struct("=QqqQQd")
_PART_0 = struct.Struct("=QqQd")
_ABOUT = struct.Struct("=8sI?")  # what it is, its version, whether the kernel sends no FLUSH any more
_MAGIC = b"katafs-j"
#: where the next part is expected: at what the kernel takes for the end; wherever the same process writes
_APPENDS, ANYWHERE = -1, -2


@dataclass
class _Part:
    """A message of which a part was acknowledged."""

    inode: int
    process: int
    offset: int
    first: int
    last: int
    when: float
    slot: int


@dataclass
class Request:
    """One write that is being handled."""

    unique: int
    #: the commit that an earlier daemon announced for this very request, or `MAKING`
    announced: Oid | None = None
    slot: int | None = None
    done: list[int] = field(default_factory=list)


class Journal:
    """The notes of one mount. ``fd`` is a memfd that several daemons use, one after the other; None: nobody will read
    them, and nothing is written.

    All but `announce` is called in the event loop.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        #: whether what an earlier daemon noted cannot be read
        self.is_unreadable = False
        #: whether the kernel was told of, and asks, no FLUSH any more
        self.is_flushed = False
        self._announced: dict[int, tuple[Oid, int]] = {}
        self._lost: list[_Part] = []
        self._parts: dict[Hashable, _Part] = {}
        # taken from the left; what an earlier daemon has written is used last, the oldest first
        self._free: deque[int] = deque()
        self._free_parts: deque[int] = deque()
        # what is not needed any more once the answer has been sent, which is right after the handler has returned
        self._done: list[int] = []
        if fd is not None:
            self._load(fd)

    def _load(self, fd: int) -> None:
        version, self.is_flushed = about(fd)
        self.is_unreadable = version not in READABLE
        if self.is_unreadable:
            why = "the notes of the daemon before are of a version that this katafs does not know"
            log.error("%s (%d): what was under way is refused", why, version)
            os.ftruncate(fd, 0)
        os.ftruncate(fd, (_HEADER + 1) * _SLOT)
        memory = os.pread(fd, _HEADER * _SLOT, 0)
        part = _PART if version else _PART_0
        for slot in range(_HEADER):
            data = _slot(memory, slot, _COMMIT if slot < _COMMITS else part)
            if data is None:
                (self._free if slot < _COMMITS else self._free_parts).append(slot)
            elif slot < _COMMITS:
                unique, commit = _COMMIT.unpack(data)
                self._announced[unique] = (Oid(commit), slot)
            elif version:
                inode, process, offset, first, last, when = _PART.unpack(data)
                self._lost.append(_Part(inode, process, offset, first, last, when, slot))
            else:
                inode, thread, first, when = _PART_0.unpack(data)
                self._lost.append(_Part(inode, process_of(thread) or thread, ANYWHERE, first, 0, when, slot))
                self._note(self._lost[-1])
        self._free += [self._announced[unique][1] for unique in sorted(self._announced)]
        self._lost.sort(key=lambda part: part.when)
        self.note_flushed(is_flushed=self.is_flushed)

    def note_flushed(self, *, is_flushed: bool = True) -> None:
        """Note whether the kernel was told that it need not send FLUSH: no daemon will hear of it again."""
        self.is_flushed = is_flushed
        self._write(_HEADER, _ABOUT.pack(_MAGIC, VERSION, is_flushed))

    def begin(self, unique: int) -> Request:
        """A write was taken. Raises `DiedError` for one sent again of which nothing can be known."""
        for slot in self._done:
            self._write(slot, b"")
            (self._free if slot < _COMMITS else self._free_parts).append(slot)
        self._done.clear()
        if self.is_unreadable and unique & UNIQUE_RESEND:
            raise DiedError("a daemon died over this, and what it noted cannot be read: nobody knows if it was done")
        request = Request(unique & ~UNIQUE_RESEND)
        known = self._announced.get(request.unique)
        if known is not None:
            request.announced, slot = known
            if slot in self._free:
                self._free.remove(slot)
                request.slot = slot
        return request

    def is_continuation(self, request: Request, inode: int, asked: Asked, offset: int, data: bytes) -> bool:
        """Whether a write goes on with a message whose beginning died with an earlier daemon; asked once for each."""
        starts = offset == 0 and not asked.appends
        if self.is_unreadable:
            return not starts and data.lstrip()[:1] != b"{"
        process = (process_of(asked.thread) or asked.thread) if self._lost else 0
        for part in self._lost[:]:
            is_old = is_overdue(time.monotonic() - part.when)
            is_first = part.first == request.unique
            is_next = part.last == request.unique or not (starts or is_old or is_first)
            if is_next and part.last != request.unique:
                is_next = part.inode == inode and _goes_on(part, process, offset, data, appends=asked.appends)
            if is_old or is_first or is_next:
                self._lost.remove(part)
                request.done.append(part.slot)
            if is_next and not is_first:
                return True
        return False

    def restarted(self, inode: int, asked: Asked) -> None:
        """Who may have lost the beginning of a message to an earlier daemon starts afresh."""
        process = (process_of(asked.thread) or asked.thread) if self._lost else 0
        for part in [part for part in self._lost if (part.inode, part.process) == (inode, process)][:1]:
            self._lost.remove(part)
            self._done.append(part.slot)

    def fed(self, request: Request, writer: Hashable, inode: int, asked: Asked, offset: int) -> None:
        """The write was added to a message, whose next part is expected at ``offset``."""
        if self._fd is None:
            return
        part = self._parts.get(writer)
        if part is None:
            process = process_of(asked.thread) or asked.thread
            part = _Part(inode, process, 0, request.unique, 0, 0.0, self._slot_for_part())
            self._parts[writer] = part
        part.offset = _APPENDS if asked.appends and offset >= 0 else offset
        part.last, part.when = request.unique, time.monotonic()
        self._note(part)

    def _note(self, part: _Part) -> None:
        fields = (part.inode, part.process, part.offset, part.first, part.last, part.when)
        self._write(part.slot, _PART.pack(*fields))

    def over(self, request: Request | None, writer: Hashable) -> None:
        """The message of a writer is finished, refused or dropped; by a request, or not."""
        part = self._parts.pop(writer, None)
        if part is not None:
            (self._done if request is None else request.done).append(part.slot)

    def _slot_for_part(self) -> int:
        if self._free_parts:
            return self._free_parts.popleft()
        # The oldest gives way: the rest of that message would be refused with another errno, no more.
        if self._lost:
            return self._lost.pop(0).slot
        return self._parts.pop(next(iter(self._parts))).slot

    def announce(self, request: Request, commit: Oid) -> None:
        """A branch is about to be moved to ``commit`` for this request, or `MAKING`. Called in a worker thread."""
        if self._fd is None:
            return
        if request.slot is None:
            request.slot = self._free.popleft()
        self._write(request.slot, _COMMIT.pack(request.unique, bytes(commit)))

    def end(self, request: Request) -> None:
        self._announced.pop(request.unique, None)
        if request.slot is not None:
            request.done.append(request.slot)
        self._done += request.done

    def _write(self, slot: int, data: bytes) -> None:
        if self._fd is not None:
            checksum = zlib.crc32(data) or 1
            os.pwrite(self._fd, _CHECKSUM.pack(checksum if data else 0) + data, slot * _SLOT)


def about(fd: int) -> tuple[int, bool]:
    """The version of what an earlier daemon has noted, and whether the kernel sends no FLUSH."""
    size = os.fstat(fd).st_size
    if size <= _HEADER * _SLOT:
        return (0 if size else VERSION), False
    data = _slot(os.pread(fd, _SLOT, size - _SLOT), 0, _ABOUT)
    magic, version, is_flushed = _ABOUT.unpack(data) if data is not None else (b"", -1, False)
    return (version if magic == _MAGIC else -1), is_flushed


def _slot(memory: bytes, slot: int, form: struct.Struct) -> bytes | None:
    """What is in a slot; None if nothing is, or not all of it."""
    begin = slot * _SLOT + _CHECKSUM.size
    data = memory[begin : begin + form.size]
    (checksum,) = _CHECKSUM.unpack_from(memory, slot * _SLOT)
    return data if checksum and (zlib.crc32(data) or 1) == checksum else None


def _goes_on(part: _Part, process: int, offset: int, data: bytes, *, appends: bool) -> bool:
    """Whether a write may go on with a message that was lost."""
    if part.offset == ANYWHERE:
        return part.process == process
    if part.offset != _APPENDS:
        return not appends and part.offset == offset
    # where one appends says nothing, and another process may append a message of its own
    return appends and (part.process == process or data.lstrip()[:1] != b"{")
