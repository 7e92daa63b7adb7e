"""The stored layouts of a git kata, and how each is read. `katafs.kata.commit` writes them.

==========  ===================================================  =========
layout      recognised by (in the tree of the tip)               written?
==========  ===================================================  =========
native      ``config/`` and ``events_summary.json``              yes
saver       ``options.json`` and ``events.json``                 yes
other       rows that can be read, the May 2021 shape included   no
==========  ===================================================  =========
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from katafs.errors import NoEventsError, ReadOnlyError
from katafs.git import Commit, GitRepo, Oid, TreeEntry, read_config
from katafs.git.budget import JSON_BYTE
from katafs.kata.events import StoredRows, parse_rows
from katafs.text import decode, parse_stored

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


#: The newest version that a manifest can have and still be understood: a layout that means something else gets another.
NEWEST_VERSION = 2


def check_version(manifest: Mapping[str, Any], kata_id: str) -> None:
    """Raises `ReadOnlyError` for a kata that a newer katafs, or saver, has made: it may mean something else by what
    looks the same."""
    version = manifest.get("version")
    if type(version) is int and version > NEWEST_VERSION:
        raise ReadOnlyError(
            f"kata {kata_id} is of version {version}, and this katafs knows {NEWEST_VERSION}: it is only read"
        )


def check_format(repo: GitRepo) -> None:
    """Raises `ReadOnlyError` for a repository that git would not write to."""
    found = read_config(repo.git_dir)
    if not found.may_be_written:
        raise ReadOnlyError(f"{repo.path}: {found.why_not}: it is only read")


class Layout(Enum):
    """How a git kata is stored."""

    NATIVE = "native"
    SAVER = "saver"
    OTHER = "other"

    @property
    def is_writable(self) -> bool:
        return self is not Layout.OTHER

    @property
    def rows_name(self) -> bytes:
        """The file that holds all rows."""
        return b"events_summary.json" if self is Layout.NATIVE else b"events.json"


@dataclass(frozen=True)
class Root:
    """The entries of a commit's root tree by name."""

    tree: Oid
    entries: Mapping[bytes, TreeEntry]

    @classmethod
    def read(cls, repo: GitRepo, tree: Oid) -> Root:
        return cls(tree, {entry.name: entry for entry in repo.tree(tree)})

    def blob(self, name: bytes) -> Oid | None:
        """The blob of that name; None if there is none."""
        entry = self.entries.get(name)
        return entry.oid if entry is not None and not entry.is_tree and not entry.is_submodule else None

    def subtree(self, name: bytes) -> Oid | None:
        """The tree of that name; None if there is none."""
        entry = self.entries.get(name)
        return entry.oid if entry is not None and entry.is_tree else None


def detect(root: Root) -> Layout:
    """The layout of a tip tree."""
    if root.subtree(b"config") is not None and root.blob(b"events_summary.json") is not None:
        return Layout.NATIVE
    if root.blob(b"options.json") is not None and root.blob(b"events.json") is not None:
        return Layout.SAVER
    return Layout.OTHER


def rows_blob(root: Root, layout: Layout) -> Oid | None:
    """The blob with all rows up to this tree."""
    if layout is Layout.OTHER:
        return root.blob(b"events.json") or root.blob(b"events_summary.json")
    return root.blob(layout.rows_name)


def read_rows(repo: GitRepo, root: Root, layout: Layout) -> StoredRows:
    """The stored rows. Raises `DamagedError` when there are none that can be read."""
    return parse_rows(repo.blob(rows_of(repo, root, layout)))


def rows_of(repo: GitRepo, root: Root, layout: Layout) -> Oid:
    """The blob of the rows. Raises `NoEventsError` when there is none."""
    oid = rows_blob(root, layout)
    if oid is None:
        raise NoEventsError(f"{repo.git_dir}: the tip has no events")
    return oid


def options_key(root: Root, layout: Layout) -> Oid | None:
    """An object id that changes whenever an option does."""
    return root.subtree(b"config") if layout is Layout.NATIVE else root.blob(b"options.json")


def read_options(repo: GitRepo, root: Root, layout: Layout) -> dict[str, str]:
    """The six options, in saver's order; what is not stored, or not text, has its default."""
    stored: dict[str, Any] = {}
    if layout is Layout.NATIVE:
        config = root.subtree(b"config")
        for entry in repo.tree(config) if config is not None else []:
            if not entry.is_tree and not entry.is_submodule:
                stored[entry.name.decode("utf-8", "replace")] = repo.blob(entry.oid).decode("utf-8", "replace").strip()
    else:
        stored = read_object(repo, root.blob(b"options.json"))
    return {
        name: value if isinstance(value := stored.get(name), str) else default
        for name, default in OPTION_DEFAULTS.items()
    }


def read_truncations(repo: GitRepo, root: Root) -> dict[str, Any]:
    """``truncations.json`` in native shape; flags that are not stored are false."""
    stored = read_object(repo, root.blob(b"truncations.json"))
    files = stored.get("files")
    shown: dict[str, Any] = {
        "files": {name: flag is True for name, flag in files.items()} if isinstance(files, dict) else {}
    }
    for name in ("stdout", "stderr", "status"):
        shown[name] = stored.get(name) is True
    return shown


def read_object(repo: GitRepo, oid: Oid | None) -> dict[str, Any]:
    """The JSON object in a blob; empty where there is no blob, or something else in it."""
    if oid is None:
        return {}
    try:
        data = repo.blob(oid)
        repo.budget.spend(len(data) * JSON_BYTE)
        value: Any = parse_stored(decode(data))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def set_option_in(commit: Commit, values: dict[str, list[str]]) -> None:
    """Add the value that an option was set to by a commit, as its subject says, to those of later ones."""
    if commit.subject.startswith(b"set option "):
        words = decode(commit.subject).split(" ")
        if len(words) == 5 and words[3] == "to" and words[2] in OPTION_DEFAULTS:
            values.setdefault(words[2], []).append(words[4])
