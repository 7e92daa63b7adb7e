"""A pack that is all there is in a repository, as compaction leaves it: it can be taken away as it is.

To read every object of such a repository and write it again takes as long as ``git clone``. Here the checksums of pack
and index say that both are still what was written once, and whoever wrote them had all objects: neither katafs nor git
packs a history with a hole in it. What an owner forges is no worse than what anybody gets who copies the repository.
"""

from __future__ import annotations

import hashlib
import os

from katafs.git.beneath import read_whole
from katafs.git.format import index
from katafs.git.format.loose import Oid
from katafs.git.format.pack import is_whole, parse_pack_head
from katafs.git.repo import GitRepo
from katafs.git.store.old_packs import pack_files
from katafs.git.store.pack_writer import Pack

# bytes; a larger one is read object by object, which costs no memory
_LARGEST = 16 << 20
# what says that a history is not all here (git's gitrepository-layout)
_PARTIAL = ("shallow", "objects/info/alternates")


def whole_pack(repo: GitRepo, tip: Oid) -> tuple[Pack, bytes] | None:
    """The only pack of a repository that has nothing else, and its bytes; `Pack.commits` are those that ``tip``
    reaches. None where the objects are stored in any other way, or anything is odd.

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
        pack = read_whole(packs[0].path, _LARGEST)
        idx = read_whole(packs[0].path.with_suffix(".idx"), _LARGEST)
        ids = [record.oid for record in index.records(idx)]
        if (
            parse_pack_head(pack) != len(ids)
            or index.parse_head(idx, len(idx)).version != 2
            or not _go_together(pack, idx)
        ):
            return None
    except (OSError, ValueError):
        return None
    return Pack(hashlib.sha1(b"".join(ids)).hexdigest(), len(pack), idx, _commits(repo, tip)), pack


def _go_together(pack: bytes, idx: bytes) -> bool:
    """Whether a pack ends in its own checksum, and the index is of it."""
    return is_whole(pack) and pack[-20:] == index.pack_checksum(idx)


def _commits(repo: GitRepo, tip: Oid) -> frozenset[Oid]:
    seen: set[Oid] = set()
    waiting = [tip]
    while waiting:
        oid = waiting.pop()
        if oid not in seen:
            seen.add(oid)
            waiting += repo.links(oid)[1]
    return frozenset(seen)
