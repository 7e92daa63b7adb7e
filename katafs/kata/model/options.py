"""The six options of a kata, and what they were set to in its history."""

from __future__ import annotations

import re
from dataclasses import dataclass

from katafs.git import Commit, GitRepo, Oid
from katafs.git.budget import STEP
from katafs.text import decode

_SECOND = 1_000_000_000
_SUBJECT = re.compile("set option ([^ ]+) to ([^ ]+)")

# The six options in the order that saver stores them, with what holds until one is set.
OPTION_DEFAULTS = {
    "theme": "light",
    "colour": "on",
    "predict": "off",
    "revert_red": "off",
    "revert_amber": "off",
    "revert_green": "off",
}
OPTION_VALUES = {name: ("dark", "light") if name == "theme" else ("on", "off") for name in OPTION_DEFAULTS}


#: what an option was set to, and the time of that commit, in ns
Setting = tuple[str, int]


def set_by(commit: Commit) -> tuple[str, str] | None:
    """The option that a commit set, and to what, as its subject says (FORMAT: commit subjects)."""
    found = _SUBJECT.fullmatch(decode(commit.subject))
    return (found[1], found[2]) if found is not None and found[1] in OPTION_DEFAULTS else None


@dataclass
class _Walk:
    """From ``tip`` to ``at`` (the next commit; None: the first one has been looked at) ``found`` is what there is."""

    tip: Oid
    at: Oid | None
    found: dict[str, list[Setting]]


class Settings:
    """What options were set to in a history, by first parents. The walk back can stop anywhere: the next one goes on
    from there, and that of a later tip joins it."""

    def __init__(self) -> None:
        # the newest, and one that it may come to
        self._walks: list[_Walk] = []

    def found(self, repo: GitRepo, tip: Oid) -> dict[str, list[Setting]]:
        """All settings up to a tip, newest first; options that were never set are left out. Raises `HeavyError` when
        the budget is used up, which the next call goes on from."""
        if not self._walks or self._walks[0].tip != tip:
            self._walks = [_Walk(tip, tip, {}), *self._walks[-1:]]
        walk = self._walks[0]
        while walk.at is not None:
            if len(self._walks) > 1 and walk.at == self._walks[1].tip:
                earlier = self._walks.pop()
                for name, settings in earlier.found.items():
                    walk.found[name] = walk.found.get(name, []) + settings
                walk.at = earlier.at
                continue
            repo.budget.spend(STEP)
            commit = repo.commit(walk.at)
            if (option := set_by(commit)) is not None:
                walk.found.setdefault(option[0], []).append((option[1], commit.time * _SECOND))
            walk.at = commit.parents[0] if commit.parents else None
        return walk.found

    def __len__(self) -> int:
        """How many the last call found, all or not."""
        return sum(map(len, self._walks[0].found.values())) if self._walks else 0

    def discard(self) -> None:
        self._walks = []
