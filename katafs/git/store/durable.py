"""What others have stored may not be on disk: git does not sync loose objects, nor directories (core.fsync).

An event that builds on such objects would be lost with them by a power cut. So whoever records on a commit first makes
sure of all that it reaches: back to the commits that are in a pack of ours, since before one of those was written the
same was done. What is loose is stored again, in the pack of the event; packs are synced. So it is done once for each.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from katafs.errors import DamagedError
from katafs.git.format.stored import Oid, TreeEntry
from katafs.git.odb.packs import OURS
from katafs.git.repo import GitRepo
from katafs.git.store.storing import sync_directory, sync_path

# objects, and bytes of them: beyond it all disks are synced, which is sooner done
_MOST, _MOST_BYTES = 20_000, 64 << 20
# each of them is looked for in all packs: of more than so many it is fewer objects
_PACKS = 32


def make_durable(repo: GitRepo, tip: Oid) -> dict[Oid, tuple[int, bytes]]:
    """See to it that all that a commit reaches is on disk, but for what is returned, kind and data by id: this is to be
    stored. What is damaged already is left as it is. Raises OSError when something cannot be synced."""
    packs: set[str] = set()
    again: dict[Oid, tuple[int, bytes]] = {}
    size = 0
    most = _MOST * _PACKS // max(_PACKS, repo.objects.packs.refresh())
    for count, (oid, stems) in enumerate(_unsure(repo, tip)):
        if count > most or size > _MOST_BYTES:
            os.sync()
            return {}
        if any(stem.startswith(OURS) for stem in stems):
            continue
        packs.update(stems[:1])
        if not stems:
            try:
                again[oid] = repo.objects.read_any(oid)
                size += len(again[oid][1])
            except DamagedError:
                # it may only be too large for our memory
                sync_loose(repo, oid)
    for stem in packs:
        for suffix in (".pack", ".idx"):
            with contextlib.suppress(FileNotFoundError):
                sync_path(repo.objects.pack_directory / f"{stem}{suffix}")
    if packs:
        sync_directory(repo.objects.pack_directory)
    return again


def sync_loose(repo: GitRepo, oid: Oid) -> None:
    """Sync an object that has a file of its own. Raises OSError."""
    path = Path(repo.objects.loose.path(oid))
    with contextlib.suppress(FileNotFoundError):
        for each in (path, path.parent, path.parent.parent):
            sync_path(each)


def _unsure(repo: GitRepo, tip: Oid) -> Iterator[tuple[Oid, list[str]]]:
    """The commits back to those in packs of ours, and what is in their trees and not in those of their parents; each
    with the packs that have it."""
    holders = repo.objects.packs.holders

    @functools.cache
    def links(commit: Oid) -> tuple[list[Oid], tuple[Oid, ...]]:
        with contextlib.suppress(DamagedError):
            tree, parents = repo.links(commit)
            return [tree], parents
        return [], ()

    waiting, seen = [tip], set[Oid]()
    while waiting:
        if (oid := waiting.pop()) in seen:
            continue
        stems = holders(oid)
        if any(stem.startswith(OURS) for stem in stems):
            continue
        seen.add(oid)
        yield oid, stems
        trees, parents = links(oid)
        waiting += parents
        before = [tree for parent in parents for tree in links(parent)[0]]
        for tree in trees:
            yield from ((below, holders(below)) for below in _new_below(repo, tree, before, seen))


def _new_below(repo: GitRepo, tree: Oid, before: list[Oid], seen: set[Oid]) -> Iterator[Oid]:
    """A tree and what is in it, but for what is at the same place in the trees ``before``."""
    waiting = [(tree, before)] if tree not in before else []
    while waiting:
        tree, before = waiting.pop()
        if tree in seen:
            continue
        seen.add(tree)
        yield tree
        known = [entry for each in before for entry in _entries(repo, each)]
        same = {entry.oid for entry in known}
        for entry in _entries(repo, tree):
            if entry.oid in same or entry.is_submodule:
                continue
            if entry.is_tree:
                waiting.append((entry.oid, [each.oid for each in known if each.is_tree and each.name == entry.name]))
            elif entry.oid not in seen:
                seen.add(entry.oid)
                yield entry.oid


def _entries(repo: GitRepo, tree: Oid) -> list[TreeEntry]:
    try:
        return repo.tree(tree)
    except DamagedError:
        return []
