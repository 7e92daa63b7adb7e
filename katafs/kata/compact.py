"""Compaction: the repository of a kata that is left alone is packed anew (`katafs.git.store.compaction`).

A history of packs of single events, and of tags in files of their own, takes three files an event; packed anew, one
pack, its index and ``packed-refs`` hold all of it, and each version of a file is a difference from the next. That needs
no lock but for a moment, and may be done beside everybody who reads and writes the kata.
"""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

from katafs import process
from katafs.errors import DamagedError, NotFoundError, ReadOnlyError, StorageError, storage_errors
from katafs.git import GitRepo, read_config, repository_lock
from katafs.git.odb.loose_files import LARGEST
from katafs.git.refs.reading import MAIN
from katafs.git.refs.writing import RefWriter
from katafs.git.store.compaction import Parts, Repack, parts
from katafs.git.store.pack_files import remove_left_behind
from katafs.git.store.storing import now
from katafs.owner import acting_as_owner

# What a kata may be stored in before it is worth the work: an event is a pack and a tag. So the last events of a kata
# that is left alone take at most some twenty files more than they need.
_ENOUGH = Parts(packs=4, loose=32, tags=8)
# a history of 1,000 events takes half a second
_LIMITS = process.Limits(memory=1 << 30, file=1 << 30, processor_seconds=60, seconds=300.0)


def compact_kata(path: Path, kata_id: str, *, is_thorough: bool = True) -> bool:
    """Pack the kata in ``path`` anew; False when that would be no gain, or, not thoroughly, hardly any.

    Raises `NotFoundError` when it is not stored as git, `DamagedError` when an object cannot be read, `ReadOnlyError`
    for one that git would not pack anew, `StorageError` when the disk is full, or somebody else holds a lock or packs
    it at this moment (EBUSY). After an error nothing is lost, and the kata can be read and written as before.
    """
    with storage_errors(f"kata {kata_id} cannot be compacted", f"kata {kata_id}"), acting_as_owner(path):
        if not (path / ".git").is_dir():
            raise NotFoundError(f"kata {kata_id} is not stored as git")
        config = read_config(path / ".git")
        if not config.may_be_packed:
            raise ReadOnlyError(f"{config.why_not or 'extensions.preciousObjects is set'}: it is left as it is")
        repo = GitRepo(path, largest=LARGEST)
        found = parts(repo)
        if not is_thorough and all(each <= most for each, most in zip(found, _ENOUGH, strict=True)):
            return False
        with repository_lock(repo.git_dir) as is_alone:
            if is_alone and repo.objects.pack_directory.is_dir():
                remove_left_behind(repo.objects.pack_directory)
        is_gain = _repack(path, is_again=False)
        with repository_lock(repo.git_dir) as is_alone:
            return RefWriter(repo, is_alone=is_alone).pack_tags() > 0 or is_gain


def _repack(path: Path, *, is_again: bool) -> bool:
    """Whether there was anything to be packed. What others have packed anew meanwhile is listed once again."""
    repo = GitRepo(path, largest=LARGEST)
    try:
        with Repack(repo) as repack:
            try:
                is_gain = repack.write()
                with repository_lock(repo.git_dir):
                    repack.swap()
                return is_gain
            except (DamagedError, FileNotFoundError) as error:
                if not repack.is_overtaken() and not isinstance(error, FileNotFoundError):
                    raise
                if is_again:
                    raise StorageError(f"{path} is being packed anew by somebody else", errno.EBUSY) from error
    finally:
        repo.objects.packs.close()
    return _repack(path, is_again=True)


def compact_elsewhere(path: Path, kata_id: str) -> bool:
    """Do as `compact_kata`, if it is worth it, in a process of its own, with limits and less of the processor. Raises
    `TooLargeError` where these are not enough."""
    return bool(process.run(_LIMITS, None, _compact, path, kata_id))


def _compact(_file: None, path: Path, kata_id: str) -> bool:
    return compact_kata(path, kata_id, is_thorough=False)


def quiet_seconds(path: Path) -> float:
    """How long ago, by its time, the branch of a kata was moved, by whomever; very long if that is not to be known."""
    try:
        return abs(now(path / ".git") - os.lstat(path / ".git" / MAIN).st_mtime)
    except OSError:
        return math.inf
