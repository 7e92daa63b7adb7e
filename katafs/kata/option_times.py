"""When the options of a kata were set to what they are."""

from __future__ import annotations

from collections.abc import Mapping

from katafs.git import GitRepo, Oid
from katafs.kata.layouts import Layout, Root, read_options

_SECOND = 1_000_000_000


def option_times(
    repo: GitRepo, tip: Oid, layout: Layout, known: tuple[Oid | None, Mapping[str, int]]
) -> dict[str, int]:
    """For each option the time, in ns, of the commit that set it to its present value; ``known`` are those at an
    earlier tip.

    Walks back to what is known. Options are set by commits of their own, so only the trees of commits that are no
    event's, and of the first, are read.
    """
    known_at, earlier = known
    now = _options_in(repo, tip, layout)
    times: dict[str, int] = {}
    for commit in repo.history(tip):
        if commit.oid == known_at:
            return {name: times.get(name, earlier[name]) for name in now}
        if commit.parents and commit.subject.split(b" ", 1)[0].isdigit():
            continue
        before = _options_in(repo, commit.parents[0], layout) if commit.parents else {}
        for name, value in _options_in(repo, commit.oid, layout).items():
            if before.get(name) != value:
                times.setdefault(name, commit.time * _SECOND)
    return times


def _options_in(repo: GitRepo, commit: Oid, layout: Layout) -> dict[str, str]:
    return read_options(repo, Root.read(repo, repo.commit(commit).tree), layout)
