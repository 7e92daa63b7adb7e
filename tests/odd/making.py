"""Odd katas in a store."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from katafs.kata.model.ids import kata_path
from tests.katas import git, make_kata
from tests.odd.contents import make_history
from tests.odd.settings import SEED, dice_of
from tests.odd.storing import store
from tests.odd.truth import Truth, truth_of
from tests.scratch import fast_directory


class Odd(NamedTuple):
    """An odd kata: where it is, and what git says of it."""

    number: int
    path: Path
    ways: list[str]
    truth: Truth
    is_native: bool

    @property
    def name(self) -> str:
        """What to make it by again, and how it is stored."""
        layout = "native" if self.is_native else "saver"
        return f"KATAFS_ODD_SEED={SEED} KATAFS_ODD_ONLY={self.number} ({layout}, {', '.join(self.ways)})"


@functools.cache
def _bases() -> Path:
    """A native kata of one event, and a repository without any."""
    directory = Path(tempfile.mkdtemp(prefix="katafs-odd-", dir=fast_directory()))
    make_kata(directory, "AbCdEf")
    git(directory, "init", "-q", "-b", "main", "saver")
    shutil.rmtree(directory / "saver/.git/hooks")
    return directory


def make_odd(directory: Path, number: int) -> Odd:
    """Make the odd kata with a number in a store."""
    dice = dice_of(number)
    is_native = dice.random() < 0.6
    base = kata_path(_bases(), "AbCdEf")
    path = kata_path(directory, f"{number:06}")
    shutil.copytree(base if is_native else _bases() / "saver", path)
    history = make_history(dice, base if is_native else None)
    history.store(path, dice.choice((-1, 0, 1, 9)))
    ways = store(path, dice)
    return Odd(number, path, ways, truth_of(path), is_native)
