"""``events/`` and what is in it: everything at each event; and ``files/``, those of the newest one."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator

from katafs.errors import DamagedError, NotFoundError
from katafs.kata.model.trees import Listing
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import BlobId, Content, Snapshot, event_document
from katafs.tree.catalogue import CONFIG, DIR, FILE, FILES, FIRST_PATH, SELF, TIP_FILES, row_at, row_of
from katafs.tree.context import Context
from katafs.tree.dirs.contents import ContentFile, MadeFile, content_of, event_attributes
from katafs.tree.dirs.event_directory import EventDirectory, Sized
from katafs.tree.makers import FixedDir, entry, fence, find, listed, makes
from katafs.tree.nodes import Damaged, Entry, Link, Node, PlusEntry
from katafs.tree.numbers import EVENT, FIXED, TIP_DIRECTORY, HashedPaths, Key, Numbers
from katafs.tree.timeouts import IMMUTABLE, MUTABLE, NEVER

# of paths that a node may have with it that is kept, and in a listing that is made ahead: some 10 µs each
_FEW_PATHS, _MANY_PATHS = 16, 256


class FilesDir(EventDirectory):
    """A directory of the files of one event, at one place: ``events/N/files/…``."""

    names_hold = IMMUTABLE  # for how many seconds

    def __init__(self, ctx: Context, kata: Kata, snapshot: Snapshot, listing: Listing, position: int) -> None:
        if position in listing.damaged:
            raise listing.damaged[position]
        self._listing, self._position = listing, position
        index = snapshot.index
        super().__init__(ctx, kata, self._key(kata.kata_id, index, position), index, snapshot.time_ns)
        self.mode = DIR
        if listing.damaged:
            self.attr_timeout = MUTABLE

    def _key(self, kata_id: str, index: int, position: int) -> Key:
        return _path_key(kata_id, index, self._listing, position)

    def is_lasting(self) -> bool:
        return len(self._listing) <= _MANY_PATHS and super().is_lasting()

    def is_reusable(self) -> bool:
        return len(self._listing) <= _FEW_PATHS and super().is_reusable()

    def parent(self) -> Key:
        if not self._position:
            return super().parent()
        above = self._listing.position(self._listing.paths[self._position].rpartition(b"/")[0]) or 0
        return self._key(self._kata.kata_id, self._index, above)

    def names(self) -> list[bytes]:
        return [self._listing.entries[position].name for position in self._listing.children(self._position)]

    def _made_of(self) -> Hashable:
        return self._position, self._listing.entries[self._position].oid

    def _entries(self) -> list[tuple[bytes, int, Content | None]]:
        listing, entries = self._listing, self._listing.entries
        return [
            (entries[at].name, FIRST_PATH + at, None if listing.is_directory(at) else BlobId(entries[at].oid))
            for at in listing.children(self._position)
        ]

    def child(self, name: bytes) -> Entry:
        if name == b".git":
            return fence(self)
        position = self._listing.child(self._position, name)
        try:
            node = self._node(position)
            node.size()
        except DamagedError as error:
            key = _path_key(self._kata.kata_id, self._index, self._listing, position)
            damaged = Damaged(key, self, error)
            damaged.mode = DIR if self._listing.is_directory(position) else FILE
            return Entry(damaged, NEVER)
        return Entry(node, self.names_hold if self._listing.is_settled(position) else MUTABLE)

    def _node(self, position: int) -> Node:
        return path_node(self._ctx, self._kata, self._kata.snapshot(self._index), self._listing, position)


@makes("events/N/config")
class FixedEventDir(EventDirectory):
    """A directory that every event has: it has what the catalogue says."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        super().__init__(ctx, kata, key, key.a, kata.time_of_event(key.a))
        self._path = row_of(key).path

    def names(self) -> list[bytes]:
        # raises where the event cannot be read: its time may be told all the same
        self._kata.snapshot(self._index)
        return [row.name for row in listed(self._kata, self._path)]

    def _made_of(self) -> Hashable:
        # beside options an event has what is its own
        snapshot = self._kata.snapshot(self._index)
        return snapshot.layout.options_oid(snapshot.root) if self.key.b == CONFIG else None

    def _entries(self) -> list[tuple[bytes, int, Content | None]]:
        snapshot, directories = self._kata.snapshot(self._index), (FILES, CONFIG)
        return [
            (row.name, slot, None if slot in directories else content_of(self._kata, snapshot, slot))
            for row in listed(self._kata, self._path)
            for slot in (row.number,)
        ]

    def sized(self, known: dict[Hashable, Sized]) -> Sized | None:
        # raises where the kata is gone
        self._kata.tip()
        if self._kata_identity is not self._kata.identity:
            # of another history, as that has told, and not of the time that we have
            return None
        try:
            return super().sized(known)
        except NotFoundError:
            # this event lacks one of them
            return None

    def child(self, name: bytes) -> Entry:
        row = find(self._kata, self._path, name)
        return entry(self, self._ctx, self._kata, row, row.key(self._kata.kata_id, self._index))


@makes("events/N")
class EventDir(FixedEventDir):
    has_attributes = True

    def attributes(self) -> dict[str, str]:
        return event_attributes(self._kata, self._kata.snapshot(self._index))


# in a listing that is made at once: some 8 µs each
_MANY_EVENTS = 350
_EVENT, _DOCUMENT = row_at("events/N"), row_at("events/N.json")


@makes("events")
class EventsDir(FixedDir):
    """``events/``: ``0 1 2 …`` and ``latest``; ``N.json`` opens by name."""

    def names(self) -> list[bytes]:
        # `latest` stands first, so that an event that comes during a listing moves nothing
        return [*super().names(), *(b"%d" % index for index in range(self._tip.last + 1))]

    def fast_listing(self) -> list[PlusEntry | bytes] | None:
        events = range(self._tip.last + 1)
        if len(events) > _MANY_EVENTS:
            return None
        found: list[PlusEntry | bytes] = [*super().names()]
        for index, time in enumerate(self._kata.told_times(events)):
            number, name = Numbers.number(_EVENT.key(self._kata.kata_id, index)), b"%d" % index
            found.append(name if time is None else PlusEntry(name, number, _EVENT.mode, 0, time))
        return found

    def child(self, name: bytes) -> Entry:
        digits = name.removesuffix(b".json")
        index = parse_index(digits)
        if index is None:
            return super().child(name)
        if index > self._tip.last:
            raise NotFoundError(f"no event {name!r}")
        row = _EVENT if digits == name else _DOCUMENT
        return self._entry(row, row.key(self._kata.kata_id, index))


def directories_of(ctx: Context, kata: Kata, index: int) -> Iterator[EventDirectory]:
    """Those of an event, as long as the kata is the same: whoever asks for them may do so over many requests."""
    snapshot, identity = kata.snapshot(index), kata.identity
    yield EventDir(ctx, kata, Key(EVENT, kata.kata_id, index, SELF))
    yield FixedEventDir(ctx, kata, Key(EVENT, kata.kata_id, index, CONFIG))
    listing = kata.listing(snapshot.files_tree)
    for position in (0, *listing.directories()):
        if kata.identity is not identity:
            return
        yield FilesDir(ctx, kata, snapshot, listing, position)


@makes("events/latest")
def _latest(ctx: Context, kata: Kata, key: Key) -> Link:
    tip = kata.tip()
    return Link(key, ctx.owner(kata), tip.time_ns, str(tip.last))


def parse_index(digits: bytes) -> int | None:
    """An event number as it is written in names: no sign, no leading zeros; None for anything else."""
    if not digits.isdigit() or len(digits) > 9 or (digits[:1] == b"0" and digits != b"0"):
        return None
    return int(digits)


def path_node(ctx: Context, kata: Kata, snapshot: Snapshot, listing: Listing, position: int) -> Node:
    if listing.is_directory(position):
        return FilesDir(ctx, kata, snapshot, listing, position)
    key = _path_key(kata.kata_id, snapshot.index, listing, position)
    file = ContentFile(key, ctx, snapshot.time_ns, kata, BlobId(listing.entries[position].oid))
    if key.path:
        file.attr_timeout = MUTABLE
    return file


def _path_key(kata_id: str, index: int, listing: Listing, position: int) -> Key:
    """The key of a path of an event: its position, where that is known."""
    if not position:
        return Key(EVENT, kata_id, index, FILES)
    if listing.is_settled(position):
        return Key(EVENT, kata_id, index, FIRST_PATH + position)
    return Key(EVENT, kata_id, index, FIRST_PATH, listing.paths[position])


@makes("events/N/files", "events/N/files/…")
def _path(ctx: Context, kata: Kata, key: Key) -> Node:
    snapshot = kata.snapshot(key.a)
    listing = kata.listing(snapshot.files_tree)
    position = listing.position(key.path) or 0 if key.path else max(key.b - FIRST_PATH, 0)
    if position >= len(listing) or listing.is_settled(position) == bool(key.path):
        raise NotFoundError(f"event {key.a} has no path {position} {key.path!r} now")
    return path_node(ctx, kata, snapshot, listing, position)


@makes("events/N.json")
def _document(ctx: Context, kata: Kata, key: Key) -> MadeFile:
    snapshot = kata.snapshot(key.a)
    make = functools.partial(event_document, snapshot=snapshot, rows=kata.tip().rows)
    return MadeFile(key, ctx, kata, snapshot.time_ns, (key, snapshot.commit.oid), make, make)


class TipFilesDir(FilesDir):
    """``files/`` of the kata, or a directory below it: its files are those of the newest event, its directories not,
    since a directory has one number only at one place."""

    names_hold = MUTABLE

    def __init__(self, ctx: Context, kata: Kata, position: int) -> None:
        tip = kata.tip()
        snapshot = kata.snapshot(tip.last)
        super().__init__(ctx, kata, snapshot, kata.listing(snapshot.files_tree), position)
        self.mtime_ns = tip.time_ns

    def _key(self, kata_id: str, index: int, position: int) -> Key:
        return tip_directory_key(kata_id, self._listing, self._listing.paths[position])

    def _node(self, position: int) -> Node:
        if self._listing.is_directory(position):
            return TipFilesDir(self._ctx, self._kata, position)
        return super()._node(position)


def tip_directory_key(kata_id: str, listing: Listing, path: bytes) -> Key:
    """The key of a directory at the tip: by its path, so that it stays the same when files come and go."""
    return _hashed(listing).key(TIP_DIRECTORY, kata_id, path) if path else Key(FIXED, kata_id, TIP_FILES)


def _hashed(listing: Listing) -> HashedPaths:
    return HashedPaths.of(listing, lambda: (listing.paths[position] for position in listing.directories()))


@makes("files", "files/…/")
def _tip_directory(ctx: Context, kata: Kata, key: Key) -> TipFilesDir:
    if key.kind == FIXED:
        return TipFilesDir(ctx, kata, 0)
    listing = kata.listing(kata.snapshot(kata.tip().last).files_tree)
    path = _hashed(listing).path(key)
    position = listing.position(path) if path is not None else None
    if position is None:
        raise NotFoundError(f"kata {kata.kata_id} has no such directory now")
    return TipFilesDir(ctx, kata, position)
