"""Who uses a mount, by what ``/proc`` says: no question to the mount itself, which may be dead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from katafs.engine.mount_table import mounts
from katafs.text import visible

_MOST_NAMED = 4


def described(path: Path) -> str:
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


def elsewhere(device: str) -> str:
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
    return any((link + b"/").startswith(below) for link in _links(pid)) or _maps(pid, below)


def _links(pid: str) -> Iterator[bytes]:
    names = ["cwd", "root"]
    with contextlib.suppress(OSError):
        names += [f"fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
    for name in names:
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/{name}".encode())


def _maps(pid: str, below: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/maps", "rb") as table:
            return any(line.partition(b"/")[2].startswith(below[1:]) for line in table)
    except OSError:
        return False
