"""What a keeper carries over to the new code that it executes itself with, and whether that can be loaded."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from katafs.fuse import fastopen
from katafs.fuse.writing.journal import READABLE
from katafs.mount import session
from katafs.mount.mounting import PATHS, MountError, MountOptions

#: of what is handed over
VERSION = 1


def read_state(fd: int) -> dict[str, Any]:
    """What `katafs.mount.keeper.resume` needs: the state of the keeper that this process was, from a memfd.

    Raises `MountError` for one that it cannot read.
    """
    with open(fd, "rb") as file:
        file.seek(0)
        state: dict[str, Any] = json.load(file)
    # the first ones did not say
    versions = state.get("version", 0), state.get("journal_version", 0)
    if versions[0] not in (VERSION - 1, VERSION) or versions[1] not in READABLE:
        raise MountError("this katafs cannot read what the one that is running hands over; unmount, and mount again")
    known = {one.name for one in fields(MountOptions)}
    options = {name: value for name, value in state["options"].items() if name in known}
    paths = {name: Path(path) for name in PATHS if (path := options.get(name)) is not None}
    state["options"] = MountOptions(**{**options, **paths})
    return state


def check_code() -> None:
    """Load all that a keeper and its daemons need. Raises `MountError`, ImportError."""
    if not fastopen.load().is_loaded:
        raise MountError("the C library is missing")
    session.preload()
