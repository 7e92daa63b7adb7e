"""Real files of a kata's directory: ``.git/``, and all of a kata that is still stored as plain files."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from katafs.errors import NotFoundError, unreadable
from katafs.kata.legacy.plain_create import DIRECTORY, is_begun
from katafs.kata.legacy.plain_files import event_of
from katafs.kata.read import stored_files
from katafs.tree.catalogue import DIR, FILE, PLAIN_DIRECTORY, STORED_EVENT, TABLE, WRITABLE_FILE, Shown, row_at, row_of
from katafs.tree.context import Context
from katafs.tree.git_files import PACKS, has_identity, identified
from katafs.tree.makers import fence, makes_from_store
from katafs.tree.nodes import Entry, Node
from katafs.tree.numbers import EVENT, FIXED, PLAIN, Key, Numbers
from katafs.tree.timeouts import MUTABLE, NEVER

_TICK_NS = 20_000_000  # and more, of any file system's clock
# of packs, while others replace them
_LISTINGS = 10
# what every kata has, by path
_FIXED = {row.name: row.number for row in TABLE if row.kind == FIXED and row.shown is Shown.STORED}
_FIXED |= {row.name: row.number for row in (row_at(""), row_at(".git"))}


class GitFile(Node):
    """A file of ``.git/``: the very one that was looked up, whatever is at its path by now."""

    def __init__(self, ctx: Context, key: Key, status: os.stat_result, fd: int | None) -> None:
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_mtime_ns)
        self.attr_timeout = MUTABLE
        self._ctx, self._size, self._fd = ctx, status.st_size, fd

    def size(self) -> int:
        return self._size

    def held(self) -> Node:
        held = self._ctx.git_files.hold(self.key.kata, self.key.path)
        return self if held is None else GitFile(self._ctx, held.key, held.status, held.fd)

    def read(self, offset: int, length: int) -> bytes:
        if self._fd is None:
            # read from its path, it may be another one
            data = stored_files.read(self._ctx.store.path(self.key.kata), self.key.path, offset, length)
            git_file(self._ctx, self.key)
            return data
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise unreadable(f"{self.key.path!r}", error) from error


def git_file(ctx: Context, key: Key) -> Node:
    """The file of a key that says which one it is. Raises `NotFoundError` where it is neither held nor at its path."""
    ctx.store.budget.spend(0)
    held = ctx.git_files.get(Numbers.number(key))
    if held is not None:
        return GitFile(ctx, key, held.status, held.fd)
    status = stored_files.status(ctx.store.path(key.kata), key.path)
    if identified(key.kata, key.path, status) != key:
        raise NotFoundError(f"{key.path!r} is another file by now")
    return GitFile(ctx, key, status, None)


class PlainNode(Node):
    """A file or directory at a path in the kata's directory. Raises `NotFoundError`."""

    def __init__(self, ctx: Context, key: Key, path: bytes) -> None:
        self._ctx, self.kata_id = ctx, key.kata
        self._home, self._name = ctx.store.path(key.kata), path
        ctx.store.budget.spend(0)
        status = stored_files.status(self._home, path)
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_mtime_ns)
        self._size = stored_files.size(self._home, path) if stat.S_ISREG(status.st_mode) else 0
        self.mode = DIR if stat.S_ISDIR(status.st_mode) else FILE
        if is_written(self.key, path, self._home):
            self.mode |= 0o200
        self.attr_timeout = NEVER
        if stat.S_ISDIR(status.st_mode) and time.time_ns() - self.mtime_ns < _TICK_NS:
            # By its time the kernel sees whether a listing that it has is still right. Within one tick of the store's
            # clock there may be another change.
            self.mtime_ns = time.time_ns()
        if is_stored_key(self.key):
            ctx.store.plain.shown[self.key] = (self._size, self.mtime_ns)

    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        return stored_files.read(self._home, self._name, offset, length)

    def names(self) -> list[bytes]:
        names, tries = self._names(), 1
        while self._name == PACKS and not self._ctx.git_files.hold_listed(self.kata_id, names) and tries < _LISTINGS:
            names, tries = self._names(), tries + 1
        return names

    def _names(self) -> list[bytes]:
        return stored_files.names(self._home, self._name, self._ctx.store.budget)

    def child(self, name: bytes) -> Entry:
        # the repository itself may be opened as a bare one: its configuration is ours
        if name == b".git" and self._name != b".git":
            return fence(self)
        return plain_entry(self._ctx, self.kata_id, self._name, name)

    def parent(self) -> Key:
        return plain_key(self.kata_id, self._name.rpartition(b"/")[0])


@makes_from_store(".git", ".git/…")
def _node(ctx: Context, key: Key) -> Node:
    if key.kind == PLAIN and key.a:
        return git_file(ctx, key)
    return PlainNode(ctx, key, key.path or b".git")


def plain_key(kata_id: str, path: bytes) -> Key:
    """The key of a path in the kata's directory; ``b""`` is the kata itself.

    What every kata of version 0 or 1 has is numbered by what it is, so that it is the same for the next daemon. What is
    made from git after migration has other numbers (`katafs.tree.legacy.plain_nodes`).
    """
    if path in _FIXED:
        return Key(FIXED, kata_id, _FIXED[path])
    index = event_of(path)
    if index is not None:
        return Key(EVENT, kata_id, index, STORED_EVENT if path.endswith(b"n") else PLAIN_DIRECTORY)
    directory, _, name = path.partition(b"/")
    index = event_of(directory) if name == b"event.json" else None
    return Key(EVENT, kata_id, index, STORED_EVENT) if index is not None else Key(PLAIN, kata_id, path=path)


def is_written(key: Key, path: bytes, root: Path) -> bool:
    """Whether services write to a plain file: rows and options to the files that are there, anything of a new kata."""
    is_appended = key.kind == FIXED and row_of(key).mode == WRITABLE_FILE
    return is_appended or ((is_stored_key(key) or path == DIRECTORY) and is_begun(root))


def is_stored_key(key: Key) -> bool:
    """Whether a key is that of a plain file in the store that has a number of its own."""
    return row_of(key).shown is Shown.STORED


def plain_path(key: Key, version: int) -> bytes:
    """The inverse of `plain_key` for what has a number of its own. Raises `NotFoundError`."""
    if key.kind == FIXED:
        return row_of(key).name
    if key.kind == EVENT and key.b == STORED_EVENT:
        return b"%d.event.json" % key.a if version else b"%d/event.json" % key.a
    if key.kind == EVENT and key.b == PLAIN_DIRECTORY and not version:
        return b"%d" % key.a
    raise NotFoundError(f"kata {key.kata} has no such plain path")


def plain_entry(ctx: Context, kata_id: str, directory: bytes, name: bytes) -> Entry:
    """The entry ``name`` of a real directory. Raises `NotFoundError`."""
    if name in (b"", b".", b"..") or b"/" in name:
        raise NotFoundError(f"no {name!r}")
    path = directory + b"/" + name if directory else name
    if directory == PACKS and (held := ctx.git_files.hold(kata_id, path)) is not None:
        # who has listed it opens it later
        return Entry(GitFile(ctx, held.key, held.status, held.fd), NEVER)
    if has_identity(path) and not stored_files.is_corrected(ctx.store.path(kata_id), path):
        status = stored_files.status(ctx.store.path(kata_id), path)
        if stat.S_ISREG(status.st_mode):
            return Entry(GitFile(ctx, identified(kata_id, path, status), status, None), NEVER)
    node = PlainNode(ctx, plain_key(kata_id, path), path)
    # A directory is a path and nothing else: what is looked up in one that is gone is not found.
    return Entry(node, MUTABLE if stat.S_ISDIR(node.mode) else NEVER)
