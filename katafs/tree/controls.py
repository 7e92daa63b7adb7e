"""What is kept of files that can be written to: unfinished messages, outcomes, and what the kernel was told of them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import cachetools

from katafs.kata.legacy.plain_rows import RowPieces
from katafs.kata.record.inbox import Inbox, Message
from katafs.text import pretty_bytes
from katafs.tree.catalogue import standing_in
from katafs.tree.numbers import Key

log = logging.getLogger(__name__)

# what has outcomes
_ROWS = (*standing_in("control"), *standing_in("config"))

_OUTCOMES, _SIZES = 10_000, 16
# of what was taken: others may be, before a tool cuts the file to the length of what it has copied
_LENGTHS = 128


class Controls:
    """Unfinished messages and outcomes of all writable files, bounded. Belongs to one thread."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.rows = RowPieces()
        self._outcomes: cachetools.LRUCache[Key, tuple[bytes | None, int]] = cachetools.LRUCache(_OUTCOMES)
        self._sizes: cachetools.LRUCache[Key, deque[int]] = cachetools.LRUCache(_OUTCOMES)
        self._taken: cachetools.LRUCache[Key, deque[int]] = cachetools.LRUCache(_OUTCOMES)

    def outcome(self, key: Key) -> tuple[bytes | None, int]:
        """The outcome of the last write to a file, None if there was none; and when that was, in ns, or 0."""
        return self._outcomes.get(key, (None, 0))

    def outcomes(self, kata_id: str) -> dict[Key, tuple[bytes | None, int]]:
        keys = (row.key(kata_id) for row in _ROWS)
        return {key: self._outcomes[key] for key in keys if key in self._outcomes}

    def take(self, outcomes: Mapping[Key, tuple[bytes | None, int]]) -> None:
        """Take over those that another process has, instead of all there are."""
        self._outcomes.clear()
        self._outcomes.update(outcomes)

    def tell(self, key: Key, outcome: dict[str, Any]) -> None:
        self._outcomes[key] = (pretty_bytes(outcome), self._later(key))

    def touch(self, key: Key) -> None:
        """Something was written: the kernel put it over the outcome in its pages, and must drop these."""
        self._outcomes[key] = (self.outcome(key)[0], self._later(key))

    def _later(self, key: Key) -> int:
        """A new time for each change, by which the kernel sees that it has to read the file again."""
        return max(time.time_ns(), self.outcome(key)[1] + 1)

    def expire(self, is_gone: Callable[[Hashable], bool] = lambda _writer: False) -> None:
        """Drop the messages that were not finished in time, or never will be, and say so in their outcomes."""
        for key in self.inbox.expire(time.monotonic(), is_gone):
            self.tell_dropped(key)

    def tell_dropped(self, key: Hashable) -> None:
        assert isinstance(key, Key)
        text = "the message was not finished, and was dropped"
        log.info("kata %s: %s", key.kata, text)
        self.tell(key, {"ok": False, "errno": "EINVAL", "message": text})

    def told_size(self, key: Key, size: int) -> None:
        sizes = self._sizes.setdefault(key, deque(maxlen=_SIZES))
        if size not in sizes:
            sizes.append(size)

    def sizes(self, key: Key) -> Iterable[int]:
        return self._sizes.get(key, ())

    def taken(self, key: Key, offset: int, data: bytes, message: Message) -> None:
        self._taken.setdefault(key, deque(maxlen=_LENGTHS)).extend({len(message.data), offset + len(data)})

    def has_length(self, key: Key, length: int) -> bool:
        """Whether something that was taken lately was that long: tools cut a file to what they have copied."""
        return length in self._taken.get(key, ())
