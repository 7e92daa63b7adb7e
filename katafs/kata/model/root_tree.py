"""The root tree of a commit, and the JSON objects that stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from katafs.git import GitRepo, Oid, TreeEntry
from katafs.git.budget import JSON_BYTE
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
        repo.budget.spend(len(data) * JSON_BYTE)
        value: Any = parse_stored(decode(data))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
