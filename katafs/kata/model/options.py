"""The six options of a kata."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from katafs.git import Commit, Oid
from katafs.text import decode

_SECOND = 1_000_000_000

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


def set_option_in(commit: Commit, values: dict[str, list[str]]) -> None:
    """Add the value that an option was set to by a commit, as its subject says, to those of later ones."""
    if commit.subject.startswith(b"set option "):
        words = decode(commit.subject).split(" ")
        if len(words) == 5 and words[3] == "to" and words[2] in OPTION_DEFAULTS:
            values.setdefault(words[2], []).append(words[4])


def set_times_in(options_in: Callable[[Oid], Mapping[str, str]], commit: Commit, times: dict[str, int]) -> None:
    """Add the time, in ns, of a commit for each option that it set, to those of later ones. Options are set by commits
    of their own, so that only the trees of commits that are no event's, and of the first, are read."""
    if commit.parents and commit.event is not None:
        return
    before = options_in(commit.parents[0]) if commit.parents else {}
    for name, value in options_in(commit.oid).items():
        if before.get(name) != value:
            times.setdefault(name, commit.time * _SECOND)
