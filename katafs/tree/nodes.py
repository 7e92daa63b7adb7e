"""The contract between the tree and the adapter: what a node must answer.

A node is made for a request from a `Key`, and then dropped, or kept for the next if it never changes; nothing depends
on that. `Node.names` and `Node.child` are all that a directory says about its entries: a listing is the names, each
looked up.
"""

from __future__ import annotations

import stat
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple, Never

from katafs.errors import DamagedError, IsDirectoryError, KataError, NotDirectoryError, ReadOnlyError, TooLargeError
from katafs.git import Oid
from katafs.kata.record.commit import Committed, Job
from katafs.kata.record.exclusive import Attempt
from katafs.kata.record.inbox import Message
from katafs.kata.record.recorders import find_recorded
from katafs.tree.catalogue import key_above, row_of
from katafs.tree.controls import Controls
from katafs.tree.numbers import Key, Numbers
from katafs.tree.timeouts import NEVER

Work = Callable[[], object]
#: What makes a new entry in a directory, in a worker thread; where it comes from another process, a partial.
Creator = Callable[[Attempt], None]


class Later(NamedTuple):
    """What a `Work` returns when most is to be done yet: ``make`` waits for a process, one of a few."""

    make: Work


class Owner(NamedTuple):
    uid: int
    gid: int


class PlusEntry(NamedTuple):
    """An entry of a directory as a listing shows it, where it never changes."""

    name: bytes
    number: int
    mode: int
    size: int
    mtime_ns: int


_LEFT_BEHIND = frozenset(("_ctx", "_controls", "_kata", "_tip", "_data", "_text", "_node"))


class Node:
    """Anything in the tree. Its mode, and for how many seconds its attributes hold, are those of its row in the
    catalogue, unless it says otherwise."""

    #: what kind of work `prepare` is: one does not wait for another
    queue = "text"
    # another one for another thing of the same number: the kernel then forgets all that it knows of it and below it
    generation = 0
    #: what the kernel is told that stands behind the end of a file; else it takes it for zeros
    behind = b""
    has_attributes = False

    def __init__(self, key: Key, owner: Owner, mtime_ns: int) -> None:
        self.key = key
        self.number = Numbers.number(key)
        self.owner = owner
        self.mtime_ns = mtime_ns
        row = row_of(key)
        self.mode, self.attr_timeout = row.mode, row.attr_timeout

    def __getstate__(self) -> dict[str, object]:
        """As it comes from another process: whole for who writes, without what readers and the daemon alone need."""
        return {name: value for name, value in vars(self).items() if name not in _LEFT_BEHIND}

    def is_lasting(self) -> bool:
        """Whether what is said of it holds until its kata is another (`katafs.kata.read.caches.ReadCaches.on_change`),
        and is little enough to be made ahead."""
        return False

    def is_reusable(self) -> bool:
        """Whether it is kept for other requests: then it must have nothing that is costly to keep."""
        return self.is_lasting()

    def size(self) -> int | None:
        """The size in bytes; None when it is not known before the content was made (see `prepare`)."""
        return 0

    def prepare(self) -> Work | None:
        """What must be called, in a worker thread, before the other questions can be answered; None when nothing. In
        the event loop its result, once it is no `Later`, is handed to `prepared`; its refusal to `too_large`."""
        return None

    def prepared(self, result: object) -> None:
        pass

    def too_large(self, error: TooLargeError) -> None:
        pass

    def read(self, offset: int, length: int) -> bytes:
        raise IsDirectoryError("not a file")

    def read_behind(self, offset: int, length: int) -> bytes:
        """The same, and as much of `behind` as was asked for beyond the end."""
        data = self.read(offset, length)
        return data.ljust(length, self.behind) if self.behind else data

    def target(self) -> bytes:
        raise NotDirectoryError("not a symbolic link")

    def child(self, name: bytes) -> Entry:
        """The entry of that name. Raises `NotFoundError`."""
        raise NotDirectoryError("not a directory")

    def names(self) -> list[bytes]:
        """The names that a listing shows, in its order; `child` may know more."""
        raise NotDirectoryError("not a directory")

    def fast_listing(self) -> Sequence[PlusEntry | bytes] | None:
        """The same, and what `child` says of those that have the directory's owner, never change, and have numbers of
        which nothing needs to be kept; None where that is true of none."""
        return None

    def parent(self) -> Key:
        """The key of the directory above a directory, for ``..``."""
        if not stat.S_ISDIR(self.mode):
            raise NotDirectoryError("not a directory")
        return key_above(self.key)

    def attributes(self) -> dict[str, str]:
        """Extended attributes, by names below ``user.katafs.``; asked for where ``has_attributes`` says so."""
        return {}

    def held(self) -> Node:
        """The node that is looked up, with all that is needed to read it as it is now."""
        return self

    def sink(self) -> Writable:
        """What takes the bytes that are written to a file. Raises EROFS where nobody may write."""
        raise refuse_write()

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        """What must be called to make a new entry. Raises EROFS where nobody may."""
        raise refuse_write()


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
        pass

    def refused(self, error: KataError, again_at: tuple[Hashable | None, int] | None) -> None:
        """The message was refused. ``again_at`` is the writer and offset of the last of its several writes, which will
        be repeated and is to hear the same."""

    def truncate(self, writer: Hashable | None) -> None:
        """The file was opened with O_TRUNC, or truncated to 0: the writer starts afresh; nothing is committed."""

    def is_unfinished(self, writer: Hashable | None) -> bool:
        return False

    def taken(self, offset: int, data: bytes, message: Message) -> None:
        """A message was taken; ``data`` is the last write of it."""

    def check_settable(self, length: int | None) -> None:
        """Somebody sets a mode, an owner, times or, not None, the length. Raises EROFS where nobody may."""
        raise refuse_write()


class Entry(NamedTuple):
    """A name in a directory; ``timeout`` says how long, in seconds, it stays this node's."""

    node: Node
    timeout: float


class BytesFile(Node):
    def __init__(self, key: Key, owner: Owner, mtime_ns: int, data: bytes) -> None:
        super().__init__(key, owner, mtime_ns)
        self._data = data

    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class Link(Node):
    def __init__(self, key: Key, owner: Owner, mtime_ns: int, target: str) -> None:
        super().__init__(key, owner, mtime_ns)
        self._target = target.encode()

    def size(self) -> int:
        return len(self._target)

    def target(self) -> bytes:
        return self._target


class Damaged(Node):
    """What stands for a node that cannot be made: it is listed, and every question about it fails (EIO)."""

    def __init__(self, key: Key, directory: Node, error: DamagedError) -> None:
        super().__init__(key, directory.owner, directory.mtime_ns)
        self.attr_timeout = NEVER
        self._error = error

    def size(self) -> int | None:
        return None

    def prepare(self) -> Work:
        def fail() -> Never:
            raise self._error

        return fail


def refuse_write() -> ReadOnlyError:
    """What every write gets that is not to a control file (EROFS)."""
    return ReadOnlyError("not a control file")
