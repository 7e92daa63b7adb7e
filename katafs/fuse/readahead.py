"""Reading ahead: who walks from event to event finds the next ones answered already.

What a request costs is, for the most part, the way to Python and back. Whoever lists one event of a kata after
another, and reads what is in them (``grep -r``, ``tar``, ``cp -r``), is met with tables of the next events
(`katafs.fuse.tables`), in the direction in which he goes; once he has read two files, with their contents. Where he is,
Python sees in what was answered last, and makes more while he is busy with that. Only what never changes is in tables,
and nothing that is odd in any way: that is asked for as always.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Hashable, Iterator

import cachetools

from katafs.errors import KataError
from katafs.fuse.tables import MOST_BYTES, Tables, pack_content, pack_listing
from katafs.tree.dirs.event_directory import EventDirectory, Sized
from katafs.tree.nodes import Node
from katafs.tree.numbers import EVENT, Key, Numbers
from katafs.tree.tree import Tree

log = logging.getLogger(__name__)

_LARGEST = 128 << 10  # bytes of a file
_MOST_OF_DIRECTORY = 256 << 10  # bytes of its files
_TIMES_END = 1 << 63  # ns since the epoch, in the year 2262
_FEWEST, _MOST = 4, 16  # events at once
_KATAS = 64  # that are being walked through
# For so long it is not looked whether somebody else has changed a kata, while nothing is asked that has no table.
_LOOK_SECONDS = 0.2
_LONGEST = 0.003  # seconds in which nobody else is answered


class _Walk:
    """Somebody's way through the events of a kata."""

    def __init__(self, index: int) -> None:
        #: where he was seen last
        self.index = index
        #: as far as there are tables, how many events ahead of him, and of how many bytes; the way goes up or down
        self.end = index
        self.events = self.bytes = 0
        self.step = 1
        # of this event in Python; and of all, from tables, when he came to it, and to the one before
        self.files = 0
        self.reads = self.reads_before = 0
        self.is_reading = False

    def come_to(self, index: int, reads: int) -> None:
        """He is at another event."""
        self.is_reading = self.is_reading and (self.files > 1 or reads > self.reads_before)
        self.index, self.files, self.reads, self.reads_before = index, 0, reads, self.reads

    def missed(self, index: int) -> range:
        """The events for which to make tables, now that one has none where he comes to. Nobody is met who jumps to and
        fro, but for the rest of what he reads; and who comes late, when the tables are too old, is met with fewer the
        next time."""
        step = 1 if index > self.index else -1
        passed = (index - self.index) * step
        is_late = self.step == step and passed <= (self.end - self.index) * step
        self.events = self.events // 4 if is_late else min(max(self.events * 2, _FEWEST), _MOST)
        if passed > _FEWEST:
            self.events, step = 0, 1
        self.step = step
        return range(index, index + step * (self.events + 1), step) if self.events or self.is_reading else range(0)

    def met(self, index: int) -> range:
        """The next events for which to make tables, if there are any, now that he was answered from one."""
        left = (self.end - index) * self.step
        more = min(self.events - left, _FEWEST)
        if left < 0 or more < min(_FEWEST, self.events) or left * self.bytes > MOST_BYTES:
            return range(0)
        return range(self.end + self.step, self.end + (more + 1) * self.step, self.step)


class ReadAhead:
    """Sees what is listed and read, and hands over tables. Belongs to the event loop."""

    def __init__(self, tree: Tree, tables: Tables) -> None:
        self._tree, self._tables = tree, tables
        self._walks: cachetools.LRUCache[str, _Walk] = cachetools.LRUCache(_KATAS)
        self._answered = 0
        self._looked = 0.0
        self._begun: Iterator[bytes] = iter(())

    def listed(self, directory: Node) -> None:
        """A directory is being listed that had no table."""
        if (walk := self._walk(directory)) is not None:
            self._missed(walk, directory.key)

    def read(self, file: Node) -> None:
        """A file is being read that had none."""
        if (walk := self._walk(file)) is None:
            return
        index = file.key.a
        if walk.is_reading:
            self._missed(walk, file.key)
        elif index != walk.index:
            # one file of an event alone says nothing of what comes
            walk.come_to(index, self._tables.reads.value)
        walk.files += 1
        walk.is_reading = walk.is_reading or walk.files > 1

    def _walk(self, node: Node) -> _Walk | None:
        key = node.key
        if not self._tables.is_there or key.kind != EVENT or not node.is_lasting():
            return None
        self._look()
        walk = self._walks.get(key.kata)
        if walk is None:
            self._walks[key.kata] = _Walk(key.a)
        return walk

    def _look(self) -> tuple[_Walk, Key] | None:
        """Whose way leads past what was answered last, if that was not seen yet, and what it was."""
        number = self._tables.answered.value
        if number == self._answered:
            return None
        self._answered = number
        key = self._tree.numbers.key(number)
        walk = self._walks.get(key.kata)
        if walk is None:
            return None
        if key.a != walk.index:
            walk.events = min(walk.events * 2, _MOST)
            walk.come_to(key.a, self._tables.reads.value)
        return walk, key

    def _missed(self, walk: _Walk, key: Key) -> None:
        if key.a != walk.index:
            events = walk.missed(key.a)
            walk.come_to(key.a, self._tables.reads.value)
            walk.end = key.a
            self._make(key.kata, events, walk)

    def go_on(self) -> bool:
        """Make the table of one directory more, if somebody has come nearer to the last event that has some; whether it
        was so. To be called while nobody asks for anything: he is busy with what he was told, if not for long."""
        try:
            self._tree.ctx.store.budget.renew()
            if (tables := self._next()) is not None:
                self._tables.hand(tables)
                return True
        except Exception:
            # nobody has asked, so that nobody hears of it; it would end the daemon
            log.exception("reading ahead failed")
        if (seen := self._look()) is None:
            return False
        walk, key = seen
        if not (events := walk.met(key.a)):
            return False
        now = time.monotonic()
        if now > self._looked + _LOOK_SECONDS:
            self._looked = now
            self._tree.ctx.store.new_epoch()
        self._begun = self._of_events(key.kata, events, walk)
        return True

    def _make(self, kata_id: str, events: range, walk: _Walk) -> None:
        """Make the tables of events at once, also of the one that is being listed: its end is asked for next."""
        made: list[bytes] = []
        room = MOST_BYTES
        end = time.monotonic() + _LONGEST
        self._begun = self._of_events(kata_id, events, walk)
        with self._tree.ctx.store.budget.within(_LONGEST * 1e6):
            while time.monotonic() < end and (tables := self._next()) is not None and room >= len(tables):
                room -= len(tables)
                made.append(tables)
        self._tables.hand(b"".join(made))

    def _next(self) -> bytes | None:
        # whoever asks for them will be told what is wrong with them
        with contextlib.suppress(KataError), self._tree.ctx.store.budget.within(_LONGEST * 1e6):
            return next(self._begun, None)
        return None

    def _of_events(self, kata_id: str, events: range, walk: _Walk) -> Iterator[bytes]:
        """The tables of events, those of a directory at a time."""
        known: dict[Hashable, Sized] = {}
        for walk.end, directories in self._tree.directories_of_events(kata_id, events):
            walk.bytes = 0
            for directory in directories:
                tables = _tables_of(directory, known, with_contents=walk.is_reading)
                walk.bytes += len(tables)
                yield tables


def _tables_of(directory: EventDirectory, known: dict[Hashable, Sized], *, with_contents: bool) -> bytes:
    sized = directory.sized(known) if directory.is_lasting() else None
    if sized is None or not 0 <= directory.mtime_ns < _TIMES_END:
        return b""
    above, base = Numbers.number(directory.parent()), directory.base
    owner, time, seconds = directory.owner, directory.mtime_ns, directory.attr_timeout
    listing = pack_listing(directory.number, above, base, owner, time, seconds, sized)
    if not with_contents:
        return listing
    contents = directory.contents(_small(sized))
    return b"".join([listing, *(pack_content(base + slot, data) for slot, data in contents)])


def _small(sized: Sized) -> set[int]:
    room = _MOST_OF_DIRECTORY
    found = set()
    for _, slot, _, size in sized:
        if 0 < size <= min(_LARGEST, room):
            found.add(slot)
            room -= size
    return found
