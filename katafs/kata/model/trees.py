"""The trees of a commit: the root and the JSON objects in it, all paths below a tree, and names that none may have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from katafs.errors import DamagedError, NotFoundError
from katafs.git import GitRepo, Oid, TreeEntry
from katafs.git.budget import PATH
from katafs.git.format.stored import MODE_TREE
from katafs.text import decode, parse_stored


@dataclass(frozen=True)
class Root:
    """The entries of a commit's root tree by name."""

    tree: Oid
    entries: Mapping[bytes, TreeEntry]

    @classmethod
    def read(cls, repo: GitRepo, tree: Oid) -> Root:
        return cls(tree, {entry.name: entry for entry in repo.tree(tree)})

    def blob(self, name: bytes) -> Oid | None:
        entry = self.entries.get(name)
        return entry.oid if entry is not None and not entry.is_tree and not entry.is_submodule else None

    def subtree(self, name: bytes) -> Oid | None:
        entry = self.entries.get(name)
        return entry.oid if entry is not None and entry.is_tree else None


def read_truncations(repo: GitRepo, root: Root) -> dict[str, Any]:
    """``truncations.json`` in native shape; flags that are not stored are false."""
    stored = read_object(repo, root.blob(b"truncations.json"))
    files = stored.get("files")
    flags = {name: flag is True for name, flag in files.items()} if isinstance(files, dict) else {}
    return {"files": flags, **{name: stored.get(name) is True for name in ("stdout", "stderr", "status")}}


def read_object(repo: GitRepo, oid: Oid | None) -> dict[str, Any]:
    """The JSON object in a blob; empty where there is no blob, or something else in it."""
    if oid is None:
        return {}
    try:
        data = repo.blob(oid)
        repo.budget.spend_for_parsing(data)
        value: Any = parse_stored(decode(data))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# A tree may name another many times, so ten small trees can hold 10^10 paths: a bound keeps memory finite.
MAX_PATHS = 100_000
MAX_DEPTH = 64


def directories_of(files: Iterable[bytes]) -> set[bytes]:
    """The paths of all directories that files at these paths are in."""
    return {path[:at] for path in files for at, byte in enumerate(path) if byte == 0x2F}


class Listing:
    """The files and directories below a tree. Position 0 is the tree itself, with the path ``b""``.

    Submodules are left out, and anything called ``.git``: git writes no such tree, and would obey the configuration in
    there when somebody who looks around calls it. Symbolic links are shown as plain files that hold their target.

    ``tolerant``: a directory whose tree cannot be read is listed, empty, and in `damaged` with the reason; the tree
    itself must be readable. Positions behind it are not those of the whole tree then.
    """

    def __init__(self, repo: GitRepo, tree: Oid | None, *, tolerant: bool = False) -> None:
        self.paths: list[bytes] = [b""]
        self.entries: list[TreeEntry] = [TreeEntry(b"", MODE_TREE, tree or b"")]
        self._children: dict[int, list[int]] = {0: []}
        self._positions: dict[bytes, int] | None = None
        self._tolerant = tolerant
        #: by position, in order: the directories that cannot be read
        self.damaged: dict[int, DamagedError] = {}
        if tree is not None:
            self._add(repo, tree, repo.tree(tree), 0, 1)

    def _add(self, repo: GitRepo, tree: Oid, entries: list[TreeEntry], parent: int, depth: int) -> None:
        prefix = self.paths[parent] + b"/" if parent else b""
        children = self._children[parent]
        for entry in entries:
            if entry.is_submodule or entry.name == b".git":
                continue
            position = len(self.paths)
            if position > MAX_PATHS or depth > MAX_DEPTH:
                raise DamagedError(f"{repo.git_dir}: tree {tree.hex()} is too large or too deep to be shown")
            repo.budget.spend(PATH)
            self.paths.append(prefix + entry.name)
            self.entries.append(entry)
            children.append(position)
            if entry.is_tree:
                self._children[position] = []
                self._add(repo, entry.oid, self._below(repo, entry.oid, position), position, depth + 1)

    def _below(self, repo: GitRepo, tree: Oid, position: int) -> list[TreeEntry]:
        try:
            return repo.tree(tree)
        except DamagedError as error:
            if not self._tolerant:
                raise
            self.damaged[position] = error
            return []

    def is_settled(self, position: int) -> bool:
        """Whether a position is the one in the whole tree: nothing in front of it is missing."""
        return not self.damaged or position <= next(iter(self.damaged))

    def __len__(self) -> int:
        return len(self.paths)

    def position(self, path: bytes) -> int | None:
        if self._positions is None:
            self._positions = {path: position for position, path in enumerate(self.paths)}
        return self._positions.get(path)

    def child(self, parent: int, name: bytes) -> int:
        """The position of ``name`` in the directory at ``parent``. Raises `NotFoundError`."""
        position = self.position(self.paths[parent] + b"/" + name if parent else name)
        if position is None or not name:
            raise NotFoundError(f"no {name!r} there")
        return position

    def children(self, parent: int) -> list[int]:
        return self._children[parent]

    def is_directory(self, position: int) -> bool:
        return position in self._children

    def directories(self) -> Iterator[int]:
        return (position for position in self._children if position)

    def files(self) -> Iterator[int]:
        return (position for position in range(1, len(self.paths)) if position not in self._children)

    def blobs(self) -> Iterator[tuple[bytes, Oid]]:
        return ((self.paths[position], self.entries[position].oid) for position in self.files())


_SHORT_GIT_NAME = re.compile(r"(git|gitmod|gi7[0-9a-f]{3,4})~[0-9]+")
_SHORT_DOT_GIT = re.compile(r"git~[0-9]+")


def folded(component: str) -> tuple[str, ...]:
    """The names that some system may see in one component of a path. HFS+ ignores case and some characters, NTFS
    trailing dots and blanks, and streams (``:``); Windows separates names by ``\\`` (git's ``is_hfs_dotgit`` and
    ``is_ntfs_dotgit``)."""
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
