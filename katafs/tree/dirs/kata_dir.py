"""The directory of a kata, and what stands directly in it."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from functools import partial
from pathlib import Path

from katafs.errors import HeavyError, KataError, NoEventsError, NotFoundError
from katafs.git.refs.reading import has_references
from katafs.kata.legacy.plain_create import DIRECTORY, FILE_IN_DIRECTORY, FILES, is_new
from katafs.kata.legacy.plain_files import is_plain_name, pending_names
from katafs.kata.legacy.plain_store import Conversion
from katafs.kata.read import stored_files
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import BlobId, manifest_document
from katafs.tree.catalogue import OUTER_DIR, row_of
from katafs.tree.context import Context
from katafs.tree.dirs.contents import ContentFile, MadeFile, kata_attributes
from katafs.tree.dirs.stored_nodes import plain_entry
from katafs.tree.legacy.pending_nodes import pending_entry, to_create_in_kata, to_create_new
from katafs.tree.legacy.plain_nodes import is_plain_path_name, plain_path_entry, plain_path_names
from katafs.tree.makers import entry, fence, find, listed, makes, makes_from_store, rows_in
from katafs.tree.nodes import Creator, Entry, Node, Work
from katafs.tree.numbers import PREFIX, Key

_MAKING_SECONDS = 60.0


@makes_from_store("")
class KataDir(Node):
    """A kata: the same tree for every layout; where it is stored plain, its plain files beside it."""

    has_attributes = True

    def __init__(self, ctx: Context, key: Key) -> None:
        kata_id = key.kata
        status = ctx.store.refresh(kata_id)
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_mtime_ns)
        # what the store denies to group and others is denied here, and with it all that is below
        self.mode = OUTER_DIR & (status.st_mode | stat.S_IFMT(OUTER_DIR) | stat.S_IRWXU)
        self._ctx, self._kata_id, self._path = ctx, kata_id, ctx.store.path(kata_id)
        self._kata: Kata | None = None
        self._is_git = ctx.store.is_git(kata_id)
        self._is_plain = not self._is_git and ctx.store.is_plain(kata_id)
        if not self._is_git and not self._is_plain:
            # it may have been migrated this moment
            self._is_git = ctx.store.is_git(kata_id)
        self._is_ready = not self._is_plain
        if self._is_git and ctx.store.why_no_events(kata_id) is None:
            self._kata = ctx.store.kata(kata_id)
            self.mtime_ns = self._kata.tip().time_ns
            self.generation = self._kata.generation()
        elif self._is_plain:
            self.generation = ctx.store.plain.generation(kata_id, self._path)

    def prepare(self) -> Work | None:
        """What is in a plain kata is known when it is converted; that it is there, before."""
        if self._is_ready:
            return None
        if self._ctx.store.plain.is_ready(self._kata_id, self._path):
            self._find_plain()
            return None
        return partial(self._ctx.store.plain.convert, self._kata_id, self._path)

    def prepared(self, result: object) -> None:
        assert isinstance(result, Conversion)
        self._ctx.store.plain.keep(self._kata_id, self._path, result)
        self._find_plain()

    def parent(self) -> Key:
        return Key(PREFIX, self._kata_id[:4])

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
        if not self._is_being_made():
            self._ctx.store.read_caches.notes.note(self._kata_id, f"it is shown as {what}")

    def _is_being_made(self) -> bool:
        """Whether it may be one that a service has begun to make, as plain files or by git, a moment ago."""
        path = self._path
        is_young = time.time() - _last_change(path) <= _MAKING_SECONDS
        return is_young and is_new(path) and not has_references(path / ".git")

    def names(self) -> list[bytes]:
        kata = self._kata
        if self._is_git and kata is None:
            self._say(f"its .git alone: {self._ctx.store.why_no_events(self._kata_id)}")
        names = [b".git"] if self._is_git and kata is None else []
        names += [row.name for row in listed(kata, "")] if kata is not None else []
        if self._is_plain:
            # what begins with a dot is of a migration
            found = stored_files.names(self._path, b"", self._ctx.store.budget)
            names += [name for name in found if not name.startswith(b".")]
        elif kata is not None:
            names += plain_path_names(kata)
            version = kata.plain_version()
            names += pending_names(kata.home, version) if version is not None else []
        return sorted(set(names))

    def child(self, name: bytes) -> Entry:
        kata = self._kata
        is_own = name != b".git" and name in rows_in("")
        # what is no kata's among plain files stands behind what a kata shows
        # before there is a manifest a new kata has no more than what a service makes first
        is_shown = self._is_plain or (not self._is_git and name in (DIRECTORY, b"manifest.json"))
        if is_shown and not name.startswith(b".") and (kata is None or not is_own or is_plain_name(name)):
            try:
                return plain_entry(self._ctx, self._kata_id, b"", name)
            except NotFoundError:
                # it may have been migrated this moment
                if self._ctx.store.is_git(self._kata_id):
                    return KataDir(self._ctx, self.key).child(name)
        elif kata is not None and is_plain_path_name(self._ctx, kata, name):
            return plain_path_entry(self, self._ctx, kata, name)
        elif kata is not None and (waiting := pending_entry(self, self._ctx, kata, name)) is not None:
            return waiting
        if name == b".git" and not self._is_git:
            return fence(self)
        if kata is None and self._is_git and is_own:
            why = self._ctx.store.why_no_events(self._kata_id)
            is_none = isinstance(why, (NotFoundError, NoEventsError)) or self._is_being_made()
            if why is not None and not is_none:
                # what cannot be read may be there
                raise why
        if kata is not None:
            row = find(kata, "", name)
            if name != b".git":
                return entry(self, self._ctx, kata, row, row.key_at(self._kata_id, kata.tip().last))
        elif name != b".git" or not self._is_git:
            raise NotFoundError(f"no {name!r} in kata {self._kata_id}")
        return plain_entry(self._ctx, self._kata_id, b"", name)

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        if self._kata is None or (not self._is_git and name in FILES):
            return to_create_new(self._path, name, is_directory=is_directory)
        return to_create_in_kata(self._ctx, self._kata, name, is_directory=is_directory)


def _last_change(path: Path) -> float:
    """When something in the directory of a kata was made or written to last, in seconds."""
    times = [0.0]
    for name in ("", ".git", *map(os.fsdecode, (*FILES, FILE_IN_DIRECTORY))):
        with contextlib.suppress(OSError):
            times.append(os.lstat(path / name).st_mtime)
    return max(times)


@makes("manifest.json")
def _manifest(ctx: Context, kata: Kata, key: Key) -> Node:
    first = kata.snapshot(0)
    make = partial(manifest_document, first=first, manifest=dict(kata.manifest()))
    return MadeFile(key, ctx, kata, first.time_ns, (key, first.commit.oid), make)


@makes("README.md", "options.json")
def _tip_blob(ctx: Context, kata: Kata, key: Key) -> Node:
    name = row_of(key).name
    oid = kata.tip().root.blob(name)
    if oid is None:
        raise NotFoundError(f"kata {kata.kata_id} has no {name!r}")
    content = kata.shown_json(BlobId(oid)) if name.endswith(b".json") else BlobId(oid)
    return ContentFile(key, ctx, kata.tip().time_ns, kata, content)
