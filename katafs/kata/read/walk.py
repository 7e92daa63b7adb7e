"""A walk back through a history that can stop anywhere: the next one goes on from there, and a later tip's joins it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from katafs.git import Commit, GitRepo, Oid
from katafs.git.budget import STEP

_T = TypeVar("_T")


@dataclass
class _Walk(Generic[_T]):
    """From ``tip`` to ``at`` (the next commit; None: the first one has been looked at) ``found`` is what there is."""

    tip: Oid
    at: Oid | None
    found: dict[str, _T]


class Walk(Generic[_T]):
    """What is found by name in all commits up to a tip by first parents: ``join(value, earlier)`` is that of a name in
    two parts."""

    def __init__(self, join: Callable[[_T, _T], _T]):
        self._join = join
        # the newest, and one that it may come to
        self._walks: list[_Walk[_T]] = []

    def found(self, repo: GitRepo, tip: Oid, look: Callable[[Commit, dict[str, _T]], None]) -> dict[str, _T]:
        """All of it; ``look(commit, found)`` adds that of an earlier commit, the same each time. It is not kept: who
        has a walk would be in a cycle with it, and so in memory until Python looks for cycles. Raises `HeavyError` when
        the budget is used up, which the next call goes on from."""
        if not self._walks or self._walks[0].tip != tip:
            self._walks = [_Walk(tip, tip, {}), *self._walks[-1:]]
        walk = self._walks[0]
        while walk.at is not None:
            if len(self._walks) > 1 and walk.at == self._walks[1].tip:
                earlier = self._walks.pop()
                for name, value in earlier.found.items():
                    walk.found[name] = self._join(walk.found[name], value) if name in walk.found else value
                walk.at = earlier.at
                continue
            repo.budget.spend(STEP)
            commit = repo.commit(walk.at)
            look(commit, walk.found)
            walk.at = commit.parents[0] if commit.parents else None
        return walk.found

    @property
    def so_far(self) -> dict[str, _T]:
        """What the last call found, all or not."""
        return self._walks[0].found if self._walks else {}

    def discard(self) -> None:
        self._walks = []
