"""The plain paths of katas of version 0 and 1: ``N.event.json`` or ``N/event.json``, ``events.json``, option files.

Where the kata is still stored plain they are the very files (`katafs.tree.dirs.stored_nodes`), else they are made from
git. Their numbers differ: what a reader has open must not turn into something else.
"""

from __future__ import annotations

import contextlib
import re
from functools import partial

from katafs.errors import KataError, NotFoundError, StaleError
from katafs.git import GitRepo
from katafs.kata.legacy.plain_create import DIRECTORY
from katafs.kata.legacy.plain_files import event_of
from katafs.kata.legacy.plain_paths import has_plain_paths, plain_event, plain_events, plain_option
from katafs.kata.model.rows import Row
from katafs.kata.model.trees import Listing
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import Snapshot
from katafs.text import compact
from katafs.tree.catalogue import FILE, WRITABLE_FILE, Shown, row_at, row_of, standing_in
from katafs.tree.context import Context
from katafs.tree.dirs.contents import MadeFile
from katafs.tree.dirs.stored_nodes import PlainNode, is_stored_key, is_written, plain_path
from katafs.tree.legacy.pending_nodes import AppendedEvents, PlainEventDir, PlainOption, Stored, to_create_new
from katafs.tree.makers import entry, make, makes, makes_from_store
from katafs.tree.nodes import Creator, Entry, Later, Node, refuse_write
from katafs.tree.numbers import EVENT, FIXED, Key
from katafs.tree.timeouts import IMMUTABLE, NEVER

_OPTIONS = [row.name.decode() for row in standing_in("config")]


class _StoredFile(PlainNode, Stored):
    """A plain file or directory of the store, which may be migrated at any moment."""

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        if self._name != DIRECTORY:
            raise refuse_write()
        return to_create_new(self._home, self._name + b"/" + name, is_directory=is_directory)

    def read(self, offset: int, length: int) -> bytes:
        try:
            data = super().read(offset, length)
            # as long as this is so, it was the file
            if not self._ctx.store.is_git(self.kata_id):
                return data
        except KataError:
            if not self._ctx.store.is_git(self.kata_id):
                raise
        return _gone_file(self._ctx, self.key).read(offset, length)


class _GoneFile(Stored):
    """A plain file that somebody has open, and that was migrated: like a file that was removed, it stays as it was.
    What is appended goes to where it belongs.

    Read in one request, it is made from git, with as many rows as go into the size that the reader was told, and filled
    up to that with newlines: to JSON they are nothing. Who reads in parts may have some of the file that was there, and
    hears ESTALE: of what has more than 128 KiB, at the moment of its migration.
    """

    def __init__(self, ctx: Context, key: Key, size: int, mtime_ns: int, node: Node | None) -> None:
        kata = ctx.store.kata(key.kata)
        super().__init__(key, ctx.owner(kata), mtime_ns)
        self._version = kata.plain_version() or 0
        self.kata_id, self._home, self._name = key.kata, kata.home, plain_path(key, self._version)
        self.takes_pieces = row_of(key).path == "events.json"
        self.mode = WRITABLE_FILE if is_written(key, b"", self._home) else FILE
        self._size, self._node = size, node

    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        if self._node is None or offset or length < self._size:
            raise StaleError("the plain file was migrated")
        node = self._node
        if (make := node.prepare()) is not None:
            result = make()
            node.prepared(result.make() if isinstance(result, Later) else result)
        made = node.size() or 0
        if made > self._size and self.takes_pieces:
            rows = node.read(0, self._size + 2)
            end = rows.rfind(b",\n") if self._version else rows.rfind(b"\n", 0, self._size) + 1
            return rows[: max(end, 0)].ljust(self._size, b"\n")
        is_option = row_of(self.key).path in _OPTIONS
        if made > self._size or (is_option and made < self._size):
            raise StaleError("the plain file was migrated")
        return node.read(0, self._size).ljust(self._size, b"\n")


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


def plain_path_entry(directory: Node, ctx: Context, kata: Kata, name: bytes) -> Entry:
    """The entry of one of `plain_path_names`."""
    index = event_of(name)
    row = row_at(re.sub(r"^\d+", "N", name.decode()), Shown.PLAIN)
    # events.json is another file after each event
    return entry(directory, ctx, kata, row, row.key(kata.kata_id, kata.tip().last if index is None else index))


@makes_from_store("N", shown=Shown.PLAIN)
def _directory(ctx: Context, key: Key) -> Node:
    if not ctx.store.is_git(key.kata):
        return _stored(ctx, key)
    kata = ctx.store.kata(key.kata)
    if _version(kata):
        raise NotFoundError(f"kata {key.kata} has no such plain path")
    return PlainEventDir(ctx, kata, key, kata.snapshot(key.a).time_ns)


@makes_from_store("manifest.json", "events.json", "N.event.json", "N/event.json", *_OPTIONS, shown=Shown.STORED)
def _stored(ctx: Context, key: Key) -> Node:
    """A plain file, also where its kata was migrated by now."""
    if ctx.store.is_git(key.kata):
        return _gone_file(ctx, key) if is_stored_key(key) else _directory(ctx, key)
    # whether the kata can be converted is not asked, nor which version it is: their paths differ
    for version in (1, 0):
        with contextlib.suppress(NotFoundError):
            return _StoredFile(ctx, key, plain_path(key, version))
    if ctx.store.is_git(key.kata):
        return _stored(ctx, key)
    raise NotFoundError(f"kata {key.kata} has no such plain file")


def _gone_file(ctx: Context, key: Key) -> Node:
    path, node = row_of(key).path, None
    if path != "manifest.json":
        index = key.a if key.kind == EVENT else ctx.store.kata(key.kata).tip().last
        node = make(ctx, row_at(path, Shown.PLAIN).key(key.kata, index))
    told = ctx.store.plain.shown.get(key)
    if told is None:
        # it was told by a daemon that died: the kernel, which has it for no time, asks this one
        size = node.size() if node is not None and key.kind == FIXED else None
        if node is None or size is None:
            raise NotFoundError(f"the plain file was migrated, as the whole kata {key.kata}")
        told = ctx.store.plain.shown[key] = (size, node.mtime_ns)
    return _GoneFile(ctx, key, *told, node)


def _version(kata: Kata) -> int:
    """The version, of a kata that has plain paths that are made from git. Raises `NotFoundError`."""
    version = kata.plain_version()
    if version is None or kata.is_stored_plain:
        raise NotFoundError(f"kata {kata.kata_id} has no such plain path")
    return version


@makes("N.event.json", shown=Shown.PLAIN)
def _event_file(ctx: Context, kata: Kata, key: Key) -> Node:
    version, rows = _version(kata), kata.tip().rows
    if not has_plain_paths(rows, key.a):
        raise NotFoundError(f"kata {kata.kata_id} has no event {key.a} on its plain paths")
    snapshot = kata.snapshot(key.a)
    make_text = partial(_make_event, snapshot, rows.stored[key.a], version)
    return MadeFile(key, ctx, kata, snapshot.time_ns, (key, snapshot.commit.oid), make_text)


def _make_event(snapshot: Snapshot, row: Row, version: int, repo: GitRepo) -> bytes:
    document = plain_event(repo, snapshot, row, Listing(repo, snapshot.files_tree), version)
    return compact(document).encode("utf-8", "replace")


@makes("events.json", shown=Shown.PLAIN)
def _events_file(ctx: Context, kata: Kata, key: Key) -> Node:
    """The rows up to an event. With each event it is another file: were it one that grows, who reads it while its size
    changes could get pages that the kernel kept from before, and zeros behind them."""
    version, snapshot = _version(kata), kata.snapshot(key.a)
    identity = (key, snapshot.commit.oid)
    data = ctx.made.get(identity)
    if not isinstance(data, bytes):
        data = plain_events(kata.tip().rows, version, key.a)
        ctx.made.put(identity, data)
    file = AppendedEvents(ctx, kata, key, snapshot.time_ns, data)
    file.attr_timeout = IMMUTABLE if version else NEVER
    return file


@makes(*_OPTIONS, shown=Shown.PLAIN)
def _option_file(ctx: Context, kata: Kata, key: Key) -> Node:
    _version(kata)
    name = row_of(key).name.decode()
    # one that was never set has no name, but for those who have just created it, perhaps in an earlier daemon
    values = kata.set_options().get(name)
    # a commit has whole seconds, and the kernel must see that something was appended
    mtime_ns = kata.option_times()[name] + len(values or ())
    return PlainOption(ctx, kata, key, mtime_ns, plain_option(values) if values else b"")
