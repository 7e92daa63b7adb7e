"""Files that can be written to: what is written becomes a commit, and its writer hears of the outcome."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cachetools

from katafs.errors import InvalidError, KataError
from katafs.git import Oid
from katafs.kata.legacy.plain_rows import RowPieces
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import Committed, Job
from katafs.kata.record.inbox import Inbox, Message
from katafs.kata.record.recorders import find_recorded
from katafs.text import pretty_bytes
from katafs.tree.catalogue import standing_in
from katafs.tree.legacy.migrated_sinks import migrating
from katafs.tree.nodes import Node, Owner, refuse_write
from katafs.tree.numbers import Key

log = logging.getLogger(__name__)

# what has outcomes
_ROWS = (*standing_in("control"), *standing_in("config"))

_SIZES = 16
# of what was taken: others may be, before a tool cuts the file to the length of what it has copied
_LENGTHS = 128


class Controls:
    """Unfinished messages and outcomes of all writable files, bounded. Belongs to one thread."""

    def __init__(self, outcomes: int = 10_000) -> None:
        self.inbox = Inbox()
        self.rows = RowPieces()
        self._outcomes: cachetools.LRUCache[Key, tuple[bytes | None, int]] = cachetools.LRUCache(outcomes)
        self._sizes: cachetools.LRUCache[Key, deque[int]] = cachetools.LRUCache(outcomes)
        self._taken: cachetools.LRUCache[Key, deque[int]] = cachetools.LRUCache(outcomes)

    def outcome(self, key: Key) -> tuple[bytes | None, int]:
        """The outcome of the last write to a file, None if there was none; and when that was, in ns, or 0."""
        return self._outcomes.get(key, (None, 0))

    def outcomes(self, kata_id: str) -> dict[Key, tuple[bytes | None, int]]:
        """Those of all files of a kata."""
        keys = (row.key(kata_id) for row in _ROWS)
        return {key: self._outcomes[key] for key in keys if key in self._outcomes}

    def take(self, outcomes: Mapping[Key, tuple[bytes | None, int]]) -> None:
        """Take over those that another process has, instead of all there are."""
        self._outcomes.clear()
        self._outcomes.update(outcomes)

    def tell(self, key: Key, outcome: dict[str, Any]) -> None:
        """Set the outcome."""
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
        log.info("kata %s: a message was not finished, and was dropped", key.kata)
        self.tell(key, {"ok": False, "errno": "EINVAL", "message": "the message was not finished, and was dropped"})

    def told_size(self, key: Key, size: int) -> None:
        """The kernel is told of the size of a file."""
        sizes = self._sizes.get(key)
        if sizes is None:
            sizes = self._sizes[key] = deque(maxlen=_SIZES)
        if size not in sizes:
            sizes.append(size)

    def sizes(self, key: Key) -> Iterable[int]:
        """The sizes of a file that the kernel was told of last."""
        return self._sizes.get(key, ())

    def taken(self, key: Key, offset: int, data: bytes, message: Message) -> None:
        """A message or value was taken; ``data`` is the last write of it."""
        self._taken.setdefault(key, deque(maxlen=_LENGTHS)).extend({len(message.data), offset + len(data)})

    def has_length(self, key: Key, length: int) -> bool:
        """Whether something that was taken lately was that long: tools cut a file to what they have copied."""
        return length in self._taken.get(key, ())


class Writable(Node):
    """A file that can be written to. What it is handed are bytes; when they are complete it says what is to be done.

    A writer is any hashable value: an open file, or a process, or None for one that the kernel cannot name.
    """

    kata_id: str
    #: whether what is written may come in more than one write; and whether the pieces of two writers are told apart by
    #: the processes that send them, instead of by the open files that they are written to
    takes_pieces = False
    by_process = False
    #: whether the kernel is to keep no pages of what is written
    is_direct = False

    def sink(self) -> Writable:
        return self

    def serve(self, controls: Controls) -> None:
        """To be called before anything is written: nodes may come from another process."""
        self._controls = controls

    def starts(self, data: bytes) -> bool:
        """Whether a write is the start of a message by its bytes, whatever was sent before."""
        return False

    def scan(self, writer: Hashable | None, data: bytes) -> Callable[[], None]:
        """Look at a large write in a worker thread; what is returned is to be called right before `feed`."""
        return lambda: None

    def feed(self, writer: Hashable | None, offset: int, data: bytes, *, appends: bool) -> Message | None:
        """Take one write; the message if it is complete. Raises what the writer is to hear."""
        return Message(data, in_pieces=False)

    @abstractmethod
    def parse(self, message: Message, offset: int) -> Job:
        """What the message, whose last write was at ``offset``, says is to be done. Raises `InvalidError`."""

    def has_told(self, start: int, end: int, *, is_exact: bool) -> bool:
        """Whether the kernel was told, not long ago, that the file ends at ``end``, or from ``start`` to there."""
        return False

    def find_recorded(self, path: Path, commit: Oid) -> Committed | None:
        """What a commit has recorded that a daemon was about to make when it died, if it is there. For a thread."""
        return find_recorded(path, self.kata_id, commit)

    def accepted(self, committed: Committed | None) -> None:
        """The message was recorded."""

    def refused(self, error: KataError, again_at: tuple[Hashable | None, int] | None) -> None:
        """The message was refused. ``again_at`` is the writer and offset of the last of its several writes, which will
        be repeated and is to hear the same."""

    def truncate(self, writer: Hashable | None) -> None:
        """The file was opened with O_TRUNC, or truncated to 0: the writer starts afresh; nothing is committed."""

    def is_unfinished(self, writer: Hashable | None) -> bool:
        """Whether that writer has begun a message and not finished it."""
        return False

    def taken(self, offset: int, data: bytes, message: Message) -> None:
        """A message was taken; ``data`` is the last write of it."""

    def check_settable(self, length: int | None) -> None:
        """Somebody sets a mode, an owner, times or, not None, the length. Raises EROFS where nobody may."""
        raise refuse_write()


class MessageFile(Writable):
    """A file to which messages are written. Its size is that of what can be read from it, at any moment."""

    is_direct = True

    def __init__(self, key: Key, owner: Owner, mtime_ns: int, controls: Controls, kata: Kata) -> None:
        super().__init__(key, owner, mtime_ns)
        self.kata_id = kata.kata_id
        self._path, self._is_legacy = kata.home, kata.plain_version() is not None
        self._controls = controls

    @abstractmethod
    def content(self) -> bytes:
        """What can be read."""

    @abstractmethod
    def job(self, message: Message) -> Job:
        """What a message says is to be done. Raises `InvalidError`."""

    def parse(self, message: Message, offset: int) -> Job:
        job = self.job(message)
        return migrating(job) if self._is_legacy else job

    def size(self) -> int:
        size = len(self.content())
        self._controls.told_size(self.key, size)
        return size

    def has_told(self, start: int, end: int, *, is_exact: bool) -> bool:
        return any(size == end if is_exact else start <= size <= end for size in self._controls.sizes(self.key))

    def read(self, offset: int, length: int) -> bytes:
        return self.content()[offset : offset + length]

    def taken(self, offset: int, data: bytes, message: Message) -> None:
        self._controls.taken(self.key, offset, data, message)

    def check_settable(self, length: int | None) -> None:
        """Tools set all that after they have copied; the length, to that of what they have copied."""
        if length and not self._controls.has_length(self.key, length):
            raise InvalidError("it can only be cut to 0, or to the length of what was taken lately")
