"""Whether something was recorded before the daemon that recorded it died."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from katafs.errors import StorageError, storage_errors
from katafs.git import GitRepo, GitWriter, Oid, repository_lock
from katafs.git.refs.locks import RefLocks
from katafs.git.refs.reading import MAIN
from katafs.git.store.new_pack import remove_left_behind
from katafs.kata.read.state import read_state
from katafs.kata.record.commit import PATIENCE_SECONDS, Committed, read_head
from katafs.owner import acting_as_owner

_SHORT_PATIENCE_SECONDS = 2.0


def find_recorded(path: Path, kata_id: str, commit: Oid) -> Committed | None:
    """What ``commit`` recorded in the kata at ``path``, if it is in the history of ``main``; then, when
    this returns, with its tags, and durable. None if it never came there. Called in a worker thread.

    Raises `StorageError`, `DamagedError`.
    """
    with storage_errors(f"kata {kata_id} cannot be written"), acting_as_owner(path):
        repo = GitRepo(path)
        try:
            # whoever recorded it had this lock, and has not ended where he still has it
            with repository_lock(repo.git_dir, _SHORT_PATIENCE_SECONDS) as is_alone:
                return _find(repo, commit, is_alone=is_alone)
        except StorageError as error:
            if error.errno != errno.EBUSY:
                raise
        # somebody else has it, who may be waiting for the one that the dead left
        RefLocks(repo.git_dir).unlock_dead(MAIN, commit)
        with repository_lock(repo.git_dir, PATIENCE_SECONDS) as is_alone:
            return _find(repo, commit, is_alone=is_alone)


def _find(repo: GitRepo, commit: Oid, *, is_alone: bool) -> Committed | None:
    with GitWriter(repo) as git:
        git.refs.locks.unlock_dead(MAIN, commit)
        tip = repo.main()
        if tip is None or all(known.oid != commit for known in repo.history(tip)):
            return None
        last = read_state(repo, commit).last
        for index, event in repo.commits_of_events(tip, max(0, last - 1), last).items():
            git.refs.locks.unlock_dead(f"refs/tags/{index}", event)
        read_head(git)
        git.refs.sync_main()
        if is_alone:
            # what held the pack of the dead: maybe nobody writes to this kata again
            with contextlib.suppress(OSError):
                remove_left_behind(repo.objects.pack_directory)
        return Committed(last, commit)


def commits_before(repo: GitRepo, commit: Oid, count: int) -> Oid:
    """The commit ``count`` before ``commit`` by first parents, or the first one there is."""
    for known, _ in zip(repo.history(commit), range(count + 1), strict=False):
        commit = known.oid
    return commit
