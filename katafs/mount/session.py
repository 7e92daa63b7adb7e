"""One mount, from start to end: pyfuse3's session in a trio event loop, signals, and the unmount.

Where a keeper holds the mount, that of one daemon: from its fork to its exit status.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import trio

from katafs.errors import KataError
from katafs.fuse import fastopen
from katafs.fuse.waiting import Steps, wait_quickly
from katafs.fuse.writing.journal import Journal
from katafs.git.beneath import is_shared
from katafs.html import process as pages
from katafs.kata.store import Store, budget_of_loop
from katafs.mount.child import MESSAGE
from katafs.mount.device import Kept, UnsuitableError, resend
from katafs.mount.first_look import touch
from katafs.mount.idle_compaction import Compactor
from katafs.mount.mounting import LIBC, MountError, MountOptions, detach, hearing_stderr
from katafs.mount.watcher import keep_watched
from katafs.process.starting import shared_fork_server
from katafs.tree.context import About, Context
from katafs.tree.git_files import DESCRIPTORS
from katafs.tree.tree import Tree

if TYPE_CHECKING:
    from katafs.fuse.operations import Operations

log = logging.getLogger(__name__)

_M_ARENA_MAX, _HEAPS = -8, 2  # <malloc.h>
_EXPIRE_SECONDS = 5
_SWITCH_SECONDS = 0.001
_GARBAGE = 10_000  # new objects, until Python looks for cycles of them
# how long who hands over waits for the rest of messages that were begun
_UNFINISHED_SECONDS = 0.8
# how long the kernel may take to hear that it need not send FLUSH
_FLUSH_SECONDS = 0.5
_READERS = 100  # requests that are handled at a time, beside those that wait for a commit, or for something slow
#: exit statuses of a daemon, beside 0: the mount is over
FAILED, HANDED_OVER, NOT_WRAPPED = 1, 75, 76
#: what a daemon that is ready tells its keeper, with SIGUSR2
READY = "\n"
# SIGHUP: the terminal of a daemon in the foreground is closed, and nohup(1) was not asked for
_STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    _STOP_SIGNALS.append(signal.SIGHUP)


def preload() -> None:
    """Import all that serving needs; after `fastopen.load`."""
    import katafs.fuse.operations  # noqa: F401


def be_daemon(
    options: MountOptions, fast: fastopen.FastOpen, kept: Kept, keeper_signals: set[signal.Signals], writer: int
) -> int:
    """Serve a mount that a keeper holds, who hears what is written to ``writer``; the exit status. ``keeper_signals``
    are blocked, and not for us."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, keeper_signals)

    def tell(what: str) -> None:
        with suppress(OSError):
            os.write(writer, what.encode("utf-8", "surrogateescape")[:MESSAGE])

    def ready() -> None:
        tell(READY)
        # killed this moment: then we are the last
        with suppress(ProcessLookupError):
            os.kill(kept.keeper, signal.SIGUSR2)

    try:
        return HANDED_OVER if serve(options, ready, fast, kept) else 0
    except UnsuitableError as error:
        tell(str(error))
        return NOT_WRAPPED
    except MountError as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person
        tell(str(error))
    except Exception as error:
        log.exception("the daemon ends")
        tell(f"{options.mountpoint}: the daemon failed: {error!r}")
    return FAILED


def serve(
    options: MountOptions,
    ready: Callable[[], None],
    fast: fastopen.FastOpen | None = None,
    kept: Kept | None = None,
    watcher: int | None = None,
) -> bool:
    """Mount, or take over a mount, and serve until it is unmounted or a signal comes. Returns whether another daemon
    is to take over. ``watcher`` is the process that watches over a mount that is not kept.

    ``ready`` is called once the tree can be read. SIGTERM, SIGINT and SIGHUP finish what is under way and unmount;
    SIGUSR1 finishes it for another daemon. Raises `MountError`; `UnsuitableError` where libfuse cannot be handed a
    mount that is there already.
    """
    _set_up_process()
    try:
        return _serve(options, ready, fast or fastopen.load(wanted=options.fast_open), kept, watcher)
    except BaseException:
        # whoever hears that we have given up finds nothing left of us
        shared_fork_server().end()
        raise


def _serve(
    options: MountOptions, ready: Callable[[], None], fast: fastopen.FastOpen, kept: Kept | None, watcher: int | None
) -> bool:
    # only now: the library must be there first
    import pyfuse3

    from katafs.fuse.operations import Operations

    deaths = kept.deaths if kept is not None else lambda: 0
    about = About(options.read_only, options.xattr, lambda: fast.is_active, deaths, is_unsafe=bool(options.risk))
    store = Store(options.store, budget=budget_of_loop(options.store))
    groups = options.groups
    status = os.stat(groups) if groups is not None and is_shared(groups) else None
    tree = Tree(Context(store, options.uid, options.gid, groups, status, about=about))
    signals = [*_STOP_SIGNALS, *([] if kept is None else [signal.SIGUSR1])]
    # a signal that comes before we can act on it waits: the mount must not outlive us
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    operations = Operations(tree, fast, Journal(kept.journal if kept is not None else None))
    _begin(operations, options, fast, kept)
    session = _Session(options, operations, tree, fast, ready, kept, watcher, signals)
    # What is there now stays, and what comes has hardly any cycles: to look for them took a tenth of all time.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    gc.enable()
    try:
        trio.run(session.run, instruments=[Steps(tree.ctx.counters)])
    except BaseExceptionGroup as group:
        if session.failure is not None:
            raise session.failure from group
        raise
    finally:
        # What was acknowledged is on disk; who still waits is answered by another daemon, or as the connection ends.
        pyfuse3.close()
        tree.ctx.store.close()
        if kept is not None and kept.is_orphaned:
            detach(options.mountpoint, kept.held.device)
        if kept is None or kept.is_orphaned:
            log.info("%s is unmounted", options.mountpoint)
    return session.is_handing_over


def _set_up_process() -> None:
    # what is written to a kata is for the other services too, whatever the shell of the operator says
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS), hard))
    # glibc gives each thread a heap of its own, up to eight a processor: what a worker thread has freed there is of use
    # to nobody else
    if (mallopt := getattr(LIBC, "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, _HEAPS)
    # how long the event loop may have to wait for a thread that has the GIL
    sys.setswitchinterval(_SWITCH_SECONDS)
    if len(os.sched_getaffinity(0)) > 1:
        # where there is a processor for it, the first page is not to wait for what pages need; it inherits all this
        shared_fork_server().fork(pages.workers.modules)


def _begin(operations: Operations, options: MountOptions, fast: fastopen.FastOpen, kept: Kept | None) -> None:
    """Mount; or take over a mount, with what an earlier daemon may have begun with, and with what it left."""
    import pyfuse3

    with hearing_stderr() as said:
        try:
            place = f"/dev/fd/{kept.held.fd}" if kept is not None else str(options.mountpoint)
            pyfuse3.init(operations, place, options.fuse_options())
        except RuntimeError as error:
            reason = said() or str(error)
            raise MountError(f"{options.mountpoint} cannot be mounted: {reason}") from error
    if kept is not None:
        if not fast.is_wrapped or not fast.greet(kept.held.init) or not fast.is_active:
            raise UnsuitableError("this libfuse makes its session in another way")
        resend(kept.held.fd)


@dataclass
class _Session:
    options: MountOptions
    operations: Operations
    tree: Tree
    fast: fastopen.FastOpen
    ready: Callable[[], None]
    kept: Kept | None
    watcher: int | None
    #: what we end at
    signals: list[signal.Signals]
    #: whether another daemon is to take over
    is_handing_over: bool = False
    failure: MountError | None = None

    async def run(self) -> None:
        import pyfuse3

        from katafs.fuse import fair
        from katafs.fuse.writing import writes

        look = wait_quickly(pyfuse3, self.operations.busy, self.operations.ahead.go_on)
        async with trio.open_nursery() as nursery:
            for task in (look, self._watch_signals, self._expire, self.operations.elsewhere.look_at_root):
                nursery.start_soon(task)
            if self.options.compact_after is not None:
                compactor = Compactor(self.tree.ctx.store, self.tree.ctx.counters)
                self.operations.writes.jobs.wrote = compactor.wrote
                nursery.start_soon(compactor.run, self.options.compact_after)
            if self.watcher is not None:
                nursery.start_soon(keep_watched, self.watcher, self.options.mountpoint)
            nursery.start_soon(self._announce)
            await pyfuse3.main(max_tasks=writes.MOST_WAITING + fair.MOST_WAITING + _READERS)
            # a second signal must not keep us from unmounting
            signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
            nursery.cancel_scope.cancel()

    async def _announce(self) -> None:
        """Say that the tree is ready, once its root can be read."""
        import pyfuse3

        mountpoint, kept, fast = self.options.mountpoint, self.kept, self.fast
        try:
            if kept is None:
                # goes through the kernel, which must have been answered first
                await trio.to_thread.run_sync(touch, mountpoint, abandon_on_cancel=True)
                fast.warn()
            elif kept.is_first:
                # Not through the kernel, which has been answered: killed meanwhile, we would wait there for the next
                # daemon to answer, and that one for our end.
                await self.operations.getattr(pyfuse3.ROOT_INODE, cast(pyfuse3.RequestContext, None))
                with trio.move_on_after(_FLUSH_SECONDS):
                    while not fast.is_flushed:  # noqa: ASYNC110 - some milliseconds, by a child of the keeper's
                        await trio.sleep(0.001)
                self.operations.writes.note_flushed()
        except (OSError, pyfuse3.FUSEError) as error:
            self.failure = MountError(f"{mountpoint}: the tree cannot be read: {os.strerror(error.errno or 0)}")
            raise
        try:
            self.ready()
        except BrokenPipeError:
            if kept is None:
                self.failure = MountError(f"{mountpoint}: whoever asked for the mount has gone")
                raise
        # who reads this may kill us at once, and those who wait for us have heard
        mode = "fast (the kernel opens files by itself)" if fast.is_active else "slower (with OPEN)"
        mode += f"; unsafe_store, events may be lost: {self.options.risk}" if self.options.risk else ""
        level = logging.WARNING if self.options.risk else logging.INFO
        log.log(level, "%s is mounted on %s; mode: %s", self.options.store, mountpoint, mode)

    async def _watch_signals(self) -> None:
        """On SIGTERM, SIGINT or SIGHUP: take no more requests, finish those under way, unmount. On SIGUSR1 the same for
        another daemon, a little later if messages are unfinished."""
        import pyfuse3

        inbox = self.tree.ctx.controls.inbox
        with trio.open_signal_receiver(*self.signals) as received:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.signals)
            async for number in received:
                log.info("%s: finishing", signal.Signals(number).name)
                self.is_handing_over = number == signal.SIGUSR1
                if self.is_handing_over:
                    end_at = trio.current_time() + _UNFINISHED_SECONDS
                    while len(inbox) and trio.current_time() < end_at:  # noqa: ASYNC110 - once in a year
                        await trio.sleep(0.005)
                await self.operations.stop()
                pyfuse3.terminate()

    async def _expire(self) -> None:
        operations, is_orphaned, due = self.operations, False, 0.0
        while True:
            await trio.sleep(min(1, _EXPIRE_SECONDS))
            await operations.writes.expire()
            await operations.memory.invalidate_git_files(operations.kernel.tell)
            if trio.current_time() < due:
                continue
            due = trio.current_time() + _EXPIRE_SECONDS
            for idle in (operations.writes.jobs.recorders.pool, operations.elsewhere.pool, pages.workers):
                idle.reap_idle()
            self.tree.ctx.store.read_caches.notes.expire()
            await operations.memory.look()
            try:
                if not self.options.read_only:
                    await operations.writes.record_overdue()
            except KataError:
                log.exception("expiring unfinished messages")
            if self.kept is not None and self.kept.is_orphaned and not is_orphaned:
                is_orphaned = True
                log.warning(
                    "the process that keeps the mount alive has gone; katafs goes on, and will unmount at its end"
                )
