"""One kata of a store, for reading: its tip, and the snapshot of each event.

A `Kata` belongs to one thread. Work for another one takes the path and object ids, and opens its own `GitRepo`.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from katafs.errors import DamagedError, HeavyError, NotFoundError, ReadOnlyError
from katafs.git import Commit, GitRepo, Oid, read_config
from katafs.git.budget import STEP
from katafs.kata.model.layouts import check_format, check_version, plain_version
from katafs.kata.model.options import OPTION_DEFAULTS, Setting, Settings
from katafs.kata.model.rows import time_ns
from katafs.kata.model.trees import Listing
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.snapshot import BlobId, Content, Snapshot, read_snapshot, shown_json
from katafs.kata.read.state import State, read_state

# commits that were added at once, so that a history is taken for the one that is known
_FEW_COMMITS = 100
# microseconds of a look for an event without a tag, until all events are looked for at once; and for times of events
_LITTLE = 1_500.0
# in memory, in bytes beside the rows: a value that an option was set to, an entry of a tree, an event without a tag
_EACH = 100
_LARGE_MANIFEST = 64 << 10  # bytes
_SECOND = 1_000_000_000


class Kata:
    """A kata with a git repository at ``path``. ``home`` is its directory in the store: another one where the kata is
    stored plain (`katafs.kata.legacy.plain_store`)."""

    def __init__(
        self,
        kata_id: str,
        path: Path,
        owner: tuple[int, int] = (0, 0),
        caches: ReadCaches | None = None,
        home: Path | None = None,
    ) -> None:
        caches = caches or ReadCaches()
        self.kata_id = kata_id
        self.path = path
        self.home = home if home is not None else path
        self.owner = owner  # user and group id of the directory
        self.repo = GitRepo(path, budget=caches.budget)
        self._caches = caches
        #: another number when the history turns out to be another: then nothing that was read before holds
        self.incarnation = next(caches.incarnations)
        self._identity: object | None = None
        self._tip: State | None = None
        # the one before
        self._earlier: State | None = None
        self._looked = 0
        self._settings = Settings()
        self._untagged: tuple[Oid, dict[int, Oid]] | None = None
        self._manifest: tuple[Oid, dict[str, Any]] | None = None

    @property
    def identity(self) -> object | None:
        """Another object whenever something about the kata as a whole is another; None where nobody sees to that."""
        return self._identity

    @identity.setter
    def identity(self, identity: object | None) -> None:
        earlier, self._identity = self._identity, identity
        # of one that had none nobody has kept anything
        if earlier is not None:
            self._caches.on_change(self.kata_id)

    # -- the tip

    def tip(self) -> State:
        """The tip as it is on disk at this moment (`ReadCaches.epoch`): a commit by anybody shows at once. Raises
        `DamagedError` when there is no ``main``, or it has no readable events; `NotFoundError` when the kata was
        removed."""
        epoch = self._caches.epoch
        if self._tip is not None and epoch and self._looked == epoch:
            return self._tip
        oid = self.repo.main()
        if oid is None:
            raise self.repo.objects.missing("branch main")
        if self._tip is None or self._tip.commit.oid != oid:
            self._earlier, self._tip = self._tip, self._read_tip(oid)
            self._hold()
        self._looked = epoch
        return self._tip

    def _read_tip(self, oid: Oid) -> State:
        known = self._tip.commit.oid if self._tip is not None else None
        if known is not None and all(commit.oid != known for commit in islice(self.repo.history(oid), _FEW_COMMITS)):
            self.repo = GitRepo(self.path, budget=self._caches.budget)
            self.identity = object() if self.identity is not None else None
            self.let_go()
        if (named := read_config(self.repo.git_dir).object_format) != "sha1":
            raise DamagedError(f"{self.path}: its objects are named by {named[:20]}, which katafs does not read")
        return self.tip_at(oid)

    def tip_at(self, oid: Oid) -> State:
        """The state when a commit of this history was the tip."""
        for known in (self._tip, self._earlier):
            if known is not None and known.commit.oid == oid:
                return known
        return read_state(self.repo, oid, self._tip)

    def _hold(self) -> None:
        """Tell what this takes in memory."""
        rows = self._tip.layout.rows_blob(self._tip.root) if self._tip is not None else None
        size = self.repo.blob_size(rows) if rows is not None else 0
        size += _EACH * len(self._settings)
        size += _EACH * (len(self._untagged[1]) if self._untagged is not None else 0)
        for tip in filter(None, (self._tip, self._earlier)):
            size += _EACH * len(tip.root.entries) + len(tip.commit.message)
        self._caches.hold(self, size)

    def let_go(self) -> None:
        """Forget the tip, whose rows take memory, and all that was read: who knows what will be there next time."""
        self.incarnation = next(self._caches.incarnations)
        self._tip = self._earlier = self._untagged = self._manifest = None
        self._settings.discard()

    def generation(self) -> int:
        """A number that is another for another kata of the same id, and the same in every daemon: it is made from the
        first commit, which stays whatever is added."""
        try:
            return int.from_bytes(self.snapshot(0).commit.oid[:4])
        except (DamagedError, NotFoundError):
            return 0

    def manifest(self) -> dict[str, Any]:
        """The stored manifest at the tip; empty when there is none that can be read."""
        tip = self.tip()
        oid = tip.root.blob(b"manifest.json")
        if oid is None:
            return {}
        if self._manifest is not None and self._manifest[0] == oid:
            return self._manifest[1]
        manifest = tip.manifest(self.repo)
        if self.repo.blob_size(oid) <= _LARGE_MANIFEST:
            self._manifest = (oid, manifest)
        return manifest

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
        key = (self.incarnation, index)
        known = self._caches.snapshots.get(key)
        if known is not None:
            return known
        tip = self.tip()
        if not 0 <= index <= tip.last:
            raise NotFoundError(f"kata {self.kata_id} has no event {index}")
        snapshot = read_snapshot(self.repo, tip, index, self._commit_of_event(tip.commit.oid, index))
        self._caches.snapshots.keep(key, snapshot)
        return snapshot

    def told_times(self, events: range) -> list[int | None]:
        """Those of several events, and None where that would be too much."""
        self.repo.look_at_tags(events)
        found: list[int | None] = [None] * len(events)
        with suppress(HeavyError), self.repo.budget.within(_LITTLE):
            for at, index in enumerate(events):
                self.repo.budget.spend(STEP)
                found[at] = self.told_time(index)
        return found

    def told_time(self, index: int) -> int | None:
        """`Snapshot.time_ns` of an event as its row says it, if it has a tag; None where only the snapshot does."""
        rows = self.tip().rows
        is_there = 0 <= index <= rows.last and not rows.is_outage(index) and self.repo.tag(index) is not None
        return time_ns(rows.stored[index]) if is_there else None

    def time_of_event(self, index: int) -> int:
        """`Snapshot.time_ns` of an event. Raises as `snapshot`."""
        if (self.incarnation, index) not in self._caches.snapshots and (own := self.told_time(index)) is not None:
            return own
        return self.snapshot(index).time_ns

    def _commit_of_event(self, tip: Oid, index: int) -> Commit:
        with suppress(HeavyError), self.repo.budget.within(_LITTLE):
            return self.repo.commit_of_event(tip, index)
        # one without a tag, far from the tip: there will be more of them
        if self._untagged is None or self._untagged[0] != tip:
            self._untagged = (tip, self.repo.commits_of_events(tip, 0, self.tip_at(tip).last))
            self._hold()
        if index not in self._untagged[1]:
            raise NotFoundError(f"kata {self.kata_id} has no commit for event {index}")
        return self.repo.commit(self._untagged[1][index])

    def listing(self, tree: Oid | None) -> Listing:
        """All paths below a tree, but for those below a directory that cannot be read."""
        key = (self.incarnation, tree)
        listing = self._caches.listings.get(key)
        if listing is not None:
            return listing
        listing = self._caches.damaged.get(key)
        if listing is None:
            listing = Listing(self.repo, tree, tolerant=True)
            if listing.damaged:
                self._caches.damaged[key] = listing
            else:
                self._caches.listings.keep(key, listing)
        return listing

    def files(self, index: int) -> Listing:
        return self.listing(self.snapshot(index).files_tree)

    # -- contents

    def size(self, content: Content) -> int:
        """The size of a content in bytes, without reading it."""
        if not isinstance(content, BlobId):
            return len(content)
        key = (self.incarnation, content.oid)
        size = self._caches.sizes.get(key)
        if size is None:
            size = self.repo.blob_size(content.oid)
            self._caches.sizes.keep(key, size)
        return size

    def shown_json(self, content: Content) -> Content:
        """What is shown of a stored JSON object (`katafs.kata.read.snapshot.shown_json`)."""
        if not isinstance(content, BlobId):
            return content
        key = (self.incarnation, content.oid)
        known = self._caches.documents.get(key)
        if known is None:
            data = self.read(content, 0, sys.maxsize)
            self.repo.budget.spend_for_parsing(data)
            known = shown_json(content.oid, data, self.repo.budget)
            self._caches.documents.keep(key, known)
        return known

    def read(self, content: Content, offset: int, size: int) -> bytes:
        if not isinstance(content, BlobId):
            return content[offset : offset + size]
        key = (self.incarnation, content.oid)
        data = self._caches.blobs.get(key)
        if data is None:
            data = self.repo.blob(content.oid)
            if len(data) != self.size(content):
                # who reads was told another size
                raise DamagedError(f"{self.path}: {content.oid.hex()} is not as long as it says")
            # what is read in one request will be asked for again at the next event, which has most files unchanged
            if len(data) < self._caches.blobs.maxsize // 2:
                self._caches.blobs[key] = data
        return data[offset : offset + size]

    # -- options

    def options(self, at: State | Snapshot) -> dict[str, str]:
        key = (self.incarnation, at.layout.options_oid(at.root))
        options = self._caches.options.get(key)
        if options is None:
            options = at.layout.options(self.repo, at.root)
            self._caches.options.keep(key, options)
        return options

    def _found_settings(self) -> dict[str, list[Setting]]:
        try:
            return self._settings.found(self.repo, self.tip().commit.oid)
        finally:
            self._hold()

    def set_options(self) -> dict[str, list[str]]:
        """The values that each option was set to, oldest first; options that never were are left out."""
        return {name: [value for value, _ in settings[::-1]] for name, settings in self._found_settings().items()}

    def option_times(self) -> dict[str, int]:
        """For each option the time, in ns, of the commit that set it to its present value."""
        first, found = ("", self.snapshot(0).commit.time * _SECOND), self._found_settings()
        return {name: found.get(name, [first])[0][1] for name in OPTION_DEFAULTS}
