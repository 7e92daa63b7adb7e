"""What became of every file from one event to another, with whole contents: what a page or a report of a step shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from katafs.git import GitRepo, Oid
from katafs.git.diff.patch import Delta, Region, Side, changed_regions, is_binary
from katafs.git.diff.renames import git_deltas
from katafs.kata.model.listing import Listing

MAX_SHOWN = 1 << 20  # bytes: the contents of larger files are not read


@dataclass(frozen=True)
class SideContent:
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
    old: SideContent | None
    new: SideContent | None
    regions: tuple[Region, ...]

    @property
    def shown(self) -> SideContent:
        """The newer side."""
        side = self.new or self.old
        return side if side is not None else SideContent(b"", 0, b"")

    @property
    def added(self) -> int:
        """How many lines were added."""
        return lines_added(self.regions)

    @property
    def deleted(self) -> int:
        """How many lines were deleted."""
        return lines_deleted(self.regions)


def pairs(repo: GitRepo, deltas: list[Delta], now: Oid | None) -> Iterator[tuple[str, Side | None, Side | None]]:
    """Kind and both sides of all files of two trees: of those that differ, then of the others in the tree ``now``."""
    for old, new in deltas:
        if old is None or new is None:
            yield "created" if old is None else "deleted", old, new
        else:
            yield "renamed" if old.path != new.path else "changed", old, new
    changed = {delta.new.path for delta in deltas if delta.new is not None}
    for path, oid in Listing(repo, now).blobs():
        if path not in changed:
            side = Side(path, 0, oid)
            yield "unchanged", side, side


def submodule_text(side: Side) -> bytes:
    """What git shows as the content of a submodule."""
    return b"Subproject commit %s\n" % side.oid.hex().encode()


def lines_added(regions: Sequence[Region]) -> int:
    """How many lines of the new text are in regions."""
    return sum(region.new_end - region.new_start for region in regions)


def lines_deleted(regions: Sequence[Region]) -> int:
    """How many lines of the old text are in regions."""
    return sum(region.old_end - region.old_start for region in regions)


def file_changes(repo: GitRepo, was: Oid | None, now: Oid | None) -> Iterator[FileChange]:
    """All files of two ``files/`` trees: those that differ as ``git diff`` pairs them, then the unchanged ones.

    Raises `DamagedError` when an object that is needed cannot be read.
    """
    for kind, *sides in pairs(repo, git_deltas(repo, was, now), now):
        old, new = (_content(repo, side) if side is not None else None for side in sides)
        before, after = (side.data if side is not None else b"" for side in (old, new))
        regions: list[Region] = []
        if before is not None and after is not None and before != after and not (is_binary(before) or is_binary(after)):
            regions = list(changed_regions(before, after, ignore_trailing_space=False))
        yield FileChange(kind, old, new, tuple(regions))


def _content(repo: GitRepo, side: Side) -> SideContent:
    if side.is_submodule:
        text = submodule_text(side)
        return SideContent(side.path, len(text), text)
    size = repo.blob_size(side.oid)
    return SideContent(side.path, size, repo.blob(side.oid) if size <= MAX_SHOWN else None)
