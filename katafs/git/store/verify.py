"""Every object that some commits reach is read and compared with its id; what is damaged does not end the walk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from katafs.errors import DamagedError
from katafs.git.format.commit_object import links
from katafs.git.format.loose import BLOB, COMMIT, TREE, Oid
from katafs.git.format.tree_object import parse_tree
from katafs.git.repo import GitRepo

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
            waiting += [each[:2] for each in links(kind, data, seen, parse_tree)]
        except (DamagedError, ValueError) as error:
            yield Damage(oid, kind or COMMIT, not is_there(repo, oid), str(error).rpartition(f"{oid.hex()} ")[2])


def is_there(repo: GitRepo, oid: Oid) -> bool:
    """Whether there is such an object, whole or not."""
    try:
        return oid in repo.objects
    except DamagedError:
        return False


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
                for oid, kind, name in links(TREE, data, (), parse_tree):
                    if kind == TREE:
                        found += [(inner, name + path) for inner, path in self.below(oid, depth + 1)]
                    elif oid in self._wanted:
                        found.append((oid, name))
            except (DamagedError, ValueError):
                pass  # that it cannot be read is known
            known = self._known[tree] = tuple(found[:_MOST_PATHS])
        return known
