"""The contract between the tree and the adapter: what a node must answer.

A node is made for a request from a `Key`, and then dropped, or kept for the next if it never changes; nothing depends
on that. `Directory.names` and `Directory.child`
are all that a directory says about its entries: a listing is the names, each looked up.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple, Never

from katafs.errors import DamagedError, IsDirectoryError, NotDirectoryError, ReadOnlyError, TooLargeError
from katafs.kata.record.exclusive import Attempt
from katafs.tree.numbers import Key, Numbers

if TYPE_CHECKING:
    from katafs.tree.writable import Writable

# How long, in seconds, the kernel may keep what it was told.
IMMUTABLE = 30 * 86400.0
MUTABLE = 0.5  # a commit by somebody else shows within one second
NEVER = 0.0

Maker = Callable[[], object]
#: What makes a new entry in a directory, in a worker thread; where it comes from another process, a partial.
Creator = Callable[[Attempt], None]


class Later(NamedTuple):
    """What a `Maker` returns when most is to be done yet: ``make`` waits for a process, one of a few."""

    make: Maker


class Owner(NamedTuple):
    """Whose a node is."""

    uid: int
    gid: int


class Listed(NamedTuple):
    """An entry of a directory as a listing shows it."""

    name: bytes
    number: int
    mode: int
    size: int


_LEFT_BEHIND = frozenset(("_ctx", "_controls", "_kata", "_tip", "_data", "_text", "_node", "_partly_read"))


class Node:
    """Anything in the tree. ``attr_timeout`` says how long its attributes hold."""

    mode = stat.S_IFREG | 0o444
    attr_timeout = IMMUTABLE
    #: what kind of work `to_make` is: one does not wait for another
    slowness = "text"
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

    def __getstate__(self) -> dict[str, object]:
        """As it comes from another process: whole for who writes, without what readers and the daemon alone need."""
        return {name: value for name, value in vars(self).items() if name not in _LEFT_BEHIND}

    def holds(self) -> bool:
        """Whether a node that was made for another request is as good as a new one. Where it may be, the node must not
        have anything that is costly to keep."""
        return False

    def size(self) -> int | None:
        """The size in bytes; None when it is not known before the content was made (see `to_make`)."""
        return 0

    def to_make(self) -> Maker | None:
        """What must be called, in a worker thread, before the other questions can be answered; None when nothing.

        Its result is handed to `made`, once it is no `Later`.
        """
        return None

    def made(self, result: object) -> None:
        """Take the result of `to_make`, in the event loop."""

    def too_large(self, error: TooLargeError) -> None:
        """Take it that what `to_make` said takes too much, in the event loop."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of a file."""
        raise IsDirectoryError("not a file")

    def target(self) -> bytes:
        """The target of a symbolic link."""
        raise NotDirectoryError("not a symbolic link")

    def child(self, name: bytes) -> Entry:
        """The entry of that name. Raises `NotFoundError`."""
        raise NotDirectoryError("not a directory")

    def names(self) -> list[bytes]:
        """The names that a listing shows, in its order; `child` may know more."""
        raise NotDirectoryError("not a directory")

    def listed(self) -> list[Listed] | None:
        """The same, and what `child` says of each, where all have the directory's owner and time, never change, and
        have numbers of which nothing needs to be kept; None where that is not so."""
        return None

    def contents(self, numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """Numbers and bytes of these of the files that `listed` tells of."""
        raise NotDirectoryError("not a directory")

    def parent(self) -> Key:
        """The key of the directory above, for ``..``."""
        raise NotDirectoryError("not a directory")

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


class Entry(NamedTuple):
    """A name in a directory; ``timeout`` says how long, in seconds, it stays this node's."""

    node: Node
    timeout: float


class Directory(Node):
    """A directory. Whether its entries ever change decides how long the kernel may keep its attributes."""

    mode = stat.S_IFDIR | 0o555

    def __init__(self, key: Key, owner: Owner, mtime_ns: int, parent: Key) -> None:
        super().__init__(key, owner, mtime_ns)
        self._parent = parent

    def parent(self) -> Key:
        return self._parent


class File(Node):
    """A file whose bytes are at hand."""

    def read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError


class BytesFile(File):
    """A file with bytes that are in memory."""

    def __init__(self, key: Key, owner: Owner, mtime_ns: int, data: bytes) -> None:
        super().__init__(key, owner, mtime_ns)
        self._data = data

    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class Link(Node):
    """A symbolic link."""

    mode = stat.S_IFLNK | 0o777
    attr_timeout = MUTABLE

    def __init__(self, key: Key, owner: Owner, mtime_ns: int, target: str) -> None:
        super().__init__(key, owner, mtime_ns)
        self._target = target.encode()

    def size(self) -> int:
        return len(self._target)

    def target(self) -> bytes:
        return self._target


class Damaged(Node):
    """What stands for a node that cannot be made: it is listed, and every question about it fails (EIO)."""

    attr_timeout = NEVER

    def __init__(self, key: Key, directory: Node, mode: int, error: DamagedError) -> None:
        super().__init__(key, directory.owner, directory.mtime_ns)
        self.mode = mode
        self._error = error

    def size(self) -> int | None:
        return None

    def to_make(self) -> Maker:
        return self._fail

    def _fail(self) -> Never:
        raise self._error


def entry_or_damaged(
    make: Callable[[], Node], timeout: float, key: Key, directory: Node, mode: int = File.mode
) -> Entry:
    """The entry of the node that ``make`` returns; a `Damaged` one when it, or its size, cannot be read.

    So the directory can be listed, whatever is wrong with one of its entries.
    """
    try:
        node = make()
        node.size()
    except DamagedError as error:
        return damaged_entry(key, directory, mode, error)
    return Entry(node, timeout)


def damaged_entry(key: Key, directory: Node, mode: int, error: DamagedError) -> Entry:
    """The entry of what cannot be read."""
    return Entry(Damaged(key, directory, mode, error), NEVER)


def refuse_write() -> ReadOnlyError:
    """What every write gets that is not to a control file (EROFS)."""
    return ReadOnlyError("not a control file")
