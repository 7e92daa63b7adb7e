"""Recording for many at once: in processes of their own.

Python lets one thread of a process run at a time. A commit makes some hundred system calls, at each of which its thread
would have to wait for its next turn, and keep those waiting who read: with 64 writers a second a commit took 200 ms in
threads of the daemon, and readers waited for a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import cast

from katafs.git import Oid
from katafs.kata.record.commit import Announce, Committed, Job, Landed
from katafs.kata.record.recorded import find_recorded
from katafs.process.pool import LeftError, Pool, Say, Worker

log = logging.getLogger(__name__)

#: commits that are made at a time; more processes than processors, since the disk is waited for
MOST = 4
# Whoever is alone is served sooner, and with less memory, by a thread. So many jobs within a second are a crowd.
_CROWD, _SECOND = 3, 1.0
_PATIENCE = 2.0  # seconds, until there is a process


class Recorders:
    """Does jobs, in this thread or in another process. Any thread may call its methods."""

    def __init__(self) -> None:
        self._pool = Pool(MOST, (__name__,))
        self._lock = threading.Lock()
        self._here = threading.Lock()
        self._begun: deque[float] = deque(maxlen=_CROWD)

    def do(self, job: Job, announce: Announce, landed: Landed) -> Committed | None:
        """Do a job. Returns, and raises, what it does; what it is to call is called in this thread."""
        moved: list[Committed] = []

        def hear(committed: Committed) -> None:
            moved.append(committed)
            landed(committed)

        try:
            return self._do(job, announce, hear, moved)
        except Exception:
            if not moved:
                raise
            # what failed after it was recorded is nobody's loss, and who hears of it would send it again
            log.exception("kata %s: after it was recorded", job.kata_id)
            return moved[-1]

    def _do(self, job: Job, announce: Announce, landed: Landed, moved: list[Committed]) -> Committed | None:
        if not self._is_crowded():
            return job(announce, landed)
        worker = self._pool.take()
        if worker is None and self._here.acquire(blocking=False):
            # one at a time, lest readers wait until there are processes
            try:
                return job(announce, landed)
            finally:
                self._here.release()
        worker = worker or self._pool.take(_PATIENCE)
        if worker is None:
            return job(announce, landed)
        return self._send(worker, job, announce, landed, moved)

    def _send(
        self, worker: Worker, job: Job, announce: Announce, landed: Landed, moved: list[Committed]
    ) -> Committed | None:
        """Have it done in another process."""
        announced: list[Oid] = []

        def hear(what: Oid | Committed) -> None:
            if isinstance(what, Committed):
                landed(what)
            else:
                announced.append(what)
                announce(what)

        try:
            return cast("Committed | None", worker.call(hear, _do, job))
        except LeftError as error:
            log.warning("kata %s: who recorded has ended: %s", job.kata_id, error)
            if moved:
                # the next writer makes the tags
                return moved[-1]
            recorded = find_recorded(job.path, job.kata_id, announced[-1]) if announced else None
            return recorded if recorded is not None else job(announce, landed)
        finally:
            self._pool.give_back(worker)

    def reap_idle(self) -> None:
        """To be called from time to time: ends the processes when there was nothing to do for some time."""
        self._pool.reap_idle()

    def _is_crowded(self) -> bool:
        now = time.monotonic()
        with self._lock:
            self._begun.append(now)
            return len(self._begun) == _CROWD and now - self._begun[0] < _SECOND


def _do(say: Say, job: Job) -> Committed | None:
    """In the other process. Nothing is moved before it was heard that it will be: nobody hears when the daemon died."""
    return job(lambda commit: say(commit, True), lambda committed: say(committed, False))
