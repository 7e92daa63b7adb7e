"""Checks of the packs, and of what git keeps beside objects."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from katafs.git.store.mending import damaged_indexes, index_of, put_index, stale_files
from katafs.kata.fsck.exam import Examination
from katafs.kata.fsck.files import STALE_WORK
from katafs.kata.fsck.findings import Problem, printable


def indexes(exam: Examination) -> Iterator[Problem]:
    """Without its index nobody finds what is in a pack; one that cannot be read is as bad."""
    directory = exam.git_dir / "objects/pack"
    if not directory.is_dir():
        return
    for path, why in damaged_indexes(exam.repo):
        yield _index(
            path, "pack-index-damaged", f"the index of {printable(path.name)} cannot be read: {printable(why)}"
        )
    names = set(os.listdir(directory))
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if suffix == ".pack" and f"{stem}.idx" not in names and not _is_young(directory / name):
            message = f"{printable(name)} has no index, so that nobody finds the objects in it"
            yield _index(directory / name, "pack-without-index", message)


def _index(path: Path, code: str, message: str) -> Problem:
    idx = index_of(path)
    mend = partial(put_index, path, idx) if idx is not None else None
    advice = f"as the owner: git index-pack .git/objects/pack/{printable(path.name)}"
    return Problem(code, message, mend, "" if mend else advice)


def beside(exam: Examination) -> Iterator[Problem]:
    """What git would believe although it is not true any more, and what keeps packs from being packed."""
    for what, remove in stale_files(exam.repo):
        yield Problem("stale-file", printable(what, 300), remove, is_passing=True)


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < STALE_WORK
    except OSError:
        return True
