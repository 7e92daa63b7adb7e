"""Writing references: ``main`` by compare-and-swap, and the tags of events.

As git does it, not by libgit2, which syncs logs as well: six syncs for ``main`` where two are enough. Every call
returns after what it wrote has been synced, but for logs, which tell nothing that the history does not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from katafs.directories import remove_tree
from katafs.errors import DamagedError, KataError, RaceLostError, StorageError
from katafs.git.beneath import File, open_plain
from katafs.git.format import packed_refs
from katafs.git.format.packed_refs import PackedRef
from katafs.git.format.stored import COMMIT, Oid, committer
from katafs.git.refs import reading
from katafs.git.refs.locks import STALE_MAIN, STALE_TAG, HeldLock, RefLocks, make_file
from katafs.git.refs.reading import HEAD_OF_MAIN, MAIN, MOST_REWRITTEN, PACKED_REFS
from katafs.git.repo import GitRepo
from katafs.git.store.storing import NewFile, make_parents, storing, sync_path

# a file, and two syncs, for each tag: more of them are written into ``packed-refs`` at once
_MOST_LOOSE = 8
_NOTHING = "0" * 40
_TAGS = "refs/tags"


class RefWriter:
    """Writes the references of one repository. ``is_alone`` as for its `RefLocks`."""

    def __init__(self, repo: GitRepo, *, is_alone: bool = False) -> None:
        self._repo = repo
        self._git_dir = repo.git_dir
        self.locks = RefLocks(repo.git_dir, is_alone=is_alone)
        self._prepared: dict[tuple[str, Oid], NewFile] = {}
        self._moves: list[tuple[Oid, Oid | None]] = []

    @cached_property
    def main(self) -> str:
        """What ``main`` is, which may be a name of another branch."""
        return reading.real_name(self._git_dir, MAIN)

    def prepare(self, main: Oid, tags: Mapping[int, Oid]) -> list[int]:
        """Make the files that `move_main` and `set_tags` put into place: their descriptors, to be synced together with
        what they refer to. Raises `StorageError`."""
        names = {MAIN: main} | {f"{_TAGS}/{index}": commit for index, commit in list(tags.items())[:_MOST_LOOSE]}
        with storing("references", self._git_dir):
            for name, commit in names.items():
                self._prepared[name, commit] = NewFile(self._git_dir, _line(commit), is_synced=False)
        return [file.fileno() for file in self._prepared.values()]

    def discard(self) -> None:
        """Remove what was prepared and not used."""
        while self._prepared:
            self._prepared.popitem()[1].drop()

    def _file(self, name: str, commit: Oid) -> NewFile:
        return self._prepared.pop((name, commit), None) or NewFile(self._git_dir, _line(commit))

    def move_main(self, new: Oid, old: Oid | None) -> None:
        """Move ``main`` from ``old`` (None: there was no branch) to ``new`` by compare-and-swap. Raises `RaceLostError`
        when it is somewhere else by now, or locked, and can be tried again; `DamagedError`, `StorageError`: after one
        of EIO the branch may be at ``new``."""
        path = self._git_dir / self.main
        with storing(MAIN, self._git_dir):
            made = make_parents(path.parent, self._git_dir)
            try:
                lock = HeldLock(self._git_dir, self.main, self._file(MAIN, new))
            except FileExistsError as error:
                raise RaceLostError(f"{self._git_dir}: {MAIN} is locked by another writer") from error
            with lock:
                # what has a file is not made again
                if (self._repo.main() if old is not None else self._repo.refs.packed(MAIN)) != old:
                    raise RaceLostError(f"{self._git_dir}: {MAIN} was moved by another writer")
                lock.become(is_new=not os.path.lexists(path))
            self._moves.append((new, old))
            sync_path(path.parent, *made)

    def sync_main(self) -> None:
        """Sync ``main`` as it is: somebody else moved it, who may have died before he did."""
        with storing(MAIN, self._git_dir):
            for name in (PACKED_REFS, self.main, os.path.dirname(self.main), ""):
                with suppress(FileNotFoundError):
                    sync_path(os.path.join(self._git_dir, name))

    def log_moves(self) -> None:
        """Add the lines of `move_main` to the logs of ``main`` and ``HEAD`` (git's gitrepository-layout), which no
        reader needs."""
        while self._moves:
            self._log(*self._moves.pop(0))

    def _log(self, new: Oid, old: Oid | None) -> None:
        with suppress(OSError, KataError):
            ids = f"{old.hex() if old is not None else _NOTHING} {new.hex()} ".encode()
            line = ids + committer(self._repo.objects.read(new, COMMIT)) + b"\t\n"
            with File(open_plain(self._git_dir / "HEAD")) as head:
                is_head = head.read(len(HEAD_OF_MAIN) + 1) == HEAD_OF_MAIN
            for name in (MAIN, "HEAD") if is_head else (MAIN,):
                path = self._git_dir / "logs" / name
                make_parents(path.parent, self._git_dir)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with File(os.open(path, flags, 0o644), "wb") as log:
                    if stat.S_ISREG(os.fstat(log.fileno()).st_mode):
                        log.write(line)

    def set_tags(self, tags: Mapping[int, Oid], *, replacing: bool = False) -> None:
        """Make the lightweight tags of events, by index, oldest first; those that exist are left as they are,
        ``replacing`` those that cannot be read; but for those that stand at an earlier commit of the same history."""
        known = {index: self._repo.tag(index) for index in sorted(tags)}
        missing = {index: tags[index] for index, there in known.items() if there is None}
        if len(missing) > _MOST_LOOSE:
            broken = {index for index in missing if os.path.lexists(self._git_dir / _TAGS / str(index))}
            self._pack({f"{_TAGS}/{index}".encode(): missing[index] for index in missing.keys() - broken})
            missing = {index: missing[index] for index in sorted(broken)}
        for index, commit in missing.items():
            # Whoever records the next event makes the tag of this one, if he sees none: the same tag.
            with suppress(RaceLostError):
                self._make_tag(f"{_TAGS}/{index}", commit, replacing=replacing)
        for index, there in known.items():
            # Who gave the number away before there was such an event loses nothing; one that is not in the history may
            # be all that refers to an event.
            if there not in (None, tags[index]) and self._is_below(there, tags[index]):
                with suppress(RaceLostError):
                    self.replace(f"{_TAGS}/{index}", tags[index], there, STALE_TAG)

    def _is_below(self, oid: Oid, commit: Oid) -> bool:
        with suppress(KataError):
            wanted = self._repo.commit(oid).oid
            return any(each.oid == wanted for each in self._repo.history(commit))
        return False

    def _make_tag(self, name: str, commit: Oid, *, replacing: bool) -> None:
        """Without a lock, but for one that is there: who makes a file by link(2) takes nothing from another."""
        with storing(name, self._git_dir):
            made = make_parents((self._git_dir / name).parent, self._git_dir)
            if not self.locks.is_locked(name) and make_file(self._git_dir, name, self._file(name, commit)):
                sync_path((self._git_dir / name).parent, *made)
                return
        if self._value(name) is None:
            self.replace(name, commit, None, STALE_TAG, replacing=replacing)

    def replace(
        self, name: str, new: Oid | None, old: Oid | None, stale: float = STALE_MAIN, *, replacing: bool = True
    ) -> None:
        """Set a reference that is ``old`` to ``new``; None: it is not there, cannot be read, or is to be removed.
        Raises `RaceLostError` when it is something else by now, `DamagedError` when what cannot be read is not to be
        replaced, `StorageError`."""
        path = self._git_dir / name
        with storing(name, self._git_dir):
            made = make_parents(path.parent, self._git_dir)
            with self.locks.held(name, stale, _line(new) if new is not None else b"") as lock:
                if self._value(name) != old:
                    raise RaceLostError(f"{self._git_dir}: {name} was changed by another writer")
                if old is None and not replacing and os.path.lexists(path):
                    # an empty file is what a power cut leaves of a tag
                    found = reading.read_reference(self._git_dir, name)
                    if found is None or found.text:
                        raise DamagedError(f"{self._git_dir}: {name} is no id")
                if new is not None:
                    _remove_empty(path)
                    lock.become()
                else:
                    self.rewrite_packed(name.encode(errors="surrogateescape"))
                    path.unlink(missing_ok=True)
            sync_path(path.parent, *made)

    def _value(self, name: str) -> Oid | None:
        try:
            return self._repo.refs.get(name)
        except DamagedError:
            return None

    def _pack(self, commits: Mapping[bytes, Oid], *, replacing: bool = False) -> None:
        """Put references to commits into ``packed-refs``; what is there stays as it is. ``replacing``: but for those
        that have files which still say so."""
        with storing(PACKED_REFS, self._git_dir):
            with self.locks.held(PACKED_REFS, STALE_MAIN) as lock:
                before = reading.read_packed(self._git_dir)
                known = packed_refs.parse(before)
                # who has packed or removed one since it was read did that under this lock
                new = {
                    name: PackedRef(oid)
                    for name, oid in commits.items()
                    if not replacing or self._is_still(os.fsdecode(name), oid)
                }
                lock.write(packed_refs.build({**known, **new} if replacing else {**new, **known}, before))
                lock.become()
            sync_path(self._git_dir)

    def rewrite_packed(self, without: bytes | None = None) -> None:
        """Keep only the lines of ``packed-refs`` that git understands, of one that is far too large those at its start;
        and not that of one reference. Does nothing where all of them are."""
        path = self._git_dir / PACKED_REFS
        with storing(PACKED_REFS, self._git_dir), self.locks.held(PACKED_REFS, STALE_MAIN) as lock:
            if not path.exists():
                return
            with File(open_plain(path)) as file:
                before = file.read(MOST_REWRITTEN)
            refs = packed_refs.parse(before)
            if refs.pop(without or b"", None) is None and not packed_refs.wrong_lines(before):
                return
            lock.write(packed_refs.build(refs, before))
            lock.become()
            sync_path(self._git_dir)

    def pack_tags(self) -> int:
        """Move tags of commits into ``packed-refs``, as ``git pack-refs`` does: under git's lock of that file; then the
        file of each goes under its own lock, if it still says the same. How many are gone. Raises OSError,
        `StorageError` (EBUSY for a lock)."""
        found: dict[bytes, Oid] = {}
        for name in loose_tags(self._git_dir):
            reference = reading.read_reference(self._git_dir, name)
            # of another object ``packed-refs`` would have to say what that stands for
            if reference is not None and reference.oid is not None and self._repo.objects.is_commit(reference.oid):
                found[os.fsencode(name)] = reference.oid
        if not found:
            return 0
        self._pack(found, replacing=True)
        gone = 0
        for tag, oid in found.items():
            # somebody else has it in hand: another time
            with suppress(StorageError), self.locks.held(name := os.fsdecode(tag), STALE_TAG):
                if self._is_still(name, oid):
                    (self._git_dir / name).unlink()
                    gone += 1
        return gone

    def _is_still(self, name: str, oid: Oid) -> bool:
        reference = reading.read_reference(self._git_dir, name)
        return reference is not None and reference.oid == oid

    def point_head(self) -> None:
        with storing("HEAD", self._git_dir):
            with self.locks.held("HEAD", STALE_MAIN, HEAD_OF_MAIN) as lock:
                lock.become()
            sync_path(self._git_dir)


def _line(commit: Oid) -> bytes:
    return commit.hex().encode() + b"\n"


def loose_tags(git_dir: Path) -> list[str]:
    """The tags of events that have files of their own."""
    return [name for name in reading.reference_files(git_dir, _TAGS) if name.count("/") == 2]


def _remove_empty(path: Path) -> None:
    """Remove empty directories where a reference is to be. Raises OSError when there is something in them."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path, with_files=False)
