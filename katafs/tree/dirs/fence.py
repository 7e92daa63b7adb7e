"""``.git`` where git would take what a kata holds for a repository, and obey the configuration in it.

git and libgit2 look for ``.git`` before they look whether a directory is a bare repository. What they find there leads
nowhere, and they stop, with its text in a sentence: "fatal: not a git repository: …".
"""

from __future__ import annotations

from katafs.errors import NotFoundError
from katafs.tree.nodes import BytesFile, Entry, Node
from katafs.tree.numbers import FENCE, Key
from katafs.tree.timeouts import NEVER

_TEXT = b"gitdir: what a kata holds is no repository\n"


class Fence(BytesFile):
    """``.git`` in a directory: opens by name, is not listed."""

    def __init__(self, directory: Node) -> None:
        key = Key(FENCE, directory.key.kata, directory.number)
        super().__init__(key, directory.owner, directory.mtime_ns, _TEXT)


def fence(directory: Node) -> Entry:
    """The entry ``.git`` of a directory that git would take for a bare repository. Raises `NotFoundError`."""
    # as git's is_git_directory has it; files of these names are no less suspicious to us than directories
    names = set(directory.names())
    if b"HEAD" not in names or not ({b"objects", b"refs"} <= names or b"commondir" in names):
        raise NotFoundError("no b'.git' here")
    # what is in a directory may change
    return Entry(Fence(directory), NEVER)
