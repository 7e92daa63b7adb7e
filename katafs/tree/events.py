"""``events/`` and what is in it, ``files/`` and ``config/``: everything at one event, and the files at the tip."""

from __future__ import annotations

import functools
from collections.abc import Callable
from weakref import WeakKeyDictionary

from katafs.errors import NotFoundError
from katafs.git import GitRepo
from katafs.kata.events import Rows
from katafs.kata.kata import Kata
from katafs.kata.layouts import OPTION_DEFAULTS
from katafs.kata.listing import Listing
from katafs.kata.snapshot import OUTPUTS, BlobId, Content, Snapshot, event_document
from katafs.tree.attributes import event_attributes
from katafs.tree.contents import ContentFile, SummaryFile
from katafs.tree.context import Context
from katafs.tree.made import MadeFile
from katafs.tree.nodes import IMMUTABLE, MUTABLE, Directory, Entry, File, Link, Node, entry_or_damaged
from katafs.tree.numbers import EVENT, FIXED, TIP_DIRECTORY, HashedPaths, Key, Numbers

# The slots of an event: fixed entries first, then from FIRST_PATH on the paths of its files in git order.
SELF, FILES, CONFIG, DOCUMENT, STORED_EVENTS = 0, 1, 2, 3, 4
NAMED_SLOTS = {
    b"stdout": 5,
    b"stderr": 6,
    b"status": 7,
    b"truncations.json": 8,
    b"manifest.json": 9,
    b"event.json": 10,
    b"events_summary.json": 11,
}
_SLOT_NAMES = {slot: name for name, slot in NAMED_SLOTS.items()}
_OPTIONS = [name.encode() for name in OPTION_DEFAULTS]
_FIRST_OPTION = 16
FIRST_PATH = 32

# The files of an event beside files/ and config/, which the tip shows too
EVENT_FILES = tuple(NAMED_SLOTS)
_EVENT_NAMES = sorted([*EVENT_FILES, b"files", b"config"])

# the directories of the listings that are kept
_HASHED: WeakKeyDictionary[Listing, HashedPaths] = WeakKeyDictionary()


class PathFile(ContentFile):
    """A file of ``files/``, whose size the listing may know already."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot, listing: Listing, position: int) -> None:
        key = _path_key(kata.kata_id, snapshot.index, listing, position)
        content = BlobId(listing.entries[position].oid)
        super().__init__(key, ctx, snapshot.time_ns, kata, content)
        self._listing = listing
        self._position = position
        if key.path:
            self.attr_timeout = MUTABLE

    def size(self) -> int:
        return self._listing.size(self._kata.repo, self._position)


class FilesDir(Directory):
    """A directory of the files of one event, at one place: ``events/N/files/…``."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot, listing: Listing, position: int) -> None:
        if position in listing.damaged:
            raise listing.damaged[position]
        kata_id, index = kata.kata_id, snapshot.index
        above = listing.position(listing.paths[position].rpartition(b"/")[0]) or 0
        key = _path_key(kata_id, index, listing, position)
        parent = _path_key(kata_id, index, listing, above) if position else Key(EVENT, kata_id, index, SELF)
        super().__init__(key, ctx.owner(kata), snapshot.time_ns, parent)
        if listing.damaged:
            self.attr_timeout = MUTABLE
        self._ctx, self._kata, self._snapshot, self._listing, self._position = ctx, kata, snapshot, listing, position

    def names(self) -> list[bytes]:
        return [self._listing.entries[position].name for position in self._listing.children(self._position)]

    def child(self, name: bytes) -> Entry:
        position = self._listing.child(self._position, name)
        return self._entry(position, IMMUTABLE)

    def _entry(self, position: int, timeout: float) -> Entry:
        if not self._listing.is_settled(position):
            timeout = min(timeout, MUTABLE)
        return self._damageable(
            functools.partial(path_node, self._ctx, self._kata, self._snapshot, self._listing, position),
            timeout,
            position,
        )

    def _damageable(self, make: Callable[[], Node], timeout: float, position: int) -> Entry:
        key = _path_key(self._kata.kata_id, self._snapshot.index, self._listing, position)
        mode = Directory.mode if self._listing.is_directory(position) else File.mode
        return entry_or_damaged(make, timeout, key, self, mode)


class TipFilesDir(FilesDir):
    """``files/`` of the kata, or a directory below it: its files are those of the newest event, its directories not,
    since a directory has one number only at one place."""

    attr_timeout = MUTABLE

    def __init__(self, ctx: Context, kata: Kata, position: int = 0) -> None:
        tip = kata.tip()
        snapshot = kata.snapshot(tip.last)
        listing = kata.listing(snapshot.files_tree)
        super().__init__(ctx, kata, snapshot, listing, position)
        path = listing.paths[position]
        above = path.rpartition(b"/")[0]
        self.key = tip_directory_key(kata.kata_id, listing, path)
        self.number = Numbers.number(self.key)
        self.mtime_ns = tip.time_ns
        if position:
            self._parent = tip_directory_key(kata.kata_id, listing, above)
        else:
            self._parent = Key(FIXED, kata.kata_id, 0)

    def child(self, name: bytes) -> Entry:
        position = self._listing.child(self._position, name)
        if self._listing.is_directory(position):
            return self._damageable(functools.partial(TipFilesDir, self._ctx, self._kata, position), MUTABLE, position)
        return self._entry(position, MUTABLE)


def tip_directory_key(kata_id: str, listing: Listing, path: bytes) -> Key:
    """The key of a directory at the tip: by its path, so that it stays the same when files come and go."""
    return _hashed(listing).key(TIP_DIRECTORY, kata_id, path) if path else Key(FIXED, kata_id, TIP_FILES)


def _hashed(listing: Listing) -> HashedPaths:
    hashed = _HASHED.get(listing)
    if hashed is None:
        hashed = _HASHED[listing] = HashedPaths(listing.paths[position] for position in listing.directories())
    return hashed


def tip_directory(ctx: Context, kata: Kata, key: Key) -> TipFilesDir:
    """The directory of a `TIP_DIRECTORY` key. Raises `NotFoundError`."""
    listing = kata.listing(kata.snapshot(kata.tip().last).files_tree)
    path = _hashed(listing).path(key)
    position = listing.position(path) if path is not None else None
    if position is None:
        raise NotFoundError(f"kata {kata.kata_id} has no such directory now")
    return TipFilesDir(ctx, kata, position)


class ConfigDir(Directory):
    """``events/N/config/``: one file for each of the six options."""

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot) -> None:
        kata_id, index = kata.kata_id, snapshot.index
        parent = Key(EVENT, kata_id, index, SELF)
        super().__init__(Key(EVENT, kata_id, index, CONFIG), ctx.owner(kata), snapshot.time_ns, parent)
        self._ctx, self._kata, self._snapshot = ctx, kata, snapshot

    def names(self) -> list[bytes]:
        return sorted(_OPTIONS)

    def child(self, name: bytes) -> Entry:
        if name not in _OPTIONS:
            raise NotFoundError(f"no option {name!r}")
        slot = _FIRST_OPTION + _OPTIONS.index(name)
        return event_entry(self, self._ctx, self._kata, self._snapshot.index, slot)


class EventDir(Directory):
    """``events/N/``: everything at event N."""

    has_attributes = True

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot) -> None:
        kata_id = kata.kata_id
        parent = Key(FIXED, kata_id, EVENTS)
        super().__init__(Key(EVENT, kata_id, snapshot.index, SELF), ctx.owner(kata), snapshot.time_ns, parent)
        self._ctx, self._kata, self._snapshot = ctx, kata, snapshot

    def attributes(self) -> dict[str, str]:
        return event_attributes(self._kata, self._snapshot)

    def names(self) -> list[bytes]:
        return _EVENT_NAMES.copy()

    def child(self, name: bytes) -> Entry:
        directory = {b"files": FILES, b"config": CONFIG}.get(name)
        slot = directory or NAMED_SLOTS.get(name)
        if slot is None:
            raise NotFoundError(f"no {name!r} in an event")
        index = self._snapshot.index
        return event_entry(self, self._ctx, self._kata, index, slot, Directory.mode if directory else File.mode)


# fixed entries of a kata that this module makes (`katafs.tree.kata_dir` has the others)
TIP_FILES, EVENTS, EVENTS_LATEST = 1, 2, 3


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
    make = functools.partial(event_node, ctx, kata, index, slot)
    return entry_or_damaged(make, IMMUTABLE, Key(EVENT, kata.kata_id, index, slot), directory, mode)


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
    if _FIRST_OPTION <= slot < _FIRST_OPTION + len(_OPTIONS):
        data = kata.options(snapshot)[_OPTIONS[slot - _FIRST_OPTION].decode()].encode() + b"\n"
        return ContentFile(key, ctx, snapshot.time_ns, kata, data)
    return _named_file(ctx, kata, snapshot, key)


def _named_file(ctx: Context, kata: Kata, snapshot: Snapshot, key: Key) -> Node:
    name = b"events.json" if key.b == STORED_EVENTS else _SLOT_NAMES.get(key.b)
    content: Content | None
    if name in OUTPUTS:
        content = snapshot.output(name)
    elif name == b"manifest.json":
        content = snapshot.manifest()
    elif name == b"truncations.json":
        content = snapshot.truncations(kata.repo)
    elif name == b"events.json":
        content = snapshot.stored_events()
    elif name is not None:
        content = snapshot.stored_json(name)
        if content is None and name == b"events_summary.json":
            return SummaryFile(key, ctx, kata, snapshot)
        if content is None:
            content = kata.tip().rows.text(snapshot.index)
    else:
        content = None
    if content is None:
        raise NotFoundError(f"event {snapshot.index} has no slot {key.b}")
    return ContentFile(key, ctx, snapshot.time_ns, kata, content)


def _document(ctx: Context, kata: Kata, snapshot: Snapshot) -> MadeFile:
    """``events/N.json``."""
    key = Key(EVENT, kata.kata_id, snapshot.index, DOCUMENT)
    make = functools.partial(_make_document, snapshot, kata.tip().rows)
    return MadeFile(key, ctx.owner(kata), snapshot.time_ns, ctx.made, (key, snapshot.commit.oid), kata.path, make)


def _make_document(snapshot: Snapshot, rows: Rows, repo: GitRepo) -> bytes:
    return event_document(repo, snapshot, rows, Listing(repo, snapshot.files_tree))
