"""``katafs fsck``: finds what is wrong in a store, and mends what can be mended, beside running daemons and services.

Nothing that was recorded is lost by a repair: commits that ``main`` does not have keep a reference below
``refs/katafs/lost``, files that are replaced are moved to ``.git/katafs-lost-found``. Removed are only locks, temporary
files and worktrees of writers that died. A store is checked one kata after the other: memory holds one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from katafs.directories import remove_tree
from katafs.git.store.storing import now
from katafs.kata.fsck.checking import check_kata
from katafs.kata.fsck.exam import Finding, Outcome
from katafs.kata.fsck.file_checks import STALE_WORK
from katafs.kata.fsck.scan import newest_mtime
from katafs.kata.fsck.words import printable, reason
from katafs.kata.model.ids import is_id_part, kata_path
from katafs.kata.store import katas_below
from katafs.owner import acting_as_owner

__all__ = ["Finding", "Outcome", "Result", "check_ids", "check_store"]

_NEW = re.compile(r"\.new-[0-9A-Za-z]{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Result:
    """What was found in one kata, or in the store itself (then ``kata_id`` is empty)."""

    kata_id: str
    findings: list[Finding] = field(default_factory=list)
    #: why it could not be looked at; then there may be more than was found
    failure: str = ""


def check_store(store: Path, *, repair: bool = False, is_quick: bool = False) -> Iterator[tuple[float, Result]]:
    """Check all katas of a store: yields how much of it is done, from 0 to 1, and what was found. Raises OSError."""
    names = sorted(os.listdir(store))
    yield 0.0, Result("", [*_store_findings(store, names, repair=repair)])
    parts = [name for name in names if is_id_part(name)]
    for number, first in enumerate(parts):
        for path, error in katas_below(store / first, 2):
            name = os.fspath(path.relative_to(store))
            if error is not None:
                result = Result(name.replace("/", ""), failure=reason(error))
            elif path.is_symlink():
                message = "is a symbolic link, which katafs does not follow: nothing below it is shown"
                result = Result("", [Finding(name, "not-shown", message, Outcome.NOTE)])
            else:
                result = _check(store, name.replace("/", ""), repair=repair, is_quick=is_quick)
            yield number / len(parts), result


def check_ids(
    store: Path, ids: Sequence[str], *, repair: bool = False, is_quick: bool = False
) -> Iterator[tuple[float, Result]]:
    """Check these katas, as `check_store` does all."""
    for number, kata_id in enumerate(ids):
        yield number / len(ids), _check(store, kata_id, repair=repair, is_quick=is_quick)


def _check(store: Path, kata_id: str, *, repair: bool, is_quick: bool) -> Result:
    try:
        findings = check_kata(kata_path(store, kata_id), kata_id, repair=repair, is_quick=is_quick)
    except Exception as error:  # noqa: BLE001 - whatever one holds, the next is looked at
        return Result(kata_id, failure=reason(error))
    return Result(kata_id, findings)


def _store_findings(store: Path, names: list[str], *, repair: bool) -> Iterator[Finding]:
    """What a `katafs create` left that was killed: nobody was told of that kata."""
    for name in names:
        path = store / name
        if not _NEW.fullmatch(name) or path.is_symlink() or not path.is_dir():
            continue
        try:
            if now(store) - newest_mtime(path) < STALE_WORK:
                continue
            state = Outcome.FOUND
            if repair:
                with acting_as_owner(store):
                    remove_tree(path)
                state = Outcome.MENDED
            yield Finding(name, "new-left", "was left behind by a katafs create that was killed", state)
        except FileNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001 - whatever is in it, the katas are looked at
            advice = f"it could not be removed: {reason(error)}"
            yield Finding(printable(name), "new-left", "was left behind by a katafs create", Outcome.LEFT, advice)
