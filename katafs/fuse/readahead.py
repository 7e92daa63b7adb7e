"""Reading ahead: who walks from event to event finds the next ones answered already.

What a request costs is, for the most part, the way to Python and back. Whoever lists one event of a kata after
another, and reads what is in them (``grep -r``, ``tar``, ``cp -r``), is met with tables of the next events
(`katafs.fuse.tables`), made together, in the direction in which he goes; once he has read two files, with their
contents. Python hears of him again where the tables end, and of nothing else, so that it need not know how far he has
come. Only what never changes is in them, and nothing that is odd in any way: that is asked for as always.
"""

from __future__ import annotations

import contextlib
import time

import cachetools

from katafs.errors import KataError
from katafs.fuse.tables import MOST_BYTES, Tables, pack_content, pack_listing
from katafs.tree.nodes import Node, PlusEntry
from katafs.tree.numbers import EVENT, Numbers
from katafs.tree.tree import Tree

_LARGEST = 128 << 10  # bytes of a file
_MOST_OF_DIRECTORY = 256 << 10  # bytes of its files
_TIMES_END = 1 << 63  # ns since the epoch, in the year 2262
_FEWEST, _MOST = 4, 16  # events at once
_KATAS = 64  # that are being walked through
_LONGEST = 0.003  # seconds in which nobody else is answered


class _Walk:
    """Somebody's way through the events of a kata."""

    def __init__(self, index: int) -> None:
        #: the event that was asked for last, of those that had no table
        self.index = index
        #: as far as there are tables, and how many events had some at once; the way goes up or down
        self.end = index
        self.events = 0
        self.step = 1
        # of this event in Python; and of all, from tables, when some were made last
        self.files = 0
        self.reads = 0
        self.is_reading = False

    def go_on(self, index: int) -> range:
        """The events for which to make tables, now that one has none. Nobody is met who jumps to and fro; and who comes
        late, when the tables are too old, is met with fewer the next time."""
        if index == self.index:
            return range(0)
        step = 1 if index > self.index else -1
        passed = (index - self.index) * step
        is_late = self.step == step and passed <= (self.end - self.index) * step
        self.events = self.events // 4 if is_late else min(max(self.events * 2, _FEWEST), _MOST)
        if passed > _MOST + 1:
            self.events = 0
        self.index, self.step = index, step
        self.end = index + step * self.events
        return range(index, self.end + step, step) if self.events else range(0)


class ReadAhead:
    """Sees what is listed and read, and hands over tables. Belongs to the event loop."""

    def __init__(self, tree: Tree, tables: Tables) -> None:
        self._tree, self._tables = tree, tables
        self._walks: cachetools.LRUCache[str, _Walk] = cachetools.LRUCache(_KATAS)

    def listed(self, directory: Node) -> None:
        """A directory is being listed that had no table."""
        walk = self._walk(directory)
        if walk is not None:
            self._make(directory.key.kata, walk.go_on(directory.key.a), walk)

    def read(self, file: Node) -> None:
        """A file is being read that had none."""
        walk = self._walk(file)
        if walk is None:
            return
        index = file.key.a
        walk.files = walk.files + 1 if index == walk.index else 1
        walk.is_reading = walk.is_reading or walk.files > 1
        if walk.is_reading:
            self._make(file.key.kata, walk.go_on(index), walk)
        else:
            # one file of an event alone says nothing of what comes
            walk.index = index

    def _walk(self, node: Node) -> _Walk | None:
        key = node.key
        if not self._tables.is_there or key.kind != EVENT or not node.is_lasting():
            return None
        walk = self._walks.get(key.kata)
        if walk is None:
            self._walks[key.kata] = _Walk(key.a)
        return walk

    def _make(self, kata_id: str, events: range, walk: _Walk) -> None:
        """Make the tables of events, also of the one that is being listed: its end is asked for next."""
        if not events:
            return
        walk.is_reading = walk.is_reading and (walk.files > 0 or self._tables.reads > walk.reads)
        walk.files, walk.reads = 0, self._tables.reads
        made: list[bytes] = []
        room = MOST_BYTES
        end = time.monotonic() + _LONGEST
        # whoever asks for them will be told what is wrong with them
        with contextlib.suppress(KataError), self._tree.ctx.store.budget.within(_LONGEST * 1e6):
            for walk.end in events:
                for directory in self._tree.directories_of_event(kata_id, walk.end):
                    tables = _tables_of(directory, with_contents=walk.is_reading)
                    room -= len(tables)
                    if room < 0:
                        break
                    made.append(tables)
                if room < 0 or time.monotonic() > end:
                    break
        self._tables.hand(b"".join(made))


def _tables_of(directory: Node, *, with_contents: bool) -> bytes:
    entries = directory.fast_listing() if directory.is_lasting() else None
    if entries is None or not 0 <= directory.mtime_ns < _TIMES_END:
        return b""
    above = Numbers.number(directory.parent())
    listing = pack_listing(
        directory.number, above, directory.owner, directory.mtime_ns, directory.attr_timeout, entries
    )
    if not with_contents:
        return listing
    return b"".join([listing, *(pack_content(*each) for each in directory.contents(_small(entries)))])


def _small(entries: list[PlusEntry]) -> list[int]:
    room = _MOST_OF_DIRECTORY
    found = []
    for entry in entries:
        if 0 < entry.size <= min(_LARGEST, room):
            found.append(entry.number)
            room -= entry.size
    return found
