"""The whole tree: from a number to its node, and what a commit makes stale."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from katafs.caching import Newest
from katafs.errors import DamagedError, KataError, NotFoundError, StaleError
from katafs.git import Oid
from katafs.git.odb.objects import Made
from katafs.kata.model.trees import Listing
from katafs.kata.read.state import State
from katafs.tree.catalogue import TABLE, Changes
from katafs.tree.context import Context
from katafs.tree.dirs import control, diffs, downloads, outer_dirs
from katafs.tree.dirs.event_directory import EventDirectory
from katafs.tree.dirs.events import directories_of, tip_directory_key
from katafs.tree.legacy.pending_nodes import Overdue, begun_in, lost_file
from katafs.tree.makers import fence, make
from katafs.tree.nodes import Node, Writable
from katafs.tree.numbers import FENCE, FIXED, Key, Numbers

# These bind what makes the nodes of the catalogue, and so do the modules that they import.
_MAKERS = (control, diffs, downloads, outer_dirs)
_MOST_NODES = 1024
_NODE = 4_000  # bytes in memory, with what it has with it


class Stale(NamedTuple):
    """What the kernel must ask for again: inodes (attributes, listings), and names in directories."""

    inodes: list[int]
    entries: list[tuple[int, bytes]]


class Tree:
    """Nodes by number. Belongs to one thread, the event loop's."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.numbers = Numbers()
        self.overdue = Overdue(ctx)
        # from one request to the next
        self._nodes: Newest[int, Node] = Newest(_MOST_NODES)
        ctx.keepers["nodes"] = lambda: self._nodes.kept(_NODE)

    def node(self, number: int) -> Node:
        """The node of a number. Raises `StaleError` (ESTALE) when there is no such thing (any more)."""
        known = self._nodes.get(number)
        if known is not None and known.is_reusable():
            return known
        key = self.numbers.key(number)
        try:
            return self.node_of(key)
        except NotFoundError as error:
            raise StaleError(f"inode {number}: {error}") from error

    def sink(self, number: int, *, is_again: bool = False) -> Writable:
        """What takes what is written to a file; ``is_again``: by a request that was sent to another daemon before,
        which may have done what makes it another. Raises `StaleError`, EROFS."""
        try:
            sink = self.node(number).sink()
        except StaleError:
            if not is_again or (lost := lost_file(self.ctx, self.numbers.key(number))) is None:
                raise
            sink = lost
        sink.serve(self.ctx.controls)
        return sink

    def begun(self, kata_id: str, name: bytes) -> None:
        """Somebody is about to make an entry in a kata, as another process has allowed."""
        begun_in(self.ctx, kata_id, name)

    def remember_lookup(self, node: Node) -> None:
        """The kernel was told of a node once more."""
        self.numbers.keep(node.number, node.key)
        if node.is_reusable():
            # the oldest goes first: what is listed or looked up is read soon, or not at all
            self._nodes.keep(node.number, node)

    def forgotten(self, number: int, count: int) -> None:
        if self.numbers.forget(number, count):
            self.ctx.git_files.release(number)

    def directories_of_events(self, kata_id: str, events: range) -> Iterator[tuple[int, Iterator[EventDirectory]]]:
        """All directories of events that are listed, as far as there are such events. Raises `DamagedError`."""
        kata = self.ctx.store.kata(kata_id)
        last = kata.tip().last
        kata.repo.look_at_tags(events)
        for index in events:
            yield index, directories_of(self.ctx, kata, index) if 0 <= index <= last else iter(())

    def clear_caches(self) -> None:
        self._nodes.clear()
        self.ctx.clear_caches()

    def node_of(self, key: Key) -> Node:
        """The node of a key. Raises `NotFoundError`."""
        return fence(self.node(key.a)).node if key.kind == FENCE else make(self.ctx, key)

    def tip(self, kata_id: str) -> State:
        return self.ctx.store.kata(kata_id).tip()

    @contextlib.contextmanager
    def lent(self, kata_id: str, made: Made) -> Iterator[None]:
        """With what is at the new tip of a kata, which `stale_since` need not look for meanwhile."""
        objects = None
        self.ctx.store.new_epoch()
        with contextlib.suppress(KataError):
            objects = self.ctx.store.kata(kata_id).repo.objects if made else None
        if objects is not None:
            objects.at_hand = made
        yield
        if objects is not None and objects.at_hand is made:
            objects.at_hand = {}

    def stale_since(self, kata_id: str, before: Oid) -> Stale | None:
        """What `stale_after` says of the tip as it is now; None where it is still that ``before``."""
        kata = self.ctx.store.kata(kata_id)
        after = kata.tip()
        if after.commit.oid == before:
            return None
        try:
            return self.stale_after(kata_id, kata.tip_at(before), after)
        except DamagedError:
            # It was made of plain files that were not all there: with its generation the kernel forgets all below it.
            return Stale(list(_changing(kata_id, is_event=True)), [])

    def stale_after(self, kata_id: str, before: State, after: State) -> Stale:
        """What changed in the mount when a kata's tip moved.

        The files that are written to are not in it, nor names beside them. The kernel asks for their attributes each
        time anyway, and would wait: for the page that the write holds, or for the directory, which is held by whoever
        lists it and waits for that page to hear of the file's new time.
        """
        kata = self.ctx.store.kata(kata_id)
        is_event = before.last != after.last
        inodes = list(_changing(kata_id, is_event))
        entries: list[tuple[int, bytes]] = []
        if is_event:
            entries += diffs.changing_pages(kata_id, before.last)
            for tip in (before, after):
                listing = kata.listing(kata.snapshot(tip.last).files_tree)
                inodes_below, entries_below = _names_below(kata_id, listing)
                inodes += inodes_below
                entries += entries_below
        return Stale(list(dict.fromkeys(inodes)), list(dict.fromkeys(entries)))


def _changing(kata_id: str, is_event: bool) -> tuple[int, ...]:
    """The numbers of what every commit changes; more of it where it is an event."""
    stale = (Changes.COMMIT, Changes.EVENT) if is_event else (Changes.COMMIT,)
    rows = (row for row in TABLE if row.kind == FIXED and row.changes in stale)
    return tuple(Numbers.number(row.key(kata_id)) for row in rows)


def _names_below(kata_id: str, listing: Listing) -> tuple[list[int], list[tuple[int, bytes]]]:
    """The directories of the newest files, and the names in them."""
    directories = {
        position: Numbers.number(tip_directory_key(kata_id, listing, listing.paths[position]))
        for position in (0, *listing.directories())
    }
    entries = [
        (number, listing.entries[position].name)
        for directory, number in directories.items()
        for position in listing.children(directory)
    ]
    return list(directories.values()), entries
