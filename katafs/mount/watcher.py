"""Who sees to it that nobody waits for ever, where a mount ends with its daemon.

A daemon that is killed while it tells the kernel what to forget may be unable to end: the kernel waits, with a lock on
a directory, for the answer to a request, and one of the daemon's threads waits for that lock. It then still holds the
mount, and its clients wait. So another process is told by the kernel when the daemon's first thread ends, and ends the
connection if the rest does not follow. When that process is killed, the daemon starts another.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

import trio

from katafs.mount.mounting import LIBC, abort
from katafs.mount.runtime import stat_fields
from katafs.process.starting import python

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_GRACE_SECONDS = 0.5
_PAUSE_SECONDS = 1.0  # before another is started, should each be killed at once


def watch_over_us(mountpoint: Path) -> int:
    """Start the watcher of this process, which is going to mount there: its process id. Called in the first thread,
    when there is no other."""
    daemon = os.getpid()
    watcher = os.fork()
    if watcher:
        return watcher
    try:
        os.chdir("/")
        os.closerange(0, 1 << 16)
        _watch(daemon, mountpoint)
    finally:
        os._exit(0)


async def keep_watched(watcher: int, mountpoint: Path) -> None:
    """Start another watcher whenever one has ended, for ever. In the first thread, of whose end it is told."""
    while True:
        end = os.pidfd_open(watcher)
        try:
            await trio.lowlevel.wait_readable(end)
        finally:
            os.close(end)
        os.waitid(os.P_PID, watcher, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - it has ended
        log.warning("who watches over the mount was killed; another takes its place")
        while (started := _start(mountpoint)) is None:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(_PAUSE_SECONDS)
        watcher = started
        await trio.sleep(_PAUSE_SECONDS)


def _start(mountpoint: Path) -> int | None:
    """A new Python, since a process with threads is not to be forked; None where none can be started."""
    try:
        return python(__name__, str(os.getpid()), os.fspath(mountpoint), directory="/")
    except OSError as error:
        log.warning("nobody watches over the mount: %s", error)
        return None


def _watch(daemon: int, mountpoint: Path) -> None:
    # what ends a group of processes, as Ctrl-C does, is for the daemon
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    # it may have ended before we asked to be told
    if os.getppid() == daemon and stat_fields(daemon)[:1] != ["Z"]:
        signal.sigwait({signal.SIGUSR1})
    end = time.monotonic() + _GRACE_SECONDS
    while _has_threads(daemon):
        if time.monotonic() > end:
            abort(mountpoint)
            break
        time.sleep(0.01)


def _has_threads(pid: int) -> bool:
    """Whether a process whose first thread has ended has others."""
    try:
        return stat_fields(pid)[:1] == ["Z"] and len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


if __name__ == "__main__":
    _watch(int(sys.argv[1]), Path(sys.argv[2]))
