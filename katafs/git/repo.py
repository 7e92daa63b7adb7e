"""Reading one git repository: references, commits, trees, blobs.

Object ids are 20 raw bytes (`Oid`), names and paths are bytes, as git stores them. A `GitRepo` belongs to one thread.
Nothing in a repository's configuration is obeyed: see `katafs.git.__init__`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pygit2

from katafs.errors import DamagedError, NotFoundError

Oid = bytes

MODE_TREE = 0o040000
MODE_BLOB = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_SYMLINK = 0o120000
MODE_SUBMODULE = 0o160000

MAIN = "refs/heads/main"
_HEX40 = re.compile(rb"[0-9a-f]{40}")


class TreeEntry(NamedTuple):
    """One entry of a tree object, its mode as stored (which may be odd in a hostile repository)."""

    name: bytes
    mode: int
    oid: Oid

    @property
    def is_tree(self) -> bool:
        return self.mode & 0o170000 == MODE_TREE

    @property
    def is_submodule(self) -> bool:
        return self.mode & 0o170000 == MODE_SUBMODULE


class Commit(NamedTuple):
    """The parts of a commit that katafs uses; `time` is the committer's, in seconds since the epoch."""

    oid: Oid
    tree: Oid
    parents: tuple[Oid, ...]
    time: int
    message: bytes

    @property
    def subject(self) -> bytes:
        return self.message.split(b"\n", 1)[0]


class GitRepo:
    """A repository at ``path`` (the directory that holds ``.git``), opened for reading.

    Opening costs about 50 µs and keeps no file open until a pack is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git_dir = path / ".git"
        try:
            # NO_SEARCH, so that a damaged kata is never taken for a repository around the store
            self._repo = pygit2.Repository(str(self.git_dir), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)
        except (pygit2.GitError, KeyError) as error:
            raise DamagedError(f"{self.git_dir} is not a readable git repository: {error}") from error
        self._odb = self._repo.odb
        self._main_file = os.fspath(self.git_dir / MAIN)
        self._tag_files = os.fspath(self.git_dir / "refs" / "tags") + "/"

    @property
    def raw(self) -> pygit2.Repository:
        """The pygit2 object, for the other modules of this package only."""
        return self._repo

    # -- references

    def main(self) -> Oid | None:
        """The tip of ``refs/heads/main`` as it is on disk now; None when there is no such branch.

        The loose file is read directly: 4 µs, and no cache that could be out of date.
        """
        return self._read_loose(self._main_file) or self._reference(MAIN)

    def tag(self, index: int) -> Oid | None:
        """The commit of the tag ``index``, or None. Never by rev-parse, where ``12`` may be the start of an id."""
        return self._read_loose(f"{self._tag_files}{index}") or self._reference(f"refs/tags/{index}")

    def tags(self) -> dict[int, Oid]:
        """All tags that are event numbers, with their commits, in order."""
        found: dict[int, Oid] = {}
        for name in self._repo.raw_listall_references():
            number = name.removeprefix(b"refs/tags/")
            if number != name and number.isdigit() and str(int(number)).encode() == number:
                oid = self._reference(name.decode())
                if oid is not None:
                    found[int(number)] = oid
        return dict(sorted(found.items()))

    @staticmethod
    def _read_loose(path: str) -> Oid | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            text = os.read(fd, 41)
        except OSError:
            return None
        finally:
            os.close(fd)
        return bytes.fromhex(text[:40].decode()) if _HEX40.match(text) else None

    def _reference(self, name: str) -> Oid | None:
        try:
            reference = self._repo.lookup_reference(name).resolve()
            return bytes(reference.peel(pygit2.Commit).id.raw)
        except (KeyError, ValueError):
            return None
        except pygit2.GitError as error:
            raise DamagedError(f"{self.git_dir}: reference {name} is unreadable: {error}") from error

    # -- objects

    def _read(self, oid: Oid, expected: int, word: str) -> bytes:
        try:
            kind, data = self._repo.read(pygit2.Oid(raw=oid))
        except KeyError as error:
            raise DamagedError(f"{self.git_dir}: {word} {oid.hex()} is missing") from error
        except (pygit2.GitError, OSError, ValueError) as error:
            raise DamagedError(f"{self.git_dir}: {word} {oid.hex()} is damaged: {error}") from error
        if kind != expected:
            raise DamagedError(f"{self.git_dir}: {oid.hex()} is not a {word}")
        return data

    def blob(self, oid: Oid) -> bytes:
        """All bytes of a blob."""
        return self._read(oid, pygit2.enums.ObjectType.BLOB, "blob")

    def blob_size(self, oid: Oid) -> int:
        """The size of a blob in bytes, from its header: 7 µs loose, 1 µs packed."""
        try:
            return int(self._odb.read_header(pygit2.Oid(raw=oid))[1])
        except KeyError as error:
            raise DamagedError(f"{self.git_dir}: blob {oid.hex()} is missing") from error
        except (pygit2.GitError, OSError, ValueError) as error:
            raise DamagedError(f"{self.git_dir}: blob {oid.hex()} is damaged: {error}") from error

    def tree(self, oid: Oid) -> list[TreeEntry]:
        """The entries of a tree in git order. Names that a file system cannot show are left out.

        The object format is git's ``<octal mode> SP <name> NUL <20 bytes>``, repeated.
        """
        data = self._read(oid, pygit2.enums.ObjectType.TREE, "tree")
        entries: list[TreeEntry] = []
        seen: set[bytes] = set()
        at = 0
        try:
            while at < len(data):
                space = data.index(b" ", at)
                end = data.index(b"\0", space)
                name = data[space + 1 : end]
                entry = TreeEntry(name, int(data[at:space], 8), data[end + 1 : end + 21])
                at = end + 21
                if len(entry.oid) == 20 and is_component(name) and name not in seen:
                    seen.add(name)
                    entries.append(entry)
        except ValueError as error:
            raise DamagedError(f"{self.git_dir}: tree {oid.hex()} is damaged") from error
        return entries

    def entry(self, tree: Oid, path: bytes) -> TreeEntry | None:
        """The entry at ``path`` (components separated by ``/``) below a tree, or None."""
        found: TreeEntry | None = None
        for name in path.split(b"/"):
            if found is not None:
                if not found.is_tree:
                    return None
                tree = found.oid
            found = next((entry for entry in self.tree(tree) if entry.name == name), None)
            if found is None:
                return None
        return found

    def commit(self, oid: Oid) -> Commit:
        """One commit."""
        try:
            commit = self._repo[pygit2.Oid(raw=oid)].peel(pygit2.Commit)
        except KeyError as error:
            raise DamagedError(f"{self.git_dir}: commit {oid.hex()} is missing") from error
        except (pygit2.GitError, ValueError) as error:
            raise DamagedError(f"{self.git_dir}: commit {oid.hex()} is damaged, or no commit: {error}") from error
        parents = tuple(bytes(parent.raw) for parent in commit.parent_ids)
        return Commit(oid, bytes(commit.tree_id.raw), parents, commit.commit_time, commit.raw_message)

    def history(self, tip: Oid) -> Iterator[Commit]:
        """The commits from ``tip`` back to the first, by first parents."""
        oid: Oid | None = tip
        while oid is not None:
            commit = self.commit(oid)
            yield commit
            oid = commit.parents[0] if commit.parents else None

    def commit_of_event(self, tip: Oid, index: int) -> Commit:
        """The commit of event ``index``: its tag's, else the one whose subject starts with ``index`` and a blank,
        else, for an outage, the earliest commit of a later event (FORMAT: reader recipe).

        Raises `NotFoundError` when there is none.
        """
        tagged = self.tag(index)
        if tagged is not None:
            return self.commit(tagged)
        best: Commit | None = None
        for commit in self.history(tip):
            word = commit.subject.split(b" ", 1)[0]
            if not word.isdigit():
                continue
            number = int(word)
            if number == index:
                return commit
            if number < index:
                break
            best = commit
        if best is None:
            raise NotFoundError(f"{self.git_dir}: no commit for event {index}")
        return best


def is_component(name: bytes) -> bool:
    """Whether ``name`` can be one name in a directory: not empty, dots, too long, or with a ``/`` or NUL in it."""
    return 0 < len(name) <= 255 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name
