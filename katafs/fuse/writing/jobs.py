"""What is to be recorded, each in its turn: done in a thread or another process, told to the kernel meanwhile."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
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


class Done:
    """What becomes of a job; known before all is put in order behind it."""

    def __init__(self) -> None:
        self._is_known = trio.Event()
        self._committed: Committed | None = None
        self._error: Exception | None = None
        #: when ``main`` was moved, or never will be; and when the kernel has been told
        self.landed, self.invalidated = trio.Event(), trio.Event()

    def succeed(self, committed: Committed | None) -> None:
        self._committed = committed
        self._is_known.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._is_known.set()

    async def wait(self) -> Committed | None:
        """What was recorded. Raises what the job has raised."""
        await self._is_known.wait()
        if self._error is not None:
            raise self._error
        return self._committed


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
        self._queues: WeakValueDictionary[str, trio.Semaphore] = WeakValueDictionary()

    async def do(self, job: Job, announce: Announce = nobody) -> tuple[Committed | None, trio.Event]:
        """Do a job when it is its turn. Returns its result, and what is set when the kernel has been told of it: that
        begins while the job still makes tags. The next one has its turn when all is put in order behind this one."""
        if not job.in_turn:
            return await self._do_at_once(job, announce)
        queue = self._queues.setdefault(job.kata_id, trio.Semaphore(1))
        await queue.acquire()
        try:
            before = await self._elsewhere.of_kata("tip", job.kata_id)
        except BaseException:
            queue.release()
            raise
        done = Done()
        trio.lowlevel.spawn_system_task(self._tell_landed, job, before, done)
        trio.lowlevel.spawn_system_task(self._record, job, announce, done, queue)
        committed = await done.wait()
        if committed is not None:
            if committed.is_new:
                self._count(job)
            else:
                self._tree.ctx.counters.repetitions += 1
            log.info("kata %s: event %d, commit %s", job.kata_id, committed.index, committed.commit.hex())
        return committed, done.invalidated

    async def _record(self, job: Job, announce: Announce, done: Done, queue: trio.Semaphore) -> None:
        soon = trio.lowlevel.current_trio_token().run_sync_soon

        def land(made: Made) -> None:
            self._tree.lend(job.kata_id, made)
            done.landed.set()

        told = (announce, lambda _, made: soon(land, made), lambda committed: soon(done.succeed, committed))
        try:
            committed = await trio.to_thread.run_sync(self.recorders.do, job, *told, limiter=self._recording)
            done.succeed(committed)
        except Exception as error:  # noqa: BLE001 - who waits for it has it raised
            done.fail(error)
        finally:
            # also when nothing was recorded: then there is nothing to tell
            done.landed.set()
            queue.release()

    async def _do_at_once(self, job: Job, announce: Announce) -> tuple[Committed | None, trio.Event]:
        before = None
        # it may be that nothing can be read of it yet
        with contextlib.suppress(KataError):
            before = await self._elsewhere.of_kata("tip", job.kata_id)
        done = Done()
        done.landed.set()
        committed = await trio.to_thread.run_sync(job, announce, nobody, nobody, limiter=self.at_once)
        trio.lowlevel.spawn_system_task(self._tell_landed, job, before, done)
        return committed, done.invalidated

    async def is_git(self, kata_id: str) -> bool:
        return await trio.to_thread.run_sync(is_git, self._tree.ctx.store.path(kata_id), limiter=self.at_once)

    async def _tell_landed(self, job: Job, before: Oid | None, done: Done) -> None:
        try:
            await done.landed.wait()
            has_moved = await self._kernel.since(job.kata_id, before)
            # what makes a new kata whole is its first commit
            is_first = before is None and await self.is_git(job.kata_id)
            if not job.in_turn and (has_moved or is_first):
                self._count(job)
        finally:
            if job.in_turn:
                self._tree.lend(job.kata_id, {})
            done.invalidated.set()

    def _count(self, job: Job) -> None:
        self._tree.ctx.counters.commits[job.counted_as] += 1
        self.wrote(job.kata_id)
