"""What the directories of an event have in common: what is listed of them at once, also before it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Collection, Hashable, Iterator

from katafs.errors import DamagedError
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import Content
from katafs.tree.catalogue import DIR, FILE
from katafs.tree.context import Context
from katafs.tree.nodes import Node, PlusEntry
from katafs.tree.numbers import MAX_SLOT, Key, Numbers
from katafs.tree.timeouts import IMMUTABLE

#: name, slot, mode and size of each entry
Sized = list[tuple[bytes, int, int, int]]


class EventDirectory(Node):
    """A directory of one event."""

    def __init__(self, ctx: Context, kata: Kata, key: Key, index: int, mtime_ns: int) -> None:
        super().__init__(key, ctx.owner(kata), mtime_ns)
        self._ctx, self._kata, self._index = ctx, kata, index
        self._kata_identity = kata.identity

    def is_lasting(self) -> bool:
        return self._kata_identity is self._kata.identity is not None and self.attr_timeout == IMMUTABLE

    def _entries(self) -> list[tuple[bytes, int, Content | None]]:
        """The names that are listed, the slots of what they name, and what is in it; None for a directory."""
        raise NotImplementedError

    def _made_of(self) -> Hashable:
        """What it is made of, where a directory of another event that is made of the same has the same entries."""
        return None

    @property
    def base(self) -> int:
        """The number of the event's own directory, to which those of all that is in it add their slots."""
        return self.number - self.key.b

    def sized(self, known: dict[Hashable, Sized]) -> Sized | None:
        """What `fast_listing` tells; ``known`` are others of the same kata, by what they are made of."""
        if self.attr_timeout != IMMUTABLE or not Numbers.is_computed(self.number):
            return None
        made_of = self._made_of()
        found = known.get(made_of) if made_of is not None else None
        if found is None:
            try:
                entries = self._entries()
                found = [
                    (name, slot, DIR, 0) if content is None else (name, slot, FILE, self._kata.size(content))
                    for name, slot, content in entries
                ]
            except DamagedError:
                # `child` tells of which
                return None
            known[made_of] = found
        return found if not found or found[-1][1] < MAX_SLOT else None

    def fast_listing(self) -> list[PlusEntry] | None:
        sized, base = self.sized({}), self.base
        if sized is None:
            return None
        return [PlusEntry(name, base | slot, mode, size, self.mtime_ns) for name, slot, mode, size in sized]

    def contents(self, slots: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """Slots and bytes of these of the files that are listed."""
        for _, slot, content in self._entries():
            if slot in slots and content is not None:
                yield slot, self._kata.read(content, 0, sys.maxsize)
