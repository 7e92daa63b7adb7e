"""Going over to new code: the keeper is asked to, carries over what it has, and looks whether the code can be loaded.

Who asks needs little of that code, so that a person can be told if it cannot.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from katafs.mount import runtime
from katafs.mount.mounting import MountError, MountOptions, ours

#: of what is handed over
VERSION = 1
_PATIENCE_SECONDS = 60.0
# of the options those that are paths
_PATHS = ("store", "mountpoint", "groups")


def reload_mount(mountpoint: Path) -> str:
    """Have a mount served by the code that is installed now; returns its version. Raises `MountError`."""
    _, device = ours(mountpoint)
    before = runtime.read(device)
    if before is None or not before.is_kept or not before.is_alive():
        raise MountError(f"{mountpoint}: this mount is not kept alive; unmount it, and mount it again")
    try:
        os.kill(before.pid, signal.SIGUSR1)
    except OSError as error:
        raise MountError(f"{mountpoint}: process {before.pid}: {error.strerror}") from error
    end = time.monotonic() + _PATIENCE_SECONDS
    while (now := runtime.read(device)) is not None and before.is_alive():
        if now.reloads > before.reloads:
            if now.failure:
                raise MountError(f"{mountpoint}: the new code cannot be used, all is as before: {now.failure}")
            return now.version
        if time.monotonic() > end:
            raise MountError(f"{mountpoint}: no answer; the log of katafs may say why")
        time.sleep(0.01)
    raise MountError(f"{mountpoint}: it was unmounted; the log of katafs says why")


def write_state(options: MountOptions, **others: object) -> int:
    """A memfd that `read_state` can read, and who is executed has."""
    from katafs.fuse.writing import journal

    state = {"version": VERSION, "journal_version": journal.VERSION, "options": asdict(options), **others}
    fd = os.memfd_create("katafs-state")
    os.set_inheritable(fd, True)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(state, default=os.fspath).encode())
    return fd


def read_state(fd: int) -> dict[str, Any]:
    """What `katafs.mount.keeper.resume` needs: the state of the keeper that this process was, from a memfd. Raises
    `MountError` for one that it cannot read."""
    from katafs.fuse.writing.journal import READABLE

    with open(fd, "rb") as file:
        file.seek(0)
        state: dict[str, Any] = json.load(file)
    # the first ones did not say
    versions = state.get("version", 0), state.get("journal_version", 0)
    if versions[0] not in (VERSION - 1, VERSION) or versions[1] not in READABLE:
        raise MountError("this katafs cannot read what the one that is running hands over; unmount, and mount again")
    known = {one.name for one in fields(MountOptions)}
    options = {name: value for name, value in state["options"].items() if name in known}
    paths = {name: Path(path) for name in _PATHS if (path := options.get(name)) is not None}
    state["options"] = MountOptions(**{**options, **paths})
    return state


def check_code() -> None:
    """Load all that a keeper and its daemons need. Raises `MountError`, ImportError."""
    from katafs.fuse import fastopen
    from katafs.mount import session

    if fastopen.load().library is None:
        raise MountError("the C library is missing")
    session.preload()
