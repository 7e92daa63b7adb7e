"""``files/`` of a kata: the files of its newest event, in directories of their own."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from katafs.errors import DamagedError, NotFoundError
from katafs.kata.model.listing import Listing
from katafs.kata.read.kata import Kata
from katafs.tree.context import Context
from katafs.tree.events import FilesDir
from katafs.tree.fence import fence
from katafs.tree.nodes import MUTABLE, Entry
from katafs.tree.numbers import FIXED, TIP_DIRECTORY, HashedPaths, Key, Numbers

# fixed entry of a kata
TIP_FILES = 1

# the directories of the listings that are kept
_HASHED: WeakKeyDictionary[Listing, HashedPaths] = WeakKeyDictionary()


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
        if name == b".git":
            return fence(self)
        position = self._listing.child(self._position, name)
        if self._listing.is_directory(position):
            try:
                return Entry(TipFilesDir(self._ctx, self._kata, position), MUTABLE)
            except DamagedError as error:
                return self._damaged_entry(position, error)
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
