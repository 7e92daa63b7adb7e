"""One kata of a store, for reading: its tip, and the snapshot of each event.

A `Kata` belongs to one thread (the daemon's event loop). Work for another thread takes the path and object ids, and
opens its own `GitRepo`.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from katafs.errors import DamagedError, HeavyError, NotFoundError, NotReadYet, ReadOnlyError
from katafs.git import GitRepo, Oid, read_config
from katafs.kata.caches import ReadCaches
from katafs.kata.events import Rows, StoredRows, time_ns
from katafs.kata.large import LARGE_ROWS, MANY_PATHS, read_large_json, read_large_listing, read_large_rows
from katafs.kata.layouts import (
    Root,
    check_format,
    check_version,
    detect,
    options_key,
    read_object,
    read_options,
    rows_of,
)
from katafs.kata.listing import Listing
from katafs.kata.option_times import option_times
from katafs.kata.plain_files import plain_version
from katafs.kata.plain_paths import set_options
from katafs.kata.recent import grown_rows, rows_in
from katafs.kata.snapshot import Content, Snapshot, shown_json
from katafs.kata.tip import Tip, tip_time

__all__ = ["Kata", "ReadCaches", "Tip"]

_SECOND = 1_000_000_000


class Kata:
    """A kata with a git repository at ``path``.

    ``home`` is its directory in the store: another one where the kata is stored plain (`katafs.kata.plain_store`).
    """

    def __init__(
        self, kata_id: str, path: Path, owner: tuple[int, int], caches: ReadCaches, home: Path | None = None
    ) -> None:
        self.kata_id = kata_id
        self.path = path
        self.home = home if home is not None else path
        self.owner = owner  # user and group id of the directory
        self.repo = GitRepo(path)
        self._caches = caches
        #: another number when the history turns out to be another: then nothing that was read before holds
        self.history = next(caches.histories)
        #: another object whenever something about the kata as a whole is another; None where nobody sees to that
        self.era: object | None = None
        self._tip: Tip | None = None
        self._looked = 0
        self._rows: tuple[Oid, Rows] | None = None
        self._option_times: tuple[Oid, dict[str, int]] | None = None
        self._set_options: tuple[Oid, dict[str, list[str]]] | None = None
        self._manifest: tuple[Oid, dict[str, Any]] | None = None

    # -- the tip

    def tip(self) -> Tip:
        """The tip as it is on disk at this moment (`ReadCaches.moment`): a commit by anybody shows at once.

        Raises `DamagedError` when there is no ``main``, or it has no readable events; `NotFoundError` when the kata
        was removed.
        """
        moment = self._caches.moment
        if self._tip is not None and moment and self._looked == moment:
            return self._tip
        oid = self.repo.main()
        if oid is None:
            raise self.repo.missing("branch main")
        if self._tip is None or self._tip.commit.oid != oid:
            self._tip = self._read_tip(oid)
        self._looked = moment
        return self._tip

    def _read_tip(self, oid: Oid) -> Tip:
        if self._tip is not None and all(commit.oid != self._tip.commit.oid for commit in self.repo.history(oid)):
            self.repo = GitRepo(self.path)
            self.history = next(self._caches.histories)
            self.era = object() if self.era is not None else None
            self._tip = self._rows = self._option_times = self._set_options = None
        if (named := read_config(self.repo.git_dir).object_format) != "sha1":
            raise DamagedError(f"{self.path}: its objects are named by {named[:20]}, which katafs does not read")
        return self.tip_at(oid)

    def tip_at(self, oid: Oid) -> Tip:
        """The state when a commit of this history was the tip."""
        commit = self.repo.commit(oid)
        root = Root.read(self.repo, commit.tree)
        layout = detect(root)
        earlier = self._tip.rows if self._tip is not None else None
        rows = self._rows_in(rows_of(self.repo, root, layout), earlier)
        return Tip(commit, root, layout, rows, tip_time(commit, rows))

    def _rows_in(self, oid: Oid, earlier: Rows | None) -> Rows:
        """The rows in a blob, which many tips may share. Raises `NotReadYet` in a daemon where that takes long."""
        if self._rows is not None and self._rows[0] == oid:
            return self._rows[1]
        if (why := self._caches.unreadable.get((self.history, oid))) is not None:
            raise DamagedError(why)
        stored: StoredRows | None = None
        if not self._caches.defers or self.repo.blob_size(oid) <= LARGE_ROWS:
            stored = rows_in(self.repo, oid)
        elif earlier is not None:
            stored = grown_rows(self.repo, oid)
        if stored is None:
            read = partial(read_large_rows, self.path, oid, earlier)
            raise NotReadYet((self.history, oid), read, partial(self._keep_rows, oid))
        rows = Rows(stored, earlier)
        self._keep_rows(oid, rows)
        return rows

    def _keep_rows(self, oid: Oid, rows: Rows | DamagedError) -> None:
        if isinstance(rows, DamagedError):
            self._caches.unreadable[self.history, oid] = str(rows)
            return
        self._rows = (oid, rows)
        self._caches.hold(self, self.repo.blob_size(oid))

    def let_go(self) -> None:
        """Forget the tip, whose rows take memory, and all that was read: who knows what will be there next time."""
        self.history = next(self._caches.histories)
        self._tip = self._rows = self._option_times = self._set_options = self._manifest = None

    def generation(self) -> int:
        """A number that is another for another kata of the same id, and the same in every daemon: it is made from the
        first commit, which stays whatever is added."""
        try:
            return int.from_bytes(self.snapshot(0).commit.oid[:4])
        except (DamagedError, NotFoundError):
            return 0

    def manifest(self) -> dict[str, Any]:
        """The stored manifest at the tip; empty when there is none that can be read."""
        oid = self.tip().root.blob(b"manifest.json")
        if oid is None:
            return {}
        if self._manifest is None or self._manifest[0] != oid:
            self._manifest = (oid, read_object(self.repo, oid))
        return self._manifest[1]

    def plain_version(self) -> int | None:
        """0 or 1 where the manifest says that the kata has plain paths; None also where nobody can tell."""
        try:
            return plain_version(self.manifest())
        except DamagedError:
            return None

    def is_writable(self) -> bool:
        """Whether katafs writes to it: its layout is one of ours or saver's, and its version not a later one."""
        try:
            self.check_writable()
        except ReadOnlyError as error:
            self._caches.notes.note(self.kata_id, str(error))
            return False
        return self.tip().layout.is_writable

    def check_writable(self) -> None:
        """Raises `ReadOnlyError` for a repository that git would not write to, or a later version."""
        check_format(self.repo)
        # whoever writes will be told of what is damaged
        with suppress(DamagedError):
            check_version(self.manifest(), self.kata_id)

    @property
    def is_stored_plain(self) -> bool:
        """Whether what is read here was made from plain files."""
        return self.home != self.path

    # -- events

    def snapshot(self, index: int) -> Snapshot:
        """The snapshot of an event. Raises `NotFoundError` for an index that is not there."""
        key = (self.history, index)
        known = self._caches.snapshots.get(key)
        if known is not None:
            return known
        tip = self.tip()
        if not 0 <= index <= tip.last:
            raise NotFoundError(f"kata {self.kata_id} has no event {index}")
        commit = self.repo.commit_of_event(tip.commit.oid, index)
        root = Root.read(self.repo, commit.tree)
        is_outage = tip.rows.is_outage(index)
        own = None if is_outage else time_ns(tip.rows.stored[index])
        when = own if own is not None else commit.time * _SECOND
        snapshot = Snapshot(index, commit, tip.layout, root, when, is_outage)
        self._caches.snapshots[key] = snapshot
        return snapshot

    def listing(self, tree: Oid | None) -> Listing:
        """All paths below a tree, but for those below a directory that cannot be read."""
        key = (self.history, tree)
        listing = self._caches.listings.get(key)
        if listing is not None:
            return listing
        if (why := self._caches.unreadable.get(key)) is not None:
            raise DamagedError(why)
        listing = self._caches.damaged.get(key)
        if listing is None:
            try:
                listing = Listing(self.repo, tree, tolerant=True, most=MANY_PATHS if self._caches.defers else None)
            except HeavyError as error:
                read = partial(read_large_listing, self.path, tree)
                raise NotReadYet(key, read, partial(self._keep_listing, key)) from error
            self._keep_listing(key, listing)
        return listing

    def _keep_listing(self, key: tuple[int, Oid | None], listing: Listing | DamagedError) -> None:
        if isinstance(listing, DamagedError):
            self._caches.unreadable[key] = str(listing)
        elif listing.damaged:
            self._caches.damaged[key] = listing
        elif len(listing) <= self._caches.listings.maxsize:
            self._caches.listings[key] = listing

    def files(self, index: int) -> Listing:
        """The files of an event."""
        return self.listing(self.snapshot(index).files_tree)

    # -- contents

    def size(self, content: Content) -> int:
        """The size of a content in bytes, without reading it."""
        if isinstance(content, bytes):
            return len(content)
        key = (self.history, content.oid)
        size = self._caches.sizes.get(key)
        if size is None:
            size = self.repo.blob_size(content.oid)
            self._caches.sizes.keep(key, size)
        return size

    def shown_json(self, content: Content) -> Content:
        """What is shown of a stored JSON object (`katafs.kata.snapshot.shown_json`)."""
        if isinstance(content, bytes):
            return content
        key = (self.history, content.oid)
        if (why := self._caches.unreadable.get(key)) is not None:
            raise DamagedError(why)
        known = self._caches.documents.get(key)
        if known is None and self._caches.defers and self.size(content) > LARGE_ROWS:
            read = partial(read_large_json, self.path, content.oid)
            raise NotReadYet(key, read, partial(self._keep_document, key))
        if known is None:
            known = shown_json(content.oid, self.read(content, 0, sys.maxsize))
            self._keep_document(key, known)
        return known

    def _keep_document(self, key: tuple[int, Oid], content: Content) -> None:
        if isinstance(content, bytes) and len(content) > LARGE_ROWS:
            self._caches.unreadable[key] = "it is no JSON that every parser takes, and too large to be corrected"
        else:
            self._caches.documents[key] = content

    def read(self, content: Content, offset: int, size: int) -> bytes:
        """Bytes of a content."""
        if isinstance(content, bytes):
            return content[offset : offset + size]
        key = (self.history, content.oid)
        data = self._caches.blobs.get(key)
        if data is None:
            data = self.repo.blob(content.oid)
            # what is read in one request will be asked for again at the next event, which has most files unchanged
            if len(data) < self._caches.blobs.maxsize // 2:
                self._caches.blobs[key] = data
        return data[offset : offset + size]

    # -- options

    def options(self, at: Tip | Snapshot) -> dict[str, str]:
        """The six options at a tip or an event."""
        key = (self.history, options_key(at.root, at.layout))
        options = self._caches.options.get(key)
        if options is None:
            options = self._caches.options[key] = read_options(self.repo, at.root, at.layout)
        return options

    def set_options(self) -> dict[str, list[str]]:
        """The values that each option was set to, oldest first; options that never were are left out."""
        tip = self.tip().commit.oid
        if self._set_options is None or self._set_options[0] != tip:
            self._set_options = (tip, set_options(commit.subject for commit in self.repo.history(tip)))
        return self._set_options[1]

    def option_times(self) -> dict[str, int]:
        """For each option the time, in ns, of the commit that set it to its present value."""
        tip = self.tip()
        if self._option_times is None or self._option_times[0] != tip.commit.oid:
            known = self._option_times or (None, {})
            self._option_times = (tip.commit.oid, option_times(self.repo, tip.commit.oid, tip.layout, known))
        return self._option_times[1]
