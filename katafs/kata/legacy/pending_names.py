"""Which events wait for their rows: they are in ``.katafs-pending`` in the kata's directory.

So that a daemon that has just started finds them without looking at every kata, each such kata has a file in the
store's ``.katafs-pending``. These are empty, named by the ids; one too many does no harm. They are changed by who has
the lock of the kata's directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from katafs.errors import NotFoundError
from katafs.git.beneath import close_quietly
from katafs.git.store.storing import sync_directory
from katafs.kata.legacy.plain_files import event_directories, event_file, event_indexes
from katafs.kata.model.ids import is_kata_id
from katafs.owner import acting_as_owner

PENDING = MARKS = ".katafs-pending"

log = logging.getLogger(__name__)


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
    """The katas that were marked."""
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
