"""Writing to one git repository: blobs, trees, commits; its references are written by `katafs.git.refs.writing`.

Objects are synced by `GitWriter.store`, references by the call that writes them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from katafs.errors import DamagedError, InvalidError, TooLargeError
from katafs.git.format import stored
from katafs.git.format.stored import BLOB, COMMIT, TREE, Oid, Stored
from katafs.git.odb.objects import IN_MEMORY, Made
from katafs.git.refs.locks import remove_left
from katafs.git.refs.writing import RefWriter
from katafs.git.repo import GitRepo
from katafs.git.store.compaction import merge_packs
from katafs.git.store.durable import make_durable, sync_loose
from katafs.git.store.pack_files import let_go, store_pack
from katafs.git.store.storing import storing, sync_together

log = logging.getLogger(__name__)

_MOST_THERE = 100_000  # objects
# bytes of those that are remembered, of an event
_MOST_AT_HAND = 512 << 10


class ObjectMaker:
    """Gives objects their ids and keeps nothing: what would be written can be known without writing. ``path`` is where
    an object is met in the tree of its commit; that of a tree ends in ``/``."""

    def _made(self, kind: int, data: bytes, path: bytes) -> Oid:  # noqa: ARG002 - others look at it
        return stored.object_id(kind, data)

    def _entries(self, tree: Oid) -> list[Stored]:
        """The entries of a tree that is there."""
        raise NotImplementedError

    def blob(self, data: bytes, *, path: bytes = b"") -> Oid:
        return self._made(BLOB, data, path)

    def tree(
        self,
        base: Oid | None,
        blobs: Mapping[bytes, Oid],
        subtrees: Mapping[bytes, Oid | None] | None = None,
        *,
        path: bytes = b"/",
    ) -> Oid:
        """Make ``base`` with these blobs and subtrees put in; a subtree that is None is taken out."""
        entries = {name: (mode, oid) for mode, name, oid in self._entries(base)} if base is not None else {}
        entries |= {name: (b"100644", oid) for name, oid in blobs.items()}
        for name, subtree in (subtrees or {}).items():
            if subtree is not None:
                entries[name] = (b"40000", subtree)
            else:
                entries.pop(name, None)
        return self._made(TREE, stored.build_tree((mode, name, oid) for name, (mode, oid) in entries.items()), path)

    def file_tree(self, files: Mapping[bytes, bytes], *, path: bytes = b"/") -> Oid | None:
        """Make files (path → content) as nested trees; None when there are none, as git has no empty directories."""
        if not files:
            return None
        here, below = stored.by_directory(files)
        blobs = {name: self.blob(content, path=path + name) for name, content in here.items()}
        subtrees = {name: self.file_tree(inside, path=path + name + b"/") for name, inside in below.items()}
        return self.tree(None, blobs, subtrees, path=path)

    def commit(self, tree: Oid, parents: Sequence[Oid], message: str, name: str, email: str, time: int) -> Oid:
        """Make a commit whose author and committer are the same, in UTC; ``message`` gets no newline."""
        return self._made(COMMIT, stored.build_commit(tree, parents, message, name, email, time), b"")


class GitWriter(ObjectMaker):
    """Writes to the repository of a `GitRepo`, in the same thread; for a ``with`` statement. Objects are in memory
    until `store` writes them as one pack; whoever reads with the `GitRepo` sees them already. ``is_alone``: the lock of
    the repository is held (`katafs.git.store.storing`)."""

    def __init__(self, repo: GitRepo, *, is_alone: bool = False) -> None:
        self.repo = repo
        self._is_alone = is_alone
        self._stored: set[Oid] = set()
        self._there: set[Oid] = set()
        self._of_others: dict[Oid, tuple[int, bytes]] = {}
        self._packs: list[Path] = []
        self.refs = RefWriter(repo, is_alone=is_alone)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # the garbage collector, which finds cycles in the traceback of an error, would close files much later
        self.discard()
        self.let_go()
        self.repo.objects.packs.close()

    def discard(self) -> None:
        """Forget all objects that were made: those that were not stored have never been."""
        self.refs.discard()
        self.repo.objects.pending.clear()
        self._stored.clear()
        self._there.clear()

    def build_on(self, commit: Oid) -> None:
        """What is in the tree of a commit that something refers to need not be stored again, once all that it reaches
        is on disk, or will be with what is stored next. Of a very large one not all is known. Raises `StorageError`."""
        with storing("what others recorded", self.repo.git_dir):
            self._of_others = make_durable(self.repo, commit)
            self.repo.objects.pending.update(self._of_others)
        waiting = [self.repo.commit(commit).tree]
        while waiting and len(self._there) < _MOST_THERE:
            with contextlib.suppress(DamagedError):
                for entry in self.repo.tree(waiting.pop()):
                    if entry.is_tree and entry.oid not in self._there:
                        waiting.append(entry.oid)
                    self._there.add(entry.oid)

    def let_go(self) -> None:
        """Let others pack what was stored as they like: a branch refers to it, or nothing ever will."""
        while self._packs:
            with contextlib.suppress(OSError):
                let_go(self._packs.pop())

    def sync_of_others(self) -> None:
        """Sync what `build_on` found not to be on disk, where it is: nothing is to be stored, it is to be answered for.
        Raises `StorageError`."""
        with storing("what others recorded", self.repo.git_dir):
            for oid in self._of_others:
                sync_loose(self.repo, oid)

    def store(self, main: Oid, tags: Mapping[int, Oid]) -> None:
        """Store all objects that were made since this was last called, and what ``main`` and tags are to be set to; on
        disk when it returns. Raises `StorageError`."""
        references = self.refs.prepare(main, tags)
        pending = self.repo.objects.pending
        new = {oid: pending[oid] for oid in pending.keys() - self._stored}
        with storing("objects", self.repo.git_dir):
            if new:
                self._packs.append(store_pack(self.repo.objects.pack_directory, new, references))
            else:
                sync_together(references)
        self._stored |= new.keys()

    def remember(self) -> Made:
        """What was stored, for who reads it next: a branch refers to it. Nothing where that is much."""
        objects = self.repo.objects
        objects.at_hand = {oid: objects.pending[oid] for oid in self._stored}
        if objects.bytes_at_hand() > _MOST_AT_HAND:
            objects.at_hand = {}
        return objects.at_hand

    def tidy(self, *, may_merge: bool) -> None:
        """Write the logs; and merge the packs that `store` made, if there are many by now; they are referred to. It may
        fail."""
        self.refs.log_moves()
        self.let_go()
        try:
            if may_merge and self._is_alone and merge_packs(self.repo.objects.pack_directory):
                remove_left(self.repo.git_dir)
        except OSError as error:
            log.warning("%s: packs were not merged: %s", self.repo.git_dir, error)

    def _made(self, kind: int, data: bytes, path: bytes) -> Oid:  # noqa: ARG002 - packs of events have no deltas
        """Make an object; one that `build_on` found, and is whole, is not stored again. Others are, although they may
        be there: nothing may refer to them, and who packs at this moment drops them. Raises `TooLargeError` for what no
        reader would read."""
        if len(data) > IN_MEMORY:
            raise TooLargeError(
                f"what is to be stored has parts of more than {IN_MEMORY >> 20} MiB, which nobody could read"
            )
        oid = stored.object_id(kind, data)
        if oid not in self._there or not self.repo.objects.has(oid):
            self.repo.objects.pending[oid] = (kind, data)
        return oid

    def _entries(self, tree: Oid) -> list[Stored]:
        try:
            return stored.parse_tree(self.repo.objects.read(tree, TREE))
        except ValueError as error:
            raise DamagedError(f"{self.repo.git_dir}: tree {tree.hex()} is damaged") from error

    def with_files(self, tree: Oid | None, changes: Mapping[bytes, Oid | None]) -> Oid | None:
        """Make ``tree`` with these blobs put at their paths, and what is None taken out; None when nothing is left.
        Directories come and go. Raises `InvalidError` where a path leads through a file, or a blob would take the place
        of a directory."""
        known = {entry.name: entry for entry in self.repo.tree(tree)} if tree is not None else {}
        here, below = stored.by_directory(changes)
        # and what is taken out
        subtrees: dict[bytes, Oid | None] = {name: None for name, blob in here.items() if blob is None}
        for name, inside in below.items():
            entry = known.get(name)
            if entry is not None and not entry.is_tree and name not in subtrees:
                raise InvalidError(f"{name.decode()!r} is a file, not a directory")
            subtrees[name] = self.with_files(entry.oid if entry is not None and entry.is_tree else None, inside)
        blobs = {path: blob for path, blob in here.items() if blob is not None}
        for name in blobs:
            is_directory = name in known and known[name].is_tree
            if subtrees.get(name) is not None or (is_directory and name not in subtrees):
                raise InvalidError(f"{name.decode()!r} is a directory")
        if not (known.keys() - subtrees.keys()) | blobs.keys() and not any(subtrees.values()):
            return None
        return self.tree(tree, blobs, {name: below for name, below in subtrees.items() if name not in blobs})
