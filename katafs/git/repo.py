"""Reading one git repository: references, commits, trees, blobs.

Object ids are 20 raw bytes (`Oid`), names and paths are bytes, as git stores them. A `GitRepo` belongs to one thread.
Nothing in a repository's configuration is obeyed: see `katafs.git.__init__`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from katafs.caching import Newest
from katafs.errors import DamagedError, NotFoundError
from katafs.git import budget as costs
from katafs.git.budget import Budget
from katafs.git.format import stored
from katafs.git.format.stored import BLOB, COMMIT, MODE_TREE, TAG, TREE, Commit, Oid, TreeEntry
from katafs.git.odb.objects import IN_MEMORY, Objects
from katafs.git.refs.reading import References

# an event has some 100 bytes there, and a commit; a request must not take seconds
_MOST_COMMITS = 100_000
# of those that were read last
_MOST_TREES, _SMALL_TREE = 12, 64
_MOST_COMMITS_KEPT, _SHORT_MESSAGE, _FEW_PARENTS = 8, 4096, 16
# of a repository that is kept for later; a reader of each takes 1.4 KiB
_FEW_PACKS = 100
# that are looked at together
_FEW_TAGS = 16
# annotated tags of annotated tags
_DEEPEST_TAG = 8


class GitRepo:
    """A repository at ``path`` (the directory that holds ``.git``), opened for reading. Opening costs about 30 µs and
    keeps no file open until a pack is read. ``largest`` and ``budget`` are those of its `Objects`."""

    def __init__(self, path: Path, *, largest: int = IN_MEMORY, budget: Budget | None = None) -> None:
        self.path = path
        self.git_dir = path / ".git"
        self.objects = Objects(self.git_dir, largest=largest, budget=budget)
        self.refs = References(self.objects.real_git_dir, budget)
        self.budget = self.objects.budget
        # who looks at an event reads its trees several times, one question after the other
        self._trees: Newest[Oid, list[TreeEntry]] = Newest(_MOST_TREES)
        self._commits: Newest[Oid, Commit] = Newest(_MOST_COMMITS_KEPT)
        self._tags: dict[int, Oid] = {}

    def is_small(self) -> bool:
        """Whether what is remembered takes little memory: what there is to be read is its owner's choice."""
        return len(self.objects.packs) <= _FEW_PACKS and self.refs.is_small()

    def main(self) -> Oid | None:
        """The tip of ``refs/heads/main`` as it is on disk now, read in 4 µs; None when there is no such branch."""
        self._tags = {}
        return self.refs.main()

    def tag(self, index: int) -> Oid | None:
        return self._tags.get(index) or self.refs.tag(index)

    def look_at_tags(self, indexes: range) -> None:
        """Find several tags together, and some that follow, for who asks for them before `main` is read again."""
        if any(index not in self._tags for index in indexes):
            start, step = indexes.start, indexes.step
            self._tags = self.refs.tags(range(start, start + step * max(len(indexes), _FEW_TAGS), step))

    def blob(self, oid: Oid) -> bytes:
        return self.objects.read(oid, BLOB)

    def blob_size(self, oid: Oid) -> int:
        """The size of a blob in bytes, without reading it, unless it is small: see `Objects.size`."""
        return self.objects.size(oid)

    def tree(self, oid: Oid) -> list[TreeEntry]:
        """The entries of a tree in git order, not to be changed. Names that a file system cannot show are left out."""
        known = self._trees.get(oid)
        if known is not None:
            return known
        data = self.objects.read(oid, TREE)
        self.budget.spend(costs.TREE_BYTE * len(data))
        try:
            entries = stored.tree_entries(data)
        except ValueError as error:
            raise DamagedError(f"{self.git_dir}: tree {oid.hex()} is damaged") from error
        if len(entries) <= _SMALL_TREE:
            self._trees.keep(oid, entries)
        return entries

    def entry(self, tree: Oid, path: bytes) -> TreeEntry | None:
        """The entry at ``path`` (components separated by ``/``) below a tree, or None."""
        found = TreeEntry(b"", MODE_TREE, tree)
        for name in path.split(b"/"):
            if not found.is_tree:
                return None
            entry = next((entry for entry in self.tree(found.oid) if entry.name == name), None)
            if entry is None:
                return None
            found = entry
        return found

    def commit(self, oid: Oid) -> Commit:
        """One commit; of an annotated tag the commit that it stands for."""
        if (known := self._commits.get(oid)) is not None:
            return known
        asked, (kind, data) = oid, self.objects.read_any(oid)
        for _ in range(_DEEPEST_TAG):
            if kind != TAG or (target := stored.tag_target(data)) is None:
                break
            oid = target[0]
            kind, data = self.objects.read_any(oid)
        if kind != COMMIT:
            raise self.objects.wrong_kind(oid, kind, COMMIT)
        try:
            commit = stored.parse_commit(oid, data)
        except ValueError as error:
            raise DamagedError(f"{self.git_dir}: {oid.hex()} is not a commit: {error}") from error
        if len(commit.message) <= _SHORT_MESSAGE and len(commit.parents) <= _FEW_PARENTS:
            self._commits.keep(asked, commit)
        return commit

    def links(self, oid: Oid) -> tuple[Oid, tuple[Oid, ...]]:
        """The tree and the parents of a commit. Raises `DamagedError`."""
        try:
            return stored.commit_links(self.objects.read(oid, COMMIT))
        except ValueError as error:
            raise DamagedError(f"{self.git_dir}: {oid.hex()} is not a commit: {error}") from error

    def history(self, tip: Oid) -> Iterator[Commit]:
        """The commits from ``tip`` back to the first, by first parents. Raises `DamagedError` where they do not end."""
        oid: Oid | None = tip
        for _ in range(_MOST_COMMITS):
            if oid is None:
                return
            self.budget.spend(costs.STEP)
            commit = self.commit(oid)
            yield commit
            oid = commit.parents[0] if commit.parents else None
        raise DamagedError(f"{self.git_dir}: there are more than {_MOST_COMMITS} commits")

    def commit_of_event(self, tip: Oid, index: int) -> Commit:
        """The commit of event ``index``: its tag's, else the one whose subject starts with ``index`` and a blank, else,
        for an outage, the earliest commit of a later event (FORMAT: reader recipe). Raises `NotFoundError` when there
        is none."""
        # a tag of a moment before a power cut may be an empty file
        with contextlib.suppress(DamagedError):
            tagged = self.tag(index)
            if tagged is not None:
                return self.commit(tagged)
        if not (found := self.commits_of_events(tip, index, index)):
            raise NotFoundError(f"{self.git_dir}: no commit for event {index}")
        return self.commit(found[index])

    def commits_of_events(self, tip: Oid, first: int, last: int) -> dict[int, Oid]:
        """The commits of the events ``first … last`` by their subjects alone, as `commit_of_event` finds them when they
        have no tags: in one walk. Those that have none are left out."""
        found: dict[int, Oid] = {}
        later: Oid | None = None
        for commit in self.history(tip):
            if (number := commit.event) is None:
                continue
            # what was skipped has the commit of the event after it
            while last >= max(first, number):
                oid = commit.oid if last == number else later
                found |= {last: oid} if oid is not None else {}
                last -= 1
            later = commit.oid
            if last < first:
                return found
        return found | (dict.fromkeys(range(first, last + 1), later) if later is not None else {})
