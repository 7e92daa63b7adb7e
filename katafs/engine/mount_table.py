"""The kernel's table of mounts: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mounted:
    number: int
    path: Path
    #: such as ``0:53``
    device: str
    #: with the subtype, such as ``fuse.katafs``
    file_system: str
    source: str
    #: of the mount and of the file system
    options: frozenset[str]


def mounts(process: str = "self") -> Iterator[Mounted]:
    """All that is mounted where a process is, in the order of the table: what lies on top of another mount comes after
    it. Raises OSError."""
    with open(f"/proc/{process}/mountinfo", "rb") as table:
        for line in table:
            fields = line.rstrip(b"\n").split(b" ")
            # fields of no fixed number end with "-"
            rest = fields[fields.index(b"-", 6) + 1 :]
            options = os.fsdecode(fields[5] + b"," + rest[2]).split(",")
            path, device = Path(_plain(fields[4])), fields[2].decode()
            yield Mounted(int(fields[0]), path, device, _plain(rest[0]), _plain(rest[1]), frozenset(options))


def holding(path: str | os.PathLike[str]) -> Mounted | None:
    """The mount that a file or directory is in; None where the table does not say. Raises OSError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # not by the path, which may be hidden by another mount, nor by the device, which btrfs gives out anew
        about = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    number = re.search(r"^mnt_id:\s*(\d+)$", about, re.MULTILINE)
    return next((one for one in mounts() if number is not None and one.number == int(number[1])), None)


def _plain(field: bytes) -> str:
    """Blanks and the like are written as ``\\040``."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), field))
