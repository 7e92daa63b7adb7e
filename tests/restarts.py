"""Means to kill a daemon while somebody waits for it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.katas import message
from tests.mounts import Mount, wait_until

MESSAGE = json.dumps(message({"a.txt": "a\n"})).encode()
#: what may stand in the log of a daemon that was killed
EXPECTED = "the daemon has died|was left behind"


def kill(mount: Mount) -> int:
    """kill -9 to the daemon; the number it had."""
    wait_until(lambda: mount.daemon, "a daemon")
    pid = mount.daemon
    os.kill(pid, signal.SIGKILL)
    return pid


@contextmanager
def calling(call: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Make a call in a thread. It is not waited for when the test fails: nobody may answer it."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool.submit(call)
    finally:
        pool.shutdown(wait=False)


def is_waiting() -> bool:
    """Whether a thread of ours waits for the answer to a FUSE request, in the kernel's function of this name."""
    for wchan in Path("/proc/self/task").glob("*/wchan"):
        with suppress(OSError):
            if "request_wait_answer" in wchan.read_text():
                return True
    return False
