"""The packs that a repository has, as files: which are there, what is in each, and making one of many small ones.

Whoever reads an object looks through all packs. So the packs of single events are merged before there are many.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from katafs.git.inside import open_inside, real_path
from katafs.git.new_pack import NewPack, remove_left_behind
from katafs.git.objects import Oid

#: packs are merged when there are so many that are no larger than `_SMALL_SIZE`
MOST_SMALL = 16
_SMALL_SIZE = 1 << 20  # bytes

_IDX_HEAD = b"\xfftOc\0\0\0\2"
_FANOUT_END = 8 + 256 * 4
# git's own types of an entry that are differences from another
_DELTAS = (6, 7)
# what says that a pack is somebody's: to be kept, to be asked for elsewhere, to be forgotten
_MARKS = (".keep", ".promisor", ".mtimes")
# without its index nobody looks for a pack; the others are made from it: of reverse offsets, of reachability
_FILES = (".idx", ".rev", ".bitmap", ".pack")


class PackFile(NamedTuple):
    """A pack with its index, and no mark of somebody's. ``size`` is in bytes; ``identity`` is another for each file."""

    path: Path
    size: int
    identity: tuple[int, int, int]


def pack_files(directory: Path) -> list[PackFile]:
    """The packs in ``objects/pack`` that may be replaced by others, by name; none where there is an index that is not
    read here, or a multi-pack-index, which would name packs that are gone. Raises OSError."""
    try:
        with os.scandir(directory) as entries:
            status = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    except FileNotFoundError:
        return []
    if any(name.startswith("multi-pack-index") for name in status):
        return []
    if not all(_is_readable(directory / name) for name in status if name.endswith(".idx")):
        return []
    found = []
    for name in sorted(status):
        stem = name.removesuffix(".pack")
        if stem != name and f"{stem}.idx" in status and not any(stem + mark in status for mark in _MARKS):
            each = status[name]
            found.append(PackFile(directory / name, each.st_size, (each.st_dev, each.st_ino, each.st_mtime_ns)))
    return found


def _is_readable(idx: Path) -> bool:
    """Whether an index is what it was when it was written: it ends in its own checksum, and is of version 2."""
    try:
        with open(os.path.join(real_path(idx.parent), idx.name), "rb", opener=open_inside) as file:
            digest, head, tail = hashlib.sha1(), b"", b""
            while piece := file.read(1 << 18):
                head = head or piece[: len(_IDX_HEAD)]
                digest.update((tail + piece)[:-20])
                tail = (tail + piece)[-20:]
    except OSError:
        return False
    return head == _IDX_HEAD and digest.digest() == tail


def remove_packs(packs: Iterable[PackFile], but: Path) -> None:
    """Remove packs whose objects all are in the pack ``but``, which is on disk. Raises OSError."""
    for pack in packs:
        if pack.path == but or any(os.path.lexists(pack.path.with_suffix(mark)) for mark in _MARKS):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(pack.path)
            # else it is another one by now
            if (status.st_dev, status.st_ino, status.st_mtime_ns) == pack.identity:
                for suffix in _FILES:
                    with contextlib.suppress(FileNotFoundError):
                        pack.path.with_suffix(suffix).unlink()


def merge_packs(directory: Path) -> int:
    """Make one pack of all small ones, if there are many; how many there were, or 0.

    A reader may have found an object in one of them and not opened it yet: he looks again. Whoever packs the whole
    repository meanwhile, as ``git gc`` does, finds all objects, in one pack or the other. Raises OSError, and then all
    packs are as they were.
    """
    # to count them takes a tenth of looking at each
    if sum(name.endswith(".pack") for name in os.listdir(directory)) < MOST_SMALL:
        return 0
    remove_left_behind(directory)
    small = [pack for pack in pack_files(directory) if pack.size <= _SMALL_SIZE and pack.identity not in _left_alone]
    if len(small) < MOST_SMALL:
        return 0
    contents = {pack: entries for pack in small if (entries := _whole_entries(pack))}
    if len(contents) < 2:
        return 0
    merged = {oid: entry for entries in contents.values() for oid, entry in entries}
    with NewPack(directory) as new:
        for oid, entry in merged.items():
            new.writer.add_entry(oid, entry)
        new.finish()
        made = new.install()
    remove_packs(contents, made)
    return len(contents)


# those that were found to have differences in them, or damage: not to be read again and again
_left_alone: set[tuple[int, int, int]] = set()
_MOST_LEFT_ALONE = 1000


def _whole_entries(pack: PackFile) -> list[tuple[Oid, bytes]]:
    """Each object of a pack; none if the pack is to stay as it is."""
    try:
        return list(_entries(pack.path))
    except (OSError, ValueError, struct.error):
        if len(_left_alone) >= _MOST_LEFT_ALONE:
            _left_alone.clear()
        _left_alone.add(pack.identity)
        return []


def _entries(path: Path) -> Iterator[tuple[Oid, bytes]]:
    """Each object of a small pack without differences, in the order of the pack: its id, and its entry as it is stored.

    Raises ValueError when the pack is not what its index says, or has differences.
    """
    data, idx = _read(path), _read(path.with_suffix(".idx"))
    ids, offsets, checksums = _records(idx)
    if data[:8] != b"PACK\0\0\0\2" or len(data) < 32 or struct.unpack(">I", data[8:12])[0] != len(ids):
        raise ValueError(f"{path} is not a pack that belongs to its index")
    ordered = sorted(zip(offsets, ids, checksums, strict=True))
    ends = [offset for offset, _, _ in ordered[1:]] + [len(data) - 20]
    for (start, oid, checksum), end in zip(ordered, ends, strict=True):
        entry = data[start:end]
        if not entry or zlib.crc32(entry) != checksum or entry[0] >> 4 & 7 in _DELTAS:
            raise ValueError(f"{path} is damaged, or has differences")
        yield oid, entry


def _records(idx: bytes) -> tuple[list[Oid], tuple[int, ...], tuple[int, ...]]:
    """The ids in an index, where their entries begin in the pack, and the checksums (CRC-32) of these (version 2, of a
    pack of less than 2 GiB; git's gitformat-pack)."""
    if idx[:8] != _IDX_HEAD or len(idx) < _FANOUT_END + 40:
        raise ValueError("an index of another version")
    (count,) = struct.unpack(">I", idx[_FANOUT_END - 4 : _FANOUT_END])
    if len(idx) != _FANOUT_END + 28 * count + 40:
        raise ValueError("an index of another size")
    at = _FANOUT_END
    ids = [idx[at + 20 * position : at + 20 * position + 20] for position in range(count)]
    numbers = struct.unpack(f">{2 * count}I", idx[at + 20 * count : at + 28 * count])
    return ids, numbers[count:], numbers[:count]


def _read(path: Path) -> bytes:
    """A small file of a repository. Raises OSError, also for a link."""
    with open(os.path.join(real_path(path.parent), path.name), "rb", opener=open_inside) as file:
        data = file.read(2 * _SMALL_SIZE + 1)
    if len(data) > 2 * _SMALL_SIZE:
        raise ValueError(f"{path} is too large")
    return data
