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
    below = [one.path for one in mounts() if path in one.path.parents]
    if below:
        return f"{visible(str(below[-1]))} is mounted in it"
    named = [f"{visible(name)} ({pid})" for pid, name in holders(path)]
    who = _listed(named)
    if not named:
        # what other users do only root can see, and what another mount namespace does nobody
        who = "some process works in it, or has a file of it open"
    elif len(named) == 1:
        who = f"{who} works in it, or has a file of it open"
    else:
        who = f"{who} work in it, or have files of it open"
    return f"{who}; umount --lazy takes it away all the same"


def elsewhere(device: str) -> str:
    """Where else a mount is that was unmounted here, and whose that is: a part of a sentence; empty if nowhere.

    It may be mounted at another path, or in another mount namespace, which the processes in it keep. What other users
    have only root can see.
    """
    places = {f"at {visible(str(one.path))}" for one in mounts() if one.device == device}
    ours, theirs = _namespace("self"), dict[str, tuple[list[str], set[str]]]()
    for entry in _processes():
        namespace = _namespace(entry)
        if namespace in ("", ours):
            continue
        if namespace not in theirs:
            with contextlib.suppress(OSError):
                at = {visible(str(one.path)) for one in mounts(entry) if one.device == device}
                theirs[namespace] = ([], at)
        if namespace in theirs and theirs[namespace][1]:
            theirs[namespace][0].append(f"{visible(_name(entry))} ({entry})")
    said = sorted(places)
    for namespace, (named, at) in theirs.items():
        if at:
            said.append(f"at {_listed(sorted(at))} in the mount namespace {namespace} of {_listed(named)}")
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


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return "?"


def holders(path: Path) -> Iterator[tuple[int, str]]:
    """Number and name of each process that has its working directory, its root, an open file, or mapped memory at or
    below a real path."""
    below = os.fsencode(path) + b"/"
    for entry in _processes():
        if int(entry) == os.getpid():
            continue
        if any((link + b"/").startswith(below) for link in _links(entry)) or _maps(entry, below):
            with contextlib.suppress(OSError):
                yield int(entry), Path(f"/proc/{entry}/comm").read_text(errors="replace").rstrip("\n")


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
