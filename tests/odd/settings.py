"""How many, and which: from the environment."""

from __future__ import annotations

import os
import random

#: what all dice are made from
SEED = os.environ.get("KATAFS_ODD_SEED", "1")
_SCALE = float(os.environ.get("KATAFS_ODD", "1"))
_ONLY = os.environ.get("KATAFS_ODD_ONLY")


def numbers(count: int, first: int = 0) -> list[int]:
    """The numbers of that many repositories, scaled; or the one that is to be looked at, where it is among them."""
    if _ONLY:
        return [int(_ONLY)] if first <= int(_ONLY) < first + count else []
    return list(range(first, first + max(1, round(count * _SCALE))))


def dice_of(number: int, what: str = "") -> random.Random:
    """The dice of one repository."""
    return random.Random(f"{SEED} {number} {what}")
