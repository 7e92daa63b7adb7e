"""Recording for many at once: in processes of their own, since a commit gives its turn away, and keeps those waiting
who read, at each of some hundred system calls (docs/design.md: Workers)."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any, cast

from katafs.errors import StorageError, storage_errors
from katafs.git import GitRepo, GitWriter, Oid, repository_lock
from katafs.git.odb.objects import Made
from katafs.git.refs.locks import RefLocks
from katafs.git.refs.reading import MAIN, real_name
from katafs.git.store.pack_files import remove_left_behind
from katafs.kata.read.state import read_state
from katafs.kata.record.commit import Announce, Committed, Job, Landed, read_head
from katafs.owner import acting_as_owner
from katafs.process.pool import LeftError, Pool, Say

log = logging.getLogger(__name__)

#: commits that are made at a time; more processes than processors, since the disk is waited for
MOST = 4
# Whoever is alone is served sooner, and with less memory, by a thread. So many jobs within a second are a crowd.
_CROWD, _SECOND = 3, 1.0
_PATIENCE = 2.0  # seconds, until there is a process
_SHORT_PATIENCE_SECONDS = 2.0


class Recorders:
    """Does jobs, in this thread or in another process. Any thread may call its methods."""

    def __init__(self) -> None:
        #: those that stay
        self.pool = Pool(MOST, (__name__,))
        self._lock = threading.Lock()
        self._here = threading.Lock()
        self._begun: deque[float] = deque(maxlen=_CROWD)

    def do(self, job: Job, announce: Announce, landed: Landed) -> Committed | None:
        """Do a job. Returns, and raises, what it does; what it is to call is called in this thread."""
        announced: list[Oid] = []
        moved: list[Committed] = []

        def note(commit: Oid) -> None:
            announced.append(commit)
            announce(commit)

        def land(committed: Committed, made: Made) -> None:
            moved.append(committed)
            landed(committed, made)

        told: dict[str, Any] = {"announce": note, "landed": land}
        try:
            try:
                return self._do(job, told)
            except LeftError as error:
                log.warning("kata %s: who recorded has ended: %s", job.kata_id, error)
                if moved:
                    # the next writer makes the tags
                    return moved[-1]
                found = find_recorded(job.path, job.kata_id, announced[-1]) if announced else None
                return found or job(**told)
        except Exception:
            if not moved:
                raise
            # what failed after it was recorded is nobody's loss, and who hears of it would send it again
            log.exception("kata %s: after it was recorded", job.kata_id)
            return moved[-1]

    def _do(self, job: Job, told: dict[str, Any]) -> Committed | None:
        if self._is_crowded():
            worker = self.pool.take()
            if worker is None and self._here.acquire(blocking=False):
                # one at a time, lest readers wait until there are processes
                try:
                    return job(**told)
                finally:
                    self._here.release()
            worker = worker or self.pool.take(_PATIENCE)
            if worker is not None:
                try:
                    return cast("Committed | None", worker.call(lambda said: told[said[0]](*said[1:]), _do, job))
                finally:
                    self.pool.give_back(worker)
        return job(**told)

    def _is_crowded(self) -> bool:
        now = time.monotonic()
        with self._lock:
            self._begun.append(now)
            return len(self._begun) == _CROWD and now - self._begun[0] < _SECOND


def _do(say: Say, job: Job) -> Committed | None:
    """In the other process. Nothing is moved before it was heard that it will be: nobody hears when the daemon died."""
    return job(
        lambda commit: say(("announce", commit), True),
        lambda committed, made: say(("landed", committed, made), False),
    )


# -- by a daemon that died


def find_recorded(path: Path, kata_id: str, commit: Oid) -> Committed | None:
    """What ``commit`` recorded in the kata at ``path``, if it is in the history of ``main``; then, when this returns,
    with its tags, and durable. None if it never came there. Called in a worker thread. Raises `StorageError`,
    `DamagedError`."""
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
        RefLocks(repo.git_dir).unlock_dead(real_name(repo.git_dir, MAIN), commit)
        with repository_lock(repo.git_dir) as is_alone:
            return _find(repo, commit, is_alone=is_alone)


def _find(repo: GitRepo, commit: Oid, *, is_alone: bool) -> Committed | None:
    with GitWriter(repo) as git:
        git.refs.locks.unlock_dead(git.refs.main, commit)
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
    *_, known = islice(repo.history(commit), count + 1)
    return known.oid
