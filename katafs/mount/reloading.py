"""Asking the keeper of a mount to go over to new code.

It needs little of that itself, so that it can tell a person if the new code cannot be loaded.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from katafs.mount import runtime
from katafs.mount.mounting import MountError, device_of, real_mountpoint

_PATIENCE_SECONDS = 60.0


def reload_mount(mountpoint: Path) -> str:
    """Have a mount served by the code that is installed now; returns its version when that is so.

    Raises `MountError`.
    """
    path = real_mountpoint(mountpoint)
    device = device_of(path)
    if device is None:
        raise MountError(f"{mountpoint}: no katafs is mounted here")
    before = runtime.read(device)
    if before is None or not before.is_kept or not before.is_alive():
        raise MountError(f"{mountpoint}: this mount is not kept alive; unmount it, and mount it again")
    try:
        os.kill(before.pid, signal.SIGUSR1)
    except OSError as error:
        raise MountError(f"{mountpoint}: process {before.pid}: {error.strerror}") from error
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        now = runtime.read(device)
        if now is None or not before.is_alive():
            raise MountError(f"{mountpoint}: it was unmounted; the log of katafs says why")
        if now.reloads > before.reloads:
            if now.failure:
                raise MountError(f"{mountpoint}: the new code cannot be used, all is as before: {now.failure}")
            return now.version
        time.sleep(0.01)
    raise MountError(f"{mountpoint}: no answer; the log of katafs may say why")
