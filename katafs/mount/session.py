"""One mount, from start to end: pyfuse3's session in a trio event loop, signals, and the unmount."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from katafs.errors import KataError
from katafs.fuse import fastopen, memory
from katafs.fuse.loop_watch import Steps
from katafs.fuse.waiting import wait_quickly
from katafs.fuse.writing.journal import Journal
from katafs.kata.store import Store, budget_of_loop
from katafs.mount import runtime
from katafs.mount.child import touch
from katafs.mount.device import Held, resend
from katafs.mount.idle_compaction import Compactor
from katafs.mount.mounting import MountError, MountOptions, detach, hearing_stderr, last_line
from katafs.mount.watcher import keep_watched
from katafs.process.starting import fork_server
from katafs.tree.context import About, Context
from katafs.tree.git_files import DESCRIPTORS
from katafs.tree.tree import Tree

if TYPE_CHECKING:
    from katafs.fuse.operations import Operations

log = logging.getLogger(__name__)

_EXPIRE_SECONDS = 5
_SWITCH_SECONDS = 0.001
_GARBAGE = 10_000  # new objects, until Python looks for cycles of them
# how long who hands over waits for the rest of messages that were begun
_UNFINISHED_SECONDS = 0.8
# how long the kernel may take to hear that it need not send FLUSH
_FLUSH_SECONDS = 0.5
_READERS = 100  # requests that are handled at a time, beside those that wait for a commit, or for something slow
# SIGHUP: the terminal of a daemon in the foreground is closed, and nohup(1) was not asked for
_STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    _STOP_SIGNALS.append(signal.SIGHUP)


@dataclass(frozen=True)
class Kept:
    """A mount that another process holds, and will hold when we have died."""

    held: Held
    #: the memfd of the `Journal`
    journal: int
    keeper: int
    #: whether nobody has served the mount before
    is_first: bool = False

    @property
    def is_orphaned(self) -> bool:
        """Whether that process has ended: then we are the last."""
        return os.getppid() != self.keeper


class NotWrappedError(Exception):
    """libfuse cannot be handed a mount that is there already."""


def preload() -> None:
    """Import all that serving needs; after `fastopen.load`."""
    import katafs.fuse.operations  # noqa: F401


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
    SIGUSR1 finishes it for another daemon. Raises `MountError`, `NotWrappedError`.
    """
    _set_up_process()
    if fast is None:
        fast = fastopen.load(wanted=options.fast_open)
    # only now: the library must be there first
    import pyfuse3

    from katafs.fuse.operations import Operations

    deaths = partial(_deaths, kept)
    about = About(options.read_only, options.xattr, lambda: fast.is_active, deaths, is_unsafe=bool(options.risk))
    store = Store(options.store, budget=budget_of_loop(options.store))
    tree = Tree(Context(store, options.uid, options.gid, options.groups, about=about))
    # a signal that comes before we can act on it waits: the mount must not outlive us
    signal.pthread_sigmask(signal.SIG_BLOCK, _signals(kept))
    operations = Operations(tree, fast, Journal(kept.journal if kept is not None else None))
    _begin(operations, options, kept)
    if kept is not None:
        _take_over(fast, kept)
    end, steps = _End(), [Steps(tree.ctx.counters)]
    # What is there now stays, and what comes has hardly any cycles: to look for them took a tenth of all time.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    gc.enable()
    try:
        trio.run(_run, options, operations, tree, fast, ready, kept, watcher, end, instruments=steps)
    except BaseExceptionGroup as group:
        if (failure := _mount_error(group)) is not None:
            raise failure from group
        raise
    finally:
        # What was acknowledged is on disk; who still waits is answered by another daemon, or as the connection ends.
        pyfuse3.close()
        tree.ctx.store.close()
        if kept is not None and kept.is_orphaned:
            detach(options.mountpoint, kept.held.device)
        if kept is None or kept.is_orphaned:
            log.info("%s is unmounted", options.mountpoint)
    return end.is_handing_over


def _set_up_process() -> None:
    # what is written to a kata is for the other services too, whatever the shell of the operator says
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS), hard))
    # how long the event loop may have to wait for a thread that has the GIL
    memory.keep_few_heaps()
    sys.setswitchinterval(_SWITCH_SECONDS)


def _begin(operations: Operations, options: MountOptions, kept: Kept | None) -> None:
    """Mount, or take over a mount. Raises `MountError`."""
    import pyfuse3

    with hearing_stderr() as said:
        try:
            place = f"/dev/fd/{kept.held.fd}" if kept is not None else str(options.mountpoint)
            pyfuse3.init(operations, place, options.fuse_options())
        except RuntimeError as error:
            reason = last_line(said) or str(error)
            raise MountError(f"{options.mountpoint} cannot be mounted: {reason}") from error


def _deaths(kept: Kept | None) -> int:
    """How many daemons of the mount have died, as the keeper says."""
    status = runtime.read(kept.held.device) if kept is not None and kept.held.device else None
    return status.deaths if status is not None else 0


@dataclass
class _End:
    """How it ends."""

    is_handing_over: bool = False


def _signals(kept: Kept | None) -> list[signal.Signals]:
    """What we end at."""
    return [*_STOP_SIGNALS, signal.SIGUSR1] if kept is not None else _STOP_SIGNALS


def _take_over(fast: fastopen.FastOpen, kept: Kept) -> None:
    """Begin with what an earlier daemon may have begun with, and with what it left. Raises `NotWrappedError`."""
    if not fast.is_wrapped or not fast.greet(kept.held.init) or not fast.is_active:
        raise NotWrappedError("this libfuse makes its session in another way")
    resend(kept.held.fd)


def _mount_error(error: BaseException) -> MountError | None:
    """The `MountError` in what trio's nurseries wrap."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_mount_error, error.exceptions)), None)
    return error if isinstance(error, MountError) else None


async def _run(
    options: MountOptions,
    operations: Operations,
    tree: Tree,
    fast: fastopen.FastOpen,
    ready: Callable[[], None],
    kept: Kept | None,
    watcher: int | None,
    end: _End,
) -> None:
    import pyfuse3

    from katafs.fuse import preparing
    from katafs.fuse.writing import writes

    look = wait_quickly(pyfuse3, operations.busy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(_watch_signals, operations, tree, kept, end)
        nursery.start_soon(_expire, options, operations, kept)
        nursery.start_soon(operations.elsewhere.look_at_root)
        if options.compact_after is not None:
            compactor = Compactor(tree.ctx.store, tree.ctx.counters)
            operations.writes.wrote = compactor.wrote
            nursery.start_soon(compactor.run, options.compact_after)
        if watcher is not None:
            nursery.start_soon(keep_watched, watcher, options.mountpoint)
        nursery.start_soon(_announce, options, operations, fast, ready, kept)
        await pyfuse3.main(max_tasks=writes.MOST_WAITING + preparing.MOST_WAITING + _READERS)
        # a second signal must not keep us from unmounting
        signal.pthread_sigmask(signal.SIG_BLOCK, _signals(kept))
        nursery.cancel_scope.cancel()


async def _announce(
    options: MountOptions, operations: Operations, fast: fastopen.FastOpen, ready: Callable[[], None], kept: Kept | None
) -> None:
    """Say that the tree is ready, once its root can be read."""
    import pyfuse3

    try:
        if kept is None:
            # goes through the kernel, which must have been answered first
            await trio.to_thread.run_sync(touch, options.mountpoint, abandon_on_cancel=True)
        elif kept.is_first:
            # Not through the kernel, which has been answered: killed meanwhile, we would wait there for the next
            # daemon to answer, and that one for our end.
            await operations.getattr(pyfuse3.ROOT_INODE, cast(pyfuse3.RequestContext, None))
            with trio.move_on_after(_FLUSH_SECONDS):
                while not fast.is_flushed:  # noqa: ASYNC110 - some milliseconds, by a child of the keeper's
                    await trio.sleep(0.001)
            operations.writes.note_flushed()
    except (OSError, pyfuse3.FUSEError) as error:
        reason = os.strerror(error.errno or 0)
        raise MountError(f"{options.mountpoint}: the tree cannot be read: {reason}") from error
    if kept is None:
        fast.warn()
    try:
        ready()
    except BrokenPipeError as error:
        if kept is None:
            raise MountError(f"{options.mountpoint}: whoever asked for the mount has gone") from error
    # who reads this may kill us at once, and those who wait for us have heard
    mode = "fast (the kernel opens files by itself)" if fast.is_active else "slower (with OPEN)"
    mode += f"; unsafe_store, events may be lost: {options.risk}" if options.risk else ""
    level = logging.WARNING if options.risk else logging.INFO
    log.log(level, "%s is mounted on %s; mode: %s", options.store, options.mountpoint, mode)


async def _watch_signals(operations: Operations, tree: Tree, kept: Kept | None, end: _End) -> None:
    """On SIGTERM, SIGINT or SIGHUP: take no more requests, finish those under way, unmount. On SIGUSR1 the same for
    another daemon, a little later if messages are unfinished."""
    import pyfuse3

    signals = _signals(kept)
    with trio.open_signal_receiver(*signals) as received:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        async for number in received:
            log.info("%s: finishing", signal.Signals(number).name)
            if number == signal.SIGUSR1:
                end.is_handing_over = True
                end_at = trio.current_time() + _UNFINISHED_SECONDS
                while len(tree.ctx.controls.inbox) and trio.current_time() < end_at:  # noqa: ASYNC110 - once in a year
                    await trio.sleep(0.005)
            else:
                end.is_handing_over = False
            await operations.stop()
            pyfuse3.terminate()


async def _expire(options: MountOptions, operations: Operations, kept: Kept | None) -> None:
    is_orphaned = False
    due = 0.0
    while True:
        await trio.sleep(min(1, _EXPIRE_SECONDS))
        await operations.writes.expire()
        await operations.memory.invalidate_git_files(operations.kernel.tell)
        if trio.current_time() < due:
            continue
        due = trio.current_time() + _EXPIRE_SECONDS
        operations.rest()
        fork_server().reap_idle()
        await operations.memory.look()
        try:
            if not options.read_only:
                await operations.writes.record_overdue()
        except KataError:
            log.exception("expiring unfinished messages")
        if kept is not None and kept.is_orphaned and not is_orphaned:
            is_orphaned = True
            log.warning("the process that keeps the mount alive has gone; katafs goes on, and will unmount at its end")
