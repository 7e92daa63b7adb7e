"""Reading one git repository: references, commits, trees, blobs.

Object ids are 20 raw bytes (`Oid`), names and paths are bytes, as git stores them. A `GitRepo` belongs to one thread.
Nothing in a repository's configuration is obeyed: see `katafs.git.__init__`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from katafs.caching import Newest
from katafs.errors import DamagedError, KataError, NotFoundError, unreadable
from katafs.git.budget import REFERENCE_BYTE, STEP, TREE_BYTE, Budget
from katafs.git.inside import open_inside
from katafs.git.objects import BLOB, COMMIT, IN_MEMORY, TAG, TREE, Objects, Oid

_PACKED = re.compile(rb"^([0-9a-f]{40}) (\S+)$", re.MULTILINE)
# git's object format: the lines of a commit before its author, and those of an annotated tag
_COMMIT_HEAD = re.compile(rb"tree [0-9a-f]{40}\n(?:parent [0-9a-f]{40}\n)*")
_COMMITTER = re.compile(rb"^committer .* (-?[0-9]{1,15}) [+-][0-9]+$", re.MULTILINE)
_TAG_HEAD = re.compile(rb"object ([0-9a-f]{40})\ntype commit\n")

MODE_TREE = 0o040000
MODE_BLOB = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_SYMLINK = 0o120000
MODE_SUBMODULE = 0o160000

MAIN = "refs/heads/main"
# an event has some 100 bytes there, and a commit; a request must not take seconds
_MOST_PACKED = 16 << 20  # bytes: some 250,000 references
_MOST_COMMITS = 100_000
# mode, name and id
TREE_ENTRY = re.compile(rb"([0-7]{1,7}) ([^\0]+)\0(.{20})", re.DOTALL)
# of those that were read last
_MOST_TREES, _SMALL_TREE = 12, 64
_MOST_COMMITS_KEPT, _SHORT_MESSAGE = 8, 4096
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

    Opening costs some 30 µs and keeps no file open until a pack is read. ``largest``, ``budget``: see `Objects`."""

    def __init__(self, path: Path, *, largest: int = IN_MEMORY, budget: Budget | None = None) -> None:
        self.path = path
        self.git_dir = path / ".git"
        self.objects = Objects(self.git_dir, largest=largest, budget=budget)
        self.budget = self.objects.budget
        self._references = self.objects.real_git_dir + "/"
        # who looks at an event reads its trees several times, one question after the other
        self._trees: Newest[Oid, list[TreeEntry]] = Newest(_MOST_TREES)
        self._commits: Newest[Oid, Commit] = Newest(_MOST_COMMITS_KEPT)
        self._packed: tuple[tuple[int, int, int], dict[bytes, Oid]] = ((0, 0, 0), {})

    # -- references

    def main(self) -> Oid | None:
        """The tip of ``refs/heads/main`` as it is on disk now, read in 4 µs; None when there is no such branch."""
        return self._reference(MAIN)

    def tag(self, index: int) -> Oid | None:
        """What the tag ``index`` refers to, or None when there is none that can be read. Never by rev-parse."""
        try:
            return self._reference(f"refs/tags/{index}")
        except DamagedError:
            return None

    def _reference(self, name: str) -> Oid | None:
        """The id in a reference: its own file, else its line in ``packed-refs``. Raises `DamagedError`."""
        try:
            fd = open_inside(self._references + name)
        except (FileNotFoundError, NotADirectoryError):
            return self._packed_references().get(name.encode())
        except OSError as error:
            raise unreadable(f"{self.git_dir}: reference {name} cannot be read", error) from error
        try:
            text = os.read(fd, 41)
        except OSError as error:
            raise unreadable(f"{self.git_dir}: reference {name} cannot be read", error) from error
        finally:
            os.close(fd)
        if not _HEX40.match(text):
            raise DamagedError(f"{self.git_dir}: reference {name} is no id")
        return bytes.fromhex(text[:40].decode())

    def _packed_references(self) -> dict[bytes, Oid]:
        """What ``packed-refs`` says: lines of ``<id> SP <name>`` (git's gitrepository-layout)."""
        path = self._references + "packed-refs"
        try:
            status = os.stat(path, follow_symlinks=False)
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._packed[0] != version:
                self.budget.spend(status.st_size * REFERENCE_BYTE)
                found = _PACKED.findall(_read_packed_references(path))
                self._packed = (version, {name: bytes.fromhex(oid.decode()) for oid, name in found})
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise unreadable(f"{self.git_dir}: packed-refs cannot be read", error) from error
        return self._packed[1]

    # -- objects

    def missing(self, what: str) -> KataError:
        """What to raise when something is not there: is it that, or the whole repository?"""
        return self.objects.missing(what)

    def blob(self, oid: Oid) -> bytes:
        """All bytes of a blob."""
        return self.objects.read(oid, BLOB)

    def blob_size(self, oid: Oid) -> int:
        """The size of a blob in bytes, without reading it."""
        return self.objects.size(oid)

    def tree(self, oid: Oid) -> list[TreeEntry]:
        """The entries of a tree in git order, not to be changed. Names that a file system cannot show are left out.

        The object format is git's ``<octal mode> SP <name> NUL <20 bytes>``, repeated.
        """
        known = self._trees.get(oid)
        if known is not None:
            return known
        data = self.objects.read(oid, TREE)
        self.budget.spend(len(data) * TREE_BYTE)
        found = TREE_ENTRY.findall(data)
        if not _is_whole(found, data):
            found = self._odd_entries(oid, data)
        first: dict[bytes, TreeEntry] = {}
        for mode, name, entry in found:
            if is_component(name):
                first.setdefault(name, TreeEntry(name, int(mode, 8), entry))
        entries = list(first.values())
        if len(entries) <= _SMALL_TREE:
            self._trees.keep(oid, entries)
        return entries

    def _odd_entries(self, oid: Oid, data: bytes) -> list[tuple[bytes, bytes, Oid]]:
        """Mode, name and id of the entries of a tree that git would not write."""
        found: list[tuple[bytes, bytes, Oid]] = []
        at = 0
        try:
            while at < len(data):
                space = data.index(b" ", at)
                end = data.index(b"\0", space)
                int(data[at:space], 8)
                if len(data) >= end + 21:
                    found.append((data[at:space], data[space + 1 : end], data[end + 1 : end + 21]))
                at = end + 21
        except ValueError as error:
            raise DamagedError(f"{self.git_dir}: tree {oid.hex()} is damaged") from error
        return found

    def tree_as_stored(self, oid: Oid) -> list[tuple[bytes, bytes, Oid]]:
        """Mode, name and id of all entries of a tree, odd ones too. Raises `DamagedError`."""
        data = self.objects.read(oid, TREE)
        entries = TREE_ENTRY.findall(data)
        if not _is_whole(entries, data):
            raise DamagedError(f"{self.git_dir}: tree {oid.hex()} is damaged")
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
        """One commit; of an annotated tag the commit that it stands for."""
        if (known := self._commits.get(oid)) is None:
            known = self._read_commit(oid)
            if len(known.message) <= _SHORT_MESSAGE:
                self._commits.keep(oid, known)
        return known

    def _read_commit(self, oid: Oid) -> Commit:
        kind, data = self.objects.read_any(oid)
        if kind == TAG and (tagged := _TAG_HEAD.match(data)):
            oid = bytes.fromhex(tagged[1].decode())
            kind, data = COMMIT, self.objects.read(oid, COMMIT)
        head, _, message = data.partition(b"\n\n")
        committer = _COMMITTER.search(head)
        if kind != COMMIT or committer is None:
            raise DamagedError(f"{self.git_dir}: {oid.hex()} is not a commit")
        tree, parents = commit_links(data)
        return Commit(oid, tree, parents, int(committer[1]), message)

    def history(self, tip: Oid) -> Iterator[Commit]:
        """The commits from ``tip`` back to the first, by first parents. Raises `DamagedError` where they do not end."""
        oid: Oid | None = tip
        for _ in range(_MOST_COMMITS):
            if oid is None:
                return
            self.budget.spend(STEP)
            commit = self.commit(oid)
            yield commit
            oid = commit.parents[0] if commit.parents else None
        raise DamagedError(f"{self.git_dir}: there are more than {_MOST_COMMITS} commits")

    def commit_of_event(self, tip: Oid, index: int) -> Commit:
        """The commit of event ``index``: its tag's, else the one whose subject starts with ``index`` and a blank,
        else, for an outage, the earliest commit of a later event (FORMAT: reader recipe).

        Raises `NotFoundError` when there is none.
        """
        # a tag of a moment before a power cut may be an empty file
        with contextlib.suppress(DamagedError):
            tagged = self.tag(index)
            if tagged is not None:
                return self.commit(tagged)
        best: Commit | None = None
        for commit in self.history(tip):
            word = commit.subject.split(b" ", 1)[0]
            if not word.isdigit() or len(word) > 9:
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

    def commits_of_events(self, tip: Oid, first: int, last: int) -> dict[int, Oid]:
        """The commits of the events ``first … last`` by their subjects alone, as `commit_of_event` finds them when they
        have no tags: in one walk. Those that have none are left out."""
        found: dict[int, Oid] = {}
        later: Oid | None = None
        for commit in self.history(tip):
            word = commit.subject.split(b" ", 1)[0]
            if not word.isdigit() or len(word) > 9:
                continue
            # what was skipped has the commit of the event after it
            while last > int(word) and last >= first:
                found |= {last: later} if later is not None else {}
                last -= 1
            later = commit.oid
            if last < first:
                return found
        return found | (dict.fromkeys(range(first, last + 1), later) if later is not None else {})


def _is_whole(entries: list[tuple[bytes, bytes, Oid]], data: bytes) -> bool:
    """Whether these entries are all of a tree's data."""
    return sum(len(mode) + len(name) + 22 for mode, name, _ in entries) == len(data)


def _read_packed_references(path: str) -> bytes:
    with open(path, "rb", opener=open_inside) as file:
        text = file.read(_MOST_PACKED + 1)
    if len(text) > _MOST_PACKED:
        raise OSError(errno.EFBIG, "it is too large", path)
    return text


def commit_links(data: bytes) -> tuple[Oid, tuple[Oid, ...]]:
    """The tree and the parents of a commit object. Raises `DamagedError`."""
    head = _COMMIT_HEAD.match(data)
    if head is None:
        raise DamagedError("a commit has no tree")
    tree, *parents = [bytes.fromhex(line.split(b" ")[1].decode()) for line in head[0].splitlines()]
    return tree, tuple(parents)


def open_plain(path: str, flags: int) -> int:
    """An opener for ``open`` that follows no link and waits for nothing."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def is_component(name: bytes) -> bool:
    """Whether ``name`` can be one name in a directory: not empty, dots, too long, or with a ``/`` or NUL in it."""
    return 0 < len(name) <= 255 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name
