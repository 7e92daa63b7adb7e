"""``files/`` of a kata: the files of its newest event, in directories of their own."""

from __future__ import annotations

from katafs.errors import NotFoundError
from katafs.kata.model.listing import Listing
from katafs.kata.read.kata import Kata
from katafs.tree.catalogue import TIP_FILES
from katafs.tree.context import Context
from katafs.tree.dirs.events import FilesDir
from katafs.tree.makers import makes
from katafs.tree.nodes import Node
from katafs.tree.numbers import FIXED, TIP_DIRECTORY, HashedPaths, Key
from katafs.tree.timeouts import MUTABLE


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
