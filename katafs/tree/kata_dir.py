"""The directory of one kata, and what stands directly in it."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from katafs.errors import DamagedError, HeavyError, KataError, NoEventsError, NotFoundError
from katafs.git import GitRepo
from katafs.kata.legacy.plain_create import DIRECTORY, FILE_IN_DIRECTORY, FILES, is_new
from katafs.kata.legacy.plain_files import is_plain_name
from katafs.kata.legacy.plain_store import Conversion
from katafs.kata.legacy.waiting import pending_names
from katafs.kata.model.listing import Listing
from katafs.kata.read import plain
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import BlobId, Snapshot, manifest_document
from katafs.kata.read.state import State
from katafs.tree import downloads, events, pages, slots
from katafs.tree.attributes import kata_attributes
from katafs.tree.context import Context
from katafs.tree.control import CONTROL_FILES, RAN_TESTS
from katafs.tree.control_dirs import CONFIG, CONTROL, ConfigDir, ControlDir, TipBlob, control, option
from katafs.tree.diffs import DIFF_LATEST, DIFFS, DiffsDir, latest_diff
from katafs.tree.fence import fence
from katafs.tree.legacy.pending import pending_entry, to_create_in_kata, to_create_new
from katafs.tree.legacy.plain_paths import (
    is_plain_path,
    is_plain_path_name,
    plain_path_entry,
    plain_path_names,
    plain_path_node,
)
from katafs.tree.made import MadeFile
from katafs.tree.nodes import (
    IMMUTABLE,
    MUTABLE,
    NEVER,
    Creator,
    Directory,
    Entry,
    File,
    Link,
    Maker,
    Node,
    entry_or_damaged,
)
from katafs.tree.numbers import FIXED, PREFIX, Key
from katafs.tree.options import FIRST_OPTION, OPTIONS
from katafs.tree.plain import GIT, PlainNode, plain_entry
from katafs.tree.tip_files import TIP_FILES, TipFilesDir

# fixed entries of a kata; others stand where their nodes are made
KATA, MANIFEST, README, OPTIONS_JSON = 0, 12, 14, 15

_MAKING_SECONDS = 60.0
_Maker = Callable[[Context, Kata], Node]


class KataDir(Directory):
    """A kata: the same tree for every layout; where it is stored plain, its plain files beside it."""

    mode = stat.S_IFDIR | 0o755
    attr_timeout = MUTABLE
    has_attributes = True

    def __init__(self, ctx: Context, kata_id: str) -> None:
        status = ctx.store.refresh(kata_id)
        owner = ctx.owner_of(status.st_uid, status.st_gid)
        super().__init__(Key(FIXED, kata_id, KATA), owner, status.st_mtime_ns, Key(PREFIX, kata_id[:4]))
        # what the store denies to group and others is denied here, and with it all that is below
        self.mode = KataDir.mode & (status.st_mode | stat.S_IFMT(KataDir.mode) | stat.S_IRWXU)
        self._ctx, self._kata_id = ctx, kata_id
        self._kata: Kata | None = None
        self._is_git = ctx.store.is_git(kata_id)
        self._is_plain = not self._is_git and ctx.store.is_plain(kata_id)
        if not self._is_git and not self._is_plain:
            # it may have been migrated this moment
            self._is_git = ctx.store.is_git(kata_id)
        self._is_ready = not self._is_plain
        if self._is_git and ctx.store.has_events(kata_id):
            self._kata = ctx.store.kata(kata_id)
            self.mtime_ns = self._kata.tip().time_ns
            self.generation = self._kata.generation()
        elif self._is_plain:
            self.generation = ctx.store.plain.generation(kata_id, ctx.store.path(kata_id))

    def to_make(self) -> Maker | None:
        """What is in a plain kata is known when it is converted; that it is there, before."""
        if self._is_ready:
            return None
        path = self._ctx.store.path(self._kata_id)
        if self._ctx.store.plain.is_ready(self._kata_id, path):
            self._find_plain()
            return None
        return partial(self._ctx.store.plain.convert, self._kata_id, path)

    def made(self, result: object) -> None:
        assert isinstance(result, Conversion)
        self._ctx.store.plain.keep(self._kata_id, self._ctx.store.path(self._kata_id), result)
        self._find_plain()

    def attributes(self) -> dict[str, str]:
        return kata_attributes(self._kata) if self._kata is not None else {}

    def _find_plain(self) -> None:
        self._is_ready = True
        try:
            self._kata = self._ctx.store.kata(self._kata_id)
            self._kata.tip()
        except HeavyError:
            raise
        except KataError as error:
            self._kata = None
            self._say(f"its plain files alone: {error}")

    def _say(self, what: str) -> None:
        """Have the log say why it is shown like this; not as long as somebody may be making it."""
        path = self._ctx.store.path(self._kata_id)
        git = path / ".git"
        may_be_new = not (git / "refs/heads/main").exists() and not (git / "packed-refs").exists() and is_new(path)
        if not may_be_new or time.time() - _last_change(path) > _MAKING_SECONDS:
            self._ctx.store.note(self._kata_id, f"it is shown as {what}")

    def names(self) -> list[bytes]:
        kata = self._kata
        if self._is_git and kata is None:
            self._say(f"its .git alone: {self._ctx.store.why_no_events(self._kata_id)}")
        names = _names(kata) if kata is not None else [b".git"] if self._is_git else []
        if self._is_plain:
            # what begins with a dot is of a migration
            found = plain.names(self._ctx.store.path(self._kata_id), b"", self._ctx.store.budget)
            names += [name for name in found if not name.startswith(b".")]
        elif kata is not None:
            names += plain_path_names(kata)
            version = kata.plain_version()
            names += pending_names(kata.home, version) if version is not None else []
        return sorted(set(names))

    def child(self, name: bytes) -> Entry:
        kata = self._kata
        is_own = name in _BY_NAME or name in slots.NAMED_SLOTS
        # what is no kata's among plain files stands behind what a kata shows
        # before there is a manifest a new kata has no more than what a service makes first
        is_shown = self._is_plain or (not self._is_git and name in (DIRECTORY, b"manifest.json"))
        if is_shown and not name.startswith(b".") and (kata is None or not is_own or is_plain_name(name)):
            try:
                return plain_entry(self._ctx, self._kata_id, b"", name)
            except NotFoundError:
                # it may have been migrated this moment
                if self._ctx.store.is_git(self._kata_id):
                    return KataDir(self._ctx, self._kata_id).child(name)
        elif kata is not None and is_plain_path_name(self._ctx, kata, name):
            return plain_path_entry(self, self._ctx, kata, name)
        elif kata is not None and (waiting := pending_entry(self._ctx, kata, name)) is not None:
            return waiting
        if name == b".git" and not self._is_git:
            return fence(self)
        if kata is None and self._is_git and (is_own or name == b"events.json"):
            why = self._ctx.store.why_no_events(self._kata_id)
            if why is not None and not isinstance(why, (NotFoundError, NoEventsError)):
                # what cannot be read may be there
                raise why
        if name not in (_names(kata) if kata is not None else [b".git"] if self._is_git else []):
            raise NotFoundError(f"no {name!r} in kata {self._kata_id}")
        if kata is None or name == b".git":
            return plain_entry(self._ctx, self._kata_id, b"", name)
        tip = kata.tip()
        if name not in _BY_NAME:
            node, _ = events.event_entry(self, self._ctx, kata, tip.last, _slot(name, tip))
            # not to be told of what it names next: see `katafs.tree.tree.Tree.stale_after`
            return Entry(node, NEVER)
        which = _BY_NAME[name]
        key = Key(FIXED, kata.kata_id, which)
        return entry_or_damaged(
            partial(_FIXED[which], self._ctx, kata), IMMUTABLE, key, self, _MODES.get(which, File.mode)
        )

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        if self._kata is None or (not self._is_git and name in FILES):
            return to_create_new(self._ctx.store.path(self._kata_id), name, is_directory=is_directory)
        return to_create_in_kata(self._ctx, self._kata, name, is_directory=is_directory)


def _last_change(path: Path) -> float:
    """When something in the directory of a kata was made or written to last, in seconds."""
    times = [0.0]
    for name in ("", ".git", *map(os.fsdecode, (*FILES, FILE_IN_DIRECTORY))):
        with contextlib.suppress(OSError):
            times.append(os.lstat(path / name).st_mtime)
    return max(times)


def _names(kata: Kata) -> list[bytes]:
    names = [*_BY_NAME, *slots.EVENT_FILES, b"events.json"]
    tip = kata.tip()
    for name in (b"README.md", b"options.json"):
        if name not in tip.layout.shown_as_stored or tip.root.blob(name) is None:
            names.remove(name)
    if not kata.is_writable():
        names = [name for name in names if name not in (b"control", b"ran_tests")]
    if _shows_git(kata):
        names.append(b".git")
    return sorted(set(names))


def _shows_git(kata: Kata) -> bool:
    try:
        version = kata.manifest().get("version")
        return isinstance(version, (int, float)) and version >= 2
    except DamagedError:
        # nobody can tell, and the repository is what is left to be looked at
        return True


def _slot(name: bytes, tip: State) -> int:
    """Which slot of the newest event is shown under a name. ``events.json`` has saver's bytes where they are stored."""
    if name == b"events.json" and name in tip.layout.shown_as_stored:
        return slots.STORED_EVENTS
    return slots.NAMED_SLOTS[b"events_summary.json" if name == b"events.json" else name]


def _manifest(ctx: Context, kata: Kata) -> Node:
    key = Key(FIXED, kata.kata_id, MANIFEST)
    first = kata.snapshot(0)
    make = partial(_make_manifest, first, dict(kata.manifest()))
    return MadeFile(key, ctx.owner(kata), first.time_ns, ctx.made, (key, first.commit.oid), kata.path, make)


def _make_manifest(first: Snapshot, manifest: dict[str, Any], repo: GitRepo) -> bytes:
    return manifest_document(repo, Listing(repo, first.files_tree), manifest)


def _tip_blob(which: int, name: bytes, ctx: Context, kata: Kata) -> Node:
    oid = kata.tip().root.blob(name)
    if oid is None:
        raise NotFoundError(f"kata {kata.kata_id} has no {name!r}")
    content = BlobId(oid) if which == README else kata.shown_json(BlobId(oid))
    return TipBlob(Key(FIXED, kata.kata_id, which), ctx, kata.tip().time_ns, kata, content)


_BY_NAME = {
    b"README.md": README,
    b"config": CONFIG,
    b"control": CONTROL,
    b"diff": DIFFS,
    b"download": downloads.DOWNLOADS,
    b"download.tgz": downloads.DOWNLOAD_LINK,
    b"events": events.EVENTS,
    b"files": TIP_FILES,
    b"history": pages.HISTORY,
    b"html": pages.HTML,
    b"manifest.json": MANIFEST,
    b"options.json": OPTIONS_JSON,
    b"ran_tests": RAN_TESTS,
}
_DIRECTORIES = (CONFIG, CONTROL, DIFFS, downloads.DOWNLOADS, events.EVENTS, TIP_FILES, pages.HTML)
_MODES = {**dict.fromkeys(_DIRECTORIES, Directory.mode), downloads.DOWNLOAD_LINK: Link.mode}
_FIXED: dict[int, _Maker] = {
    TIP_FILES: TipFilesDir,
    events.EVENTS: events.EventsDir,
    events.EVENTS_LATEST: events.latest_event,
    DIFFS: DiffsDir,
    DIFF_LATEST: latest_diff,
    downloads.DOWNLOADS: downloads.DownloadsDir,
    downloads.DOWNLOAD_TGZ: downloads.TgzFile,
    downloads.DOWNLOAD_LINK: downloads.download_link,
    pages.HTML: pages.HtmlDir,
    pages.HTML_INDEX: pages.index_page,
    pages.HISTORY: pages.history_file,
    CONTROL: ControlDir,
    MANIFEST: _manifest,
    CONFIG: ConfigDir,
    README: partial(_tip_blob, README, b"README.md"),
    OPTIONS_JSON: partial(_tip_blob, OPTIONS_JSON, b"options.json"),
    **{number: partial(control, kind) for number, kind in CONTROL_FILES.items()},
    **{FIRST_OPTION + number: partial(option, number) for number in range(len(OPTIONS))},
}


def fixed_node(ctx: Context, key: Key) -> Node:
    """The node of a `FIXED` key. Raises `NotFoundError`."""
    if key.a == KATA:
        return KataDir(ctx, key.kata)
    if key.a == GIT:
        return PlainNode(ctx, key.kata, b".git")
    if is_plain_path(key):
        return plain_path_node(ctx, key)
    kata = ctx.store.kata(key.kata)
    if key.a == downloads.DOWNLOAD_ROOT:
        return downloads.Member(ctx, kata, key)
    maker = _FIXED.get(key.a)
    if maker is None:
        raise NotFoundError(f"a kata has no entry {key.a}")
    return maker(ctx, kata)
