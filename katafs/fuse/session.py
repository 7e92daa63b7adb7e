"""One mount, from start to end: pyfuse3's session in a trio event loop, signals, and the unmount."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from typing import TYPE_CHECKING

import trio

from katafs.errors import KataError
from katafs.fuse import fastopen
from katafs.fuse.mounting import MountError, MountOptions
from katafs.kata.store import Store
from katafs.tree.context import Context
from katafs.tree.tree import Tree

if TYPE_CHECKING:
    from katafs.fuse.operations import Operations

log = logging.getLogger(__name__)

_EXPIRE_SECONDS = 5.0
_READERS = 100  # requests that are handled at a time, beside those that wait for a commit, or for something slow
# SIGHUP: the terminal of a daemon in the foreground is closed, and nohup(1) was not asked for
_STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    _STOP_SIGNALS.append(signal.SIGHUP)


def serve(options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount and serve until the file system is unmounted, or SIGTERM, SIGINT or SIGHUP comes.

    ``ready`` is called once the tree can be read. Raises `MountError`.
    """
    # what is written to a kata is for the other services too, whatever the shell of the operator says
    os.umask(0o022)
    fast = fastopen.load(wanted=options.fast_open)
    # only now: the library must be there first
    import pyfuse3

    from katafs.fuse.operations import Operations

    tree = Tree(Context(Store(options.store), options.uid, options.gid))
    # a signal that comes before we can act on it waits: the mount must not outlive us
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    operations = Operations(tree, fast)
    with _stderr() as said:
        try:
            pyfuse3.init(operations, str(options.mountpoint), options.fuse_options())
        except RuntimeError as error:
            reason = _last_line(said) or str(error)
            raise MountError(f"{options.mountpoint} cannot be mounted: {reason}") from error
    try:
        trio.run(_run, options, operations, tree, fast, ready)
    except BaseExceptionGroup as group:
        if (failure := _mount_error(group)) is not None:
            raise failure from group
        raise
    finally:
        # What was acknowledged is on disk. Whoever still waits for an answer gets one: the connection ends.
        pyfuse3.close(unmount=True)
        tree.ctx.store.close()
        log.info("%s is unmounted", options.mountpoint)


def _mount_error(error: BaseException) -> MountError | None:
    """The `MountError` in what trio's nurseries wrap."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_mount_error, error.exceptions)), None)
    return error if isinstance(error, MountError) else None


@contextmanager
def _stderr() -> Iterator[BufferedRandom]:
    """What is written to file descriptor 2 meanwhile: libfuse and fusermount3 give their reasons nowhere else."""
    with open(os.memfd_create("stderr"), "w+b") as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _last_line(file: BufferedRandom) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").strip().rpartition("\n")[2]


async def _run(
    options: MountOptions, operations: Operations, tree: Tree, fast: fastopen.FastOpen, ready: Callable[[], None]
) -> None:
    import pyfuse3

    from katafs.fuse import making, writes

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, operations)
        nursery.start_soon(_expire, tree, operations)
        nursery.start_soon(_announce, options, fast, ready)
        await pyfuse3.main(max_tasks=writes.MOST_WAITING + making.MOST_WAITING + _READERS)
        # a second signal must not keep us from unmounting
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        nursery.cancel_scope.cancel()


async def _announce(options: MountOptions, fast: fastopen.FastOpen, ready: Callable[[], None]) -> None:
    """Say that the tree is ready, once the kernel has been answered: a first stat goes through it."""
    try:
        await trio.to_thread.run_sync(options.mountpoint.stat, abandon_on_cancel=True)
    except OSError as error:
        raise MountError(f"{options.mountpoint}: the tree cannot be read: {error.strerror}") from error
    fast.warn()
    mode = "fast (the kernel opens files by itself)" if fast.is_active else "slower (with OPEN)"
    log.info("%s is mounted on %s; mode: %s", options.store, options.mountpoint, mode)
    try:
        ready()
    except BrokenPipeError as error:
        raise MountError(f"{options.mountpoint}: whoever asked for the mount has gone") from error


async def _watch_signals(operations: Operations) -> None:
    """On SIGTERM, SIGINT or SIGHUP: take no more requests, finish those under way, unmount."""
    import pyfuse3

    with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        async for number in signals:
            log.info("%s: finishing", signal.Signals(number).name)
            await operations.stop()
            pyfuse3.terminate()


async def _expire(tree: Tree, operations: Operations) -> None:
    while True:
        await trio.sleep(_EXPIRE_SECONDS)
        try:
            tree.ctx.controls.expire()
            await operations.plain.expire()
        except KataError:
            log.exception("expiring unfinished messages")
