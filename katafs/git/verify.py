"""Every object that some commits reach is read and compared with its id; what is damaged does not end the walk."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from katafs.errors import DamagedError
from katafs.git.objects import BLOB, COMMIT, TAG, TREE, Oid
from katafs.git.repo import TREE_ENTRY, GitRepo, commit_links

_TAGGED = re.compile(rb"object ([0-9a-f]{40})\ntype (commit|tree|blob|tag)\n")
_TAGGED_KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
KIND_WORDS = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
# a tree can name another many times, so that a few small ones can hold 10^10 paths
_MOST_PATHS, _DEEPEST = 100, 64


class Damage(NamedTuple):
    """An object that is reached and cannot be read."""

    oid: Oid
    kind: int
    is_missing: bool
    why: str


def verify(repo: GitRepo, tips: Iterable[Oid], seen: set[Oid]) -> Iterator[Damage]:
    """Read every object once that the tips reach and that is not in ``seen``, which grows. A tip can be any object."""
    objects = repo.objects
    waiting: list[tuple[Oid, int]] = [(tip, 0) for tip in tips]
    while waiting:
        oid, kind = waiting.pop()
        if oid in seen:
            continue
        seen.add(oid)
        try:
            if kind == BLOB:
                objects.check(oid, BLOB)
                continue
            if not kind:
                kind, data = objects.read_any(oid, strictly=True)
            else:
                data = objects.read(oid, kind, strictly=True)
            waiting += _links(kind, data)
        except DamagedError as error:
            yield Damage(oid, kind or COMMIT, oid not in objects, str(error).rpartition(f"{oid.hex()} ")[2])


def _links(kind: int, data: bytes) -> list[tuple[Oid, int]]:
    """Id and kind of what an object refers to. Raises `DamagedError`."""
    if kind == COMMIT:
        tree, parents = commit_links(data)
        return [(tree, TREE), *((parent, COMMIT) for parent in parents)]
    if kind == TREE:
        return [(oid, TREE if is_tree else BLOB) for _, is_tree, oid in _entries(data)]
    tagged = _TAGGED.match(data) if kind == TAG else None
    return [(bytes.fromhex(tagged[1].decode()), _TAGGED_KINDS[tagged[2]])] if tagged else []


def _entries(tree: bytes) -> Iterator[tuple[bytes, bool, Oid]]:
    """Name, whether it is a tree, and id of each entry; submodules, which are elsewhere, are left out."""
    end = 0
    for entry in TREE_ENTRY.finditer(tree):
        if entry.start() != end:
            break
        end = entry.end()
        bits = int(entry[1], 8)
        if stat.S_ISDIR(bits) or stat.S_ISREG(bits) or stat.S_ISLNK(bits):
            yield entry[2], stat.S_ISDIR(bits), entry[3]
    if end != len(tree):
        raise DamagedError("a tree is damaged")


class Whereabouts:
    """Where in the trees of commits some objects are."""

    def __init__(self, repo: GitRepo, wanted: Collection[Oid]) -> None:
        self._repo = repo
        self._wanted = frozenset(wanted)
        self._known: dict[Oid, tuple[tuple[Oid, bytes], ...]] = {}

    def below(self, tree: Oid, depth: int = 0) -> tuple[tuple[Oid, bytes], ...]:
        """Id and path of the wanted objects below a tree, at most 100; a tree's own path is that with a ``/``."""
        known = self._known.get(tree)
        if known is None:
            found = [(tree, b"")] if tree in self._wanted else []
            try:
                data = self._repo.objects.read(tree, TREE) if depth < _DEEPEST else b""
                for name, is_tree, oid in _entries(data):
                    if is_tree:
                        found += [(inner, name + b"/" + path) for inner, path in self.below(oid, depth + 1)]
                    elif oid in self._wanted:
                        found.append((oid, name))
            except DamagedError:
                pass  # that it cannot be read is known
            known = self._known[tree] = tuple(found[:_MOST_PATHS])
        return known
