"""Migration: a kata that is stored as plain files becomes a native repository, with its history in the past.

All of it happens in the kata's own directory ``Ab/Cd/Ef``, as its owner, so that no step needs another file system or
another user:

1. ``.katafs-new/.git`` is written from the plain files, and synced.
2. It is read back and compared with the plain files (`katafs.kata.legacy.plain_paths`), which must not
   have changed meanwhile.
3. ``rename(".katafs-new/.git", ".git")``: from here on the kata is stored as git, for every reader at once.
   Each of the renames here and in 5 is on disk before the next step, so that a power cut leaves no more than a death.
4. The plain files are looked at once more: had somebody written to them by another way than the mount, the rename is
   undone, and all starts anew. Nobody can have recorded anything in between, since the lock of the repository is held
   from before the rename.
5. ``.katafs-new`` is renamed to ``.katafs-old`` (``.katafs-original`` where the originals are to be kept), the plain
   files are moved there, the stored manifest last, and ``.katafs-old`` is removed.

Whoever is killed before 3 leaves the kata as it was, and a ``.katafs-new`` that the next migration clears away; after
it, a migrated kata with plain files that no reader sees, and the name of that directory says what is still to be done.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from katafs.directories import remove_quietly, remove_tree
from katafs.errors import ReadOnlyError, StorageError, storage_errors
from katafs.git import Oid, repository_lock
from katafs.git.beneath import appears
from katafs.git.store.storing import sync_directory, write_new
from katafs.kata.legacy.converting import write_repository
from katafs.kata.legacy.plain_files import Signature, event_of, is_plain_name, plain_names, signature
from katafs.kata.legacy.plain_kata import PlainKata
from katafs.kata.legacy.plain_paths import differences
from katafs.kata.read.kata import Kata
from katafs.owner import acting_as_owner
from katafs.text import pretty_bytes

_NEW, _OLD, _ORIGINAL = ".katafs-new", ".katafs-old", ".katafs-original"
# the manifest as it is in the repository, on its way to the work tree, where services look for it
_MANIFEST = "manifest.native"
_TRIES = 5
_MOST_PROBLEMS = 5


@dataclass(frozen=True)
class Migrated:
    """What was, or would be, migrated: the number of events, and the names of files that are no kata's."""

    events: int
    left: tuple[str, ...] = ()


def needs_migration(path: Path) -> bool:
    """Whether the directory holds a kata that is stored plain, or one whose migration was not finished."""
    if os.path.isdir(path / ".git"):
        return any(os.path.lexists(path / name) for name in (_NEW, _OLD, f"{_ORIGINAL}/{_MANIFEST}"))
    return os.path.isfile(path / "manifest.json")


def migrate_kata(
    path: Path,
    kata_id: str,
    *,
    dry_run: bool = False,
    keep_originals: bool = False,
    announce: Callable[[Oid], None] | None = None,
) -> Migrated | None:
    """Migrate the kata in ``path``; None when it was done already. Durable when this returns.

    ``announce`` is called with the newest commit right before the repository is put in its place.
    With ``dry_run`` all is tried in the same way, up to the comparison, and nothing is left of it.

    Raises `NotFoundError` where there is no kata, `DamagedError` when it cannot be read, `ReadOnlyError` when something
    in it cannot be kept, `StorageError` when the disk is full, or somebody else goes on writing. After an error the
    kata is as it was.
    """
    # who only tries leaves no trace, not even in the time of the directory
    lock = contextlib.nullcontext() if dry_run else repository_lock(path)
    with storage_errors(f"kata {kata_id} cannot be migrated", f"kata {kata_id}"), acting_as_owner(path), lock:
        migration = _Migration(path, kata_id, keep_originals=keep_originals, announce=announce)
        return migration.try_out() if dry_run else migration.run()


class _Migration:
    """The migration of one kata, by whoever holds the lock of its directory."""

    def __init__(
        self, path: Path, kata_id: str, *, keep_originals: bool, announce: Callable[[Oid], None] | None
    ) -> None:
        self._path, self._kata_id, self._keep = path, kata_id, keep_originals
        self._announce = announce
        self._main: Oid = b""
        self._made = -1
        self._git, self._new = path / ".git", path / _NEW

    def try_out(self) -> Migrated | None:
        if self._git.is_dir():
            return None
        with tempfile.TemporaryDirectory(prefix="katafs-migrate-") as directory:
            return self._build(Path(directory), is_durable=False)[0]

    def run(self) -> Migrated | None:
        # who had the lock may have been another host
        if appears(self._git):
            return self._finish() if needs_migration(self._path) else None
        for _ in range(_TRIES):
            with contextlib.ExitStack() as undo:
                remove_quietly(self._new)
                self._new.mkdir()
                # by its name it may be another host's, when ours was cut off so long that it was given up
                self._made = os.open(self._new, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                undo.callback(os.close, self._made)
                undo.callback(remove_quietly, self._new)
                migrated, before = self._build(self._new, is_durable=True)
                with repository_lock(self._new / ".git", 0):
                    if self._swap(before):
                        undo.pop_all()
                        os.close(self._made)
                        self._clear_away(self._checked())
                        return migrated
        raise StorageError(f"kata {self._kata_id} is being written to by others", errno.EBUSY)

    def _build(self, directory: Path, *, is_durable: bool) -> tuple[Migrated, Signature]:
        """Write the repository to ``directory/.git`` and compare. Returns the state of the plain files before."""
        before = signature(self._path)
        plain = PlainKata(self._kata_id, self._path)
        self._main = write_repository(plain, directory, is_durable=is_durable)
        kata = Kata(self._kata_id, directory)
        write_new(directory / _MANIFEST, pretty_bytes(kata.manifest()), is_durable=is_durable)
        problems = plain.problems or differences(PlainKata(self._kata_id, self._path), kata)
        if signature(self._path) != before:
            # somebody writes to it: what was seen may have been half of it
            return Migrated(0), ()
        if problems:
            raise ReadOnlyError("; ".join(problems[:_MOST_PROBLEMS]))
        left = (name for name, _ in plain_names(self._path) if not is_plain_name(name))
        return Migrated(len(plain.indexes), tuple(sorted(map(os.fsdecode, left)))), before

    def _swap(self, before: Signature) -> bool:
        """Put the repository in its place; False, and nothing is changed, when the plain files are not as they were."""
        if signature(self._path) != before:
            return False
        sync_directory(self._new)
        if self._announce is not None:
            self._announce(self._main)
        os.rename(".git", self._git, src_dir_fd=self._made)
        if signature(self._path) != before:
            os.rename(self._git, ".git", dst_dir_fd=self._made)
            # else a power cut could leave the repository in its place, and what is removed next gone
            sync_directory(self._new)
            sync_directory(self._path)
            return False
        sync_directory(self._path)
        return True

    def _finish(self) -> Migrated:
        """Do what another left to be done for a kata whose repository is in its place."""
        with repository_lock(self._git):
            kata = Kata(self._kata_id, self._path)
            rows = kata.tip().rows
            if self._new.is_dir():
                # nobody can tell whether the second look was taken
                problems = differences(PlainKata(self._kata_id, self._path), kata)
                if problems:
                    raise ReadOnlyError(f"it is migrated, but its plain files differ: {'; '.join(problems)}")
                self._checked()
            self._clear_away(self._path / (_OLD if (self._path / _OLD).is_dir() else _ORIGINAL))
            return Migrated(sum(not rows.is_outage(index) for index in range(rows.last + 1)))

    def _checked(self) -> Path:
        """Note that the plain files may go, and whereto."""
        old = self._path / (_ORIGINAL if self._keep else _OLD)
        os.rename(self._new, old)
        return old

    def _clear_away(self, old: Path) -> None:
        """Take the plain files away. Of those there may be newer ones, of events that were written past the mount: they
        stay."""
        # no original moves before the renames that say so are on disk, whoever did them
        sync_directory(self._path)
        last = Kata(self._kata_id, self._path).tip().last
        for name, _ in list(plain_names(self._path)):
            index = event_of(name)
            if is_plain_name(name) and name != b"manifest.json" and (index is None or index <= last):
                os.rename(os.path.join(os.fsencode(self._path), name), os.path.join(os.fsencode(old), name))
        manifest, native = self._path / "manifest.json", old / _MANIFEST
        if native.exists():
            if not (old / "manifest.json").exists():
                os.rename(manifest, old / "manifest.json")
            os.rename(native, manifest)
        sync_directory(old)
        sync_directory(self._path)
        if old.name == _OLD:
            remove_tree(old)
