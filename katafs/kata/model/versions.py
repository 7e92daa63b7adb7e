"""Which katas are written, and how, by what their manifest and their repository say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from katafs.errors import ReadOnlyError
from katafs.git import GitRepo, read_config

#: The newest version that a manifest can have and still be understood: a layout that means something else gets another.
NEWEST_VERSION = 2


def plain_version(manifest: Mapping[str, Any]) -> int | None:
    """0 or 1 where a manifest says, as a number or in digits, that plain-path services made the kata; without a version
    it is 0. Else None."""
    value = manifest.get("version")
    text = "0" if value is None and manifest else str(value)
    return int(text) if type(value) in (int, str, type(None)) and text in ("0", "1") else None


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
