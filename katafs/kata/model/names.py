"""Names that some file system takes for another: what is ``.git`` on a Mac or on Windows must not be so here."""

from __future__ import annotations

import re
import unicodedata

_SHORT_GIT_NAME = re.compile(r"(git|gitmod|gi7[0-9a-f]{3,4})~[0-9]+")
_SHORT_DOT_GIT = re.compile(r"git~[0-9]+")


def folded(component: str) -> tuple[str, ...]:
    """The names that some system may see in one component of a path.

    HFS+ ignores case and some characters, NTFS trailing dots and blanks, and streams (``:``); Windows separates names
    by ``\\`` (git's ``is_hfs_dotgit`` and ``is_ntfs_dotgit``).
    """
    shown = "".join(c for c in component if unicodedata.category(c) != "Cf").casefold()
    return tuple(part.partition(":")[0].rstrip(" .") for part in shown.split("\\"))


def is_dot_git(name: str) -> bool:
    """Whether a folded name is ``.git``, or its short name on NTFS."""
    return name == ".git" or _SHORT_DOT_GIT.fullmatch(name) is not None


def is_git_name(component: str) -> bool:
    """Whether git, on any system, takes this name for ``.git`` or for a file that it obeys at checkout
    (``.gitmodules``); its fsck refuses all of them."""
    if component.isascii() and "gi" not in component.lower():
        return False
    return any(name in (".git", ".gitmodules") or _SHORT_GIT_NAME.fullmatch(name) for name in folded(component))
