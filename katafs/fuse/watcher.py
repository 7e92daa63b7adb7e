"""Who sees to it that nobody waits for ever, where a mount ends with its daemon.

A daemon that is killed while it tells the kernel what to forget may be unable to end: the kernel waits, with a lock on
a directory, for the answer to a request, and one of the daemon's threads waits for that lock. It then still holds the
mount, and its clients wait. So another process is told by the kernel when the daemon's first thread ends, and ends the
connection if the rest does not follow.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from katafs.fuse.mounting import LIBC, abort
from katafs.fuse.runtime import stat_fields

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_GRACE_SECONDS = 0.5


def watch_over_us(mountpoint: Path) -> None:
    """Start the watcher of this process, which is going to mount there. Called in the first thread, when there is no
    other."""
    daemon = os.getpid()
    if os.fork():
        return
    try:
        # what ends a group of processes, as Ctrl-C does, is for the daemon
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        os.closerange(0, 1 << 16)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
        if os.getppid() == daemon:
            signal.sigwait({signal.SIGUSR1})
        end = time.monotonic() + _GRACE_SECONDS
        while _has_threads(daemon):
            if time.monotonic() > end:
                abort(mountpoint)
                break
            time.sleep(0.01)
    finally:
        os._exit(0)


def _has_threads(pid: int) -> bool:
    """Whether a process whose first thread has ended has others."""
    try:
        return stat_fields(pid)[:1] == ["Z"] and len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False
