"""The files of a kata that is stored plain: which they are, and reading them (FORMAT §1.1, §1.2)."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from katafs.errors import DamagedError, NotFoundError, absent
from katafs.git.beneath import File, open_plain
from katafs.git.budget import STATUS, Budget
from katafs.kata.model.options import OPTION_DEFAULTS

LARGEST = 16 << 20  # bytes of a plain file
_EVENT_FILE = re.compile(rb"(0|[1-9][0-9]{0,8})\.event\.json")
_EVENT_DIRECTORY = re.compile(rb"0|[1-9][0-9]{0,8}")

#: what `signature` returns: equal as long as no plain file was changed. Name, mtime in ns, size and inode of each
Signature = tuple[tuple[bytes, int, int, int], ...]


def plain_names(path: Path, budget: Budget | None = None) -> list[tuple[bytes, os.stat_result]]:
    """The names and attributes of what is in a kata's directory and not hidden; links are not followed.

    Raises `NotFoundError`.
    """
    try:
        with os.scandir(os.fsencode(path)) as entries:
            found = []
            for entry in entries:
                if budget is not None:
                    budget.spend(STATUS)
                if not entry.name.startswith(b"."):
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
        return found
    except OSError as error:
        raise absent(str(path), error) from error


def is_plain_name(name: bytes) -> bool:
    """Whether a file or directory of that name is part of a kata that is stored plain."""
    known = name in (b"manifest.json", b"events.json") or name.decode("ascii", "replace") in OPTION_DEFAULTS
    return known or event_of(name) is not None


def event_of(name: bytes) -> int | None:
    """The index in the name of an event's file (version 1) or directory (version 0); None for other names."""
    found = _EVENT_FILE.fullmatch(name) or _EVENT_DIRECTORY.fullmatch(name)
    return int(name.partition(b".")[0]) if found else None


def event_file(version: int, index: int) -> str:
    """The path of the file of an event in the directory of a kata of that version."""
    return f"{index}.event.json" if version else f"{index}/event.json"


def event_indexes(path: Path, version: int) -> list[int]:
    """The indexes of the events that have a file, in any order. Raises `NotFoundError`."""
    if version:
        found = (_EVENT_FILE.fullmatch(name) for name, status in plain_names(path) if stat.S_ISREG(status.st_mode))
        return [int(match[1]) for match in found if match]
    return [index for index in event_directories(path) if os.path.isfile(path / str(index) / "event.json")]


def event_directories(path: Path) -> list[int]:
    """The indexes of the events of version 0, also of those whose files are not there. Raises `NotFoundError`."""
    names = (name for name, status in plain_names(path) if stat.S_ISDIR(status.st_mode))
    return [int(name) for name in names if _EVENT_DIRECTORY.fullmatch(name)]


def signature(path: Path, budget: Budget | None = None) -> Signature:
    """What changes with every change of a plain file. Raises `NotFoundError`."""
    found = []
    for name, status in plain_names(path, budget):
        if not is_plain_name(name):
            continue
        file = name
        if stat.S_ISDIR(status.st_mode):
            file += b"/event.json"
            try:
                status = os.lstat(os.path.join(os.fsencode(path), file))  # noqa: PLW2901 - the file's, not its directory's
            except OSError:
                continue
        found.append((file, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(sorted(found))


def read_file(directory: Path, path: bytes, largest: int = LARGEST) -> bytes:
    """All bytes of a plain file. Raises `NotFoundError`, or `DamagedError` when it cannot be read or is too large."""
    try:
        with File(open_plain(os.path.join(directory, os.fsdecode(path)))) as file:
            data = file.read(largest + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {os.fsdecode(path)}") from error
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise DamagedError(f"{os.fsdecode(path)} cannot be read: {reason}") from error
    if len(data) > largest:
        raise DamagedError(f"{os.fsdecode(path)} is larger than {largest >> 10} KiB")
    return data


def mtime_ns(directory: Path, path: bytes) -> int:
    """When a plain file was last written to. Raises `NotFoundError`."""
    try:
        return os.lstat(os.path.join(os.fsencode(directory), path)).st_mtime_ns
    except OSError as error:
        raise absent(os.fsdecode(path), error) from error
