"""What is to be recorded, each in its turn: done in a thread or another process, told to the kernel meanwhile."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

import trio

from katafs.errors import KataError
from katafs.fuse.elsewhere import Elsewhere
from katafs.fuse.invalidating import Invalidator
from katafs.git import Oid
from katafs.git.odb.objects import Made
from katafs.kata.record.commit import Announce, Committed, Job
from katafs.kata.record.recorders import MOST, Recorders
from katafs.kata.store import is_git
from katafs.tree.tree import Tree

log = logging.getLogger(__name__)

_AT_ONCE = 16  # threads, for jobs that do not wait for their turn


def nobody(*_what: object) -> None:
    """Is told what nobody need hear."""


class Jobs:
    """Does the jobs of one mount. Belongs to the event loop."""

    def __init__(self, tree: Tree, elsewhere: Elsewhere, kernel: Invalidator) -> None:
        self._tree, self._elsewhere, self._kernel = tree, elsewhere, kernel
        #: is told the id of each kata in which something was recorded
        self.wrote: Callable[[str], None] = nobody
        self.recorders = Recorders()
        self.at_once = trio.CapacityLimiter(_AT_ONCE)
        self._recording = trio.CapacityLimiter(MOST)
        # in the order of arrival: a lock that is only tried again and again could leave one out for long
        self._queues: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    async def do(self, job: Job, announce: Announce = nobody) -> tuple[Committed | None, trio.Event]:
        """Do a job when it is its turn. Returns its result, and what is set when the kernel has been told of it: that
        begins while the job still makes tags. It is told of what a job that fails has done on its way, too."""
        queue = self._queues.setdefault(job.kata_id, trio.Lock()) if job.in_turn else contextlib.nullcontext()
        do, limiter = (self.recorders.do, self._recording) if job.in_turn else (Job.__call__, self.at_once)
        async with queue:
            before = None
            try:
                before = await self._elsewhere.of_kata("tip", job.kata_id)
            except KataError:
                # it may be that nothing can be read of it yet
                if job.in_turn:
                    raise
            invalidated = trio.Event()
            land, landed = trio.open_memory_channel[Made](math.inf)
            trio.lowlevel.spawn_system_task(self._tell_landed, job, before, landed, invalidated)
            soon = trio.lowlevel.current_trio_token().run_sync_soon
            do = partial(do, job, announce, lambda _, made: soon(land.send_nowait, made))
            # closed also when nothing was recorded: then there is nothing to tell
            with land:
                committed = await trio.to_thread.run_sync(do, limiter=limiter)
        if job.in_turn and committed is not None:
            if committed.is_new:
                self._count(job)
            else:
                self._tree.ctx.counters.repetitions += 1
            log.info("kata %s: event %d, commit %s", job.kata_id, committed.index, committed.commit.hex())
        return committed, invalidated

    async def is_git(self, kata_id: str) -> bool:
        return await trio.to_thread.run_sync(is_git, self._tree.ctx.store.path(kata_id), limiter=self.at_once)

    async def _tell_landed(
        self, job: Job, before: Oid | None, landed: trio.MemoryReceiveChannel[Made], invalidated: trio.Event
    ) -> None:
        made: Made = {}
        try:
            with contextlib.suppress(trio.EndOfChannel):
                made = await landed.receive()
            with self._tree.lent(job.kata_id, made):
                has_moved = await self._kernel.since(job.kata_id, before)
            # what makes a new kata whole is its first commit
            with contextlib.suppress(KataError):
                if not job.in_turn and (has_moved or (before is None and await self.is_git(job.kata_id))):
                    self._count(job)
        finally:
            invalidated.set()

    def _count(self, job: Job) -> None:
        self._tree.ctx.counters.commits[job.counted_as] += 1
        self.wrote(job.kata_id)
