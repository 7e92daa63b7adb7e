"""Checking a whole store, one kata after the other: memory holds one kata, however many there are."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from katafs.git.store.storing import now
from katafs.kata.fsck.checking import check_kata
from katafs.kata.fsck.exam import reason
from katafs.kata.fsck.file_checks import STALE_WORK
from katafs.kata.fsck.findings import Finding, Outcome, printable
from katafs.kata.fsck.keeping import newest_mtime
from katafs.kata.model.ids import is_id_part, kata_path
from katafs.owner import acting_as_owner

_NEW = re.compile(r"\.new-[0-9A-Za-z]{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Result:
    """What was found in one kata, or in the store itself (then ``kata_id`` is empty)."""

    kata_id: str
    findings: list[Finding] = field(default_factory=list)
    #: why it could not be looked at; then there may be more than was found
    failure: str = ""


def check_store(store: Path, *, repair: bool = False, is_quick: bool = False) -> Iterator[tuple[float, Result]]:
    """Check all katas of a store: yields how much of it is done, from 0 to 1, and what was found.

    What is added or removed meanwhile may be left out. Raises OSError when the store cannot be listed.
    """
    names = sorted(os.listdir(store))
    yield 0.0, Result("", [*_store_findings(store, names, repair=repair)])
    parts = [name for name in names if is_id_part(name)]
    for number, first in enumerate(parts):
        if (store / first).is_symlink():
            yield number / len(parts), Result("", [_link(first)])
            continue
        for result in _below(store, first, repair=repair, is_quick=is_quick):
            yield number / len(parts), result


def check_ids(
    store: Path, ids: Sequence[str], *, repair: bool = False, is_quick: bool = False
) -> Iterator[tuple[float, Result]]:
    """Check these katas, as `check_store` does all."""
    for number, kata_id in enumerate(ids):
        yield number / len(ids), _check(store, kata_id, repair=repair, is_quick=is_quick)


def _below(store: Path, first: str, *, repair: bool, is_quick: bool) -> Iterator[Result]:
    """The katas whose ids begin with two characters."""
    for second in _names(store / first):
        if (store / first / second).is_symlink():
            yield Result("", [_link(f"{first}/{second}")])
            continue
        for third in _names(store / first / second):
            kata_id = first + second + third
            if kata_path(store, kata_id).is_symlink():
                yield Result("", [_link(f"{first}/{second}/{third}")])
            else:
                yield _check(store, kata_id, repair=repair, is_quick=is_quick)


def _check(store: Path, kata_id: str, *, repair: bool, is_quick: bool) -> Result:
    try:
        findings = check_kata(kata_path(store, kata_id), kata_id, repair=repair, is_quick=is_quick)
    except Exception as error:  # noqa: BLE001 - whatever one holds, the next is looked at
        return Result(kata_id, failure=reason(error))
    return Result(kata_id, findings)


def _names(directory: Path) -> list[str]:
    """The directories, and links, in a directory whose names are parts of an id."""
    try:
        with os.scandir(directory) as entries:
            return sorted(
                entry.name for entry in entries if is_id_part(entry.name) and (entry.is_dir() or entry.is_symlink())
            )
    except OSError:
        return []


def _link(name: str) -> Finding:
    message = "is a symbolic link, which katafs does not follow: nothing below it is shown"
    return Finding(name, "not-shown", message, Outcome.NOTE)


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
                    shutil.rmtree(path)
                state = Outcome.MENDED
            yield Finding(name, "new-left", "was left behind by a katafs create that was killed", state)
        except FileNotFoundError:
            continue
        except OSError as error:
            advice = f"it could not be removed: {reason(error)}"
            yield Finding(printable(name), "new-left", "was left behind by a katafs create", Outcome.LEFT, advice)
