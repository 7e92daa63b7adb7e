"""Whether something was recorded before the daemon that recorded it died."""

from __future__ import annotations

import errno
from pathlib import Path

from katafs.errors import StorageError
from katafs.git import GitRepo, GitWriter, Oid, repository_lock
from katafs.git.repo import MAIN
from katafs.kata.commit import PATIENCE_SECONDS, Committed, read_head
from katafs.kata.writing import Head
from katafs.owner import acting_as_owner


def find_recorded(path: Path, kata_id: str, commit: Oid) -> Committed | None:
    """What ``commit`` recorded in the kata at ``path``, if it is in the history of ``main``; then, when
    this returns, with its tags, and durable. None if it never came there. Called in a worker thread.

    Raises `StorageError`, `DamagedError`.
    """
    try:
        with acting_as_owner(path):
            repo = GitRepo(path)
            with GitWriter(repo) as git:
                # before we wait for another writer, who may be waiting for this lock
                git.refs.unlock_dead(MAIN, commit)
            with repository_lock(repo.git_dir, PATIENCE_SECONDS), GitWriter(repo) as git:
                tip = repo.main()
                if tip is None or all(known.oid != commit for known in repo.history(tip)):
                    return None
                last = Head.read(repo, commit).last
                for index, event in repo.commits_of_events(tip, max(0, last - 1), last).items():
                    git.refs.unlock_dead(f"refs/tags/{index}", event)
                read_head(git)
                git.refs.sync_main()
                return Committed(last, commit)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"kata {kata_id} cannot be written: {reason}", error.errno or errno.EIO) from error


def commits_before(repo: GitRepo, commit: Oid, count: int) -> Oid:
    """The commit ``count`` before ``commit`` by first parents, or the first one there is."""
    for known, _ in zip(repo.history(commit), range(count + 1), strict=False):
        commit = known.oid
    return commit
