"""What became of every file from one event to another, with whole contents: what a page or a report of a step shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from katafs.errors import HeavyError
from katafs.git import GitRepo, Oid
from katafs.git.diff.patch import Delta, Region, Side, changed_regions, is_binary
from katafs.git.diff.renames import git_deltas
from katafs.kata.model.trees import Listing
from katafs.text import brief, decode

_MOST_NAMED = 100  # files that differ
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
    """One file: ``kind`` is ``created deleted renamed changed unchanged``. A renamed file may have changed as well.
    ``regions`` has the lines that differ, as git numbers them; it is empty where a content is not there, too large or
    binary."""

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
        return lines_added(self.regions)

    @property
    def deleted(self) -> int:
        return lines_deleted(self.regions)


def pairs(repo: GitRepo, deltas: list[Delta], now: Oid | None) -> Iterator[tuple[str, Side | None, Side | None]]:
    """Kind and both sides of all files of two trees: of those that differ, then of the others in the tree ``now``."""
    yield from _kinds(deltas)
    changed = {delta.new.path for delta in deltas if delta.new is not None}
    for path, oid in Listing(repo, now).blobs():
        if path not in changed:
            side = Side(path, 0, oid)
            yield "unchanged", side, side


def _kinds(deltas: list[Delta]) -> Iterator[tuple[str, Side | None, Side | None]]:
    for old, new in deltas:
        if old is None or new is None:
            yield "created" if old is None else "deleted", old, new
        else:
            yield "renamed" if old.path != new.path else "changed", old, new


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
    """All files of two ``files/`` trees: those that differ as ``git diff`` pairs them, then the unchanged ones. Raises
    `DamagedError` when an object that is needed cannot be read."""
    for kind, *sides in pairs(repo, git_deltas(repo, was, now), now):
        old, new = (_content(repo, side) if side is not None else None for side in sides)
        before, after = (side.data if side is not None else b"" for side in (old, new))
        regions: list[Region] = []
        if before is not None and after is not None and before != after and not (is_binary(before) or is_binary(after)):
            regions = list(changed_regions(before, after, ignore_trailing_space=False))
        yield FileChange(kind, old, new, tuple(regions))


def changed_names(repo: GitRepo, was: Oid | None, now: Oid | None) -> list[tuple[str, str]] | None:
    """What became of the files that differ (the kind of a `FileChange`), and their names, safe to show in one line.
    None where there are too many to look for renames among them. Raises `DamagedError`."""
    try:
        deltas = git_deltas(repo, was, now, most=_MOST_NAMED, most_moved=_MOST_NAMED)
    except HeavyError:
        return None
    named = [(kind, [side.path for side in sides if side is not None]) for kind, *sides in _kinds(deltas)]
    return [(kind, " → ".join(brief(decode(path)) for path in dict.fromkeys(paths))) for kind, paths in named]


def _content(repo: GitRepo, side: Side) -> SideContent:
    if side.is_submodule:
        text = submodule_text(side)
        return SideContent(side.path, len(text), text)
    size = repo.blob_size(side.oid)
    return SideContent(side.path, size, repo.blob(side.oid) if size <= MAX_SHOWN else None)
