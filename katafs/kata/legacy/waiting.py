"""Which katas of a store have events that wait for their rows: a file for each in the store's ``.katafs-pending``.

So a daemon that has just started finds them without looking at every kata. The files are empty, named by the ids; one
too many does no harm. They are changed by who has the lock of the kata's directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from katafs.git.store.storing import sync_directory
from katafs.kata.ids import is_kata_id
from katafs.owner import acting_as_owner

MARKS = ".katafs-pending"

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
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
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
