"""New katas of plain-path services (FORMAT §3.1): directories and files one by one, real ones until all is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from katafs.errors import DamagedError, InvalidError, LateError, NotFoundError, ReadOnlyError, StorageError
from katafs.kata.commit import Committed
from katafs.kata.layouts import OPTION_DEFAULTS
from katafs.kata.migrate import migrate_kata
from katafs.kata.pending import Pending, set_plain_option
from katafs.kata.plain_kata import PlainKata
from katafs.owner import acting_as_owner

# the files and the directory of which a new kata is made, in either version
FILES = (b"manifest.json", b"events.json", b"0.event.json")
DIRECTORY, FILE_IN_DIRECTORY = b"0", b"0/event.json"


def is_begun(path: Path) -> bool:
    """Whether a kata is being made in ``path``, by what is there and what is not."""
    if os.path.lexists(path / ".git"):
        return False
    has_event = os.path.lexists(path / "0.event.json") or os.path.lexists(path / "0/event.json")
    return not (has_event and os.path.lexists(path / "manifest.json") and os.path.lexists(path / "events.json"))


def make_directory(path: Path) -> None:
    """mkdir(2) as the owner of the directory above, synced. Raises `LateError` (EEXIST), `StorageError`."""
    _as_owner(path, lambda: os.mkdir(path, 0o755))


def make_file(path: Path) -> None:
    """Make an empty file with O_EXCL. Raises as `make_directory` does."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    _as_owner(path, lambda: os.close(os.open(path, flags, 0o644)))


def _as_owner(path: Path, make: Callable[[], None]) -> None:
    try:
        with acting_as_owner(path.parent):
            make()
            fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    except FileExistsError as error:
        raise LateError(f"{path} is there already") from error
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.parent} is not there") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be made: {error.strerror}", error.errno or errno.EIO) from error


def write_plain(path: Path, kata_id: str, name: bytes, offset: int, data: bytes) -> Committed | None:
    """Write to a plain file of the kata in ``path``. The write that makes a new kata whole makes it a repository.

    A kata that is whole is migrated, and what was written becomes a commit.
    """
    if is_begun(path) or (not os.path.lexists(path / ".git") and not _is_whole(path, kata_id)):
        if name not in (*FILES, FILE_IN_DIRECTORY):
            raise ReadOnlyError(f"{os.fsdecode(name)} is no file of a new kata")
        _write(path, name, offset, data)
        if not is_begun(path) and _is_whole(path, kata_id):
            migrate_kata(path, kata_id)
        return None
    migrate_kata(path, kata_id)
    if name == b"events.json":
        return Pending(path, kata_id).append(data)
    if name.decode("ascii", "replace") in OPTION_DEFAULTS:
        return set_plain_option(path, kata_id, name.decode(), data)
    raise ReadOnlyError(f"{os.fsdecode(name)} is there, and does not change")


def _is_whole(path: Path, kata_id: str) -> bool:
    try:
        plain = PlainKata(kata_id, path)
        plain.event(0)
    except (DamagedError, InvalidError, NotFoundError):
        return False
    # of a new kata, nothing is missing; an old one is whole, whatever is wrong with it
    return plain.last > 0 or not plain.problems


def _write(path: Path, name: bytes, offset: int, data: bytes) -> None:
    try:
        with acting_as_owner(path):
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(os.path.join(os.fsencode(path), name), flags)
            try:
                os.pwrite(fd, data, offset)
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError as error:
        raise StorageError(
            f"{os.fsdecode(name)} cannot be written: {error.strerror}", error.errno or errno.EIO
        ) from error
