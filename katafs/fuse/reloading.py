"""Going over to new code: asking the keeper of a mount to do so, and what it carries over."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from katafs.fuse import fastopen, runtime, session
from katafs.fuse.mounting import MountError, MountOptions, device_of

_PATIENCE_SECONDS = 60.0


def reload_mount(mountpoint: Path) -> None:
    """Have a mount served by the code that is installed now; returns when that is so. Raises `MountError`."""
    path = Path(os.path.realpath(mountpoint))
    device = device_of(path)
    if device is None:
        raise MountError(f"{mountpoint}: no katafs is mounted here")
    before = runtime.read(device)
    if before is None or not before.is_alive():
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
            return
        time.sleep(0.01)
    raise MountError(f"{mountpoint}: no answer; the log of katafs may say why")


def read_state(fd: int) -> dict[str, Any]:
    """What `katafs.fuse.keeper.resume` needs: the state of the keeper that this process was, from a memfd.

    Raises ValueError.
    """
    with open(fd, "rb") as file:
        file.seek(0)
        state: dict[str, Any] = json.load(file)
    known = {one.name for one in fields(MountOptions)}
    options = {name: value for name, value in state["options"].items() if name in known}
    paths = {name: Path(options[name]) for name in ("store", "mountpoint")}
    state["options"] = MountOptions(**{**options, **paths})
    return state


def check_code() -> None:
    """Load all that a keeper and its daemons need. Raises `MountError`, ImportError."""
    if not fastopen.load().is_loaded:
        raise MountError("the C library is missing")
    session.preload()
