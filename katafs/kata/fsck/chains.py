"""Histories of a repository, as far as they can be read, also where ``main`` says nothing of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from katafs.errors import KataError
from katafs.git import Commit, GitRepo, Oid
from katafs.kata.fsck.words import reason
from katafs.kata.read.state import read_state

_MOST_HEADS, _MOST_TRIED = 100, 20


@dataclass(frozen=True)
class Chain:
    """The commits of ``main`` by first parents, the newest first, each with the start and the end of its message."""

    steps: list[Commit]
    #: why the walk ended early, if it did
    problem: str = ""

    @cached_property
    def commits(self) -> frozenset[Oid]:
        return frozenset(step.oid for step in self.steps)


def walk(repo: GitRepo, tip: Oid) -> Chain:
    steps: list[Commit] = []
    try:
        for commit in repo.history(tip):
            # the event that it is of, and whether there is a newline at the end, are all that is asked of it
            message = commit.subject[:20] + b"\n" + commit.message[-1:]
            steps.append(commit._replace(message=message))
    except KataError as error:
        return Chain(steps, reason(error))
    return Chain(steps)


def whole(repo: GitRepo, oid: Oid) -> Chain | None:
    """The history of a commit that has all its commits, and events that can be read; else None."""
    chain = walk(repo, oid)
    try:
        read_state(repo, oid)
    except KataError:
        return None
    return None if chain.problem else chain


def ends(repo: GitRepo, tried: int = _MOST_TRIED) -> dict[Oid, Chain]:
    """All commits with events that no other such commit follows, in any pack or file; instead of one that lacks
    something, the newest before it that does not, of so many that are ``tried``. Raises `DAMAGE` when an index cannot
    be read."""
    found: dict[Oid, Chain] = {}
    for last in _last(repo):
        for step in islice(walk(repo, last).steps, tried):
            if (chain := whole(repo, step.oid)) is not None:
                found[step.oid] = chain
                break
    return found


def _last(repo: GitRepo) -> list[Oid]:
    parents: dict[Oid, tuple[Oid, ...]] = {}
    for oid in {*repo.objects.loose, *repo.objects.packs}:
        with suppress(KataError):
            if repo.objects.is_commit(oid):
                parents[oid] = repo.commit(oid).parents
    followed = {parent for found in parents.values() for parent in found}
    return sorted(set(parents) - followed)[:_MOST_HEADS]
