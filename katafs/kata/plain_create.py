"""New katas of plain-path services (FORMAT §3.1): directories and files one by one, real ones until all is there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from katafs.errors import DamagedError, InvalidError, NotFoundError, ReadOnlyError, StorageError, TooLargeError
from katafs.git.store.storing import sync_directory
from katafs.kata.commit import Announce, Committed, set_option
from katafs.kata.exclusive import UNNOTED, Attempt
from katafs.kata.layouts import OPTION_DEFAULTS
from katafs.kata.migrate import migrate_kata
from katafs.kata.pending import Pending
from katafs.kata.plain_files import LARGEST
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


def make_new(path: Path, *, is_directory: bool, attempt: Attempt = UNNOTED) -> None:
    """mkdir(2), or an empty file with O_EXCL, as the owner of the directory above; synced.

    Raises `LateError` (EEXIST), `NotFoundError`, `StorageError`.
    """
    try:
        with acting_as_owner(path.parent):
            attempt.make(path, is_directory=is_directory)
            sync_directory(path.parent)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.parent} is not there") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be made: {error.strerror}", error.errno or errno.EIO) from error


def write_plain(
    path: Path, kata_id: str, name: bytes, offset: int, data: bytes, announce: Announce | None = None
) -> Committed | None:
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
        return Pending(path, kata_id).append(data, announce)
    if name.decode("ascii", "replace") in OPTION_DEFAULTS:
        return set_plain_option(path, kata_id, name.decode(), data, announce)
    raise ReadOnlyError(f"{os.fsdecode(name)} is there, and does not change")


def set_plain_option(
    path: Path, kata_id: str, name: str, data: bytes, announce: Announce | None = None
) -> Committed | None:
    """Set an option as its file says: what follows the last newline."""
    value = data.decode("utf-8", "replace").rpartition("\n")[2]
    return set_option(path, kata_id, name, value, announce=announce, is_shown=True)


def _is_whole(path: Path, kata_id: str) -> bool:
    try:
        plain = PlainKata(kata_id, path)
        plain.event(0)
    except (DamagedError, InvalidError, NotFoundError):
        return False
    # of a new kata, nothing is missing; an old one is whole, whatever is wrong with it
    return plain.last > 0 or not plain.problems


def _write(path: Path, name: bytes, offset: int, data: bytes) -> None:
    if offset + len(data) > LARGEST:
        raise TooLargeError(f"{os.fsdecode(name)} has {LARGEST >> 20} MiB at most")
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
