"""Who uses a mount, by what ``/proc`` says: no question to the mount itself, which may be dead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from katafs.fuse.mounts import mounts
from katafs.text import visible

_MOST_NAMED = 4


def told(path: Path) -> str:
    """What keeps the mount at a real path from being unmounted, and what to do: the end of a sentence."""
    below = [one.path for one in mounts() if path in one.path.parents]
    if below:
        return f"{visible(str(below[-1]))} is mounted in it"
    named = [f"{visible(name)} ({pid})" for pid, name in holders(path)]
    if len(named) > _MOST_NAMED:
        named[_MOST_NAMED:] = [f"{len(named) - _MOST_NAMED} more"]
    who = " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))
    if not named:
        # what other users do only root can see, and what another mount namespace does nobody
        who = "some process works in it, or has a file of it open"
    elif len(named) == 1:
        who = f"{who} works in it, or has a file of it open"
    else:
        who = f"{who} work in it, or have files of it open"
    return f"{who}; umount --lazy takes it away all the same"


def holders(path: Path) -> Iterator[tuple[int, str]]:
    """Number and name of each process that has its working directory, its root, an open file, or mapped memory at or
    below a real path."""
    below = os.fsencode(path) + b"/"
    others = (entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid())
    for entry in sorted(others, key=int):
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
