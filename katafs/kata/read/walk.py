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
    found: _T


class Walk(Generic[_T]):
    """What is found in all commits up to a tip by first parents: ``look(commit, found)`` adds that of an earlier one,
    ``join(found, earlier)`` all that is earlier."""

    def __init__(self, new: Callable[[], _T], look: Callable[[Commit, _T], None], join: Callable[[_T, _T], None]):
        self._new, self._look, self._join = new, look, join
        # the newest, and one that it may come to
        self._walks: list[_Walk[_T]] = []

    def found(self, repo: GitRepo, tip: Oid) -> _T:
        """All of it. Raises `HeavyError` when the budget is used up, which the next call goes on from."""
        if not self._walks or self._walks[0].tip != tip:
            self._walks = [_Walk(tip, tip, self._new()), *self._walks[-1:]]
        walk = self._walks[0]
        while walk.at is not None:
            if len(self._walks) > 1 and walk.at == self._walks[1].tip:
                earlier = self._walks.pop()
                self._join(walk.found, earlier.found)
                walk.at = earlier.at
                continue
            repo.budget.spend(STEP)
            commit = repo.commit(walk.at)
            self._look(commit, walk.found)
            walk.at = commit.parents[0] if commit.parents else None
        return walk.found

    def so_far(self, nothing: _T) -> _T:
        """What the last call found, all or not."""
        return self._walks[0].found if self._walks else nothing

    def discard(self) -> None:
        self._walks = []


def join_first(found: dict[str, int], earlier: dict[str, int]) -> None:
    """The newest of each name."""
    for name, value in earlier.items():
        found.setdefault(name, value)


def join_lists(found: dict[str, list[str]], earlier: dict[str, list[str]]) -> None:
    """All of each name, newest first."""
    for name, values in earlier.items():
        found.setdefault(name, []).extend(values)
