"""What plain-path services write: new katas, new events, the rows and options of katas of versions 0 and 1."""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable
from functools import partial
from pathlib import Path

import cachetools

from katafs.errors import KataError, LateError, NotFoundError, StaleError
from katafs.git import Oid
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import ROW_SECONDS, Pending, flush_pending
from katafs.kata.legacy.plain_create import (
    DIRECTORY,
    FILE_IN_DIRECTORY,
    FILES,
    is_begun,
    make_new,
    refused_manifest,
    write_plain,
)
from katafs.kata.legacy.plain_files import event_of, marked, pending_file
from katafs.kata.legacy.plain_rows import begins_row
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.kata.read import stored_files
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import Committed, Job, plain_job
from katafs.kata.record.exclusive import Attempt
from katafs.kata.record.inbox import Message
from katafs.tree.catalogue import FILE, Shown, row_at, row_of
from katafs.tree.context import Context
from katafs.tree.dirs.stored_nodes import PlainNode, is_stored_key, plain_path
from katafs.tree.makers import entry, makes
from katafs.tree.nodes import BytesFile, Creator, Entry, Node, Owner, Writable, refuse_write
from katafs.tree.numbers import Key

# how long a kata is left alone in which something waits that cannot be recorded
_FAILED_SECONDS = 600


class Stored(Writable):
    """A file of a plain-path service. What it writes is done at once, in a thread: durable, and where it completes
    something visible, before it is answered for. Where ``takes_pieces`` says so, it appends one row after another."""

    by_process = True
    #: the directory of the kata, and where the file is in it as long as the kata is stored as plain files
    _home: Path
    _name: bytes

    def parse(self, message: Message, offset: int) -> Job:
        return plain_job(self._home, self.kata_id, write_plain, self._name, offset, message.data)

    def starts(self, data: bytes) -> bool:
        return begins_row(data)

    def is_unfinished(self, writer: Hashable | None) -> bool:
        return self.takes_pieces and self._controls.rows.is_begun(writer)

    def feed(self, writer: Hashable | None, offset: int, data: bytes, *, appends: bool) -> Message | None:
        row = self._controls.rows.feed(writer, offset, data) if self.takes_pieces else data
        return None if row is None else Message(row, in_pieces=False)

    def check_settable(self, length: int | None) -> None:
        """Who opens a file that is still empty with O_TRUNC, as ``>`` does, changes nothing. Else EROFS."""
        if length != 0 or self.size():
            super().check_settable(length)

    def find_recorded(self, path: Path, commit: Oid) -> Committed | None:
        committed = super().find_recorded(path, commit)
        if committed is not None:
            # it may be a migration that was not finished
            migrate_kata(path, self.kata_id)
        return committed


@makes("N.event.json", shown=Shown.WAITING)
class _PendingFile(PlainNode, Stored):
    """The file of an event that has no row yet."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        super().__init__(ctx, key, _below(kata.path, pending_file(kata.path, kata.plain_version() or 0, key.a)))
        if not stat.S_ISREG(self.mode):
            raise NotFoundError(f"{self._name!r} is no file")
        self.mode = row_of(key).mode
        ctx.waiting.add(kata.kata_id)

    def read(self, offset: int, length: int) -> bytes:
        try:
            # its owner may put there what he likes
            return super().read(offset, length)
        except KataError as error:
            raise StaleError(f"event {self.key.a} has its row by now") from error

    def parse(self, message: Message, offset: int) -> Job:
        return plain_job(self._home, self.kata_id, self._write, offset, message.data)

    def _write(self, path: Path, kata_id: str, offset: int, data: bytes, **_: object) -> None:
        Pending(path, kata_id).write(self.key.a, offset, data)


class PlainEventDir(Node):
    """``N/`` of version 0, with ``event.json``."""

    shown = Shown.PLAIN

    def __init__(self, ctx: Context, kata: Kata, key: Key, mtime_ns: int) -> None:
        super().__init__(key, ctx.owner(kata), mtime_ns)
        self._ctx, self._kata, self._index = ctx, kata, key.a

    def names(self) -> list[bytes]:
        return [b"event.json"]

    def child(self, name: bytes) -> Entry:
        if name != b"event.json":
            raise NotFoundError(f"no {name!r} here")
        row = row_at("N/event.json", self.shown)
        return entry(self, self._ctx, self._kata, row, row.key(self._kata.kata_id, self._index))


@makes("N", shown=Shown.WAITING)
class _PendingDirectory(PlainEventDir):
    shown = Shown.WAITING

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        status = stored_files.status(kata.path, _below(kata.path, pending_file(kata.path, 0, key.a).parent))
        if not stat.S_ISDIR(status.st_mode):
            raise NotFoundError(f"{key.a} is no directory")
        super().__init__(ctx, kata, key, status.st_mtime_ns)

    def names(self) -> list[bytes]:
        return super().names() if pending_file(self._kata.path, 0, self._index).exists() else []

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        if is_directory or name != b"event.json":
            raise refuse_write()
        return partial(_begin_file, self._kata.path, self._kata.kata_id, self._index)


class PlainOption(Stored, BytesFile):
    """The file of an option, of a kata that is stored as git: values are appended to it."""

    def __init__(self, ctx: Context, kata: Kata, key: Key, mtime_ns: int, data: bytes) -> None:
        super().__init__(key, ctx.owner(kata), mtime_ns, data)
        self.kata_id, self._home, self._name = kata.kata_id, kata.home, row_of(key).name
        self.mode = self.mode if kata.is_writable() else FILE


class AppendedEvents(PlainOption):
    """``events.json``, up to an event: what is appended to it makes the next one.

    The kernel takes it for longer when somebody has appended, until it asks. Who reads in between finds newlines there,
    as behind the end there are some: to version 1 they are nothing, unlike zeros. In version 0 they are empty lines; so
    there it is to ask each time, which leaves next to no time in between.
    """

    takes_pieces = True
    behind = b"\n"


def pending_entry(directory: Node, ctx: Context, kata: Kata, name: bytes) -> Entry | None:
    """The entry of an event that is being written to a kata that is stored as git; None when there is none."""
    index, version = event_of(name), kata.plain_version()
    if index is None or version is None or name.endswith(b"n") != bool(version):
        return None
    row = row_at("N.event.json" if version else "N", Shown.WAITING)
    try:
        return entry(directory, ctx, kata, row, row.key(kata.kata_id, index))
    except NotFoundError:
        return None


def to_create_in_kata(ctx: Context, kata: Kata, name: bytes, *, is_directory: bool) -> Creator:
    """What makes a new entry in the directory of a kata of version 0 or 1. Raises EROFS for anything else."""
    version = kata.plain_version()
    index = event_of(name)
    path, kata_id = kata.home, kata.kata_id
    if version is None:
        raise refuse_write()
    kata.check_writable()
    if index is not None and name.endswith(b"n") == bool(version) and is_directory != bool(version):
        begun_in(ctx, kata_id, name)
        return partial(_begin, path, kata_id, index)
    if name.decode("ascii", "replace") in OPTION_DEFAULTS and not is_directory:
        option = name.decode()
        if option in kata.set_options() or (kata_id, option) in ctx.begun_options:
            raise LateError(f"the option {option} was set before")
        begun_in(ctx, kata_id, name)
        return partial(_begin, path, kata_id, None)
    raise refuse_write()


def begun_in(ctx: Context, kata_id: str, name: bytes) -> None:
    """Somebody is about to make an entry of a kata of version 0 or 1."""
    if event_of(name) is not None:
        ctx.waiting.add(kata_id)
    else:
        ctx.begun_options[kata_id, name.decode()] = True


def to_create_new(path: Path, name: bytes, *, is_directory: bool) -> Creator:
    """What makes a part of a new kata in ``path``, before it is whole. Raises EROFS for anything else."""
    if is_directory != (name == DIRECTORY) or name not in (DIRECTORY, *FILES, FILE_IN_DIRECTORY):
        raise refuse_write()
    return partial(_make_new, path, name, is_directory)


def _make_new(path: Path, name: bytes, is_directory: bool, attempt: Attempt) -> None:
    new = path / os.fsdecode(name)
    is_next = is_begun(path) and (name in (DIRECTORY, b"manifest.json") or (path / "manifest.json").exists())
    # what a daemon that died has made may be what was missing
    if not is_next and not attempt.has_made(new, is_directory=is_directory):
        raise refuse_write()
    make_new(new, is_directory, attempt)


def _begin_file(path: Path, kata_id: str, index: int, attempt: Attempt) -> None:
    Pending(path, kata_id).begin_file(index, attempt)


def _begin(path: Path, kata_id: str, index: int | None, attempt: Attempt) -> None:
    """An event, or an option, of which nothing need be made."""
    migrate_kata(path, kata_id)
    if index is not None:
        Pending(path, kata_id).begin(index, attempt)


def _below(root: Path, path: Path) -> bytes:
    return os.fsencode(path.relative_to(root))


class _LostFile(Stored):
    """What is written to a plain file that is not there: by a request of which a daemon that died had done all, but
    had not answered it. Where it was recorded, that is known; else it is answered as it was the first time."""

    def __init__(self, ctx: Context, key: Key) -> None:
        super().__init__(key, Owner(0, 0), 0)
        self.kata_id, self._home, self._name = key.kata, ctx.store.path(key.kata), plain_path(key, 1)
        self.takes_pieces = ctx.store.is_git(key.kata) and row_of(key).path == "events.json"

    def parse(self, message: Message, offset: int) -> Job:
        if os.path.lexists(self._home / ".git"):
            return super().parse(message, offset)
        is_manifest = row_of(self.key).path == "manifest.json" and not offset
        refused = refused_manifest(message.data) if is_manifest else None
        raise refused or StaleError("the file is not there")


def lost_file(ctx: Context, key: Key) -> Stored | None:
    """What can be written to a plain file that cannot be found any more; None for what never was one."""
    return _LostFile(ctx, key) if is_stored_key(key) else None


class Overdue:
    """Events whose rows did not come in a minute, those of daemons that died too. For one worker thread at a time."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._failed: cachetools.TTLCache[str, bool] = cachetools.TTLCache(10_000, _FAILED_SECONDS)

    def jobs(self) -> list[Job]:
        """What records them, for each kata in which something waits."""
        store = self._ctx.store
        waiting = self._ctx.waiting.copy() | marked(store.root)
        ids = sorted(waiting - set(self._failed))
        return [plain_job(store.path(kata_id), kata_id, self._flush) for kata_id in ids]

    def _flush(self, path: Path, kata_id: str, **_: object) -> None:
        self._ctx.waiting.discard(kata_id)
        try:
            if flush_pending(path, kata_id, ROW_SECONDS):
                self._ctx.waiting.add(kata_id)
        except KataError:
            self._failed[kata_id] = True
            raise
