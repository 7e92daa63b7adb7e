"""The packs that a repository has, as files: which may be replaced, and taking away those that were."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from katafs.git.beneath import names_in, read_whole
from katafs.git.format.pack import midx_packs

# what says that a pack is somebody's: to be kept, to be asked for elsewhere, to be forgotten
_MARKS = (".keep", ".promisor", ".mtimes")
# without its index nobody looks for a pack; the others are made from it: of reverse offsets, of reachability
_FILES = (".idx", ".rev", ".bitmap", ".pack")
_MIDX = "multi-pack-index"
_LARGEST_MIDX = 64 << 20  # bytes


class PackFile(NamedTuple):
    """A pack with its index. ``size`` is in bytes, ``identity`` another for each file, ``is_marked`` as somebody's."""

    path: Path
    size: int
    identity: tuple[int, int, int]
    is_marked: bool

    @property
    def stem(self) -> str:
        return os.fspath(self.path.with_suffix(""))


def pack_files(directory: Path) -> list[PackFile]:
    """The packs in ``objects/pack``, by name. Raises OSError."""
    try:
        names = frozenset(names_in(directory))
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        stem = name.removesuffix(".pack")
        if stem != name and f"{stem}.idx" in names:
            # it may be gone by now
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(directory / name)
                is_marked = any(stem + mark in names for mark in _MARKS)
                found.append(PackFile(directory / name, status.st_size, _identity(status), is_marked))
    return found


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns


def remove_packs(directory: Path, packs: Iterable[PackFile]) -> None:
    """Remove packs whose objects all are in another pack, which is on disk. Raises OSError.

    git believes a multi-pack-index whatever became of the packs that it names: it goes first, with what was made of it,
    and again if somebody has made it meanwhile.
    """
    remove_midx(directory)
    for pack in packs:
        if any(os.path.lexists(pack.path.with_suffix(mark)) for mark in _MARKS):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(pack.path)
            # else it is another one by now
            if _identity(status) == pack.identity:
                for suffix in _FILES:
                    pack.path.with_suffix(suffix).unlink(missing_ok=True)
    if stale_midx(directory):
        remove_midx(directory)


def midx_files(directory: Path) -> list[Path]:
    """A multi-pack-index, or its layers, and what was made of it, in the order in which they are removed."""
    chained = directory / f"{_MIDX}.d"
    # a link may lead to files that have nothing to do with it
    if directory.is_symlink():
        return []
    layers = [] if chained.is_symlink() else sorted(chained.glob(f"{_MIDX}-*"))
    chain = [path for path in layers if path.name == f"{_MIDX}-chain"]
    made = sorted(directory.glob(f"{_MIDX}-*"))
    return [path for path in (directory / _MIDX, *chain, *made, *layers) if os.path.lexists(path)]


def remove_midx(directory: Path) -> None:
    """Remove a multi-pack-index: git does without, and makes it again. Raises OSError."""
    for path in midx_files(directory):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)


def stale_midx(directory: Path) -> str:
    """What is wrong with a multi-pack-index, in words; empty when nothing is, or there is none."""
    for path in midx_files(directory):
        if path.name != _MIDX and path.suffix != ".midx":
            continue
        try:
            missing = [
                name
                for name in midx_packs(read_whole(path, _LARGEST_MIDX))
                if not (directory / name).with_suffix(".pack").exists()
            ]
        except (OSError, ValueError) as error:
            return f"{path.name} cannot be read: {error}"
        if missing:
            return f"{path.name} speaks of {len(missing)} packs that are gone"
    return ""
