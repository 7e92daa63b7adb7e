"""The six options of a kata."""

from __future__ import annotations

from katafs.git import Commit
from katafs.text import decode

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
