"""What became of every file from one event to another, with whole contents: what a page or a report of a step shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from katafs.git import GitRepo, Oid
from katafs.git.diff.patch import Delta, Region, Side, changed_regions, is_binary
from katafs.git.diff.renames import git_deltas
from katafs.kata.listing import Listing

MAX_SHOWN = 1 << 20  # bytes: the contents of larger files are not read


@dataclass(frozen=True)
class Content:
    """One side of a file. ``data`` is None when it is too large, and ``is_binary`` is then not known."""

    name: bytes
    size: int
    data: bytes | None

    @property
    def is_binary(self) -> bool:
        return self.data is not None and is_binary(self.data)


@dataclass(frozen=True)
class FileChange:
    """One file: ``kind`` is ``created deleted renamed changed unchanged``.

    A renamed file may have changed as well. ``regions`` has the lines that differ, as git numbers them; it is empty
    where a content is not there, too large or binary.
    """

    kind: str
    old: Content | None
    new: Content | None
    regions: tuple[Region, ...]

    @property
    def shown(self) -> Content:
        """The newer side."""
        side = self.new or self.old
        return side if side is not None else Content(b"", 0, b"")

    @property
    def added(self) -> int:
        """How many lines were added."""
        return sum(region.new_end - region.new_start for region in self.regions)

    @property
    def deleted(self) -> int:
        """How many lines were deleted."""
        return sum(region.old_end - region.old_start for region in self.regions)


def file_changes(repo: GitRepo, was: Oid | None, now: Oid | None) -> Iterator[FileChange]:
    """All files of two ``files/`` trees: those that differ as ``git diff`` pairs them, then the unchanged ones.

    Raises `DamagedError` when an object that is needed cannot be read.
    """
    deltas = git_deltas(repo, was, now)
    for delta in deltas:
        yield _changed(repo, delta)
    changed = {delta.new.path for delta in deltas if delta.new is not None}
    listing = Listing(repo, now)
    for position in listing.files():
        path = listing.paths[position]
        if path not in changed:
            same = _content(repo, path, listing.entries[position].oid)
            yield FileChange("unchanged", same, same, ())


def _changed(repo: GitRepo, delta: Delta) -> FileChange:
    old, new = (_side(repo, side) if side is not None else None for side in delta)
    if old is None or new is None:
        kind = "created" if old is None else "deleted"
    else:
        kind = "renamed" if old.name != new.name else "changed"
    before, after = (side.data if side is not None else b"" for side in (old, new))
    if before is None or after is None or before == after or is_binary(before) or is_binary(after):
        return FileChange(kind, old, new, ())
    return FileChange(kind, old, new, tuple(changed_regions(before, after, ignore_trailing_space=False)))


def _side(repo: GitRepo, side: Side) -> Content:
    if side.is_submodule:
        text = b"Subproject commit %s\n" % side.oid.hex().encode()
        return Content(side.path, len(text), text)
    return _content(repo, side.path, side.oid)


def _content(repo: GitRepo, path: bytes, oid: Oid) -> Content:
    size = repo.blob_size(oid)
    return Content(path, size, repo.blob(oid) if size <= MAX_SHOWN else None)
