"""Packing a whole repository anew, beside everybody who reads and writes it: one pack with deltas, packed tags.

Nothing is ever dropped, whether something refers to it or not; the new pack is read back before the old ones go, and
only those go that were read. So it does not matter who writes meanwhile, and what is left by one who dies is a file
that nobody looks at, or objects that are there twice. Readers, also git and libgit2, look again for an object whose
pack has gone. As they look through all packs, those of single events are merged into one, without deltas, before there
are many (`merge_packs`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from katafs.errors import DamagedError
from katafs.git.beneath import read_whole
from katafs.git.format import index
from katafs.git.format.pack import HEAD, parse_entry, parse_pack_head
from katafs.git.format.stored import Oid, is_whole, object_id
from katafs.git.odb.objects import IN_MEMORY
from katafs.git.odb.pack_reader import PackReader
from katafs.git.refs.writing import loose_tags
from katafs.git.repo import GitRepo
from katafs.git.store.pack_files import WITHOUT_DELTAS, NewPack, PackFile, pack_files, remove_left_behind, remove_packs
from katafs.git.store.pack_writer import Pack, TightWriter, reachable
from katafs.git.store.storing import sync_path

# bytes; larger ones are packed well enough, and would make much work of little
_LARGEST_PACK = 64 << 20
#: packs of single events are merged when there are so many that are no larger than `_SMALL_SIZE`
MOST_SMALL = 16
_SMALL_SIZE = 1 << 20  # bytes
_RATIO = 2
# in memory at a time, in bytes, and what an object takes there beside its entry; the rest are merged next time
_MOST_BYTES, _OBJECT = 32 << 20, 400


class Parts(NamedTuple):
    """What a repository is stored in: packs that may be replaced, objects and tags in files of their own."""

    packs: int
    loose: int
    tags: int


def parts(repo: GitRepo) -> Parts:
    """Count the parts of a repository. Raises OSError."""
    packs = [pack for pack in pack_files(repo.objects.pack_directory) if _may_go(pack, _LARGEST_PACK)]
    return Parts(len(packs), sum(1 for _ in repo.objects.loose), len(loose_tags(repo.git_dir)))


def _may_go(pack: PackFile, largest: int) -> bool:
    return pack.size <= largest and not pack.is_marked


class Repack(contextlib.ExitStack):
    """All objects of a repository on their way into one pack. To be used in a ``with`` statement; for one thread.
    Raises OSError, and `DamagedError` when an object, or the index of a pack, cannot be read: then nothing has
    changed."""

    def __init__(self, repo: GitRepo) -> None:
        super().__init__()
        self._repo = repo
        self._directory = repo.objects.pack_directory
        packs = pack_files(self._directory)
        self._packs = [pack for pack in packs if _may_go(pack, _LARGEST_PACK)]
        loose = {oid: _is_small(repo, oid) for oid in repo.objects.loose}
        self._listed = [*(pack.path for pack in packs), *map(self._file, loose)]
        # an object that is in no memory but this process's stays where it is
        self._loose = [oid for oid, is_small in loose.items() if is_small]
        self._left = [self._file(oid) for oid, is_small in loose.items() if not is_small]
        for pack in packs:
            if pack not in self._packs:
                self._left += [pack.path, pack.path.with_suffix(".idx")]
        self._new: NewPack | None = None

    def _file(self, oid: Oid) -> Path:
        return Path(self._repo.objects.loose.path(oid))

    def write(self) -> bool:
        """Write the new pack, hidden from others, and read it back, which takes long; False when there is nothing to be
        done."""
        if not self._loose and len(self._packs) < 2:
            return False
        wanted = set(self._loose)
        for pack in self._packs:
            try:
                wanted.update(record.oid for record in PackReader(pack.stem).records())
            except ValueError as error:
                raise DamagedError(f"{pack.path.with_suffix('.idx')}: {error}") from error
        if not wanted:
            return False
        self._new = self.enter_context(NewPack(self._directory, TightWriter))
        for oid, kind, path, data in _ordered(self._repo, wanted):
            self._new.writer.add(oid, kind, path, data)
        self._new.finish()
        _check(self._new, wanted)
        # What commits in a pack of ours reach is on disk (`katafs.git.store.durable`): also what git made while its
        # objects were listed, of which the commit may be in the list, and the tree not.
        came = [self._file(oid) for oid in self._repo.objects.loose if oid not in wanted]
        for left in (*self._left, *came):
            with contextlib.suppress(FileNotFoundError):
                sync_path(left)
        return True

    def is_overtaken(self) -> bool:
        """Whether others have packed anew meanwhile what is to be packed here: what `write` misses may be elsewhere."""
        return not all(os.path.lexists(path) for path in self._listed)

    def swap(self) -> None:
        """Let others see the new pack, and remove what it was made from. A matter of milliseconds."""
        if self._new is None:
            return
        self._new.install()
        remove_packs(self._directory, self._packs)
        files = [self._file(oid) for oid in self._loose]
        for path in files:
            path.unlink(missing_ok=True)
        for directory in {path.parent for path in files}:
            # somebody may just have put an object there; one who wants to and finds no directory makes it
            with contextlib.suppress(OSError):
                directory.rmdir()


def _is_small(repo: GitRepo, oid: Oid) -> bool:
    try:
        return repo.blob_size(oid) <= IN_MEMORY
    except DamagedError:
        # a pack may have it whole; if not, `write` says so
        return True


def _ordered(repo: GitRepo, wanted: Collection[Oid]) -> Iterator[tuple[Oid, int, bytes, bytes]]:
    """All objects that are wanted: those of the history from the newest on, so that the newest are whole, and each
    after the one that is like it."""
    left = set(wanted)
    tip = repo.main()
    if tip is not None:
        for item in reachable(repo, tip):
            if item[0] in left:
                left.discard(item[0])
                yield item
    for oid in sorted(left):
        kind, data = repo.objects.read_any(oid)
        yield oid, kind, b"", data


def _check(new: NewPack, wanted: Collection[Oid]) -> None:
    """Read the new pack, by its index. Raises `DamagedError`."""
    pack, idx = new.temporary
    reader = PackReader(pack, files=(pack, idx))
    try:
        for oid in wanted:
            offset = reader.find(oid)
            if offset is None or object_id(*reader.read(offset, IN_MEMORY)) != oid:
                raise DamagedError(f"{pack}: object {oid.hex()} was not written as it is")
    except (ValueError, zlib.error) as error:
        raise DamagedError(f"{pack} was not written as it should be: {error}") from error
    finally:
        reader.close()


# -- merging


def merge_packs(directory: Path) -> int:
    """Make one pack of all small ones of single events, if there are many; how many there were, or 0. To be called by
    who is alone (`katafs.git.store.storing`). Raises OSError, and then all packs are as they were.

    A reader may have found an object in one of them and not opened it yet: he looks again. Whoever packs the whole
    repository meanwhile, as ``git gc`` does, finds all objects, in one pack or the other.
    """
    # at once, so that what a dead writer stored does not stay as it is until there are many
    names = remove_left_behind(directory)
    # to count them takes a tenth of looking at each
    if sum(name.startswith(WITHOUT_DELTAS) and name.endswith(".pack") for name in names) < MOST_SMALL:
        return 0
    contents: dict[PackFile, list[tuple[Oid, bytes]]] = {}
    size = 0
    for pack in _to_merge(pack_files(directory)):
        if size < _MOST_BYTES:
            # one that is empty, or odd, stays as it is
            with contextlib.suppress(OSError, ValueError):
                if entries := list(_entries(pack.path)):
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


def _to_merge(packs: Iterable[PackFile]) -> list[PackFile]:
    """Small packs of events, but for what was merged before, lest it is written again each time: as with ``git repack
    --geometric`` one that is larger than twice all those that are smaller stays. So some few do."""
    ours = [pack for pack in packs if pack.path.name.startswith(WITHOUT_DELTAS) and _may_go(pack, _SMALL_SIZE)]
    ours.sort(key=lambda pack: pack.size)
    while ours and ours[-1].size > _RATIO * sum(pack.size for pack in ours[:-1]):
        ours.pop()
    return ours


def _entries(path: Path) -> Iterator[tuple[Oid, bytes]]:
    """Id and stored entry of each object of a small pack, in its order. Raises ValueError when it is not what its index
    says, or has deltas."""
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


# -- what is packed as a whole already


# bytes; a larger pack is read object by object, which costs no memory
_LARGEST_WHOLE = 16 << 20
# what says that a history is not all here (git's gitrepository-layout)
_PARTIAL = ("shallow", "objects/info/alternates")


def whole_pack(repo: GitRepo, tip: Oid) -> tuple[Pack, bytes] | None:
    """The only pack of a repository that has nothing else, and its bytes; `Pack.commits` are those that ``tip``
    reaches. None where the objects are stored in any other way, or anything is odd.

    To read every object, and write it again, takes as long as ``git clone``. Here the checksums of pack and index say
    that both are still what was written once, and whoever wrote them had all objects: neither katafs nor git packs a
    history with a hole in it. What an owner forges is no worse than what anybody gets who copies the repository.

    Raises `DamagedError` when a commit cannot be read.
    """
    try:
        if any((repo.git_dir / name).exists() for name in _PARTIAL) or next(iter(repo.objects.loose), None) is not None:
            return None
        # In this order: what is packed between the two looks is in the pack that is found.
        packs = pack_files(repo.objects.pack_directory)
        # one without an index has objects, too
        count = sum(name.endswith(".pack") for name in os.listdir(repo.objects.pack_directory))
        if len(packs) != 1 or count != 1 or packs[0].is_marked:
            return None
        pack = read_whole(packs[0].path, _LARGEST_WHOLE)
        idx = read_whole(packs[0].path.with_suffix(".idx"), _LARGEST_WHOLE)
        ids = [record.oid for record in index.records(idx)]
        if (
            parse_pack_head(pack) != len(ids)
            or index.parse_head(idx, len(idx)).version != 2
            or not is_whole(pack)
            or pack[-20:] != index.pack_checksum(idx)
        ):
            return None
    except (OSError, ValueError):
        return None
    return Pack(hashlib.sha1(b"".join(ids)).hexdigest(), len(pack), idx, _commits(repo, tip)), pack


def _commits(repo: GitRepo, tip: Oid) -> frozenset[Oid]:
    seen: set[Oid] = set()
    waiting = [tip]
    while waiting:
        oid = waiting.pop()
        if oid not in seen:
            seen.add(oid)
            waiting += repo.links(oid)[1]
    return frozenset(seen)
