"""Finding what is damaged in a repository, and mending it, without libgit2: it may have no configuration, no ``HEAD``.

Every object that some commits reach is read and compared with its id; what is damaged does not end the walk. The index
of a pack is made again where it is missing or damaged; what git keeps beside packs and commits, and would believe
although it is not true any more, is removed.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from katafs.errors import DamagedError
from katafs.git.beneath import is_direct, read_whole, real_path
from katafs.git.format import index
from katafs.git.format.index import Record
from katafs.git.format.pack import HEAD, graph_commits, parse_pack_head
from katafs.git.format.stored import COMMIT, TREE, Oid, is_whole, links, object_id, parse_tree
from katafs.git.odb.objects import IN_MEMORY
from katafs.git.odb.pack_reader import PackReader
from katafs.git.repo import GitRepo
from katafs.git.store.pack_files import is_kept_by_us, pack_files, remove_left_behind, remove_midx, stale_midx
from katafs.git.store.storing import replace_file, storing

# bytes; larger ones are for ``git index-pack``, and for nobody
_LARGEST_PACK, _LARGEST_GRAPH = 16 << 20, 64 << 20
_PIECE = 1 << 16
_LONGEST_PATH = 200  # bytes, of its end: many wait to be looked at
_CHAIN = "commit-graph-chain"


class Damage(NamedTuple):
    """An object that is reached and cannot be read; and where it was reached first: by which commit, the oldest, and at
    which path of its tree (a tree's own ends in ``/``)."""

    oid: Oid
    kind: int
    is_missing: bool
    why: str
    commit: Oid = b""
    path: bytes = b""


def verify(repo: GitRepo, tips: Iterable[Oid], seen: set[Oid]) -> Iterator[Damage]:
    """Read every object once that the tips reach and that is not in ``seen``, which grows. A tip can be any object."""
    objects = repo.objects
    waiting: list[tuple[Oid, int, Oid, bytes]] = [(tip, 0, b"", b"") for tip in tips]
    while waiting:
        # what was added last, and so the parents of a commit before its tree
        oid, kind, commit, path = waiting.pop()
        if oid in seen:
            continue
        seen.add(oid)
        try:
            if not kind:
                kind, data = objects.read_any(oid, strictly=True)
            else:
                data = objects.read(oid, kind, strictly=True)
            commit = oid if kind == COMMIT else commit
            for inner, its_kind, name in links(kind, data, seen, parse_tree):
                waiting.append((inner, its_kind, commit, (path + name)[-_LONGEST_PATH:] if kind == TREE else b""))
        except (DamagedError, ValueError) as error:
            yield _damage(repo, oid, kind or COMMIT, error)._replace(commit=commit, path=path)


def damage_of(repo: GitRepo, oid: Oid, kind: int) -> Damage | None:
    """What is wrong with an object alone; ``kind`` is what refers to it says that it is, or 0."""
    try:
        stored = kind or repo.objects.kind(oid)
        links(stored, repo.objects.read(oid, stored, strictly=True), (), parse_tree)
    except (DamagedError, ValueError) as error:
        return _damage(repo, oid, kind, error)
    return None


def _damage(repo: GitRepo, oid: Oid, kind: int, error: Exception) -> Damage:
    return Damage(oid, kind, not is_there(repo, oid), str(error).rpartition(f"{oid.hex()} ")[2])


def is_there(repo: GitRepo, oid: Oid) -> bool:
    """Whether there is such an object, whole or not."""
    try:
        return oid in repo.objects
    except DamagedError:
        return False


def put_index(path: Path, idx: bytes) -> None:
    """Put the index beside the pack at ``path``; on disk when this returns. Raises `StorageError`."""
    with storing("an index", path.parent):
        replace_file(path.with_suffix(".idx"), idx, "tmp_idx_", 0o444)


def index_of(path: Path) -> bytes | None:
    """The index of a pack; None when the pack is too large, damaged, or has deltas from other packs."""
    real = os.path.join(real_path(path.parent), path.name)
    try:
        data = read_whole(real, _LARGEST_PACK)
        if not is_whole(data):
            return None
        reader = PackReader(real.removesuffix(".pack"))
        records = []
        offset = HEAD
        for _ in range(parse_pack_head(data)):
            end = _end(data, reader.entry(offset)[0].start)
            records.append(Record(object_id(*reader.read(offset, IN_MEMORY)), offset, zlib.crc32(data[offset:end])))
            offset = end
    except (OSError, KeyError, ValueError, zlib.error):
        return None
    return index.build(records, data[-20:]) if offset == len(data) - 20 else None


def _end(data: bytes, start: int) -> int:
    """Where the zlib stream ends that begins there. Raises ValueError when it does not."""
    inflater = zlib.decompressobj()
    at = start
    while not inflater.eof:
        piece = inflater.unconsumed_tail or data[at : at + _PIECE]
        if not piece:
            raise ValueError("an object is cut off")
        at += 0 if inflater.unconsumed_tail else len(piece)
        inflater.decompress(piece, _PIECE)
    return at - len(inflater.unused_data)


def damaged_indexes(repo: GitRepo, *, is_thorough: bool) -> list[tuple[Path, str]]:
    """The packs whose index cannot be read, or, thoroughly, says something else than the pack, each with the reason.
    Raises OSError."""
    found = []
    for pack in pack_files(repo.objects.pack_directory):
        try:
            known = PackReader(pack.stem).records()
        except (OSError, ValueError) as error:
            found.append((pack.path, f"cannot be read: {error}"))
            continue
        made = index_of(pack.path) if is_thorough else None
        # version 1 says nothing of CRC-32s
        if made is not None and known not in (
            right := index.records(made),
            [each._replace(crc=None) for each in right],
        ):
            found.append((pack.path, "says something else than the pack"))
    return found


def stale_files(repo: GitRepo) -> list[tuple[str, Callable[[], object]]]:
    """What git keeps beside objects and is not true any more, or was left by writers that died: in words, with what
    removes it. Raises OSError."""
    directory = repo.objects.pack_directory
    if not directory.is_dir():
        return []
    found: list[tuple[str, Callable[[], object]]] = []
    if wrong := stale_midx(directory):
        found.append((f".git/objects/pack/{wrong}", lambda: remove_midx(directory)))
    for path in (each for each in _graphs(repo) if each.name != _CHAIN):
        try:
            gone = sum(not repo.objects.is_commit(oid) for oid in graph_commits(read_whole(path, _LARGEST_GRAPH)))
            wrong = f"speaks of {gone} commits that are gone" if gone else ""
        except (OSError, ValueError) as error:
            wrong = f"cannot be read: {error}"
        if wrong:
            found.append((f"{path.relative_to(repo.path)} {wrong}", lambda: _remove_graphs(repo)))
            break
    left = [path for path in directory.glob("*.keep") if is_kept_by_us(path)]
    if left:
        message = f"{len(left)} packs have a .keep of a writer that died, so that nobody packs them"
        found.append((message, lambda: remove_left_behind(directory)))
    return found


def _graphs(repo: GitRepo) -> list[Path]:
    """The list of a chain first. What a link leads to is none of this repository's."""
    info = repo.git_dir / "objects/info"
    chain = info / "commit-graphs"
    found = (chain / _CHAIN, info / "commit-graph", *sorted(chain.glob("*.graph")))
    return [path for path in found if path.exists() and is_direct(path.parent, repo.git_dir)]


def _remove_graphs(repo: GitRepo) -> None:
    for path in _graphs(repo):
        path.unlink(missing_ok=True)
