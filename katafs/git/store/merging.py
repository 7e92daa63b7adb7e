"""Making one pack of many small ones.

Whoever reads an object looks through all packs. So the packs of single events are merged before there are many.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from katafs.git.beneath import read_whole
from katafs.git.format import index
from katafs.git.format.loose import Oid
from katafs.git.format.pack import HEAD, parse_entry, parse_pack_head
from katafs.git.store.new_pack import WITHOUT_DELTAS, NewPack, remove_left_behind
from katafs.git.store.old_packs import PackFile, pack_files, remove_packs

#: packs are merged when there are so many that are no larger than `_SMALL_SIZE`
MOST_SMALL = 16
_SMALL_SIZE = 1 << 20  # bytes
# in memory at a time, in bytes, and what an object takes there beside its entry; the rest are merged next time
_MOST_BYTES, _OBJECT = 32 << 20, 400


def merge_packs(directory: Path) -> int:
    """Make one pack of all small ones that katafs wrote for single events, if there are many; how many there were,
    or 0. To be called by who is alone (`katafs.git.store.mutex`).

    A reader may have found an object in one of them and not opened it yet: he looks again. Whoever packs the whole
    repository meanwhile, as ``git gc`` does, finds all objects, in one pack or the other. Raises OSError, and then all
    packs are as they were.
    """
    # at once, so that what a dead writer stored does not stay as it is until there are many
    names = remove_left_behind(directory)
    # to count them takes a tenth of looking at each
    if sum(name.startswith(WITHOUT_DELTAS) and name.endswith(".pack") for name in names) < MOST_SMALL:
        return 0
    ours = [pack for pack in pack_files(directory) if pack.path.name.startswith(WITHOUT_DELTAS)]
    contents: dict[PackFile, list[tuple[Oid, bytes]]] = {}
    size = 0
    for pack in ours:
        if size < _MOST_BYTES and _may_go(pack) and (entries := _whole_entries(pack)):
            contents[pack] = entries
            size += pack.size + _OBJECT * len(entries)
    if len(contents) < MOST_SMALL // 2:
        return 0
    merged = {oid: entry for entries in contents.values() for oid, entry in entries}
    with NewPack(directory) as new:
        for oid, entry in merged.items():
            new.writer.add_entry(oid, entry)
        new.finish()
        new.install()
    remove_packs(directory, contents)
    return len(contents)


def _may_go(pack: PackFile) -> bool:
    return pack.size <= _SMALL_SIZE and not pack.is_marked


def _whole_entries(pack: PackFile) -> list[tuple[Oid, bytes]]:
    """Each object of a pack; none if the pack is to stay as it is."""
    try:
        return list(_entries(pack.path))
    except (OSError, ValueError):
        return []


def _entries(path: Path) -> Iterator[tuple[Oid, bytes]]:
    """Each object of a small pack without deltas, in the order of the pack: its id, and its entry as it is stored.

    Raises ValueError when the pack is not what its index says, or has deltas.
    """
    data = read_whole(path, 2 * _SMALL_SIZE)
    records = sorted(index.records(read_whole(path.with_suffix(".idx"), 2 * _SMALL_SIZE)), key=lambda each: each.offset)
    if parse_pack_head(data) != len(records) or len(data) < HEAD + 20:
        raise ValueError(f"{path} is not a pack that belongs to its index")
    ends = [record.offset for record in records[1:]] + [len(data) - 20]
    for record, end in zip(records, ends, strict=True):
        entry = data[record.offset : end]
        if zlib.crc32(entry) != record.crc or parse_entry(entry[:32], record.offset).is_delta:
            raise ValueError(f"{path} is damaged, or has deltas")
        yield record.oid, entry
