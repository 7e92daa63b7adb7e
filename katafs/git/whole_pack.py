"""A pack that is all there is in a repository, as compaction leaves it: it can be taken away as it is.

To read every object of such a repository and write it again takes as long as ``git clone``. Here the checksums of pack
and index say that both are still what was written once, and whoever wrote them had all objects: neither katafs nor git
packs a history with a hole in it. What an owner forges is no worse than what anybody gets who copies the repository.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from katafs.git.inside import open_inside
from katafs.git.objects import COMMIT, Oid
from katafs.git.old_packs import pack_files
from katafs.git.pack import Pack
from katafs.git.repo import GitRepo, commit_links

# bytes; a larger one is read object by object, which costs no memory
_LARGEST = 16 << 20
_HEAD = struct.Struct(">4sII")
_IDX_HEAD = b"\xfftOc\0\0\0\2"
_FIRST_ID = len(_IDX_HEAD) + 256 * 4
# what says that a history is not all here (git's gitrepository-layout)
_PARTIAL = ("shallow", "objects/info/alternates")


def whole_pack(repo: GitRepo, tip: Oid) -> tuple[Pack, bytes] | None:
    """The only pack of a repository that has nothing else, and its bytes; `Pack.commits` are those that ``tip``
    reaches. None where the objects are stored in any other way, or anything is odd.

    Raises `DamagedError` when a commit cannot be read.
    """
    if any((repo.git_dir / name).exists() for name in _PARTIAL) or next(repo.objects.loose(), None) is not None:
        return None
    # In this order: what is packed between the two looks is in the pack that is found; an old one may still be there.
    directory = repo.objects.pack_directory
    try:
        packs = pack_files(directory)
        # one with a mark is not in that list, and has objects, too
        if len(packs) != 1 or sum(name.endswith(".pack") for name in os.listdir(directory)) != 1:
            return None
        pack, idx = _read(packs[0].path), _read(packs[0].path.with_suffix(".idx"))
        count = _count(pack, idx)
    except (OSError, ValueError, struct.error):
        return None
    ids = idx[_FIRST_ID : _FIRST_ID + 20 * count]
    return Pack(hashlib.sha1(ids).hexdigest(), len(pack), idx, _commits(repo, tip)), pack


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=open_inside) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise OSError(f"{path} is too large")
    return data


def _count(pack: bytes, idx: bytes) -> int:
    """How many objects there are in a pack, and in its index. Raises ValueError where not both are whole."""
    magic, version, count = _HEAD.unpack_from(pack)
    is_of_it = idx[:8] == _IDX_HEAD and len(idx) == _FIRST_ID + 28 * count + 40 and idx[-40:-20] == pack[-20:]
    if (magic, version) != (b"PACK", 2) or not is_of_it or not _is_whole(pack) or not _is_whole(idx):
        raise ValueError("a pack and its index are not as they were written")
    return int(count)


def _is_whole(data: bytes) -> bool:
    """Whether a file ends in its own checksum."""
    return hashlib.sha1(memoryview(data)[:-20]).digest() == data[-20:]


def _commits(repo: GitRepo, tip: Oid) -> frozenset[Oid]:
    seen: set[Oid] = set()
    waiting = [tip]
    while waiting:
        oid = waiting.pop()
        if oid not in seen:
            seen.add(oid)
            waiting += commit_links(repo.objects.read(oid, COMMIT))[1]
    return frozenset(seen)
