"""Which open file a write is for, where the kernel does not say: a message belongs to an open file (INTERFACE §4).

With OPEN each open file has a handle (`Handles`). How it is found without, says *Whose message it is* in design.md.
What could be two messages is refused to both: a message is never recorded with a piece of another.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

import cachetools
import trio

from katafs.errors import InvalidError, StaleError
from katafs.fuse.fastopen import Asked
from katafs.fuse.writing import descriptors

# A thread comes to rest in its call within microseconds, or its processor is somebody else's at the moment: with a
# hundred others that wait for one, for longer than half a second.
_TRIES, _PATIENCE_SECONDS = 20, 5.0
# How long a message that was dropped is remembered: its writer may send the rest, unless he was told.
_REMEMBERED_SECONDS = 120.0
_MOST_HELD = 512  # open files
# where messages ended that nothing else is known of: of so many control files, so many of each
_FILES, _ENDS = 4096, 64

_FIRST = 1 << 63  # handle: no inode number is that large

NOT_APART = "this cannot be told apart from another message that is being written: send it in one write"


class AmbiguousError(InvalidError):
    """A piece may belong to more than one message; ``openings`` are theirs."""

    def __init__(self, openings: list[Opening]) -> None:
        super().__init__(NOT_APART)
        self.openings = openings


class Opening:
    """An open file that a message is written to, as far as that is known. A writer, to `katafs.kata.record.inbox`."""

    def __init__(self, file: Hashable, inode: int, asked: Asked) -> None:
        """``file`` is what the inbox knows the file ``inode`` by."""
        self.file, self.inode, self.user = file, inode, asked.user
        self.flags, self.appends = asked.flags, asked.appends
        self.process = 0
        #: where the next piece is expected
        self.end = 0
        #: our own descriptor for it, and a thread and its descriptor by which it was seen last
        self.held: int | None = None
        self.seen = (0, 0)
        #: when its message was dropped, in monotonic seconds; 0: it was not
        self.dropped = 0.0


class Handles:
    """Of files opened with OPEN to be written to; forgotten at RELEASE. Any other handle is the inode number."""

    def __init__(self) -> None:
        self._openings: dict[int, Opening] = {}
        self._next = _FIRST

    def open(self, inode: int, flags: int) -> int:
        """A new handle, for a file that was opened with these flags."""
        handle = self._next
        self._next += 1
        self._openings[handle] = Opening(None, inode, Asked(flags=flags))
        return handle

    def inode(self, handle: int) -> int:
        """The inode of a handle. Raises `StaleError`."""
        if handle < _FIRST:
            return handle
        if handle in self._openings:
            return self._openings[handle].inode
        raise StaleError(f"file handle {handle} is not known")

    def opening(self, handle: int | None, asked: Asked) -> tuple[Opening | None, Asked]:
        """The open file of a handle, None in the no-OPEN mode; and what its request says, with how it was opened."""
        opening = self._openings.get(handle or 0)
        return opening, asked if opening is None else asked._replace(flags=opening.flags)

    def release(self, handle: int) -> Opening | None:
        """Forget a handle; its open file, if it could be written to."""
        return self._openings.pop(handle, None)


class _End(NamedTuple):
    thread: int
    user: int
    offset: int
    appends: bool


class Openings:
    """The open files of the unfinished messages of one mount. Belongs to the event loop."""

    def __init__(self, is_begun: Callable[[Opening], bool], can_hold: Callable[[], bool]) -> None:
        """``is_begun``: whether there is an unfinished message, or the refusal of one. Nothing is held before
        ``can_hold``: closing it would have to be answered by ourselves."""
        self._is_begun, self._can_hold = is_begun, can_hold
        self._known: dict[int, list[Opening]] = {}
        self._ends: cachetools.LRUCache[int, deque[_End]] = cachetools.LRUCache(_FILES)
        self._held = 0
        self._closing: set[int] = set()

    async def of_write(self, file: Hashable, inode: int, asked: Asked, offset: int, data: bytes) -> Opening | None:
        """The open file that a write is for; None for a sender who has no number here. Raises `AmbiguousError`."""
        if not asked.thread:
            return None
        known = self._known.get(inode)
        if known:
            descriptor = await self._ask(asked.thread, inode, asked.flags)
            found = self._find(known, asked.thread, descriptor) if descriptor is not None else None
            # also of one that is known, where others could not be held
            found = found or self._guess(known, asked, offset, data)
            if found is not None:
                return found
        return Opening(file, inode, asked)

    async def of_truncation(self, inode: int, asked: Asked) -> Opening | None:
        """The open file, with a message that was begun, by which a thread truncates."""
        known = self._known.get(inode)
        if not known or not asked.thread:
            return None
        descriptor = await self._ask(asked.thread, inode, None)
        if descriptor is not None:
            return self._find(known, asked.thread, descriptor)
        process = descriptors.process_of(asked.thread) or asked.thread
        mine = [one for one in known if one.held is None and one.process == process and self._is_begun(one)]
        return mine[0] if len(mine) == 1 else None

    async def settle(self, opening: Opening, asked: Asked, end: int) -> None:
        """A write up to ``end`` was taken, and is about to be answered: hold the open file of a message that was begun,
        let go of another."""
        opening.end = end
        known = self._known.setdefault(opening.inode, [])
        if not self._is_begun(opening):
            if opening.held is None:
                # what follows at its end may be its next message
                ends = self._ends.setdefault(opening.inode, deque(maxlen=_ENDS))
                ended = _End(asked.thread, opening.user, opening.end, opening.appends)
                if not ends or ends[-1] != ended:
                    ends.append(ended)
            self._let_go(opening)
            if not known:
                del self._known[opening.inode]
            return
        opening.dropped = 0.0
        if opening in known:
            return
        known.append(opening)
        opening.process = descriptors.process_of(asked.thread) or asked.thread
        descriptor = await self._ask(asked.thread, opening.inode, asked.flags)
        if descriptor is not None and self._held < _MOST_HELD and self._can_hold():
            opening.held = descriptors.take(asked.thread, descriptor)
            self._held += opening.held is not None
            opening.seen = (asked.thread, descriptor)

    async def _ask(self, thread: int, inode: int, flags: int | None) -> int | None:
        """The descriptor that a thread writes to; None if it cannot be told."""
        until = time.monotonic() + _PATIENCE_SECONDS
        tries = 0
        while (descriptor := descriptors.written_to(thread, inode, flags)) == descriptors.MOVING:
            tries += 1
            if tries < _TRIES:
                continue
            if time.monotonic() > until:
                return None
            await trio.sleep(0.0005)
        return descriptor

    def _find(self, known: list[Opening], thread: int, descriptor: int) -> Opening | None:
        # most senders go on as they began
        for one in sorted(known, key=lambda one: one.seen[1] != descriptor):
            if one.held is not None and descriptors.is_same(one.held, thread, descriptor):
                one.seen = (thread, descriptor)
                return one
        return None

    def _guess(self, known: list[Opening], asked: Asked, offset: int, data: bytes) -> Opening | None:
        appends = asked.appends
        if offset == 0 and not appends:
            return None
        process = descriptors.process_of(asked.thread) or asked.thread
        here = [one for one in known if one.held is None and one.user == asked.user and one.appends == appends]
        here = [one for one in here if appends or one.end == offset]
        # of other processes only what they can have inherited: where one is at the very place
        mine = [one for one in here if one.process == process] or ([] if appends else here)
        begun = [one for one in mine if self._is_begun(one)]
        if not begun:
            return None
        is_new = data.lstrip()[:1] == b"{" and self._has_ended(known[0].inode, asked, process, offset)
        if len(mine) > 1 or is_new:
            raise AmbiguousError(begun)
        return begun[0]

    def _has_ended(self, inode: int, asked: Asked, process: int, offset: int) -> bool:
        """Whether a message of the process, or of a thread that is not there any more, ended where a piece begins: it
        may be the next message."""
        return any(
            end.user == asked.user
            and end.appends == asked.appends
            and (asked.appends or end.offset == offset)
            and descriptors.process_of(end.thread) in (process, 0)
            for end in self._ends.get(inode, ())
        )

    async def gone(self) -> set[Hashable]:
        """Those of unfinished messages that nobody has any more."""
        held = [one for known in self._known.values() for one in known if one.held is not None]

        def are_gone() -> set[Hashable]:
            return {one for one in held if one.held and not descriptors.is_open_elsewhere(one.held, one.seen)}

        return await trio.to_thread.run_sync(are_gone) if held else set()

    def tidy(self) -> list[Opening]:
        """Let go of those whose messages were dropped, and remember for a while those that cannot be told apart: all of
        them are returned."""
        now = time.monotonic()
        dropped = []
        for inode, known in list(self._known.items()):
            for one in known[:]:
                if self._is_begun(one):
                    continue
                dropped.append(one)
                one.dropped = one.dropped or now
                if one.held is not None or now - one.dropped > _REMEMBERED_SECONDS:
                    self._let_go(one)
            if not known:
                del self._known[inode]
        return dropped

    def _let_go(self, opening: Opening) -> None:
        known = self._known.get(opening.inode, [])
        if opening in known:
            known.remove(opening)
        if opening.held is not None:
            held, opening.held = opening.held, None
            self._held -= 1
            self._closing.add(held)
            trio.lowlevel.spawn_system_task(self._close, held)

    async def _close(self, held: int) -> None:
        try:
            # in the event loop the kernel might wait for us
            await trio.to_thread.run_sync(os.close, held)
        finally:
            self._closing.discard(held)

    async def stop(self) -> None:
        """Let go of all, while requests are still answered."""
        for known in list(self._known.values()):
            for one in known[:]:
                self._let_go(one)
        self._known.clear()
        while self._closing:  # noqa: ASYNC110 - once, at the end
            await trio.sleep(0.001)
