"""The files of a kata that is stored plain: which they are, and reading them (FORMAT §1.1, §1.2).

Those of events that wait for their rows are in ``.katafs-pending`` in the directory of a kata that is stored as git. So
that a daemon that has just started finds them without looking at every kata, each such kata has a file in the store's
``.katafs-pending``. These are empty, named by the ids; one too many does no harm. They are changed by who has the lock
of the kata's directory.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from pathlib import Path

from katafs.errors import DamagedError, NotFoundError, absent
from katafs.git.beneath import File, close_quietly, open_plain
from katafs.git.budget import STATUS, Budget
from katafs.git.store.storing import sync_directory
from katafs.kata.model.ids import is_kata_id
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.owner import acting_as_owner

log = logging.getLogger(__name__)

PENDING = MARKS = ".katafs-pending"

LARGEST = 16 << 20  # bytes of a plain file
_EVENT_FILE = re.compile(rb"(0|[1-9][0-9]{0,8})\.event\.json")
_EVENT_DIRECTORY = re.compile(rb"0|[1-9][0-9]{0,8}")

#: what `signature` returns: equal as long as no plain file was changed. Name, mtime in ns, size and inode of each
Signature = tuple[tuple[bytes, int, int, int], ...]


def plain_names(path: Path, budget: Budget | None = None) -> list[tuple[bytes, os.stat_result]]:
    """What is in a kata's directory and not hidden, without following links. Raises `NotFoundError`."""
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


def write_at(path: str | os.PathLike[str], offset: int, data: bytes) -> None:
    """Write to a file that is there, and sync it. Raises OSError."""
    fd = open_plain(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
        # what is not synced may be lost when it is closed, on a network file system
        os.fsync(fd)
    finally:
        close_quietly(fd)


# -- events that wait for their rows


def _mark_of(path: Path, kata_id: str) -> Path:
    """``path`` is the directory ``Ab/Cd/Ef``."""
    return path.parents[2] / MARKS / kata_id


def mark(path: Path, kata_id: str) -> None:
    """Note that something is about to wait in the kata in ``path``."""
    file = _mark_of(path, kata_id)
    if file.exists():
        return
    try:
        with acting_as_owner(file.parents[1]):
            with contextlib.suppress(FileExistsError):
                file.parent.mkdir()
                sync_directory(file.parents[1])
            close_quietly(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
            sync_directory(file.parent)
    except OSError as error:
        # where the store itself cannot be written to, this daemon knows it, and the next will when somebody looks
        log.info("kata %s: %s cannot be made: %s", kata_id, file, error.strerror)


def unmark(path: Path, kata_id: str) -> None:
    """Note that nothing waits any more. Raises OSError."""
    file = _mark_of(path, kata_id)
    if file.exists():
        with acting_as_owner(file.parents[1]):
            file.unlink(missing_ok=True)


def marked(store: Path) -> set[str]:
    try:
        return set(filter(is_kata_id, os.listdir(store / MARKS)))
    except OSError:
        return set()


def pending_indexes(path: Path, version: int) -> list[int]:
    """The events that are being written to the kata in ``path``; those of version 0 may not have their files yet."""
    with contextlib.suppress(NotFoundError):
        directory = path / PENDING
        return event_indexes(directory, version) if version else event_directories(directory)
    return []


def pending_names(path: Path, version: int) -> list[bytes]:
    """Their names, as a plain kata has them."""
    return [event_file(version, index).partition("/")[0].encode() for index in pending_indexes(path, version)]


def pending_file(path: Path, version: int, index: int) -> Path:
    """Where the file of an event is as long as it waits."""
    return path / PENDING / event_file(version, index)
