"""Files: put aside, removed, or written whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from katafs.git.store.storing import now


def keep(path: Path, aside: Path, name: str, *, move: bool) -> None:
    """Move what is ``name`` below ``path`` into the directory ``aside``, or give it a second name there.

    It is not read, so that nothing is kept that its owner could not have. Raises OSError.
    """
    aside.mkdir(exist_ok=True)
    flat = name.removeprefix(".git/").replace("/", "-")
    for number in range(1, 10_000):
        target = aside / (flat if number == 1 else f"{flat}.{number}")
        if not os.path.lexists(target):
            if move:
                os.rename(path / name, target)
            else:
                os.link(path / name, target, follow_symlinks=False)
            return
    raise FileExistsError(errno.EEXIST, "too much was put aside", aside)


def newest_mtime(path: Path, most: int = 100_000) -> float:
    """The time of the newest thing in a directory, itself included; links are not followed."""
    newest = os.lstat(path).st_mtime
    for parent, directories, names in os.walk(path):
        for name in (*directories, *names):
            try:
                newest = max(newest, os.lstat(os.path.join(parent, name)).st_mtime)
            except OSError:
                continue
            most -= 1
            if not most:
                return newest
    return newest


def age(path: Path) -> float:
    """Seconds since something was written to, links not followed; 0 for what is not there."""
    try:
        return now(path.parent) - os.lstat(path).st_mtime
    except OSError:
        return 0.0
