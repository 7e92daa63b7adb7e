"""``events/`` and what is in it: everything at each event."""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Iterator

from katafs.errors import DamagedError, NotFoundError
from katafs.git import GitRepo
from katafs.kata.model.listing import Listing
from katafs.kata.model.rows import Rows
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import BlobId, Content, Snapshot, event_document
from katafs.tree.attributes import event_attributes
from katafs.tree.contents import ContentFile, SummaryFile
from katafs.tree.context import Context
from katafs.tree.fence import fence
from katafs.tree.made import MadeFile
from katafs.tree.nodes import IMMUTABLE, MUTABLE, Directory, Entry, File, Link, Listed, Node, damaged_entry
from katafs.tree.numbers import EVENT, FIXED, MAX_SLOT, Key, Numbers
from katafs.tree.slots import (
    CONFIG,
    DOCUMENT,
    EVENT_SLOTS,
    FILES,
    FIRST_PATH,
    OPTION_SLOTS,
    SELF,
    content_of,
)


class PathFile(ContentFile):
    """A file of ``files/``."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot, listing: Listing, position: int) -> None:
        key = _path_key(kata.kata_id, snapshot.index, listing, position)
        content = BlobId(listing.entries[position].oid)
        super().__init__(key, ctx, snapshot.time_ns, kata, content)
        if key.path:
            self.attr_timeout = MUTABLE


class _EventDirectory(Directory):
    """A directory of one event."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot, key: Key, parent: Key) -> None:
        super().__init__(key, ctx.owner(kata), snapshot.time_ns, parent)
        self._ctx, self._kata, self._snapshot = ctx, kata, snapshot
        self._era = kata.era

    def holds(self) -> bool:
        return self._era is self._kata.era is not None and self.attr_timeout == IMMUTABLE

    def _slots(self) -> list[tuple[bytes, int]]:
        """The names that are listed, with the slots of what they name."""
        raise NotImplementedError

    def listed(self) -> list[Listed] | None:
        if self.attr_timeout != IMMUTABLE:
            return None
        kata, snapshot = self._kata, self._snapshot
        base = Numbers.number(Key(EVENT, kata.kata_id, snapshot.index, SELF))
        slots = self._slots()
        if not Numbers.is_computed(base) or any(slot >= MAX_SLOT for _, slot in slots):
            return None
        try:
            return [Listed(name, base | slot, *self._mode_and_size(slot)) for name, slot in slots]
        except DamagedError:
            # `child` tells of which
            return None

    def contents(self, numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
        base = Numbers.number(Key(EVENT, self._kata.kata_id, self._snapshot.index, SELF))
        for _, slot in self._slots():
            if base | slot not in numbers:
                continue
            content = self._content(slot)
            if isinstance(content, Rows):
                yield base | slot, content.summary(self._snapshot.index)
            elif content is not None:
                yield base | slot, self._kata.read(content, 0, sys.maxsize)

    def _mode_and_size(self, slot: int) -> tuple[int, int]:
        content = self._content(slot)
        if content is None:
            return Directory.mode, 0
        if isinstance(content, Rows):
            return File.mode, content.summary_size(self._snapshot.index)
        return File.mode, self._kata.size(content)

    def _content(self, slot: int) -> Content | Rows | None:
        """What is in a file; None for a directory."""
        return None if slot in (FILES, CONFIG) else content_of(self._kata, self._snapshot, slot)


# of paths that a node may have with it that is kept
_FEW_PATHS = 16


class FilesDir(_EventDirectory):
    """A directory of the files of one event, at one place: ``events/N/files/…``."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot, listing: Listing, position: int) -> None:
        if position in listing.damaged:
            raise listing.damaged[position]
        kata_id, index = kata.kata_id, snapshot.index
        above = listing.position(listing.paths[position].rpartition(b"/")[0]) or 0
        key = _path_key(kata_id, index, listing, position)
        parent = _path_key(kata_id, index, listing, above) if position else Key(EVENT, kata_id, index, SELF)
        super().__init__(ctx, kata, snapshot, key, parent)
        if listing.damaged:
            self.attr_timeout = MUTABLE
        self._listing, self._position = listing, position

    def holds(self) -> bool:
        return len(self._listing) <= _FEW_PATHS and super().holds()

    def names(self) -> list[bytes]:
        return [self._listing.entries[position].name for position in self._listing.children(self._position)]

    def _slots(self) -> list[tuple[bytes, int]]:
        entries = self._listing.entries
        return [(entries[position].name, FIRST_PATH + position) for position in self._listing.children(self._position)]

    def _content(self, slot: int) -> Content | None:
        position = slot - FIRST_PATH
        return None if self._listing.is_directory(position) else BlobId(self._listing.entries[position].oid)

    def child(self, name: bytes) -> Entry:
        if name == b".git":
            return fence(self)
        position = self._listing.child(self._position, name)
        return self._entry(position, IMMUTABLE)

    def _entry(self, position: int, timeout: float) -> Entry:
        listing = self._listing
        if not listing.is_settled(position):
            timeout = min(timeout, MUTABLE)
        try:
            node = path_node(self._ctx, self._kata, self._snapshot, listing, position)
            node.size()
        except DamagedError as error:
            return self._damaged_entry(position, error)
        return Entry(node, timeout)

    def _damaged_entry(self, position: int, error: DamagedError) -> Entry:
        key = _path_key(self._kata.kata_id, self._snapshot.index, self._listing, position)
        mode = Directory.mode if self._listing.is_directory(position) else File.mode
        return damaged_entry(key, self, mode, error)


class ConfigDir(_EventDirectory):
    """``events/N/config/``: one file for each of the six options."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot) -> None:
        kata_id, index = kata.kata_id, snapshot.index
        parent = Key(EVENT, kata_id, index, SELF)
        super().__init__(ctx, kata, snapshot, Key(EVENT, kata_id, index, CONFIG), parent)

    def names(self) -> list[bytes]:
        return list(OPTION_SLOTS)

    def _slots(self) -> list[tuple[bytes, int]]:
        return list(OPTION_SLOTS.items())

    def child(self, name: bytes) -> Entry:
        slot = OPTION_SLOTS.get(name)
        if slot is None:
            raise NotFoundError(f"no option {name!r}")
        return event_entry(self, self._ctx, self._kata, self._snapshot.index, slot)


class EventDir(_EventDirectory):
    """``events/N/``: everything at event N."""

    has_attributes = True

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot) -> None:
        kata_id = kata.kata_id
        parent = Key(FIXED, kata_id, EVENTS)
        super().__init__(ctx, kata, snapshot, Key(EVENT, kata_id, snapshot.index, SELF), parent)

    def attributes(self) -> dict[str, str]:
        return event_attributes(self._kata, self._snapshot)

    def names(self) -> list[bytes]:
        return list(EVENT_SLOTS)

    def _slots(self) -> list[tuple[bytes, int]]:
        return list(EVENT_SLOTS.items())

    def child(self, name: bytes) -> Entry:
        slot = EVENT_SLOTS.get(name)
        if slot is None:
            raise NotFoundError(f"no {name!r} in an event")
        mode = Directory.mode if slot in (FILES, CONFIG) else File.mode
        return event_entry(self, self._ctx, self._kata, self._snapshot.index, slot, mode)


# fixed entries of a kata that this module makes (`katafs.tree.kata_dir` has the others)
EVENTS, EVENTS_LATEST = 2, 3


class EventsDir(Directory):
    """``events/``: ``0 1 2 …`` and ``latest``; ``N.json`` opens by name."""

    attr_timeout = MUTABLE

    def __init__(self, ctx: Context, kata: Kata) -> None:
        kata_id = kata.kata_id
        self._tip = kata.tip()
        super().__init__(Key(FIXED, kata_id, EVENTS), ctx.owner(kata), self._tip.time_ns, Key(FIXED, kata_id, 0))
        self._ctx, self._kata = ctx, kata

    def names(self) -> list[bytes]:
        # `latest` stands first, so that an event that comes during a listing moves nothing
        return [b"latest", *(b"%d" % index for index in range(self._tip.last + 1))]

    def child(self, name: bytes) -> Entry:
        if name == b"latest":
            return Entry(latest_event(self._ctx, self._kata), IMMUTABLE)
        digits = name.removesuffix(b".json")
        index = parse_index(digits)
        if index is None or index > self._tip.last:
            raise NotFoundError(f"no event {name!r}")
        slot = SELF if digits == name else DOCUMENT
        return event_entry(self, self._ctx, self._kata, index, slot, File.mode if slot else Directory.mode)


def latest_event(ctx: Context, kata: Kata) -> Link:
    """``events/latest``."""
    tip = kata.tip()
    return Link(Key(FIXED, kata.kata_id, EVENTS_LATEST), ctx.owner(kata), tip.time_ns, str(tip.last))


def parse_index(digits: bytes) -> int | None:
    """An event number as it is written in names: no sign, no leading zeros; None for anything else."""
    if not digits.isdigit() or len(digits) > 9 or (digits[:1] == b"0" and digits != b"0"):
        return None
    return int(digits)


def event_entry(directory: Directory, ctx: Context, kata: Kata, index: int, slot: int, mode: int = File.mode) -> Entry:
    """The entry of a slot of an event."""
    try:
        node = event_node(ctx, kata, index, slot)
        node.size()
    except DamagedError as error:
        return damaged_entry(Key(EVENT, kata.kata_id, index, slot), directory, mode, error)
    return Entry(node, IMMUTABLE)


def path_node(ctx: Context, kata: Kata, snapshot: Snapshot, listing: Listing, position: int) -> Node:
    """The node of a path below ``events/N/files``."""
    if listing.is_directory(position):
        return FilesDir(ctx, kata, snapshot, listing, position)
    return PathFile(ctx, kata, snapshot, listing, position)


def _path_key(kata_id: str, index: int, listing: Listing, position: int) -> Key:
    """The key of a path of an event: its position, where that is known."""
    if not position:
        return Key(EVENT, kata_id, index, FILES)
    if listing.is_settled(position):
        return Key(EVENT, kata_id, index, FIRST_PATH + position)
    return Key(EVENT, kata_id, index, FIRST_PATH, listing.paths[position])


def event_node(ctx: Context, kata: Kata, index: int, slot: int, path: bytes = b"") -> Node:
    """The node of a slot of an event, or of a path. Raises `NotFoundError`."""
    snapshot = kata.snapshot(index)
    if slot >= FIRST_PATH or slot == FILES:
        listing = kata.listing(snapshot.files_tree)
        position = max(slot - FIRST_PATH, 0) if slot != FILES else 0
        if path:
            position = listing.position(path) or 0
        if position >= len(listing) or listing.is_settled(position) == bool(path):
            raise NotFoundError(f"event {index} has no path {position} {path!r} now")
        return path_node(ctx, kata, snapshot, listing, position)
    if slot == SELF:
        return EventDir(ctx, kata, snapshot)
    if slot == CONFIG:
        return ConfigDir(ctx, kata, snapshot)
    if slot == DOCUMENT:
        return _document(ctx, kata, snapshot)
    key = Key(EVENT, kata.kata_id, index, slot)
    content = content_of(kata, snapshot, slot)
    if isinstance(content, Rows):
        return SummaryFile(key, ctx, kata, snapshot)
    return ContentFile(key, ctx, snapshot.time_ns, kata, content)


def _document(ctx: Context, kata: Kata, snapshot: Snapshot) -> MadeFile:
    """``events/N.json``."""
    key = Key(EVENT, kata.kata_id, snapshot.index, DOCUMENT)
    make = functools.partial(_make_document, snapshot, kata.tip().rows)
    return MadeFile(key, ctx.owner(kata), snapshot.time_ns, ctx.made, (key, snapshot.commit.oid), kata.path, make)


def _make_document(snapshot: Snapshot, rows: Rows, repo: GitRepo) -> bytes:
    return event_document(repo, snapshot, rows, Listing(repo, snapshot.files_tree))
