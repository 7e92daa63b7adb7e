"""The first look at a mount, by a child of the keeper's: so that in the fast mode the kernel hears that it need not
send FLUSH. As long as it goes on the mount is busy."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from katafs.mount.child import NOBODY, Child

# how long it may take once the daemon is ready; it takes milliseconds
_SECONDS = 2.0


def touch(mountpoint: Path) -> None:
    """Open and close a file of a mount: when FLUSH is not sent the daemon can close files of its own mount. Raises
    OSError."""
    os.close(os.open(mountpoint / ".katafs/version", os.O_RDONLY | os.O_CLOEXEC))


class FirstLook:
    """Not by the daemon itself: killed meanwhile, it would wait there for the next one, and that one for its end."""

    def __init__(self) -> None:
        #: who looks
        self.child = NOBODY
        self._end_at = 0.0

    def begin(self, mountpoint: Path) -> None:
        self.child = Child.fork(partial(_look, mountpoint))

    def is_over(self) -> bool:
        """Whether it has ended; asked when the daemon is ready, and again. One that takes too long, as the daemon
        hangs, is ended: whoever asked for the mount is to see that."""
        self._end_at = self._end_at or time.monotonic() + _SECONDS
        if self.child.has_ended():
            return True
        if time.monotonic() < self._end_at:
            return False
        self.child.send(signal.SIGKILL)
        return True


def _look(mountpoint: Path, _writer: int) -> int:
    """Without the mount's descriptor, as it is to end with the mount."""
    os.closerange(3, 1 << 16)
    touch(mountpoint)
    return 0
