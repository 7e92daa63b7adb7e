"""Who serves a mount of root's, as ``/run/katafs/MAJOR:MINOR.json`` says; and who uses a mount, as ``/proc`` says: no
question to the mount itself, which may be dead."""

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
from katafs.engine.mount_table import mounts
from katafs.text import visible

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


def publish(device: str, status: Status) -> None:
    """Say it. Without such a file the mount works all the same, but for ``katafs reload``."""
    path = DIRECTORY / f"{device}.json"
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
        (DIRECTORY / f"{device}.json").unlink(missing_ok=True)
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
        told: dict[str, Any] = json.loads((DIRECTORY / f"{device}.json").read_text())
        return Status(**{name: told[name] for name in Status.__dataclass_fields__ if name in told})
    except (OSError, ValueError, TypeError):
        return None


_MOST_NAMED = 4


def why_busy(path: Path) -> str:
    """What keeps the mount at a real path from being unmounted, and what to do: the end of a sentence."""
    inside = [one.path for one in mounts() if path in one.path.parents]
    if inside:
        return f"{visible(str(inside[-1]))} is mounted in it"
    below = os.fsencode(path) + b"/"
    using = [pid for pid in _processes() if int(pid) != os.getpid() and _uses(pid, below)]
    # what other users do only root can see, and what another mount namespace does nobody
    who = _listed([name for pid in using if (name := _named(pid))]) or "some process"
    does = "work in it, or have files of it open" if len(using) > 1 else "works in it, or has a file of it open"
    return f"{who} {does}; umount --lazy takes it away all the same"


def mounted_elsewhere(device: str) -> str:
    """Where else a mount is that was unmounted here, and whose that is: a part of a sentence; empty if nowhere.

    It may be mounted at another path, or in another mount namespace, which the processes in it keep. What other users
    have only root can see.
    """
    said = [f"at {place}" for place in _places(device, "self") or []]
    spaces: dict[str, list[str]] = {}
    for pid in _processes():
        spaces.setdefault(_namespace(pid), []).append(pid)
    for namespace, pids in spaces.items():
        if namespace in ("", _namespace("self")):
            continue
        at = next((found for pid in pids if (found := _places(device, pid)) is not None), [])
        if at:
            named = _listed([_named(pid) or f"? ({pid})" for pid in pids])
            said.append(f"at {_listed(at)} in the mount namespace {namespace} of {named}")
    return f"goes on {'; '.join(said)}" if said else ""


def _listed(named: list[str]) -> str:
    if len(named) > _MOST_NAMED:
        named = [*named[:_MOST_NAMED], f"{len(named) - _MOST_NAMED} more"]
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))


def _processes() -> list[str]:
    return sorted((entry for entry in os.listdir("/proc") if entry.isdigit()), key=int)


def _namespace(pid: str) -> str:
    """The number of the mount namespace of a process; nothing where we may not know."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt").removeprefix("mnt:[").rstrip("]")
    except OSError:
        return ""


def _places(device: str, pid: str) -> list[str] | None:
    """Where a mount is for a process; None where we may not know."""
    try:
        return sorted({visible(str(one.path)) for one in mounts(pid) if one.device == device})
    except OSError:
        return None


def _named(pid: str) -> str:
    """Name and number; nothing if it has ended."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""
    return f"{visible(name)} ({pid})"


def _uses(pid: str, below: bytes) -> bool:
    """Whether a process has its working directory, its root, an open file, or mapped memory at or below a path."""
    names = ["cwd", "root"]
    with contextlib.suppress(OSError):
        names += [f"fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
    for name in names:
        with contextlib.suppress(OSError):
            if (os.readlink(f"/proc/{pid}/{name}".encode()) + b"/").startswith(below):
                return True
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as table:
        return any(line.partition(b"/")[2].startswith(below[1:]) for line in table)
    return False
