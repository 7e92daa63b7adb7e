"""One mount, from start to end: pyfuse3's session in a trio event loop, signals, and the unmount."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from katafs.errors import KataError
from katafs.fuse import fastopen
from katafs.kata.store import Store
from katafs.tree.context import Context
from katafs.tree.tree import Tree

log = logging.getLogger(__name__)

_EXPIRE_SECONDS = 5.0


class MountError(Exception):
    """The mount cannot be made; the message is a sentence for a person."""


@dataclass(frozen=True)
class MountOptions:
    """How to mount."""

    store: Path
    mountpoint: Path
    read_only: bool = False
    allow_other: bool = False
    fast_open: bool = True
    uid: int | None = None
    gid: int | None = None

    def fuse_options(self) -> set[str]:
        """The options for libfuse. Permissions are checked by the kernel, from owners and modes."""
        # libfuse takes a comma for the next option, pyfuse3 takes ASCII only
        source = str(self.store).replace("\\", "\\\\").replace(",", "\\,")
        name = source if source.isascii() else "katafs"
        options = {"default_permissions", f"fsname={name}", "subtype=katafs", "nosuid", "nodev", "noatime"}
        options |= {"ro"} if self.read_only else set()
        return options | ({"allow_other"} if self.allow_other else set())


def serve(options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount and serve until the file system is unmounted, or SIGTERM or SIGINT comes.

    ``ready`` is called once the tree can be read. Raises `MountError`.
    """
    # what is written to a kata is for the other services too, whatever the shell of the operator says
    os.umask(0o022)
    fast = fastopen.load(wanted=options.fast_open)
    # only now: the library must be there first
    import pyfuse3

    from katafs.fuse.operations import Operations

    tree = Tree(Context(Store(options.store), options.uid, options.gid))
    try:
        pyfuse3.init(Operations(tree, fast), str(options.mountpoint), options.fuse_options())
    except RuntimeError as error:
        raise MountError(f"{options.mountpoint}: the kernel refused to mount here") from error
    try:
        trio.run(_run, options, tree, fast, ready)
    finally:
        # What was acknowledged is on disk. Whoever still waits for an answer gets one: the connection ends.
        pyfuse3.close(unmount=True)
        log.info("%s is unmounted", options.mountpoint)


async def _run(options: MountOptions, tree: Tree, fast: fastopen.FastOpen, ready: Callable[[], None]) -> None:
    import pyfuse3

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals)
        nursery.start_soon(_expire, tree)
        nursery.start_soon(_announce, options, fast, ready)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def _announce(options: MountOptions, fast: fastopen.FastOpen, ready: Callable[[], None]) -> None:
    """Say that the tree is ready, once the kernel has been answered: a first stat goes through it."""
    await trio.to_thread.run_sync(options.mountpoint.stat, abandon_on_cancel=True)
    mode = "fast (the kernel opens files by itself)" if fast.is_active else "slower (with OPEN)"
    log.info("%s is mounted on %s; mode: %s", options.store, options.mountpoint, mode)
    ready()


async def _watch_signals() -> None:
    """On SIGTERM or SIGINT: take no more requests, finish those under way, unmount."""
    import pyfuse3

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: finishing", signal.Signals(number).name)
            pyfuse3.terminate()


async def _expire(tree: Tree) -> None:
    while True:
        await trio.sleep(_EXPIRE_SECONDS)
        try:
            tree.ctx.controls.expire()
        except KataError:
            log.exception("expiring unfinished messages")
