"""The plain paths of katas of version 0 and 1: ``N.event.json`` or ``N/event.json``, ``events.json``, option files.

Where the kata is still stored plain they are the very files (`katafs.tree.plain`), else they are made from git. Their
numbers differ: what a reader has open must not turn into something else.
"""

from __future__ import annotations

import contextlib
from functools import partial

from katafs.errors import KataError, NotFoundError, StaleError
from katafs.git import GitRepo
from katafs.kata.legacy.plain_create import DIRECTORY
from katafs.kata.legacy.plain_files import event_of
from katafs.kata.legacy.plain_paths import has_plain_paths, plain_event, plain_events, plain_option
from katafs.kata.model.listing import Listing
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.kata.model.rows import Row
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import Snapshot
from katafs.text import compact
from katafs.tree.context import Context
from katafs.tree.legacy.pending import AppendedEvents, PlainOption, Stored, to_create_new
from katafs.tree.made import MadeFile
from katafs.tree.nodes import (
    IMMUTABLE,
    NEVER,
    Creator,
    Directory,
    Entry,
    File,
    Later,
    Node,
    entry_or_damaged,
    refuse_write,
)
from katafs.tree.numbers import EVENT, FIXED, Key
from katafs.tree.plain import (
    FIRST_STORED_OPTION,
    PLAIN_DIRECTORY,
    STORED_EVENT,
    STORED_EVENTS,
    STORED_MANIFEST,
    PlainNode,
    is_stored_key,
    is_written,
    plain_path,
)

# a fixed entry of a kata, and slots of an event: its file, and ``events.json`` as it was when that was the last event
FIRST_PLAIN_OPTION = 65
PLAIN_EVENT, PLAIN_ROWS = 24, 29
_OPTIONS = [name.encode() for name in OPTION_DEFAULTS]


class _StoredFile(PlainNode, Stored):
    """A plain file or directory of the store, which may be migrated at any moment."""

    def __init__(self, ctx: Context, kata_id: str, path: bytes) -> None:
        super().__init__(ctx, kata_id, path)
        self.kata_id, self._home, self._name = kata_id, self._root, path

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        if self._path != DIRECTORY:
            raise refuse_write()
        return to_create_new(self._root, self._path + b"/" + name, is_directory=is_directory)

    def read(self, offset: int, length: int) -> bytes:
        state = (self._size, self.mtime_ns)
        if offset or length < self._size:
            self._ctx.store.plain.partly_read.keep(self.key, self._root, self._path, state)
        try:
            data = super().read(offset, length)
        except KataError:
            if not self._ctx.store.is_git(self._kata_id):
                raise
        else:
            # as long as this is so, it was the file
            if not self._ctx.store.is_git(self._kata_id):
                return data
        return _gone_file(self._ctx, self.key).read(offset, length)


class _GoneFile(Stored):
    """A plain file that somebody has open, and that was migrated: like a file that was removed, it stays as it was.
    What is appended goes to where it belongs.

    Who has read a part of it reads on in the file itself, which is held open for a while. Where nobody has, it is made
    from git, with as many rows as go into the size that the reader was told, and filled up to that with newlines: to
    JSON they are nothing. Where neither can be, the reader hears ESTALE.
    """

    def __init__(self, ctx: Context, key: Key, size: int, mtime_ns: int, node: Node | None) -> None:
        kata = ctx.store.kata(key.kata)
        super().__init__(key, ctx.owner(kata), mtime_ns)
        self._version = kata.plain_version() or 0
        self.kata_id, self._home, self._name = key.kata, kata.home, plain_path(key, self._version)
        self.takes_pieces = key.kind == FIXED and key.a == STORED_EVENTS
        if not is_written(key, b"", self._home):
            self.mode = File.mode
        self._size, self._node, self._partly_read = size, node, ctx.store.plain.partly_read

    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        state = (self._size, self.mtime_ns)
        kept = self._partly_read.read(self.key, state, offset, length)
        if kept is not None:
            return kept
        is_part = bool(offset) or length < self._size
        if self._node is None or (is_part and self._partly_read.has(self.key, state)):
            raise StaleError("the plain file was migrated")
        return self._made(self._node, offset, max(min(length, self._size - offset), 0))

    def _made(self, node: Node, offset: int, length: int) -> bytes:
        if (make := node.to_make()) is not None:
            result = make()
            node.made(result.make() if isinstance(result, Later) else result)
        made = node.size() or 0
        if made > self._size and self.takes_pieces:
            rows = node.read(0, self._size + 2)
            end = rows.rfind(b",\n") if self._version else rows.rfind(b"\n", 0, self._size) + 1
            return rows[: max(end, 0)][offset : offset + length].ljust(length, b"\n")
        is_option = self.key.kind == FIXED and self.key.a >= FIRST_STORED_OPTION
        if made > self._size or (is_option and made < self._size):
            raise StaleError("the plain file was migrated")
        return node.read(offset, length).ljust(length, b"\n")


class _EventDirectory(Directory):
    """``N/`` of version 0."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot) -> None:
        key = Key(EVENT, kata.kata_id, snapshot.index, PLAIN_DIRECTORY)
        super().__init__(key, ctx.owner(kata), snapshot.time_ns, Key(FIXED, kata.kata_id, 0))
        self._ctx, self._kata, self._index = ctx, kata, snapshot.index

    def names(self) -> list[bytes]:
        return [b"event.json"]

    def child(self, name: bytes) -> Entry:
        if name != b"event.json":
            raise NotFoundError(f"no {name!r} here")
        key = Key(EVENT, self._kata.kata_id, self._index, PLAIN_EVENT)
        return entry_or_damaged(partial(_event_file, self._ctx, self._kata, self._index), IMMUTABLE, key, self)


def plain_path_names(kata: Kata) -> list[bytes]:
    """The names of plain paths that a kata shows which is stored as git."""
    version = kata.plain_version()
    if version is None:
        return []
    rows = kata.tip().rows
    ending = b".event.json" if version else b""
    events = [b"%d%s" % (index, ending) for index in range(rows.last + 1) if has_plain_paths(rows, index)]
    return [*events, b"events.json", *(name.encode() for name in kata.set_options())]


def is_plain_path_name(ctx: Context, kata: Kata, name: bytes) -> bool:
    """Whether a name is one of `plain_path_names`, found out without making them."""
    version = kata.plain_version()
    if version is None:
        return False
    index = event_of(name)
    if index is not None:
        return name.endswith(b"n") == bool(version) and has_plain_paths(kata.tip().rows, index)
    option = name.decode("ascii", "replace")
    return name == b"events.json" or option in kata.set_options() or (kata.kata_id, option) in ctx.begun_options


def plain_path_entry(directory: Directory, ctx: Context, kata: Kata, name: bytes) -> Entry:
    """The entry of one of `plain_path_names`."""
    index = event_of(name)
    if index is not None:
        key = Key(EVENT, kata.kata_id, index, PLAIN_EVENT if name.endswith(b"n") else PLAIN_DIRECTORY)
    elif name == b"events.json":
        key = Key(EVENT, kata.kata_id, kata.tip().last, PLAIN_ROWS)
    else:
        key = Key(FIXED, kata.kata_id, FIRST_PLAIN_OPTION + _OPTIONS.index(name))
    mode = Directory.mode if key.kind == EVENT and key.b == PLAIN_DIRECTORY else PlainNode.mode
    # events.json is another file after each event
    timeout = IMMUTABLE if index is not None else NEVER
    return entry_or_damaged(partial(_made_node, ctx, key), timeout, key, directory, mode)


def is_plain_path(key: Key) -> bool:
    """Whether a key is that of a plain path."""
    if key.kind == EVENT:
        return key.b in (PLAIN_EVENT, PLAIN_ROWS, PLAIN_DIRECTORY, STORED_EVENT)
    is_made = key.kind == FIXED and FIRST_PLAIN_OPTION <= key.a < FIRST_PLAIN_OPTION + len(_OPTIONS)
    return is_made or is_stored_key(key)


def plain_path_node(ctx: Context, key: Key) -> Node:
    """The node of a plain path, however its kata is stored. Raises `NotFoundError`."""
    is_git = ctx.store.is_git(key.kata)
    if not is_stored_key(key) and (is_git or key.b != PLAIN_DIRECTORY):
        return _made_node(ctx, key)
    if is_git:
        return _gone_file(ctx, key)
    # whether the kata can be converted is not asked, nor which version it is: their paths differ
    for version in (1, 0):
        with contextlib.suppress(NotFoundError):
            return _StoredFile(ctx, key.kata, plain_path(key, version))
    if ctx.store.is_git(key.kata):
        return plain_path_node(ctx, key)
    raise NotFoundError(f"kata {key.kata} has no such plain file")


def _gone_file(ctx: Context, key: Key) -> Node:
    if key.kind == EVENT:
        node = _made_node(ctx, key._replace(b=PLAIN_EVENT))
    elif key.a == STORED_MANIFEST:
        node = None
    elif key.a == STORED_EVENTS:
        node = _made_node(ctx, Key(EVENT, key.kata, ctx.store.kata(key.kata).tip().last, PLAIN_ROWS))
    else:
        node = _made_node(ctx, key._replace(a=key.a - FIRST_STORED_OPTION + FIRST_PLAIN_OPTION))
    told = ctx.store.plain.told.get(key)
    if told is None:
        # it was told by a daemon that died: the kernel, which has it for no time, asks this one
        size = node.size() if node is not None and key.kind == FIXED else None
        if node is None or size is None:
            raise NotFoundError(f"the plain file was migrated, as the whole kata {key.kata}")
        told = ctx.store.plain.told[key] = (size, node.mtime_ns)
    return _GoneFile(ctx, key, *told, node)


def _made_node(ctx: Context, key: Key) -> Node:
    """The node of a plain path that is made from git."""
    kata = ctx.store.kata(key.kata)
    version = kata.plain_version()
    if version is None or kata.is_stored_plain:
        raise NotFoundError(f"kata {key.kata} has no such plain path")
    if key.kind == EVENT and key.b == PLAIN_DIRECTORY and not version:
        return _EventDirectory(ctx, kata, kata.snapshot(key.a))
    if key.kind == EVENT and key.b == PLAIN_EVENT:
        return _event_file(ctx, kata, key.a)
    if key.kind == EVENT and key.b == PLAIN_ROWS:
        return _events_file(ctx, kata, key.a, version)
    if key.kind == FIXED:
        return _option_file(ctx, kata, key)
    raise NotFoundError(f"kata {key.kata} has no such plain path")


def _event_file(ctx: Context, kata: Kata, index: int) -> Node:
    rows = kata.tip().rows
    if not has_plain_paths(rows, index):
        raise NotFoundError(f"kata {kata.kata_id} has no event {index} on its plain paths")
    snapshot = kata.snapshot(index)
    key = Key(EVENT, kata.kata_id, index, PLAIN_EVENT)
    version = kata.plain_version() or 0
    make = partial(_make_event, snapshot, rows.stored[index], version)
    return MadeFile(key, ctx.owner(kata), snapshot.time_ns, ctx.made, (key, snapshot.commit.oid), kata.path, make)


def _make_event(snapshot: Snapshot, row: Row, version: int, repo: GitRepo) -> bytes:
    document = plain_event(repo, snapshot, row, Listing(repo, snapshot.files_tree), version)
    return compact(document).encode("utf-8", "replace")


def _events_file(ctx: Context, kata: Kata, last: int, version: int) -> Node:
    """The rows up to an event. With each event it is another file: were it one that grows, who reads it while its size
    changes could get pages that the kernel kept from before, and zeros behind them."""
    snapshot = kata.snapshot(last)
    key = Key(EVENT, kata.kata_id, last, PLAIN_ROWS)
    identity = (key, snapshot.commit.oid)
    data = ctx.made.get(identity)
    if not isinstance(data, bytes):
        data = plain_events(kata.tip().rows, version, last)
        ctx.made.put(identity, data)
    return AppendedEvents(key, ctx.owner(kata), snapshot.time_ns, kata, data)


def _option_file(ctx: Context, kata: Kata, key: Key) -> Node:
    name = _OPTIONS[key.a - FIRST_PLAIN_OPTION].decode()
    # one that was never set has no name, but for those who have just created it, perhaps in an earlier daemon
    values = kata.set_options().get(name)
    # a commit has whole seconds, and the kernel must see that something was appended
    mtime_ns = kata.option_times()[name] + len(values or ())
    data = plain_option(values) if values else b""
    return PlainOption(key, ctx.owner(kata), mtime_ns, kata, data, name.encode())
