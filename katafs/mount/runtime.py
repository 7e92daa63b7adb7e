"""Where a mount says who serves it: ``/run/katafs/MAJOR:MINOR.json``, for each mount of root's."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from katafs import __version__

log = logging.getLogger(__name__)

DIRECTORY = Path("/run/katafs")


@dataclass
class Status:
    """What a mount, or its keeper, is doing."""

    mountpoint: str
    version: str
    #: the keeper, or the daemon of a mount that none keeps alive, and when it was started, in the kernel's ticks:
    #: together they name a process
    pid: int
    started: int
    #: the daemon; 0 while there is none
    daemon: int = 0
    #: daemons that have died
    deaths: int = 0
    #: reloads that were asked for and are over, and why the last one failed, if it did
    reloads: int = 0
    failure: str = ""
    #: when the mount was ready, in seconds since the epoch
    since: float = 0.0
    #: whether there is a keeper
    is_kept: bool = True
    #: whether the kernel opens files by itself
    is_fast: bool = True
    #: why it is not kept alive, or not fast
    reason: str = ""

    @classmethod
    def of_us(cls, mountpoint: Path) -> Status:
        """That of this process, whose mount becomes ready."""
        pid = os.getpid()
        return cls(os.fspath(mountpoint), __version__, pid, start_time(pid), since=time.time())

    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int:
    """When a process was started, in the kernel's ticks; 0 if there is none, or only what is left of one."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else 0


def stat_fields(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the third on, the state; empty if there is no such process."""
    try:
        # the second field is a name in brackets, which may hold anything
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return []


def memory(pid: int) -> int | None:
    """The memory that a process has to itself, and its part of what it shares, in bytes (``Pss`` of proc(5)); None if
    nobody says."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)[0]) * 1024
    except (OSError, IndexError):
        return None


def _path(device: str) -> Path:
    return DIRECTORY / f"{device}.json"


def publish(device: str, status: Status) -> None:
    """Say it. Without such a file the mount works all the same, but for ``katafs reload``."""
    path = _path(device)
    try:
        DIRECTORY.mkdir(exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(asdict(status)) + "\n")
        # for all to read, whatever the umask of whoever mounts
        DIRECTORY.chmod(0o755)
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        log.warning("katafs reload and status will not find this mount: %s", error)


def withdraw(device: str) -> None:
    """Our mount is over. Its number may be another mount's by now."""
    said = read(device)
    if said is not None and said.pid != os.getpid():
        return
    try:
        _path(device).unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s", error)


def tidy(device: str = "*") -> None:
    """Take away what a process left that was killed: of a mount that is there yet, or of all of them."""
    for path in DIRECTORY.glob(f"{device}.json"):
        said = read(path.stem)
        if said is not None and not said.is_alive():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def read(device: str) -> Status | None:
    """What the keeper of a mount said last; None if nothing, or nothing that can be understood."""
    try:
        told: dict[str, Any] = json.loads(_path(device).read_text())
        return Status(**{name: told[name] for name in Status.__dataclass_fields__ if name in told})
    except (OSError, ValueError, TypeError):
        return None
